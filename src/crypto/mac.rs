//! Secrets that Tessera shares with one audience, and the signatures (HS256) made with them: whoever holds the secret
//! checks them, and could make them too.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::Serialize;

use super::{
    CryptoError,
    random::Randomness,
    signing::{EncodedHeader, Header, compact_jws},
};

/// The one algorithm of shared secrets.
const ALGORITHM: &str = "HS256";

/// A shared secret, parsed and ready to sign.
pub struct MacKey {
    kid: String,
    key: hmac::Key,
}

impl MacKey {
    /// Takes the secret bytes.
    pub fn new(kid: &str, secret: &SecretSlice<u8>) -> Self {
        Self { kid: kid.to_owned(), key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret()) }
    }

    /// Signs claims as a compact JWS.
    pub fn sign_jwt(&self, typ: &'static str, claims: &impl Serialize) -> Result<String, CryptoError> {
        let header = Header { typ, alg: ALGORITHM, kid: &self.kid, skc: None };
        compact_jws(&EncodedHeader::of(&header)?, claims, |message| Ok(hmac::sign(&self.key, message)))
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MacKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// As many random bits as the hash has (RFC 7518 section 3.2).
pub fn new_secret(rng: &dyn Randomness) -> Result<SecretSlice<u8>, CryptoError> {
    Ok(rng.bytes::<32>()?.to_vec().into())
}

/// The secret as its owner writes it down: base64url.
pub fn to_text(secret: &SecretSlice<u8>) -> SecretString {
    URL_SAFE_NO_PAD.encode(secret.expose_secret()).into()
}

/// The same as a JWK (RFC 7518 section 6.4), which libraries load.
pub fn to_jwk(kid: &str, secret: &SecretSlice<u8>) -> SecretString {
    let k = to_text(secret);
    let jwk =
        serde_json::json!({"kty": "oct", "k": k.expose_secret(), "kid": kid, "alg": ALGORITHM, "use": "sig"});
    jwk.to_string().into()
}

#[cfg(test)]
mod tests {
    use super::{super::random::SystemRandomness, *};
    use crate::verifier::SharedKey;

    #[test]
    fn what_a_secret_signs_it_verifies_from_its_jwk() -> Result<(), Box<dyn std::error::Error>> {
        let secret = new_secret(&SystemRandomness)?;
        let key = MacKey::new("a", &secret);
        let token = key.sign_jwt("test", &serde_json::json!({"a": 1}))?;
        let (message, signature) = token.rsplit_once('.').ok_or("no signature")?;
        let shared = SharedKey::from_jwk(to_jwk("a", &secret).expose_secret())?;
        assert_eq!(shared.kid(), "a");
        assert!(shared.verifies(message.as_bytes(), signature));
        assert!(!shared.verifies(&message.as_bytes()[1..], signature));
        let other = SharedKey::new("a", new_secret(&SystemRandomness)?.expose_secret())?;
        assert!(!other.verifies(message.as_bytes(), signature));
        assert_eq!(format!("{key:?}{shared:?}"), r#"MacKey { kid: "a", .. }SharedKey { kid: "a", .. }"#);
        Ok(())
    }
}
