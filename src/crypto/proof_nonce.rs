//! What proofs of keys must carry, where that is demanded (RFC 9449 section 8): an HMAC of the time, so that nothing is kept
//! and a nonce of one replica, or of before a restart, is good at every other.

use aws_lc_rs::{
    hkdf,
    hmac::{self, HMAC_SHA256},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretSlice};

use super::CryptoError;

/// Separates this use of the secret from the others.
const INFO: &[u8] = b"tessera dpop nonce v1";
/// For how long each nonce is given out, in seconds; it is good for as long again.
const PERIOD: i64 = 60;

/// The key that nonces are made with, which replicas share.
pub struct NonceKey(hmac::Key);

impl NonceKey {
    /// Derives the key (HKDF, RFC 5869).
    pub fn derive(refresh_secret: &SecretSlice<u8>) -> Result<Self, CryptoError> {
        let pseudorandom = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(refresh_secret.expose_secret());
        let okm =
            pseudorandom.expand(&[INFO], HMAC_SHA256).map_err(|_| CryptoError("deriving a nonce key"))?;
        Ok(Self(okm.into()))
    }

    /// The one that is given out now. It is told to anyone who asks, and nobody knows a later one.
    pub fn current(&self, now: DateTime<Utc>) -> String {
        self.of(period(now))
    }

    /// Whether it is given out now, was in the period before, or will be by a clock that is ahead.
    pub fn is_good(&self, nonce: &str, now: DateTime<Utc>, leeway: TimeDelta) -> bool {
        (period(now) - 1..=period(now + leeway)).any(|period| self.of(period) == nonce)
    }

    fn of(&self, period: i64) -> String {
        URL_SAFE_NO_PAD.encode(&hmac::sign(&self.0, &period.to_be_bytes()).as_ref()[..16])
    }
}

fn period(time: DateTime<Utc>) -> i64 {
    time.timestamp().div_euclid(PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_its_period_and_the_next() -> Result<(), CryptoError> {
        let key = |secret: u8| NonceKey::derive(&vec![secret; 32].into());
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let (ours, leeway) = (key(1)?, TimeDelta::seconds(30));
        let nonce = ours.current(at(6030));
        assert_eq!((nonce.len(), &nonce), (22, &key(1)?.current(at(6059))));
        let is_good = |now| ours.is_good(&nonce, at(now), leeway);
        assert!(is_good(6000) && is_good(6119) && is_good(5970), "a clock may be late");
        assert!(!is_good(6120) && !is_good(5969));
        assert_ne!(nonce, ours.current(at(6060)));
        assert_ne!(nonce, key(2)?.current(at(6030)), "another installation's");
        Ok(())
    }
}
