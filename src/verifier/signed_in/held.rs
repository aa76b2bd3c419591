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
pub struct AccessToken(Arc<SecretString>);

impl From<SecretString> for AccessToken {
    fn from(token: SecretString) -> Self {
        Self(Arc::new(token))
    }
}

impl AccessToken {
    /// The token itself, as it follows `Bearer `.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The value of the header `authorization`, marked as a secret: it enters no log and no compression table.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", self.expose())).ok()?;
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
pub(super) struct Held {
    pub(super) token: AccessToken,
    /// From then on it is renewed, while it is still used.
    pub(super) renew_time: DateTime<Utc>,
    pub(super) expire_time: DateTime<Utc>,
}

impl Held {
    pub(super) fn new(tokens: &Tokens, now: DateTime<Utc>) -> Self {
        let told =
            tokens.access_expire_time.as_ref().and_then(|time| DateTime::from_timestamp(time.seconds, 0));
        let life = told.map_or(SHORTEST_LIFE, |end| end - now).max(SHORTEST_LIFE);
        let share = RENEW_AFTER + RENEW_WITHIN * fastrand::f64();
        let renew_after = TimeDelta::milliseconds((life.num_milliseconds() as f64 * share) as i64);
        Self {
            token: SecretString::from(tokens.access_token.clone()).into(),
            renew_time: now + renew_after,
            expire_time: now + life,
        }
    }
}
