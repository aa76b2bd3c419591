//! The tag of a refresh token: an HMAC under a key that needs both the server's refresh secret and the
//! session's salt, so that a copy of the database alone makes no token.

use aws_lc_rs::{
    hkdf,
    hmac::{self, HMAC_SHA256},
};
use secrecy::{ExposeSecret, SecretSlice};
use uuid::Uuid;

use super::CryptoError;
use crate::domain::refresh_token::{RefreshToken, TAG_LEN};

/// Separates this use of the secret from any later one.
const INFO: &[u8] = b"tessera refresh token tag v1";

/// The key of one session's tags.
pub struct TagKey(hmac::Key);

impl TagKey {
    /// Derives the key (HKDF, RFC 5869).
    pub fn derive(refresh_secret: &SecretSlice<u8>, session_salt: &[u8]) -> Result<Self, CryptoError> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, session_salt);
        let pseudorandom = salt.extract(refresh_secret.expose_secret());
        let okm = pseudorandom.expand(&[INFO], HMAC_SHA256).map_err(|_| CryptoError("deriving a tag key"))?;
        Ok(Self(okm.into()))
    }

    /// The one true token of this generation: a retry and a race get the same.
    pub fn token(&self, session_id: Uuid, generation: i64) -> Result<RefreshToken, CryptoError> {
        let tag = hmac::sign(&self.0, &RefreshToken::tagged_bytes(session_id, generation));
        let tag: [u8; TAG_LEN] = tag.as_ref().try_into().map_err(|_| CryptoError("a tag's length"))?;
        Ok(RefreshToken { session_id, generation, tag })
    }

    /// Whether Tessera made the token; takes the same time for every wrong tag.
    pub fn is_genuine(&self, token: &RefreshToken) -> bool {
        let tagged = RefreshToken::tagged_bytes(token.session_id, token.generation);
        hmac::verify(&self.0, &tagged, &token.tag).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_needs_the_secret_the_salt_and_every_bit() -> Result<(), CryptoError> {
        let key = |secret: u8, salt: u8| TagKey::derive(&vec![secret; 32].into(), &[salt; 16]);
        let token = key(1, 1)?.token(Uuid::from_u128(5), 7)?;
        assert!(key(1, 1)?.is_genuine(&token));
        assert!(!key(2, 1)?.is_genuine(&token), "another server's secret");
        assert!(!key(1, 2)?.is_genuine(&token), "another session's salt");
        assert!(!key(1, 1)?.is_genuine(&RefreshToken { generation: 8, ..token.clone() }));
        assert!(!key(1, 1)?.is_genuine(&RefreshToken { session_id: Uuid::from_u128(6), ..token.clone() }));
        let mut tag = token.tag;
        tag[31] ^= 1;
        assert!(!key(1, 1)?.is_genuine(&RefreshToken { tag, ..token }));
        Ok(())
    }
}
