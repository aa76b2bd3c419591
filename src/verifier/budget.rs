//! How often something may be done.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many at once, and so many more with time.
pub(crate) struct Budget {
    most: f64,
    per_second: f64,
    left: Mutex<(f64, Instant)>,
}

impl Budget {
    /// `most` at once, and another one after each `every`.
    pub(crate) fn new(most: u32, every: Duration) -> Self {
        let most = f64::from(most);
        let per_second = every.as_secs_f64().recip();
        Self { most, per_second, left: Mutex::new((most, Instant::now())) }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&self, now: Instant) -> bool {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let earned = now.saturating_duration_since(left.1).as_secs_f64() * self.per_second;
        let have = (left.0 + earned).min(self.most);
        let is_enough = have >= 1.0;
        *left = (if is_enough { have - 1.0 } else { have }, now.max(left.1));
        is_enough
    }
}

/// Longer and longer waits between attempts, each by chance shorter than it could be, so that many clients of one
/// server don't come back as one.
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);

    /// From 100 ms on, doubling up to `longest`.
    pub(super) fn up_to(longest: Duration) -> Self {
        Self { next: Self::FIRST, longest }
    }

    /// How long to wait now: between half of the whole wait and all of it.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + fastrand::f64() / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_spent_and_earned_again() {
        let budget = Budget::new(2, Duration::from_millis(100));
        let at = |millis| Instant::now() + Duration::from_millis(millis);
        assert!(budget.take_at(at(0)) && budget.take_at(at(0)));
        assert!(!budget.take_at(at(50)));
        assert!(budget.take_at(at(150)));
        assert!(!budget.take_at(at(150)));
        // However long nothing was asked, no more than the most.
        assert!(budget.take_at(at(60_000)) && budget.take_at(at(60_000)));
        assert!(!budget.take_at(at(60_000)));
    }

    #[test]
    fn waits_grow_to_their_limit() {
        let mut backoff = Backoff::up_to(Duration::from_secs(1));
        for whole in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.wait();
            let whole = Duration::from_millis(whole);
            assert!((whole / 2..=whole).contains(&wait), "{wait:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Backoff::FIRST);
    }
}
