//! Every RPC × every kind of caller has an expected answer. The RPCs are found by walking the descriptors: one
//! that is missing here fails the test.

use std::{collections::BTreeMap, error::Error};

use http::uri::PathAndQuery;
use prost::Message;
use prost_types::FileDescriptorSet;
use tessera::proto::{
    CreateServiceAccountRequest, CreateTenantRequest, CreateUserRequest, DESCRIPTOR_SET,
    IssueServiceTokenRequest, LoginRequest, LogoutRequest,
};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::support::{
    Home, Outcome, PASSWORD, Registrar, Server, asks, authorized, login_as, orders, reason, timed_stories,
    words,
};

timed_stories! { every_caller_gets_the_answer_that_is_expected }

/// Who is let in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    /// Everybody.
    Open,
    /// Everybody, but for who brings a bad token.
    ServiceOrOpen,
    /// Who is signed in, also with a password that must change.
    SignedIn,
    /// Who is signed in.
    User,
    /// Admins of any tenant.
    Admin,
    /// Admins of the tenant `default`.
    Root,
    /// Services, with a token for Tessera itself.
    Service,
}

const DOORS: [(&str, Door); 55] = [
    ("Audiences/CreateAudience", Door::Admin),
    ("Audiences/DeleteAudience", Door::Admin),
    ("Audiences/GetAudience", Door::Admin),
    ("Audiences/ListAudiences", Door::Root),
    ("Audiences/UpdateAudience", Door::Admin),
    ("Audit/ListEvents", Door::Admin),
    ("Auth/ChangePassword", Door::SignedIn),
    ("Auth/ExchangeToken", Door::Service),
    ("Auth/IssueServiceToken", Door::Open),
    ("Auth/Login", Door::Open),
    ("Auth/Logout", Door::SignedIn),
    ("Auth/LogoutAll", Door::User),
    ("Auth/Refresh", Door::Open),
    ("Auth/RevokeToken", Door::User),
    ("Auth/SignUp", Door::Open),
    ("Auth/VerifyToken", Door::ServiceOrOpen),
    ("Keys/ActivateKey", Door::Root),
    ("Keys/CheckForeignToken", Door::Root),
    ("Keys/CreateTrustedIssuer", Door::Root),
    ("Keys/DeleteTrustedIssuer", Door::Root),
    ("Keys/GetJwk", Door::Open),
    ("Keys/GetJwks", Door::Open),
    ("Keys/GetTrustedIssuer", Door::Root),
    ("Keys/ListKeys", Door::Root),
    ("Keys/ListTrustedIssuers", Door::Root),
    ("Keys/PrepareKey", Door::Root),
    ("Keys/RevokeKey", Door::Root),
    ("Keys/UpdateTrustedIssuer", Door::Root),
    ("Keys/Watch", Door::ServiceOrOpen),
    ("ServiceAccounts/CreateCredential", Door::Admin),
    ("ServiceAccounts/CreateServiceAccount", Door::Admin),
    ("ServiceAccounts/DeleteServiceAccount", Door::Admin),
    ("ServiceAccounts/DisableServiceAccount", Door::Admin),
    ("ServiceAccounts/EnableServiceAccount", Door::Admin),
    ("ServiceAccounts/GetServiceAccount", Door::Admin),
    ("ServiceAccounts/ListServiceAccounts", Door::Admin),
    ("ServiceAccounts/RevokeCredential", Door::Admin),
    ("ServiceAccounts/UpdateServiceAccount", Door::Admin),
    ("Session/GetSession", Door::User),
    ("Session/ListSessions", Door::User),
    ("Session/RevokeSession", Door::User),
    ("Session/RevokeUserSessions", Door::User),
    ("Session/WatchSession", Door::User),
    ("Tenants/CreateTenant", Door::Admin),
    ("Tenants/GetTenant", Door::Admin),
    ("Tenants/ListTenants", Door::Root),
    ("Tenants/ResumeTenant", Door::Root),
    ("Tenants/SuspendTenant", Door::Root),
    ("Tenants/UpdateTenant", Door::Admin),
    ("Users/CreateUser", Door::Admin),
    ("Users/DisableUser", Door::Admin),
    ("Users/EnableUser", Door::Admin),
    ("Users/GetUser", Door::User),
    ("Users/ListUsers", Door::Admin),
    ("Users/UpdateUser", Door::Admin),
];

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Garbage,
    Expired,
    Revoked,
    ForAnotherService,
    MustChangePassword,
    User,
    OtherTenantsUser,
    TenantAdmin,
    Root,
    Service,
}

