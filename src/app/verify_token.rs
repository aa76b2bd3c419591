//! Says whether an access token is good, for those who don't check it themselves.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::{claims::Claims, session::State},
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
}

/// Checks the token. Only what is no token at all is an error.
pub async fn verify_token(app: &App, token: &str, asked: VerifyToken) -> Result<Answer, Error> {
    let answer = answer(app, token, asked).await;
    app.metrics.count_verification(match &answer {
        Ok(Answer::Active(_)) => "OK",
        Ok(Answer::Inactive(reason)) => reason,
        Err(error) => error.reason(),
    });
    answer
}

async fn answer(app: &App, token: &str, asked: VerifyToken) -> Result<Answer, Error> {
    let secrets = asked.audience.as_deref().map(|audience| app.secrets_of(audience)).unwrap_or_default();
    let claims = match app.check(token, &secrets, asked.audience.as_deref()).await {
        Ok(claims) => claims,
        Err(refusal @ (Error::TokenInvalid(_) | Error::TokenExpired | Error::TokenRevoked)) => {
            return Ok(Answer::Inactive(refusal.reason()));
        }
        Err(error) => return Err(error),
    };
    if !asked.required_scopes.iter().all(|scope| claims.has_scope(scope)) {
        return Ok(Answer::Inactive(Error::InsufficientScope.reason()));
    }
    if asked.strict && !is_alive(app, &claims).await? {
        return Ok(Answer::Inactive(Error::TokenRevoked.reason()));
    }
    Ok(Answer::Active(Box::new(claims)))
}

/// Whether the database says that the token, whom it is about and that one's tenant still stand.
async fn is_alive(app: &App, claims: &Claims) -> Result<bool, Error> {
    let Some((version, tenant_id)) = claims.standing() else { return Ok(true) };
    let (subject, session_id) = (claims.sub, claims.user.as_ref().map(|user| user.sid));
    let jti = Uuid::try_parse(&claims.jti).unwrap_or_default();
    let actors: Vec<_> = claims.actors().map(|actor| (actor.sub, actor.ver)).collect();
    let now = app.now();
    let alive = app.store.read(async move |conn| {
        if trust_log::has_token(conn, jti, &[subject, tenant_id, Uuid::nil()]).await? {
            return Ok(false);
        }
        let tenant = tenants::look_up(conn, tenant_id).await?.map(tenants::Found::readable);
        if tenant.is_none_or(|tenant| tenant.is_suspended()) {
            return Ok(false);
        }
        for (actor, version) in &actors {
            if !is_service_alive(conn, *actor, *version).await? {
                return Ok(false);
            }
        }
        match session_id {
            Some(session_id) => is_user_alive(conn, subject, session_id, version, now).await,
            None => is_service_alive(conn, subject, version).await,
        }
    });
    Ok(alive.await?)
}

async fn is_user_alive(
    conn: &mut Conn,
    user_id: Uuid,
    session_id: Uuid,
    version: i64,
    now: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let session = sessions::find(conn, session_id).await?;
    let is_live = session.is_some_and(|session| session.state(now) == State::Active);
    let user = users::find(conn, user_id).await?;
    Ok(is_live && user.is_some_and(|user| user.disable_time.is_none() && version >= user.token_version))
}

async fn is_service_alive(conn: &mut Conn, id: Uuid, version: i64) -> Result<bool, StoreError> {
    let account = service_accounts::find(conn, id).await?.and_then(|found| found.account.ok());
    Ok(account.is_some_and(|it| it.disable_time.is_none() && version >= it.token_version))
}
