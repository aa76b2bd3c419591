//! Secrets that the issuer shares with one audience, for tokens signed with HS256.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey,
    jwk::{AlgorithmParameters, Jwk, KeyAlgorithm},
};

use super::{BadKey, header::Checks};

/// RFC 7518 section 3.2: no shorter than the hash.
const SHORTEST: usize = 32;

/// A secret that the issuer shares with one audience. Whoever holds it can make tokens for that audience, so what it
/// signed counts nowhere else. Cheap to clone.
#[derive(Clone)]
pub struct SharedKey(Arc<Inner>);

struct Inner {
    kid: String,
    key: DecodingKey,
}

impl SharedKey {
    /// Takes the bytes of a secret and its id.
    pub fn new(kid: &str, secret: &[u8]) -> Result<Self, BadKey> {
        if secret.len() < SHORTEST {
            return Err(BadKey::Short);
        }
        Ok(Self(Arc::new(Inner { kid: kid.to_owned(), key: DecodingKey::from_secret(secret) })))
    }

    /// Reads the JWK that `Audiences.CreateAudience` and `UpdateAudience` give as `secret_jwk`.
    pub fn from_jwk(json: &str) -> Result<Self, BadKey> {
        let jwk: Jwk = serde_json::from_str(json)?;
        let (AlgorithmParameters::OctetKey(octets), Some(KeyAlgorithm::HS256)) =
            (&jwk.algorithm, jwk.common.key_algorithm)
        else {
            return Err(BadKey::Algorithm);
        };
        let kid = jwk.common.key_id.as_deref().ok_or(BadKey::KeyId)?;
        let secret = URL_SAFE_NO_PAD.decode(&octets.value).map_err(|_| BadKey::Short)?;
        Self::new(kid, &secret)
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// Checks a base64url signature over `message`.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.0.key, jsonwebtoken::Algorithm::HS256)
            .unwrap_or(false)
    }
}

impl Checks for SharedKey {
    fn algorithm(&self) -> &'static str {
        "HS256"
    }

    fn verifies(&self, message: &[u8], signature: &str) -> bool {
        self.verifies(message, signature)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedKey").field("kid", &self.0.kid).finish_non_exhaustive()
    }
}

/// The secrets of the service that verifies.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) audience: String,
    pub(super) secrets: Vec<SharedKey>,
}

impl Shared {
    /// Those that count where this audience is expected: none, where none is named.
    pub(super) fn secrets_of(&self, audience: Option<&str>) -> &[SharedKey] {
        if audience == Some(self.audience.as_str()) { &self.secrets } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_whole_hs256_key_is_read() {
        let k = URL_SAFE_NO_PAD.encode([7; 32]);
        let whole = json!({"kty": "oct", "k": k, "kid": "a", "alg": "HS256", "use": "sig"});
        let read = |name: &str, value: serde_json::Value| {
            let mut jwk = whole.clone();
            jwk[name] = value;
            SharedKey::from_jwk(&jwk.to_string())
        };
        assert!(read("k", json!(k)).is_ok_and(|key| key.kid() == "a"));
        assert!(matches!(read("alg", json!("HS512")), Err(BadKey::Algorithm)));
        assert!(matches!(read("alg", json!(null)), Err(BadKey::Algorithm)));
        assert!(matches!(read("kid", json!(null)), Err(BadKey::KeyId)));
        assert!(matches!(read("k", json!(URL_SAFE_NO_PAD.encode([7; 31]))), Err(BadKey::Short)));
        assert!(matches!(read("k", json!("no base64url!")), Err(BadKey::Short)));
        assert!(read("kty", json!("RSA")).is_err());
        assert!(matches!(SharedKey::new("a", &[7; 31]), Err(BadKey::Short)));
    }
}
