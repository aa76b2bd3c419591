//! Publishes the keys that tokens are checked with.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::Jwk;
use uuid::Uuid;

use super::{App, Error, KeyRing};
use crate::{
    domain::{Inconsistent, session::State},
    models::{session_keys, sessions},
};

/// How long a set may be kept that may be out of date already.
const HINT_WHEN_STALE: Duration = Duration::from_secs(1);

/// The issuer's keys.
pub struct IssuerKeys {
    /// The keys.
    pub ring: Arc<KeyRing>,
    /// The revision of the trust log that they include.
    pub revision: i64,
    /// How long they may be kept: a key that is published now doesn't sign before they are fetched anew.
    pub refresh_hint: Duration,
}

impl IssuerKeys {
    /// Whether somebody who knows them as of `revision` knows these.
    pub fn are_known_since(&self, revision: i64) -> bool {
        (self.ring.since()..=self.revision).contains(&revision)
    }
}

/// The issuer's keys, from memory.
pub fn issuer_keys(app: &App) -> IssuerKeys {
    // Asked first: the keys are read before a revision counts as reached.
    let revision = app.verifier.trust().revision();
    let ring = app.ring();
    // Whole seconds, as Cache-Control has them.
    let half = app.settings.signing.publish_before.to_std().unwrap_or_default() / 2;
    let half = Duration::from_secs(half.as_secs());
    let refresh_hint = if app.keys.is_stale() { HINT_WHEN_STALE } else { half };
    IssuerKeys { revision: revision.max(ring.since()), refresh_hint, ring }
}

/// One key.
#[derive(Debug)]
pub struct FoundKey {
    /// The key.
    pub jwk: Jwk,
    /// The session that it was made for, where it is not an issuer key.
    session_id: Option<Uuid>,
}

/// The key of this id: an issuer key, or the key of a live session.
pub async fn find_key(app: &App, kid: &str) -> Result<FoundKey, Error> {
    if let Some(jwk) = app.ring().published().iter().find(|jwk| jwk.common.key_id.as_deref() == Some(kid)) {
        return Ok(FoundKey { jwk: jwk.clone(), session_id: None });
    }
    let not_found = || Error::NotFound("key");
    if !is_thumbprint(kid) {
        return Err(not_found());
    }
    let found = app.store.read(async |conn| {
        let Some((session_id, jwk)) = session_keys::find(conn, kid).await? else { return Ok(None) };
        Ok(sessions::find(conn, session_id).await?.map(|session| (session, jwk)))
    });
    let (session, jwk) = found.await?.ok_or_else(not_found)?;
    if session.state(app.now()) != State::Active {
        return Err(not_found());
    }
    let unreadable = Inconsistent { table: "session_keys", column: "public_jwk" };
    let jwk = serde_json::from_str(&jwk).map_err(|_| unreadable)?;
    Ok(FoundKey { jwk, session_id: Some(session.id) })
}

/// Who vouches for a session's key, until when; nobody needs to for an issuer key.
pub async fn endorsement(app: &App, key: &FoundKey) -> Result<Option<(String, DateTime<Utc>)>, Error> {
    let Some(session_id) = key.session_id else { return Ok(None) };
    let maker = app.maker(session_id).await?.ok_or(Error::NotFound("key"))?;
    let own_key = maker.key.as_ref().ok_or(Error::NotFound("key"))?;
    let endorsement = app.endorsement(&maker, own_key, app.now())?;
    let jwt = endorsement.header.endorsement()?;
    Ok(Some((jwt, endorsement.expire_time)))
}

/// Whether it has the form of an RFC 7638 thumbprint with SHA-256; nothing else is worth a look into the database.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
