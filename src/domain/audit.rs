//! What the audit trail records.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::InvalidField;

/// Who asks, from where: goes into the audit trail and the logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The network address.
    pub address: String,
    /// The `user-agent`, cut to 256 characters.
    pub user_agent: String,
    /// The request's id.
    pub request_id: String,
}

/// What was done or tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The first start made the installation.
    Bootstrap,
    /// A person made itself a user.
    SignUp,
    /// A person signed in.
    Login,
    /// A refresh token was used a second time.
    RefreshReuse,
    /// A refresh came from another device than signed in.
    RefreshDevice,
    /// A refresh came from another network than the one before.
    RefreshAddress,
    /// A refresh came from somebody who did not show the key that its session is bound to.
    RefreshKey,
    /// A person ended its session.
    Logout,
    /// A person ended all its sessions.
    LogoutAll,
    /// A person changed its password.
    ChangePassword,
    /// A session was ended by its user or an admin.
    RevokeSession,
    /// All sessions of a user were ended by the user or an admin.
    RevokeUserSessions,
    /// An admin made a user.
    CreateUser,
    /// An admin changed a user.
    UpdateUser,
    /// An admin barred a user.
    DisableUser,
    /// An admin let a user sign in again.
    EnableUser,
    /// An admin made a tenant.
    CreateTenant,
    /// An admin changed a tenant.
    UpdateTenant,
    /// An admin suspended a tenant.
    SuspendTenant,
    /// An admin resumed a suspended tenant.
    ResumeTenant,
    /// One token was ended by its user or an admin.
    RevokeToken,
    /// An admin registered an audience.
    CreateAudience,
    /// An admin changed an audience, or began to exchange its secret.
    UpdateAudience,
    /// An admin removed an audience.
    DeleteAudience,
    /// An issuer key was made and is published.
    PrepareKey,
    /// An issuer key began to sign.
    ActivateKey,
    /// An issuer key stopped signing.
    RetireKey,
    /// An issuer key was withdrawn.
    RevokeKey,
    /// An issuer key is gone with all that it signed.
    ForgetKey,
    /// An admin registered another issuer whose tokens are believed.
    CreateTrustedIssuer,
    /// An admin changed such an issuer.
    UpdateTrustedIssuer,
    /// An admin removed such an issuer.
    DeleteTrustedIssuer,
    /// An admin made a service account.
    CreateServiceAccount,
    /// An admin changed a service account.
    UpdateServiceAccount,
    /// An admin barred a service account.
    DisableServiceAccount,
    /// An admin let a disabled service account get tokens again.
    EnableServiceAccount,
    /// An admin removed a service account.
    DeleteServiceAccount,
    /// An admin gave a service account another credential.
    CreateCredential,
    /// An admin ended a credential of a service account.
    RevokeCredential,
    /// A service account asked for a token and was refused. That it got one is in the log alone.
    IssueServiceToken,
    /// A service asked to exchange a token and was refused. That it got one is in the log alone.
    ExchangeToken,
}

impl Action {
    /// The word in the trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bootstrap => "bootstrap",
            Self::SignUp => "sign_up",
            Self::Login => "login",
            Self::RefreshReuse => "refresh_reuse",
            Self::RefreshDevice => "refresh_device",
            Self::RefreshAddress => "refresh_address",
            Self::RefreshKey => "refresh_key",
            Self::Logout => "logout",
            Self::LogoutAll => "logout_all",
            Self::ChangePassword => "change_password",
            Self::RevokeSession => "revoke_session",
            Self::RevokeUserSessions => "revoke_user_sessions",
            Self::CreateUser => "create_user",
            Self::UpdateUser => "update_user",
            Self::DisableUser => "disable_user",
            Self::EnableUser => "enable_user",
            Self::CreateTenant => "create_tenant",
            Self::UpdateTenant => "update_tenant",
            Self::SuspendTenant => "suspend_tenant",
            Self::ResumeTenant => "resume_tenant",
            Self::RevokeToken => "revoke_token",
            Self::CreateAudience => "create_audience",
            Self::UpdateAudience => "update_audience",
            Self::DeleteAudience => "delete_audience",
            Self::PrepareKey => "prepare_key",
            Self::ActivateKey => "activate_key",
            Self::RetireKey => "retire_key",
            Self::RevokeKey => "revoke_key",
            Self::ForgetKey => "forget_key",
            Self::CreateTrustedIssuer => "create_trusted_issuer",
            Self::UpdateTrustedIssuer => "update_trusted_issuer",
            Self::DeleteTrustedIssuer => "delete_trusted_issuer",
            Self::CreateServiceAccount => "create_service_account",
            Self::UpdateServiceAccount => "update_service_account",
            Self::DisableServiceAccount => "disable_service_account",
            Self::EnableServiceAccount => "enable_service_account",
            Self::DeleteServiceAccount => "delete_service_account",
            Self::CreateCredential => "create_credential",
            Self::RevokeCredential => "revoke_credential",
            Self::IssueServiceToken => "issue_service_token",
            Self::ExchangeToken => "exchange_token",
        }
    }
}