const CALLERS: [Who; 11] = [
    Who::Nobody,
    Who::Garbage,
    Who::Expired,
    Who::Revoked,
    Who::ForAnotherService,
    Who::MustChangePassword,
    Who::User,
    Who::OtherTenantsUser,
    Who::TenantAdmin,
    Who::Root,
    Who::Service,
];

/// The refusal that a caller meets at a door; `None` where it is let in.
fn expected(who: Who, door: Door) -> Option<(Code, &'static str)> {
    if door == Door::Open {
        return None;
    }
    let unauthenticated = |reason| Some((Code::Unauthenticated, reason));
    match who {
        Who::Nobody if door == Door::ServiceOrOpen => None,
        Who::Nobody => unauthenticated("TOKEN_MISSING"),
        Who::Garbage => Some((Code::InvalidArgument, "TOKEN_MALFORMED")),
        Who::Expired => unauthenticated("TOKEN_EXPIRED"),
        Who::Revoked => unauthenticated("TOKEN_REVOKED"),
        Who::ForAnotherService => unauthenticated("TOKEN_INVALID"),
        Who::Service if door == Door::Service => None,
        // Where nobody has to say who it is, a person's token is as good as none.
        _ if door == Door::ServiceOrOpen => None,
        // A user is no service, and a service no user.
        _ if (who == Who::Service) != (door == Door::Service) => unauthenticated("TOKEN_INVALID"),
        Who::MustChangePassword if door == Door::SignedIn => None,
        Who::MustChangePassword => Some((Code::PermissionDenied, "PASSWORD_CHANGE_REQUIRED")),
        Who::User | Who::OtherTenantsUser if door > Door::User => {
            Some((Code::PermissionDenied, "INSUFFICIENT_SCOPE"))
        }
        Who::TenantAdmin if door > Door::Admin => Some((Code::PermissionDenied, "INSUFFICIENT_SCOPE")),
        _ => None,
    }
}

