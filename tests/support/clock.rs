//! A clock that the test turns.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use tessera::clock::Clock;

/// Stands still until it is turned.
pub struct TestClock(Mutex<DateTime<Utc>>);

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new(DateTime::UNIX_EPOCH + TimeDelta::days(20_500)))
    }
}

impl TestClock {
    /// Turns it forward.
    pub fn advance(&self, seconds: i64) {
        *self.0.lock().unwrap() += TimeDelta::seconds(seconds);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap()
    }
}
