//! A public key with the one algorithm that it is for.

use std::sync::Arc;

use jsonwebtoken::{
    DecodingKey,
    jwk::{Jwk, JwkSet, ThumbprintHash},
};

use super::header::Checks;
use crate::domain::algorithm::Algorithm;

/// A key that Tessera can't check signatures with.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// Not a JWK set.
    #[error("not a JWK set: {0}")]
    Json(#[from] serde_json::Error),
    /// Its `alg` is missing or not one that Tessera makes keys for.
    #[error("a key without an algorithm that is accepted")]
    Algorithm,
    /// A shared secret goes by no id but its own.
    #[error("a shared secret without a key id")]
    KeyId,
    /// A shared secret that is no base64url, or shorter than 256 bits.
    #[error("a shared secret is at least 32 bytes in base64url")]
    Short,
    /// Its parameters make no key.
    #[error("unusable key: {0}")]
    Parameters(#[from] jsonwebtoken::errors::Error),
}

/// A public key, ready to check signatures. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    kid: String,
    algorithm: Algorithm,
    key: DecodingKey,
}

impl PublicKey {
    /// Reads a JWK. The key id is its thumbprint (RFC 7638), whatever the JWK says.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, BadKey> {
        let algorithm = jwk.common.key_algorithm.as_ref().ok_or(BadKey::Algorithm)?;
        let algorithm: Algorithm = algorithm.to_string().parse().map_err(|_| BadKey::Algorithm)?;
        Self::with_kid(jwk.thumbprint(ThumbprintHash::SHA256)?, algorithm, jwk)
    }

    /// The key of a JWK under this id, for this algorithm.
    pub(super) fn with_kid(kid: String, algorithm: Algorithm, jwk: &Jwk) -> Result<Self, BadKey> {
        Ok(Self(Arc::new(Inner { kid, algorithm, key: DecodingKey::from_jwk(jwk)? })))
    }

    /// Reads a JWK set (RFC 7517 section 5).
    pub fn from_jwks(json: &str) -> Result<Vec<Self>, BadKey> {
        let set: JwkSet = serde_json::from_str(json)?;
        set.keys.iter().map(Self::from_jwk).collect()
    }

    /// Reads what it can of the issuer's JWK set: a newer issuer may have keys that this release doesn't know, which
    /// are passed over.
    pub(super) fn readable_of_jwks(json: &str) -> Result<Vec<Self>, BadKey> {
        #[derive(serde::Deserialize)]
        struct Keys {
            keys: Vec<serde_json::Value>,
        }
        let set: Keys = serde_json::from_str(json)?;
        let read = set.keys.into_iter().filter_map(|key| {
            let key = serde_json::from_value(key).map_err(BadKey::from).and_then(|jwk| Self::from_jwk(&jwk));
            key.inspect_err(|error| tracing::warn!(%error, "an issuer key that is of no use here")).ok()
        });
        Ok(read.collect())
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// What it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Checks a base64url signature over `message`.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        let algorithm = match self.0.algorithm {
            Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
            Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
            Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
            Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        };
        jsonwebtoken::crypto::verify(signature, message, &self.0.key, algorithm).unwrap_or(false)
    }
}

impl Checks for PublicKey {
    fn algorithm(&self) -> &'static str {
        self.algorithm().as_str()
    }

    fn verifies(&self, message: &[u8], signature: &str) -> bool {
        self.verifies(message, signature)
    }
}
