//! The one place that asks for random bytes outside the libraries' own key generation.

use std::sync::{Arc, Mutex, PoisonError};

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

    /// An identifier that can't be guessed (RFC 9562, version 4).
    pub fn random_id(&self) -> Result<Uuid, CryptoError> {
        Ok(Builder::from_random_bytes(self.bytes()?).into_uuid())
    }
}

/// Makes identifiers that sort by time (RFC 9562, version 7). Of those that one server makes, a later one is
/// always greater, also within a millisecond and when the clock is set back (section 6.2, method 2).
pub struct OrderedIds {
    rng: Arc<dyn Randomness>,
    /// Milliseconds and then 74 bits that are random or follow those before.
    last: Mutex<u128>,
}

impl OrderedIds {
    /// Makes identifiers out of these random bytes.
    pub fn new(rng: Arc<dyn Randomness>) -> Self {
        Self { rng, last: Mutex::new(0) }
    }

    /// The next identifier.
    pub fn next(&self, now: DateTime<Utc>) -> Result<Uuid, CryptoError> {
        let millis = u64::try_from(now.timestamp_millis()).map_err(|_| CryptoError("time before 1970"))?;
        let random = u128::from_be_bytes(self.rng.bytes()?);
        let step = 1 + (random >> 96);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (u128::from(millis) << 74 | random & ((1 << 74) - 1)).max(*last + step);
        let [millis, high, low] = [*last >> 74, (*last >> 62) & 0xfff, *last & ((1 << 62) - 1)];
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&(high as u16).to_be_bytes());
        bytes[2..].copy_from_slice(&(low as u64).to_be_bytes());
        Ok(Builder::from_unix_timestamp_millis(millis as u64, &bytes).into_uuid())
    }
}

/// The least identifier of this millisecond: those of earlier ones are smaller.
pub fn first_id_of(time: DateTime<Utc>) -> Uuid {
    let millis = u64::try_from(time.timestamp_millis()).unwrap_or_default();
    Builder::from_unix_timestamp_millis(millis, &[0; 10]).into_uuid()
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn later_ids_are_greater_within_a_millisecond_and_when_the_clock_goes_back() -> Result<(), CryptoError> {
        let ids = OrderedIds::new(Arc::new(SystemRandomness));
        let now = DateTime::UNIX_EPOCH + TimeDelta::days(20_000);
        let mut last = Uuid::nil();
        for round in 0..10_000 {
            let id = ids.next(now - TimeDelta::milliseconds(round / 100))?;
            assert!(id > last, "{id} after {last}");
            assert!(first_id_of(now) <= id && id < first_id_of(now + TimeDelta::seconds(1)));
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            last = id;
        }
        let (seconds, _) = last.get_timestamp().map(|time| time.to_unix()).unwrap_or_default();
        assert_eq!(Ok(now.timestamp()), i64::try_from(seconds));
        Ok(())
    }
}
