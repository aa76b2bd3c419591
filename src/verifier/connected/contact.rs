//! When the issuer was last heard of.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::watch;

use crate::clock::Clock;

/// When a state was the issuer's of which nobody knows when.
const LONG_AGO: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// Whether the issuer is heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not yet: the first attempts are under way.
    Waiting,
    /// Yes, and what is known is what the issuer knows.
    Connected,
    /// Not any more, or not yet though it was tried.
    Disconnected,
}

/// An instant at which the state known here was the issuer's.
#[derive(Clone, Copy)]
struct AsOf {
    time: DateTime<Utc>,
    /// When that was learned, and how old it was then.
    learned: Instant,
    age: Duration,
}

/// What is known of the connection.
pub(super) struct Contact {
    clock: Arc<dyn Clock>,
    as_of: RwLock<Option<AsOf>>,
    standing: watch::Sender<Standing>,
}

impl Contact {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, as_of: RwLock::default(), standing: watch::Sender::new(Standing::Waiting) }
    }

    /// The issuer told its state, which it had known for `age`.
    pub(super) fn heard(&self, age: Duration) {
        let ago = TimeDelta::from_std(age).ok();
        let time = ago.and_then(|ago| self.clock.now().checked_sub_signed(ago)).unwrap_or(LONG_AGO);
        self.set(AsOf { time, learned: Instant::now(), age });
        let was = self.standing.send_replace(Standing::Connected);
        if was != Standing::Connected {
            tracing::info!("hears the issuer");
        }
    }

    /// The issuer is not heard any more. Gives whether it was until now.
    pub(super) fn lost(&self, why: &dyn std::fmt::Display) -> bool {
        let was = self.standing.send_replace(Standing::Disconnected);
        if was == Standing::Disconnected {
            tracing::debug!(%why, "the issuer is still not heard");
        } else {
            tracing::warn!(%why, "the issuer is not heard any more");
        }
        was == Standing::Connected
    }

    /// The state is one that was the issuer's at that time, as a file tells. A time that has not come was told by a
    /// clock that was wrong, and says nothing: the state may be as old as can be.
    pub(super) fn remembered(&self, time: DateTime<Utc>, leeway: TimeDelta) {
        let now = self.clock.now();
        let time = if time > now + leeway { LONG_AGO } else { time };
        let age = (now - time).to_std().unwrap_or_default();
        self.set(AsOf { time, learned: Instant::now(), age });
    }

    fn set(&self, as_of: AsOf) {
        *self.as_of.write().unwrap_or_else(PoisonError::into_inner) = Some(as_of);
    }

    fn get(&self) -> Option<AsOf> {
        *self.as_of.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the state known here was the issuer's.
    pub(super) fn as_of(&self) -> Option<DateTime<Utc>> {
        self.get().map(|as_of| as_of.time)
    }

    /// How long ago that was, by the clock that says more: the wall clock may be set back, and the monotonic one
    /// stands still while the machine sleeps.
    pub(super) fn staleness(&self) -> Option<Duration> {
        let as_of = self.get()?;
        let by_wall = (self.clock.now() - as_of.time).to_std().unwrap_or_default();
        Some(by_wall.max(as_of.learned.elapsed().saturating_add(as_of.age)))
    }

    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_time_that_makes_no_sense_is_long_ago() {
        let contact = Contact::new(Arc::new(SystemClock));
        let is_old = || contact.staleness().is_some_and(|age| age > Duration::from_secs(1_000_000_000));
        contact.heard(Duration::MAX);
        assert!(is_old());
        contact.heard(Duration::ZERO);
        assert!(!is_old());
        let leeway = TimeDelta::seconds(30);
        contact.remembered(SystemClock.now() + TimeDelta::seconds(60), leeway);
        assert!(is_old(), "it has not come");
        contact.remembered(SystemClock.now() + TimeDelta::seconds(20), leeway);
        assert!(!is_old());
        contact.remembered(DateTime::<Utc>::MIN_UTC, leeway);
        assert!(is_old());
    }
}
