//! The one place that asks for random bytes outside the libraries' own key generation.

use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use uuid::{Builder, Uuid};

use super::CryptoError;

/// A source of random bytes, good enough for secrets.
pub trait Randomness: Send + Sync + 'static {
    /// Fills the whole buffer.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), CryptoError>;
}

/// The operating system's randomness through aws-lc.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    #[allow(clippy::disallowed_methods, reason = "this is randomness's home")]
    fn fill(&self, bytes: &mut [u8]) -> Result<(), CryptoError> {
        rand::fill(bytes).map_err(|_| CryptoError("random bytes"))
    }
}

impl dyn Randomness {
    /// So many random bytes.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N], CryptoError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// An identifier that sorts by time (RFC 9562, version 7).
    pub fn ordered_id(&self, now: DateTime<Utc>) -> Result<Uuid, CryptoError> {
        let millis = u64::try_from(now.timestamp_millis()).map_err(|_| CryptoError("time before 1970"))?;
        Ok(Builder::from_unix_timestamp_millis(millis, &self.bytes()?).into_uuid())
    }

    /// An identifier that can't be guessed (RFC 9562, version 4).
    pub fn random_id(&self) -> Result<Uuid, CryptoError> {
        Ok(Builder::from_random_bytes(self.bytes()?).into_uuid())
    }
}

/// The same source where the `rsa` crate wants a generator.
pub(super) struct ForRsa<'r>(pub(super) &'r dyn Randomness);

impl rsa::rand_core::TryRng for ForRsa<'_> {
    type Error = CryptoError;

    fn try_next_u32(&mut self) -> Result<u32, CryptoError> {
        Ok(u32::from_ne_bytes(self.0.bytes()?))
    }

    fn try_next_u64(&mut self) -> Result<u64, CryptoError> {
        Ok(u64::from_ne_bytes(self.0.bytes()?))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), CryptoError> {
        self.0.fill(bytes)
    }
}

impl rsa::rand_core::TryCryptoRng for ForRsa<'_> {}
