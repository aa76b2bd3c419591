//! Checks access tokens in-process: the code that other services import and that Tessera itself uses.
//!
//! A [`Verifier`] holds the issuer's few keys and checks every session's token with them, through the
//! endorsement that the token carries. It asks nobody: no database, no call, no clock of its own.
//!
//! Must not enter: anything of the server. It knows [`crate::domain`]'s claims and the generated contract.

#[cfg(feature = "encryption")]
mod decryption;
mod foreign;
mod foreign_keys;
mod header;
mod key;
mod shared;
mod trust;

use std::sync::{Arc, PoisonError, RwLock};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::sync::Cache;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::domain::claims::{ACCESS_TOKEN_TYPE, Claims, ENDORSEMENT_TYPE, Endorsement};
#[cfg(feature = "encryption")]
pub use decryption::DecryptionKey;
pub use foreign::ForeignIssuer;
pub use foreign_keys::BadKeySet;
use header::Parts;
pub use key::{BadKey, PublicKey};
use shared::Shared;
pub use shared::SharedKey;
pub use trust::TrustState;

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token at all.
    #[error("not a token")]
    Malformed,
    /// Its signature, issuer, audience or form is not what it must be; the text is for logs.
    #[error("{0}")]
    Invalid(&'static str),
    /// Neither an issuer key nor an endorsed one signed it, as far as is known here.
    #[error("unknown key")]
    UnknownKey,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// It ended before its time.
    #[error("the token was revoked")]
    Revoked,
}

/// What a token must be beside genuine.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The issuer, exactly.
    pub issuer: String,
    /// One audience that it must be for; `None` accepts any.
    pub audience: Option<String>,
    /// How far clocks may differ.
    pub leeway: TimeDelta,
}

/// Checks tokens of one issuer.
pub struct Verifier {
    issuer_keys: RwLock<Arc<[PublicKey]>>,
    endorsed: Cache<String, Arc<EndorsedKey>>,
    trust: TrustState,
    shared: Shared,
    #[cfg(feature = "encryption")]
    decryption: decryption::Decryption,
}

/// A session key that an issuer key vouches for.
struct EndorsedKey {
    key: PublicKey,
    session_id: Uuid,
    user_id: Uuid,
    expire_time: i64,
    endorsed_by: String,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Verifier {
    /// Checked session keys that are remembered: what bounds its memory, however many sessions there are.
    pub const REMEMBERS_AT_MOST: usize = 10_000;

    /// A verifier that holds these issuer keys and knows of no revocation yet.
    pub fn new(issuer_keys: Vec<PublicKey>) -> Self {
        Self {
            issuer_keys: RwLock::new(issuer_keys.into()),
            endorsed: Cache::new(Self::REMEMBERS_AT_MOST),
            trust: TrustState::default(),
            shared: Shared::default(),
            #[cfg(feature = "encryption")]
            decryption: decryption::Decryption::default(),
        }
    }

    /// A verifier that holds the keys of a JWK set, as `Keys.GetJwks` and `/.well-known/jwks.json` give it.
    pub fn from_jwks(json: &str) -> Result<Self, BadKey> {
        Ok(Self::new(PublicKey::from_jwks(json)?))
    }

    /// Also takes tokens signed with these secrets, which the issuer shares with this audience: only where
    /// [`Expected`] names it, and the token is for it alone.
    #[must_use]
    pub fn with_shared_secrets(mut self, audience: &str, secrets: Vec<SharedKey>) -> Self {
        self.shared = Shared { audience: audience.to_owned(), secrets };
        self
    }

    /// Decrypts tokens that come encrypted to one of these keys, and still takes those that are only signed.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn with_decryption_keys(mut self, keys: Vec<DecryptionKey>) -> Self {
        self.decryption.keys = keys;
        self
    }

