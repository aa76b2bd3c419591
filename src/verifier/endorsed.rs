//! The keys of sessions, which an issuer key vouches for.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Expected, PublicKey, Refusal, Verifier, claims::claims, header::Parts};
use crate::domain::claims::{ENDORSEMENT_TYPE, Endorsement};

/// A session key that an issuer key vouches for.
pub(super) struct EndorsedKey {
    pub(super) key: PublicKey,
    pub(super) session_id: Uuid,
    pub(super) user_id: Uuid,
    pub(super) expire_time: i64,
    pub(super) endorsed_by: String,
}

impl Verifier {
    /// Takes in the endorsement of a session's key that came another way than in a token, as from
    /// `Keys.GetJwk`.
    pub fn learn(&self, kid: &str, endorsement: &str, expected: &Expected) -> Result<(), Refusal> {
        let endorsed = self.check_endorsement(endorsement, kid, expected)?;
        self.endorsed.insert(kid.to_owned(), Arc::new(endorsed));
        Ok(())
    }

    pub(super) fn endorsed_key(
        &self,
        parts: &Parts<'_>,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Arc<EndorsedKey>, Refusal> {
        let kid = parts.kid()?;
        let is_usable = |key: &EndorsedKey| {
            key.expire_time > (now - expected.leeway).timestamp()
                && self.issuer_key(&key.endorsed_by).is_some()
        };
        if let Some(known) = self.endorsed.get(kid).filter(|known| is_usable(known)) {
            return Ok(known);
        }
        let endorsement = parts.endorsement().ok_or(Refusal::UnknownKey)?;
        let endorsed = Arc::new(self.check_endorsement(endorsement, kid, expected)?);
        if !is_usable(&endorsed) {
            return Err(Refusal::Expired);
        }
        self.endorsed.insert(kid.to_owned(), endorsed.clone());
        Ok(endorsed)
    }

    fn check_endorsement(
        &self,
        endorsement: &str,
        kid: &str,
        expected: &Expected,
    ) -> Result<EndorsedKey, Refusal> {
        let parts = Parts::split(endorsement).map_err(|_| Refusal::Invalid("malformed endorsement"))?;
        parts.require_type(ENDORSEMENT_TYPE)?;
        let issuer_key = self.issuer_key(parts.kid()?).ok_or(Refusal::Invalid("unknown issuer key"))?;
        parts.require_signature(&issuer_key)?;
        let claims: Endorsement = claims(&parts)?;
        if claims.iss != expected.issuer {
            return Err(Refusal::Invalid("endorsed by another issuer"));
        }
        let key =
            PublicKey::from_jwk(&claims.cnf.jwk).map_err(|_| Refusal::Invalid("unusable endorsed key"))?;
        if key.kid() != kid {
            return Err(Refusal::Invalid("the endorsement is of another key"));
        }
        Ok(EndorsedKey {
            key,
            session_id: claims.sid,
            user_id: claims.sub,
            expire_time: claims.exp,
            endorsed_by: issuer_key.kid().to_owned(),
        })
    }
}
