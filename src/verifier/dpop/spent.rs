//! Proofs that were used, until they are too old to be used again.

use std::{
    collections::{BTreeMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::NotTaken;

/// Parts that lock by themselves.
const PARTS: usize = 16;

type Id = [u8; 16];

/// A bounded number of them.
#[derive(Debug)]
pub(super) struct Spent {
    parts: [Mutex<Part>; PARTS],
    /// In each part.
    most: usize,
    /// Nobody can choose ids that all fall into one part.
    chooser: RandomState,
}

#[derive(Debug)]
struct Part {
    ids: HashSet<Id>,
    /// By the last second of their lives.
    by_end: BTreeMap<i64, Vec<Id>>,
    /// Of those that are not there any more, the last second that one of them had to live: a clock that goes back makes
    /// none of them good again.
    forgotten: i64,
}

impl Default for Part {
    fn default() -> Self {
        Self { ids: HashSet::new(), by_end: BTreeMap::new(), forgotten: i64::MIN }
    }
}

impl Part {
    fn forget(&mut self, now: i64) {
        while let Some(oldest) = self.by_end.first_entry().filter(|oldest| *oldest.key() < now) {
            self.forgotten = self.forgotten.max(*oldest.key());
            for id in oldest.remove() {
                self.ids.remove(&id);
            }
        }
    }
}

impl Spent {
    pub(super) fn up_to(proofs: usize) -> Self {
        let parts = std::array::from_fn(|_| Mutex::default());
        Self { parts, most: proofs.div_ceil(PARTS), chooser: RandomState::new() }
    }

    /// Remembers an id up to the second `end`.
    pub(super) fn take(&self, id: Id, end: i64, now: i64) -> Result<(), NotTaken> {
        let most = self.most;
        let mut part = self.part(id);
        part.forget(now);
        if end <= part.forgotten || part.ids.contains(&id) {
            return Err(NotTaken::Again);
        }
        if part.ids.len() >= most {
            return Err(NotTaken::Full);
        }
        part.ids.insert(id);
        part.by_end.entry(end).or_default().push(id);
        Ok(())
    }

    /// How many are left. Without this, a part that nobody uses keeps what it has.
    pub(super) fn len(&self, now: i64) -> usize {
        let left = |part: &Mutex<Part>| {
            let mut part = lock(part);
            part.forget(now);
            part.ids.len()
        };
        self.parts.iter().map(left).sum()
    }

    fn part(&self, id: Id) -> MutexGuard<'_, Part> {
        lock(&self.parts[self.chooser.hash_one(id) as usize % PARTS])
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u128) -> Id {
        number.to_be_bytes()
    }

    #[test]
    fn each_is_taken_once_while_it_lives() {
        let spent = Spent::up_to(100);
        assert_eq!(spent.take(id(1), 90, 0), Ok(()));
        assert_eq!(spent.take(id(1), 90, 90), Err(NotTaken::Again));
        assert_eq!(spent.take(id(2), 90, 0), Ok(()));
        assert_eq!(spent.len(90), 2);
        // Its time is over, and whoever asks about it is told the same when the clock goes back.
        assert_eq!(spent.take(id(1), 90, 91), Err(NotTaken::Again));
        assert_eq!(spent.take(id(1), 90, 10), Err(NotTaken::Again));
        assert_eq!(spent.len(91), 0);
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_shuts_nobody_out() {
        let spent = Spent::up_to(10_000);
        assert_eq!(spent.take(id(0), 90, 0), Ok(()));
        assert_eq!(spent.len(9000), 0);
        assert_eq!(spent.take(id(0), 90, 10), Err(NotTaken::Again));
        assert!((1..100).all(|number| spent.take(id(number), 100, 10).is_ok()), "these were never there");
    }

    #[test]
    fn none_is_forgotten_for_another_one() {
        let spent = Spent::up_to(PARTS * 4);
        let taken: Vec<_> = (0..10_000).filter(|number| spent.take(id(*number), 90, 0).is_ok()).collect();
        assert_eq!((taken.len(), spent.len(0)), (PARTS * 4, PARTS * 4));
        let again = |number: &u128| spent.take(id(*number), 90, 90) == Err(NotTaken::Again);
        assert!(taken.iter().all(again));
        assert_eq!(spent.take(id(10_000), 180, 90), Err(NotTaken::Full));
        assert_eq!(spent.take(id(10_000), 180, 91), Ok(()));
    }
}
