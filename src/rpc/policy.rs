//! Who may call what. A method without a row is refused.

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Anyone, with or without a token.
    Anyone,
    /// A signed-in user, also one who must change the password first.
    SignedIn,
    /// A signed-in user.
    User,
    /// A signed-in user with the role `admin`; the verb says of which tenant.
    Admin,
    /// A service account with a token for Tessera's own API.
    Service,
    /// The same, and, where the settings leave it open, anyone who comes without a token.
    ServiceOrOpen(Open),
}

/// What the settings may leave open to anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// `tokens.introspection`
    Introspection,
    /// `server.watch`
    Watch,
}

/// The path of each method and who may call it.
pub const TABLE: [(&str, Who); 60] = [
    ("/grpc.health.v1.Health/Check", Who::Anyone),
    ("/grpc.health.v1.Health/List", Who::Anyone),
    ("/grpc.health.v1.Health/Watch", Who::Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Who::Anyone),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Who::Anyone),
    ("/tessera.v1.Audiences/CreateAudience", Who::Admin),
    ("/tessera.v1.Audiences/DeleteAudience", Who::Admin),
    ("/tessera.v1.Audiences/GetAudience", Who::Admin),
    ("/tessera.v1.Audiences/ListAudiences", Who::Admin),
    ("/tessera.v1.Audiences/UpdateAudience", Who::Admin),
    ("/tessera.v1.Audit/ListEvents", Who::Admin),
    ("/tessera.v1.Auth/ChangePassword", Who::SignedIn),
    ("/tessera.v1.Auth/ExchangeToken", Who::Service),
    ("/tessera.v1.Auth/IssueServiceToken", Who::Anyone),
    ("/tessera.v1.Auth/Login", Who::Anyone),
    ("/tessera.v1.Auth/Logout", Who::SignedIn),
    ("/tessera.v1.Auth/LogoutAll", Who::User),
    ("/tessera.v1.Auth/Refresh", Who::Anyone),
    ("/tessera.v1.Auth/RevokeToken", Who::User),
    ("/tessera.v1.Auth/SignUp", Who::Anyone),
    ("/tessera.v1.Auth/VerifyToken", Who::ServiceOrOpen(Open::Introspection)),
    ("/tessera.v1.Keys/ActivateKey", Who::Admin),
    ("/tessera.v1.Keys/CheckForeignToken", Who::Admin),
    ("/tessera.v1.Keys/CreateTrustedIssuer", Who::Admin),
    ("/tessera.v1.Keys/DeleteTrustedIssuer", Who::Admin),
    ("/tessera.v1.Keys/GetJwk", Who::Anyone),
    ("/tessera.v1.Keys/GetJwks", Who::Anyone),
    ("/tessera.v1.Keys/GetTrustedIssuer", Who::Admin),
    ("/tessera.v1.Keys/ListKeys", Who::Admin),
    ("/tessera.v1.Keys/ListTrustedIssuers", Who::Admin),
    ("/tessera.v1.Keys/PrepareKey", Who::Admin),
    ("/tessera.v1.Keys/RevokeKey", Who::Admin),
    ("/tessera.v1.Keys/UpdateTrustedIssuer", Who::Admin),
    ("/tessera.v1.Keys/Watch", Who::ServiceOrOpen(Open::Watch)),
    ("/tessera.v1.ServiceAccounts/CreateCredential", Who::Admin),
    ("/tessera.v1.ServiceAccounts/CreateServiceAccount", Who::Admin),
    ("/tessera.v1.ServiceAccounts/DeleteServiceAccount", Who::Admin),
    ("/tessera.v1.ServiceAccounts/DisableServiceAccount", Who::Admin),
    ("/tessera.v1.ServiceAccounts/EnableServiceAccount", Who::Admin),
    ("/tessera.v1.ServiceAccounts/GetServiceAccount", Who::Admin),
    ("/tessera.v1.ServiceAccounts/ListServiceAccounts", Who::Admin),
    ("/tessera.v1.ServiceAccounts/RevokeCredential", Who::Admin),
    ("/tessera.v1.ServiceAccounts/UpdateServiceAccount", Who::Admin),
    ("/tessera.v1.Session/GetSession", Who::User),
    ("/tessera.v1.Session/ListSessions", Who::User),
    ("/tessera.v1.Session/RevokeSession", Who::User),
    ("/tessera.v1.Session/RevokeUserSessions", Who::User),
    ("/tessera.v1.Session/WatchSession", Who::User),
    ("/tessera.v1.Tenants/CreateTenant", Who::Admin),
    ("/tessera.v1.Tenants/GetTenant", Who::Admin),
    ("/tessera.v1.Tenants/ListTenants", Who::Admin),
    ("/tessera.v1.Tenants/ResumeTenant", Who::Admin),
    ("/tessera.v1.Tenants/SuspendTenant", Who::Admin),
    ("/tessera.v1.Tenants/UpdateTenant", Who::Admin),
    ("/tessera.v1.Users/CreateUser", Who::Admin),
    ("/tessera.v1.Users/DisableUser", Who::Admin),
    ("/tessera.v1.Users/EnableUser", Who::Admin),
    ("/tessera.v1.Users/GetUser", Who::User),
    ("/tessera.v1.Users/ListUsers", Who::Admin),
    ("/tessera.v1.Users/UpdateUser", Who::Admin),
];

/// The row of a path: the path as it stands in the table, which metrics may be labelled with, and who
/// may call it.
pub fn row(path: &str) -> Option<(&'static str, Who)> {
    TABLE.iter().find(|(known, _)| *known == path).copied()
}

/// What hands out tokens, bound to a key where the caller shows one.
const BINDS_TOKENS: [&str; 5] = [
    "/tessera.v1.Auth/ExchangeToken",
    "/tessera.v1.Auth/IssueServiceToken",
    "/tessera.v1.Auth/Login",
    "/tessera.v1.Auth/Refresh",
    "/tessera.v1.Auth/SignUp",
];

/// Whether a method looks at a proof of a key also where the caller's own token is bound to none.
pub fn binds_tokens(method: &str) -> bool {
    BINDS_TOKENS.contains(&method)
}

/// Questions that a whole mesh asks all the time, and whose good answers change nothing: these answers are counted, and
/// logged at `debug` alone.
const ASKED_ALL_THE_TIME: [&str; 6] = [
    "/grpc.health.v1.Health/Check",
    "/tessera.v1.Auth/ExchangeToken",
    "/tessera.v1.Auth/IssueServiceToken",
    "/tessera.v1.Auth/VerifyToken",
    "/tessera.v1.Keys/GetJwk",
    "/tessera.v1.Keys/GetJwks",
];

/// Whether a method is one of those.
pub fn is_asked_all_the_time(method: &str) -> bool {
    ASKED_ALL_THE_TIME.contains(&method)
}
