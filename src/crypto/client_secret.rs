//! Secrets that service accounts prove themselves with: 256 random bits, of which the digest alone is kept. They are
//! not guessed, so that a slow hash would protect nothing.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};

use super::{CryptoError, digest::digest_of, random::Randomness};
use crate::domain::service_account::SECRET_PREFIX;

/// Random bytes of a secret.
const LENGTH: usize = 32;
/// Characters of one: the prefix and base64url.
const TEXT_LENGTH: usize = SECRET_PREFIX.len() + (LENGTH * 4).div_ceil(3);

/// A secret as its owner has it: `tcs_` and base64url.
pub struct ClientSecret(SecretString);

impl ClientSecret {
    /// Makes one.
    pub fn new(rng: &dyn Randomness) -> Result<Self, CryptoError> {
        let bytes = rng.bytes::<LENGTH>()?;
        Ok(Self(format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into()))
    }

    /// Takes one that somebody sends, if it can be one.
    pub fn parse(secret: &SecretString) -> Option<Self> {
        let text = secret.expose_secret();
        let fits = text.len() == TEXT_LENGTH && text.starts_with(SECRET_PREFIX);
        fits.then(|| Self(secret.clone()))
    }

    /// What is kept of it.
    pub fn digest(&self) -> [u8; 32] {
        digest_of(&[self.0.expose_secret().as_bytes()])
    }

    /// Whether it is the one that this was kept of, in a time that tells nothing.
    pub fn is(&self, kept: &[u8; 32]) -> bool {
        verify_slices_are_equal(&self.digest(), kept).is_ok()
    }

    /// As its owner writes it down.
    pub fn to_text(&self) -> SecretString {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::random::SystemRandomness, *};

    #[test]
    fn a_secret_is_known_by_its_digest_and_no_other_is() -> Result<(), CryptoError> {
        let (one, other) = (ClientSecret::new(&SystemRandomness)?, ClientSecret::new(&SystemRandomness)?);
        let text = one.to_text();
        let text = text.expose_secret();
        assert!(text.starts_with("tcs_") && text.len() == 47, "{}", text.len());
        assert!(ClientSecret::parse(&one.to_text()).is_some_and(|same| same.is(&one.digest())));
        assert!(!other.is(&one.digest()));
        for bad in ["", "tcs_", &text[1..], &text[..46], &format!("{text}="), &text.replace("tcs_", "trt_")] {
            assert!(ClientSecret::parse(&bad.into()).is_none());
        }
        Ok(())
    }
}
