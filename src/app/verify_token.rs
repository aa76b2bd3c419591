//! Says whether an access token is good, for those who don't check it themselves.

use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::{claims::Claims, session::State},
    models::{sessions, tenants, trust_log, users},
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

/// Whether the database says that the token's session and version still stand.
async fn is_alive(app: &App, claims: &Claims) -> Result<bool, Error> {
    let Some(of) = &claims.user else { return Ok(true) };
    let (session_id, user_id) = (of.sid, claims.sub);
    let (tenant_id, jti) = (of.tenant_id, Uuid::try_parse(&claims.jti).unwrap_or_default());
    let found = app.store.read(async move |conn| {
        if trust_log::has_token(conn, jti, &[user_id, tenant_id, Uuid::nil()]).await? {
            return Ok(None);
        }
        let tenant = tenants::look_up(conn, tenant_id).await?.map(tenants::Found::readable);
        let tenant = tenant.filter(|tenant| !tenant.is_suspended());
        let session = sessions::find(conn, session_id).await?;
        let user = users::find(conn, user_id).await?;
        Ok(tenant.and(session).zip(user))
    });
    let Some((session, user)) = found.await? else {
        return Ok(false);
    };
    let is_live = session.state(app.now()) == State::Active;
    Ok(is_live && user.disable_time.is_none() && of.ver >= user.token_version)
}
