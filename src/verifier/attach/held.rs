//! The token that is held.

use std::{fmt, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::proto::Tokens;

/// However the clocks differ, a token is not renewed more often than this.
const SHORTEST_LIFE: TimeDelta = TimeDelta::seconds(5);
/// The part of its life after which a token is renewed, and how much of it by chance later.
const RENEW_AFTER: f64 = 0.7;
const RENEW_WITHIN: f64 = 0.15;

/// An access token, silent in `Debug`. Cheap to clone.
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    token: SecretString,
    is_bound_to_key: bool,
}

impl From<SecretString> for AccessToken {
    /// One that is not bound to a key.
    fn from(token: SecretString) -> Self {
        Self(Arc::new(Inner { token, is_bound_to_key: false }))
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
    pub(in crate::verifier) fn new(tokens: &Tokens, now: DateTime<Utc>) -> Self {
        let told =
            tokens.access_expire_time.as_ref().and_then(|time| DateTime::from_timestamp(time.seconds, 0));
        let life = told.map_or(SHORTEST_LIFE, |end| end - now).max(SHORTEST_LIFE);
        let share = RENEW_AFTER + RENEW_WITHIN * fastrand::f64();
        let renew_after = TimeDelta::milliseconds((life.num_milliseconds() as f64 * share) as i64);
        Self {
            token: AccessToken(Arc::new(Inner {
                token: tokens.access_token.clone().into(),
                is_bound_to_key: tokens.token_type.eq_ignore_ascii_case("dpop"),
            })),
            renew_time: now + renew_after,
            expire_time: now + life,
        }
    }
}
