//! Says whether an access token is good, for those who don't check it themselves.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{App, Error, ServiceCaller};
use crate::{
    domain::{claims::Claims, service_account::ServiceAccount, session::State},
    models::{Conn, StoreError, service_accounts, sessions, tenants, trust_log, users},
};

/// What is asked about a token.
#[derive(Debug)]
pub struct VerifyToken {
    /// The audience that it must be for, where one is named.
    pub audience: Option<String>,
    /// Scopes that it must carry.
    pub required_scopes: Vec<String>,
    /// Ask the database too.
    pub strict: bool,
}

/// The answer: the claims of a good token, or why it is not.
#[derive(Debug)]
pub enum Answer {
    /// Good for what was asked.
    Active(Box<Claims>),
    /// Not good; the reason is a word of the error table.
    Inactive(&'static str),
    /// Neither for the service that asks nor issued to it, which is all that it is told.
    NotTheirs,
}

/// Checks the token, for a service that says who it is, or for anyone. Only what is no token at all is an error.
pub async fn verify_token(
    app: &App,
    caller: Option<&ServiceCaller>,
    token: &str,
    asked: VerifyToken,
) -> Result<Answer, Error> {
    let answer = answer(app, caller, token, asked).await;
    app.metrics.count_verification(match &answer {
        Ok(Answer::Active(_)) => "OK",
        Ok(Answer::Inactive(reason)) => reason,
        Ok(Answer::NotTheirs) => "NOT_THEIRS",
        Err(error) => error.reason(),
    });
    answer
}

async fn answer(
    app: &App,
    caller: Option<&ServiceCaller>,
    token: &str,
    asked: VerifyToken,
) -> Result<Answer, Error> {
    let service = match caller {
        // Its token was good a moment ago; what is its own is what its account says now.
        Some(caller) => Some(app.service(caller.account_id).await?.ok_or(Error::TokenRevoked)?),
        None => None,
    };
    let account = service.as_ref().map(|service| &service.account);
    if account.is_some_and(|account| account.disable_time.is_some()) {
        return Err(Error::AccountDisabled);
    }
    let is_theirs = |claims: &Claims| account.is_none_or(|account| is_theirs(app, account, claims));
    let secrets = asked.audience.as_deref().map(|audience| app.secrets_of(audience)).unwrap_or_default();
    let claims = match app.check(token, &secrets, asked.audience.as_deref()).await {
        Ok(claims) => claims,
        Err(refusal @ (Error::TokenInvalid(_) | Error::TokenExpired | Error::TokenRevoked)) => {
            // Whoever makes one up that says to be theirs would learn what became of another one.
            let genuine = || {
                let expected = app.expected(asked.audience.as_deref());
                app.verifier.genuine(token, &secrets, &expected, app.now())
            };
            let is_told = account.is_none() || genuine().is_ok_and(|claims| is_theirs(&claims));
            return Ok(if is_told { Answer::Inactive(refusal.reason()) } else { Answer::NotTheirs });
        }
        Err(error) => return Err(error),
    };
    if !is_theirs(&claims) {
        return Ok(Answer::NotTheirs);
    }
    if !asked.required_scopes.iter().all(|scope| claims.has_scope(scope)) {
        return Ok(Answer::Inactive(Error::InsufficientScope.reason()));
    }
    if asked.strict && !is_alive(app, &claims).await? {
        return Ok(Answer::Inactive(Error::TokenRevoked.reason()));
    }
    Ok(Answer::Active(Box::new(claims)))
}

/// Whether a service may know of a token: it is for it or was issued to it, and of its tenant. Those of the tenant
/// `default` serve people of any.
fn is_theirs(app: &App, account: &ServiceAccount, claims: &Claims) -> bool {
    let tenant_id = claims.standing().map(|(_, tenant_id)| tenant_id);
    let is_of_tenant = account.tenant_id == app.default_tenant_id || tenant_id == Some(account.tenant_id);
    is_of_tenant && account.owns(claims)
}

/// Whether the database says that the token, whom it is about and that one's tenant still stand.
async fn is_alive(app: &App, claims: &Claims) -> Result<bool, Error> {
    let Some((version, tenant_id)) = claims.standing() else { return Ok(true) };
    let (subject, session_id) = (claims.sub, claims.user.as_ref().map(|user| user.sid));
    let jti = Uuid::try_parse(&claims.jti).unwrap_or_default();
    let hands: Vec<_> = claims.hands().map(|service| (service.sub, service.ver)).collect();
    let now = app.now();
    let alive = app.store.read(async move |conn| {
        if trust_log::has_token(conn, jti, &[subject, tenant_id, Uuid::nil()]).await? {
            return Ok(false);
        }
        let tenant = tenants::look_up(conn, tenant_id).await?.map(tenants::Found::readable);
        if tenant.is_none_or(|tenant| tenant.is_suspended()) {
            return Ok(false);
        }
        for (service, version) in &hands {
            if !is_service_alive(conn, *service, *version, None).await? {
                return Ok(false);
            }
        }
        match session_id {
            Some(session_id) => is_user_alive(conn, (subject, tenant_id), session_id, version, now).await,
            None => is_service_alive(conn, subject, version, Some(tenant_id)).await,
        }
    });
    Ok(alive.await?)
}

async fn is_user_alive(
    conn: &mut Conn,
    (user_id, tenant_id): (Uuid, Uuid),
    session_id: Uuid,
    version: i64,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let session = sessions::find(conn, session_id).await?;
    let is_live = session.is_some_and(|session| session.state(now) == State::Active);
    // With an audience's shared secret, the audience itself can write any tenant into a token.
    let user = users::find(conn, user_id).await?.filter(|user| user.tenant_id == tenant_id);
    Ok(is_live && user.is_some_and(|user| user.disable_time.is_none() && version >= user.token_version))
}

/// `tenant_id`, where it must be of that one: who acts may be of another than its subject.
async fn is_service_alive(
    conn: &mut Conn,
    id: Uuid,
    version: i64,
    tenant_id: Option<Uuid>,
) -> Result<bool, StoreError> {
    let account = service_accounts::find(conn, id).await?.and_then(|found| found.account.ok());
    let account = account.filter(|it| tenant_id.is_none_or(|tenant_id| it.tenant_id == tenant_id));
    Ok(account.is_some_and(|it| it.disable_time.is_none() && version >= it.token_version))
}
