//! Ends one token before its time (RFC 7009).

use uuid::Uuid;

use super::{App, Caller, Error, record::By, sessions::end_one};
use crate::{
    domain::{
        InvalidField,
        audit::{Action, Origin, Target},
        claims::Claims,
        refresh_token::{self, RefreshToken},
        session::EndReason,
        trust::Revocation,
    },
    models::{audit_events, trust_log, users},
    verifier::Verifier,
};

/// Tokens of a user that may be revoked by themselves while they are alive: each takes memory in every verifier, whether
/// or not there is such a token.
const MOST_TOKENS: i64 = 100;

/// Which token.
#[derive(Debug)]
pub enum Which {
    /// The token itself.
    Token(String),
    /// The claim `jti` of an access token.
    Jti(Uuid),
}

/// Ends the token. One that is not known, or has ended, is none to be afraid of.
pub async fn revoke_token(app: &App, caller: &Caller, which: Which, origin: &Origin) -> Result<(), Error> {
    match which {
        Which::Jti(jti) => revoke_id(app, caller, jti, origin).await,
        Which::Token(token) if token.starts_with(refresh_token::PREFIX) => {
            revoke_refresh_token(app, caller, &token, origin).await
        }
        Which::Token(token) => revoke_access_token(app, caller, &token, origin).await,
    }
}

/// A refresh token stands for its session.
async fn revoke_refresh_token(app: &App, caller: &Caller, token: &str, origin: &Origin) -> Result<(), Error> {
    let Ok(token) = RefreshToken::parse(token) else {
        return Ok(());
    };
    let Some(maker) = app.maker(token.session_id).await?.filter(|maker| maker.tag.is_genuine(&token)) else {
        return Ok(());
    };
    if !caller.reaches(maker.user_id, maker.tenant_id) {
        return Err(Error::InsufficientScope);
    }
    match end_one(app, caller, token.session_id, EndReason::Revoked, Action::RevokeToken, origin).await {
        // It is known from memory alone: the session was over for so long that it was removed.
        Ok(_) | Err(Error::NotFound(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn revoke_access_token(app: &App, caller: &Caller, token: &str, origin: &Origin) -> Result<(), Error> {
    let claims = match look(app, token).await? {
        Found::Good(claims) => claims,
        Found::Over => return Ok(()),
        // Its key may be withdrawn just now and vouched for anew later, so that it would be good again.
        Found::Unknown => {
            return match Verifier::id_of(token) {
                Some(jti) => revoke_id(app, caller, jti, origin).await,
                None => Ok(()),
            };
        }
    };
    let tenant_id = claims.standing().map(|(_, tenant_id)| tenant_id);
    if claims.sub != caller.user_id && !tenant_id.is_some_and(|tenant_id| caller.administers(tenant_id)) {
        return Err(Error::InsufficientScope);
    }
    let Ok(jti) = Uuid::try_parse(&claims.jti) else {
        return Err(Error::Internal("a token of ours has an id that is none".to_owned()));
    };
    let revoked = append(app, caller, jti, claims.sub, tenant_id.unwrap_or(caller.tenant_id), origin).await;
    match (revoked, claims.user) {
        // One entry for all that the session has had and would have.
        (Err(Error::RateLimited), Some(user)) => {
            end_one(app, caller, user.sid, EndReason::Revoked, Action::RevokeToken, origin).await?;
            Ok(())
        }
        (revoked, _) => revoked,
    }
}

/// What an access token turns out to be.
enum Found {
    /// It would be accepted somewhere.
    Good(Box<Claims>),
    /// It was one, and has ended.
    Over,
    /// It is none of ours, as far as can be told now.
    Unknown,
}

async fn look(app: &App, token: &str) -> Result<Found, Error> {
    if token.split('.').count() == 5 {
        return Err(InvalidField::new("token", "is encrypted, and can't be read here; give its `jti`").into());
    }
    // Only to find the secret that an audience shares: nothing is believed before the signature is checked.
    let audience = Verifier::audience_of(token);
    let secrets = audience.as_deref().map(|audience| app.secrets_of(audience)).unwrap_or_default();
    let audience = audience.filter(|_| !secrets.is_empty());
    match app.check(token, &secrets, audience.as_deref()).await {
        Ok(claims) => Ok(Found::Good(Box::new(claims))),
        Err(Error::TokenExpired | Error::TokenRevoked) => Ok(Found::Over),
        Err(Error::TokenMalformed | Error::TokenInvalid(_)) => Ok(Found::Unknown),
        Err(error) => Err(error),
    }
}

/// An id says nothing of its owner: it is revoked only where the token turns out to be one that the caller may end.
async fn revoke_id(app: &App, caller: &Caller, jti: Uuid, origin: &Origin) -> Result<(), Error> {
    let owner_id = if caller.require_root().is_ok() {
        Uuid::nil()
    } else if caller.is_admin {
        caller.tenant_id
    } else {
        caller.user_id
    };
    append(app, caller, jti, owner_id, caller.tenant_id, origin).await
}

/// Refused where its owner is a user, and so many tokens of that user are revoked already.
async fn append(
    app: &App,
    caller: &Caller,
    jti: Uuid,
    owner_id: Uuid,
    tenant_id: Uuid,
    origin: &Origin,
) -> Result<(), Error> {
    let now = app.now();
    let by = By { tenant_id, actor_id: Some(caller.user_id), origin };
    let event = app.event(by, Action::RevokeToken, Target::Token(jti), now)?;
    let revoked = app.change(now, async move |conn| {
        if trust_log::has_token(conn, jti, &[owner_id]).await? {
            return Ok(((), Vec::new()));
        }
        // Held, so that of several at once each is counted.
        let is_of_user = users::lock(conn, owner_id).await?.is_some();
        if is_of_user && trust_log::count_tokens_of(conn, owner_id, now).await? >= MOST_TOKENS {
            return Err(Error::RateLimited);
        }
        audit_events::append(conn, &event).await?;
        Ok(((), vec![Revocation::Token { jti, owner_id }]))
    });
    revoked.await
}
