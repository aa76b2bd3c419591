//! The token that is held.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use http::{Extensions, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use crate::proto::Tokens;

/// How long a token is held whose end has passed already by the clock here, or is not told: the clocks differ by more than
/// it lives, and it must not be renewed with each call.
const UNCERTAIN_LIFE: TimeDelta = TimeDelta::seconds(1);
/// For how long before its end a token is not sent any more, since it may be on the way by then; and the part of its life
/// that this is at most.
const ON_THE_WAY: TimeDelta = TimeDelta::milliseconds(500);
const ON_THE_WAY_AT_MOST: i32 = 10;
/// The part of its life after which a token is renewed, and how much of it by chance later.
const RENEW_AFTER: f64 = 0.7;
const RENEW_WITHIN: f64 = 0.15;

/// An access token, silent in `Debug`. Cheap to clone.
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    token: SecretString,
    is_bound_to_key: bool,
    beside: Extensions,
}

impl From<SecretString> for AccessToken {
    /// One that is not bound to a key.
    fn from(token: SecretString) -> Self {
        Self(Arc::new(Inner { token, is_bound_to_key: false, beside: Extensions::default() }))
    }
}

impl AccessToken {
    /// The token itself, as it follows `Bearer `, or `DPoP ` where it is bound to a key.
    pub fn expose(&self) -> &str {
        self.0.token.expose_secret()
    }

    /// Whether it is good with a proof of a key only (RFC 9449).
    pub fn is_bound_to_key(&self) -> bool {
        self.0.is_bound_to_key
    }

    /// What goes along with it in each request, for the channel that sends it: the certificate that it is bound to.
    pub(in crate::verifier) fn beside(&self) -> &Extensions {
        &self.0.beside
    }

    /// The value of the header `authorization`, marked as a secret: it enters no log and no compression table.
    pub(in crate::verifier) fn header(&self) -> Option<HeaderValue> {
        let scheme = if self.is_bound_to_key() { "DPoP" } else { "Bearer" };
        let mut value = HeaderValue::from_str(&format!("{scheme} {}", self.expose())).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl PartialEq for AccessToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for AccessToken {}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(..)")
    }
}

/// A token and its times.
#[derive(Clone)]
pub(in crate::verifier) struct Held {
    pub(in crate::verifier) token: AccessToken,
    /// From then on it is renewed, while it is still used.
    pub(in crate::verifier) renew_time: DateTime<Utc>,
    pub(in crate::verifier) expire_time: DateTime<Utc>,
}

impl Held {
    pub(in crate::verifier) fn new(tokens: &Tokens, beside: Extensions, now: DateTime<Utc>) -> Self {
        let told =
            tokens.access_expire_time.as_ref().and_then(|time| DateTime::from_timestamp(time.seconds, 0));
        let life = told.map(|end| end - now).filter(|life| *life > TimeDelta::zero());
        let life = life.unwrap_or(UNCERTAIN_LIFE);
        let share = RENEW_AFTER + RENEW_WITHIN * fastrand::f64();
        let renew_after = TimeDelta::milliseconds((life.num_milliseconds() as f64 * share) as i64);
        Self {
            token: AccessToken(Arc::new(Inner {
                token: tokens.access_token.clone().into(),
                is_bound_to_key: tokens.token_type.eq_ignore_ascii_case("dpop"),
                beside,
            })),
            renew_time: now + renew_after,
            expire_time: now + life - ON_THE_WAY.min(life / ON_THE_WAY_AT_MOST),
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;

    #[test]
    fn it_is_good_for_no_longer_than_it_lives() {
        let now = DateTime::UNIX_EPOCH + TimeDelta::milliseconds(1_000_200);
        let good_for = |end: Option<i64>| {
            let access_expire_time = end.map(|seconds| Timestamp { seconds, nanos: 0 });
            let tokens = Tokens { access_expire_time, ..Tokens::default() };
            let held = Held::new(&tokens, Extensions::default(), now);
            assert!(now < held.renew_time && held.renew_time <= held.expire_time);
            (held.expire_time - now).num_milliseconds()
        };
        assert_eq!(good_for(Some(1300)), 299_300);
        // The margin shrinks with what is left.
        assert_eq!((good_for(Some(1003)), good_for(Some(1001))), (2520, 720));
        // The clocks differ by more than it lives, or nothing was told.
        assert_eq!([Some(1000), Some(400), None].map(good_for), [900; 3]);
    }
}