/// Checks the word of an action, maybe of a newer release.
pub fn parse_action(field: &'static str, word: &str) -> Result<String, InvalidField> {
    if word.len() <= 64 && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
        Ok(word.to_owned())
    } else {
        Err(InvalidField::new(field, "is not a word of lower-case letters and '_'"))
    }
}

/// What something was done to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Nothing that has an id.
    None,
    /// A user.
    User(Uuid),
    /// A session.
    Session(Uuid),
    /// A session and the address that it was at before.
    SessionAt(Uuid, String),
    /// A tenant.
    Tenant(Uuid),
    /// An access token, by its `jti`.
    Token(Uuid),
    /// An issuer key.
    Key(String),
    /// An audience and its name, which outlives it in the trail.
    Audience(Uuid, String),
    /// Another issuer whose tokens are believed, with its URL.
    TrustedIssuer(Uuid, String),
    /// A service account and its name, which outlives it in the trail.
    ServiceAccount(Uuid, String),
    /// A credential and the name of its service account.
    Credential(Uuid, String),
}

impl Target {
    /// The word in the trail; empty for none.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "",
            Self::User(_) => "user",
            Self::Session(_) | Self::SessionAt(..) => "session",
            Self::Tenant(_) => "tenant",
            Self::Token(_) => "token",
            Self::Key(_) => "key",
            Self::Audience(..) => "audience",
            Self::TrustedIssuer(..) => "trusted_issuer",
            Self::ServiceAccount(..) => "service_account",
            Self::Credential(..) => "credential",
        }
    }

    /// Its id.
    pub const fn id(&self) -> Option<Uuid> {
        match self {
            Self::None | Self::Key(_) => None,
            Self::User(id)
            | Self::Session(id)
            | Self::SessionAt(id, _)
            | Self::Tenant(id)
            | Self::Token(id)
            | Self::Audience(id, _)
            | Self::TrustedIssuer(id, _)
            | Self::ServiceAccount(id, _)
            | Self::Credential(id, _) => Some(*id),
        }
    }

    /// Its name, where it has no id or would be known by its name alone; of a session that came from elsewhere, where
    /// it was before.
    pub fn name(self) -> Option<String> {
        match self {
            Self::Key(name)
            | Self::SessionAt(_, name)
            | Self::Audience(_, name)
            | Self::TrustedIssuer(_, name)
            | Self::ServiceAccount(_, name)
            | Self::Credential(_, name) => Some(name),
            _ => None,
        }
    }
}

/// An event as the trail holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id; later events have greater ones.
    pub id: Uuid,
    /// The tenant that it happened in.
    pub tenant_id: Uuid,
    /// When.
    pub create_time: DateTime<Utc>,
    /// The word of an [`Action`], maybe of a newer release.
    pub action: String,
    /// Why it was refused; `None` where it was done.
    pub refusal: Option<String>,
    /// The user who did it.
    pub actor_id: Option<Uuid>,
    /// The word of a [`Target`].
    pub target_type: String,
    /// The target's id.
    pub target_id: Option<Uuid>,
    /// The target's name: an issuer key's kid, an audience's name, a session's address before.
    pub target_name: Option<String>,
    /// Who asked, from where.
    pub origin: Origin,
}