/// The paths of every method in the contract, without the package.
fn methods() -> Result<Vec<String>, Box<dyn Error>> {
    let files = FileDescriptorSet::decode(DESCRIPTOR_SET)?.file;
    let ours = files.into_iter().filter(|file| file.package() == "tessera.v1");
    let services = ours.flat_map(|file| file.service);
    Ok(services
        .flat_map(|service| {
            let name = service.name().to_owned();
            service
                .method
                .into_iter()
                .map(move |method| format!("{name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
        .collect())
}

async fn every_caller_gets_the_answer_that_is_expected(home: Home) -> Outcome {
    let doors: BTreeMap<&str, Door> = DOORS.into_iter().collect();
    let server = home.start().await?;
    let made = make_people(&server).await?;
    home.clock.advance(15 * 60 + 30);
    let mut tried = 0;
    for method in methods()? {
        let door = *doors.get(method.as_str()).ok_or_else(|| format!("{method} has no expected answer"))?;
        for who in CALLERS {
            let token = token_of(&server, who, &made).await?;
            let answer = call(&server, &method, token.as_deref()).await;
            let refused = answer.err().filter(|status| is_about_the_caller(status, door, who));
            let refused = refused.map(|status| (status.code(), reason(&status)));
            let wanted = expected(who, door).map(|(code, reason)| (code, reason.to_owned()));
            assert_eq!(refused, wanted, "{method} by {who:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, DOORS.len() * CALLERS.len(), "every expected answer was asked for");
    server.stop().await
}

/// Refused for who calls, and not for what an empty message says: where somebody asks about a token, that is no token
/// either.
fn is_about_the_caller(status: &Status, door: Door, who: Who) -> bool {
    match reason(status).as_str() {
        "TOKEN_MALFORMED" => door != Door::Open && who == Who::Garbage,
        "SIGNUP_CLOSED" => false,
        _ => matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied),
    }
}

/// Who was made beforehand.
struct Made {
    /// A token that will have expired.
    expired: String,
    /// What a service gets its token with.
    service: IssueServiceTokenRequest,
}

/// Makes everybody.
async fn make_people(server: &Server) -> Result<Made, Box<dyn Error>> {
    let root = server.admin().await?;
    let token = &root.access_token;
    server.make_user(&root, "anna").await?;
    server.make_user(&root, "revoked").await?;
    let must_change = CreateUserRequest {
        username: "new".to_owned(),
        password: PASSWORD.to_owned(),
        roles: vec!["admin".to_owned()],
        password_change_required: true,
        ..Default::default()
    };
    server.users().create_user(authorized(token, must_change)).await?;
    let blue = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(token, blue)).await?;
    server.make_user_in(&root, "blue", "boss", &["admin"]).await?;
    server.make_user_in(&root, "blue", "bert", &[]).await?;
    let registrar = Registrar { server, token: token.clone() };
    let service = CreateServiceAccountRequest { allowed_audiences: words(&["tessera"]), ..orders() };
    let service = registrar.create(service).await?;
    let (secret, _) = registrar.secret(&service).await?;
    let service =
        IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks(&service.client_id, &secret) };
    Ok(Made { expired: server.sign_in("anna", "expired").await?.access_token, service })
}

/// A fresh token for each call: some calls end the session that they are made in.
async fn token_of(server: &Server, who: Who, made: &Made) -> Result<Option<String>, Box<dyn Error>> {
    let login = |request: LoginRequest| async move {
        let reply = server.auth().login(request).await?.into_inner();
        Ok::<_, Box<dyn Error>>(reply.tokens.ok_or("no tokens")?.access_token)
    };
    let in_blue = |name| LoginRequest { tenant: "blue".to_owned(), ..login_as(name, PASSWORD, "web") };
    Ok(Some(match who {
        Who::Nobody => return Ok(None),
        Who::Garbage => "not.a.token".to_owned(),
        Who::Expired => made.expired.clone(),
        Who::Revoked => {
            let token = login(login_as("revoked", PASSWORD, "web")).await?;
            server.auth().logout(authorized(&token, LogoutRequest {})).await?;
            token
        }
        Who::ForAnotherService => {
            let audience = vec!["orders".to_owned()];
            login(LoginRequest { audience, ..login_as("anna", PASSWORD, "other") }).await?
        }
        Who::MustChangePassword => login(login_as("new", PASSWORD, "web")).await?,
        Who::User => login(login_as("anna", PASSWORD, "web")).await?,
        Who::OtherTenantsUser => login(in_blue("bert")).await?,
        Who::TenantAdmin => login(in_blue("boss")).await?,
        Who::Root => server.admin().await?.access_token,
        Who::Service => server.service_token(made.service.clone()).await?.access_token,
    }))
}

/// Calls a method with an empty message.
async fn call(server: &Server, method: &str, token: Option<&str>) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(server.channel());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/tessera.v1.{method}")).expect("a method's name makes a path");
    let request = token.map_or_else(|| Request::new(()), |token| authorized(token, ()));
    // Some replies go on for ever: the first message says whether the caller was let in.
    let reply = client.server_streaming(request, path, ProstCodec::<(), ()>::default()).await?;
    reply.into_inner().message().await.map(|_| ())
}
