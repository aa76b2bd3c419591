//! What proofs of keys must carry, where that is demanded (RFC 9449 sections 8 and 9): an HMAC of the time, so that nothing is
//! kept and a nonce of one replica, or of before a restart, is good at every other.

use std::fmt;

use aws_lc_rs::{
    hkdf,
    hmac::{self, HMAC_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};

/// Separates this use of the secret from the others.
const INFO: &[u8] = b"tessera dpop nonce v1";
/// For how long each nonce is given out, in seconds; it is good for as long again.
const PERIOD: i64 = 60;

/// The shortest secret, in bytes.
const SHORTEST: usize = 16;

/// No key for nonces can be made of a secret: it has less than 16 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret for nonces has less than 16 bytes")]
pub struct BadNonceSecret;

/// The key that nonces are made with, which replicas share. Silent in `Debug`.
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// Derives the key (HKDF, RFC 5869) from a secret of random bytes, the same at each replica.
    ///
    /// # Errors
    /// If it is too short to be one.
    pub fn derive(secret: &[u8]) -> Result<Self, BadNonceSecret> {
        if secret.len() < SHORTEST {
            return Err(BadNonceSecret);
        }
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        let okm = pseudorandom.expand(&[INFO], HMAC_SHA256).map_err(|_| BadNonceSecret)?;
        Ok(Self(okm.into()))
    }

    /// A nonce that a proof must have, where it has another or none; else what the next one is to have instead.
    pub(super) fn check(
        &self,
        nonce: Option<&str>,
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<Option<String>, String> {
        let current = self.current(now);
        match nonce {
            Some(nonce) if self.is_good(nonce, now, leeway) => Ok((nonce != current).then_some(current)),
            _ => Err(current),
        }
    }

    /// The one that is given out now. It is told to anyone who asks, and nobody knows a later one.
    fn current(&self, now: DateTime<Utc>) -> String {
        self.of(period(now))
    }

    /// Whether it is given out now, was in the period before, or will be by a clock that is ahead.
    fn is_good(&self, nonce: &str, now: DateTime<Utc>, leeway: TimeDelta) -> bool {
        (period(now) - 1..=period(now + leeway)).any(|period| self.of(period) == nonce)
    }

    fn of(&self, period: i64) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, &period.to_be_bytes()).as_ref()[..16])
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKey(..)")
    }
}

fn period(time: DateTime<Utc>) -> i64 {
    time.timestamp().div_euclid(PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_period_and_the_next() -> Result<(), BadNonceSecret> {
        let key = |secret: u8| NonceKey::derive(&[secret; 32]);
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let (ours, leeway) = (key(1)?, TimeDelta::seconds(30));
        let nonce = ours.current(at(6030));
        assert_eq!((nonce.len(), &nonce), (22, &key(1)?.current(at(6059))));
        let is_good = |now| ours.is_good(&nonce, at(now), leeway);
        assert!(is_good(6000) && is_good(6119) && is_good(5970), "a clock may be late");
        assert!(!is_good(6120) && !is_good(5969));
        assert_ne!(nonce, ours.current(at(6060)));
        assert_ne!(nonce, key(2)?.current(at(6030)), "another installation's");
        assert!(NonceKey::derive(&[1; 15]).is_err());
        Ok(())
    }
}
