//! Clocks that the test turns.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tessera::clock::{Clock, SystemClock};

/// Stands still until it is turned: so much time passes then.
pub struct TestClock(Mutex<DateTime<Utc>>);

/// What it shows first.
fn beginning() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_500)
}

impl Default for TestClock {
    fn default() -> Self {
        Self(Mutex::new(beginning()))
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

    fn uptime(&self) -> Duration {
        (self.now() - beginning()).to_std().unwrap_or_default()
    }
}

/// The machine's clock, set wrong by as much as the test wants.
#[derive(Default)]
pub struct ShiftedClock(AtomicI64);

impl ShiftedClock {
    /// Sets it so many seconds before or behind the machine's.
    pub fn shift(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now() + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }
}
