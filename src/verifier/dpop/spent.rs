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

#[derive(Debug, Default)]
struct Part {
    ids: HashSet<Id>,
    /// By the last second of their lives.
    by_end: BTreeMap<i64, Vec<Id>>,
    /// Those whose lives ended before this are not there any more, also where a clock goes back.
    forgotten: i64,
}

impl Part {
    fn forget(&mut self, now: i64) {
        self.forgotten = self.forgotten.max(now);
        while let Some(oldest) = self.by_end.first_entry().filter(|oldest| *oldest.key() < self.forgotten) {
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
        if end < part.forgotten || part.ids.contains(&id) {
            return Err(NotTaken::Again);
        }
        if part.ids.len() >= most {
            return Err(NotTaken::Full);
        }
        part.ids.insert(id);
        part.by_end.entry(end).or_default().push(id);
        Ok(())
    }

    pub(super) fn len(&self) -> usize {
        self.parts.iter().map(|part| lock(part).ids.len()).sum()
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
        assert_eq!(spent.len(), 2);
        // Its time is over, and whoever asks about it is told the same when the clock goes back.
        assert_eq!(spent.take(id(1), 90, 91), Err(NotTaken::Again));
        assert_eq!(spent.take(id(1), 90, 10), Err(NotTaken::Again));
    }

    #[test]
    fn none_is_forgotten_for_another_one() {
        let spent = Spent::up_to(PARTS * 4);
        let taken: Vec<_> = (0..10_000).filter(|number| spent.take(id(*number), 90, 0).is_ok()).collect();
        assert_eq!((taken.len(), spent.len()), (PARTS * 4, PARTS * 4));
        let again = |number: &u128| spent.take(id(*number), 90, 90) == Err(NotTaken::Again);
        assert!(taken.iter().all(again));
        assert_eq!(spent.take(id(10_000), 180, 90), Err(NotTaken::Full));
        assert_eq!(spent.take(id(10_000), 180, 91), Ok(()));
    }
}