    /// Refuses tokens that are only signed.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn require_encryption(mut self) -> Self {
        self.decryption.is_required = true;
        self
    }

    /// Takes other issuer keys from now on.
    pub fn set_issuer_keys(&self, keys: Vec<PublicKey>) {
        *self.issuer_keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    /// The revocations that it knows of.
    pub fn trust(&self) -> &TrustState {
        &self.trust
    }

    /// How many checked session keys it remembers.
    pub fn remembered_keys(&self) -> usize {
        self.endorsed.len()
    }

    /// Checks signature, claims and revocation, in this order.
    pub fn check(&self, token: &str, expected: &Expected, now: DateTime<Utc>) -> Result<Claims, Refusal> {
        self.check_with(token, self.shared.secrets_of(expected.audience.as_deref()), expected, now)
    }

    /// The same with the secrets of the expected audience, for who keeps those of several.
    pub(crate) fn check_with(
        &self,
        token: &str,
        secrets: &[SharedKey],
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        #[cfg(feature = "encryption")]
        let token = &*self.decryption.signed(token)?;
        let parts = Parts::split(token)?;
        parts.require_type(ACCESS_TOKEN_TYPE)?;
        let kid = parts.kid()?;
        let claims = match secrets.iter().find(|secret| secret.kid() == kid) {
            Some(secret) => claims_of_shared(&parts, secret, expected)?,
            None => self.claims_of_genuine(&parts, expected, now)?,
        };
        check_claims(&claims, expected, now)?;
        if self.trust.is_revoked(&claims) {
            return Err(Refusal::Revoked);
        }
        Ok(claims)
    }

    /// The claims, once the signature is known to be the issuer's or a key's that the issuer endorsed.
    fn claims_of_genuine(
        &self,
        parts: &Parts<'_>,
        expected: &Expected,
        now: DateTime<Utc>,
    ) -> Result<Claims, Refusal> {
        if let Some(key) = self.issuer_key(parts.kid()?) {
            parts.require_signature(&key)?;
            return claims(parts);
        }
        let endorsed = self.endorsed_key(parts, expected, now)?;
        parts.require_signature(&endorsed.key)?;
        let claims: Claims = claims(parts)?;
        let is_own_session = claims.sub == endorsed.user_id
            && claims.user.as_ref().is_some_and(|user| user.sid == endorsed.session_id);
        if !is_own_session {
            return Err(Refusal::Invalid("the endorsement is of another session"));
        }
        Ok(claims)
    }

    fn endorsed_key(
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

    /// Takes in the endorsement of a session's key that came another way than in a token, as from
    /// `Keys.GetJwk`.
    pub fn learn(&self, kid: &str, endorsement: &str, expected: &Expected) -> Result<(), Refusal> {
        let endorsed = self.check_endorsement(endorsement, kid, expected)?;
        self.endorsed.insert(kid.to_owned(), Arc::new(endorsed));
        Ok(())
    }

    /// The id of the key that a token says to be signed with.
    pub fn kid_of(token: &str) -> Result<String, Refusal> {
        Ok(Parts::split(token)?.kid()?.to_owned())
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

    fn issuer_key(&self, kid: &str) -> Option<PublicKey> {
        let keys = self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.kid() == kid).cloned()
    }
}

fn claims<T: DeserializeOwned>(parts: &Parts<'_>) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(parts.payload()).map_err(|_| Refusal::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| Refusal::Invalid("claims are missing or of the wrong type"))
}

/// The claims, once the signature is known to be made with the audience's own secret. It says nothing of others.
fn claims_of_shared(parts: &Parts<'_>, secret: &SharedKey, expected: &Expected) -> Result<Claims, Refusal> {
    parts.require_signature(secret)?;
    let claims: Claims = claims(parts)?;
    let audience = expected.audience.as_ref().map(std::slice::from_ref);
    if audience != Some(&*claims.aud) {
        return Err(Refusal::Invalid("signed with the secret of another audience"));
    }
    Ok(claims)
}

fn check_claims(claims: &Claims, expected: &Expected, now: DateTime<Utc>) -> Result<(), Refusal> {
    if claims.iss != expected.issuer {
        return Err(Refusal::Invalid("another issuer"));
    }
    if expected.audience.as_deref().is_some_and(|audience| !claims.is_for(audience)) {
        return Err(Refusal::Invalid("another audience"));
    }
    if claims.exp <= (now - expected.leeway).timestamp() {
        return Err(Refusal::Expired);
    }
    let latest = (now + expected.leeway).timestamp();
    if claims.nbf > latest || claims.iat > latest {
        return Err(Refusal::Invalid("not valid yet"));
    }
    Ok(())
}
