//! Proofs that were used, until they are too old to be used again.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::NotTaken;

/// Parts that lock by themselves. What one key proved is in one of them.
const PARTS: usize = 16;
/// The share of one key once half of the room is taken: a client that calls too often shuts out itself first. Whoever makes many
/// keys still can all others.
const SHARE: usize = 20;

type Id = [u8; 16];

/// A bounded number of them.
#[derive(Debug)]
pub(super) struct Spent {
    parts: [Mutex<Part>; PARTS],
    /// How many are in all parts.
    count: AtomicUsize,
    most: usize,
    most_of_key: usize,
    /// Nobody can choose keys that all fall into one part.
    chooser: RandomState,
}

#[derive(Debug)]
struct Part {
    ids: HashSet<Id>,
    /// With the keys, by the last second of their lives.
    by_end: BTreeMap<i64, Vec<(Id, u64)>>,
    of_key: HashMap<u64, usize>,
    /// Of those that are not there any more, the last second that one of them had to live: a clock that goes back makes
    /// none of them good again.
    forgotten: i64,
}

impl Default for Part {
    fn default() -> Self {
        Self { ids: HashSet::new(), by_end: BTreeMap::new(), of_key: HashMap::new(), forgotten: i64::MIN }
    }
}

impl Part {
    /// Forgets what is too old; gives how many.
    fn forget(&mut self, now: i64) -> usize {
        let mut count = 0;
        while let Some(oldest) = self.by_end.first_entry().filter(|oldest| *oldest.key() < now) {
            self.forgotten = self.forgotten.max(*oldest.key());
            for (id, key) in oldest.remove() {
                self.ids.remove(&id);
                match self.of_key.get_mut(&key) {
                    Some(left) if *left > 1 => *left -= 1,
                    _ => drop(self.of_key.remove(&key)),
                }
                count += 1;
            }
        }
        count
    }

    fn count_of(&self, key: u64) -> usize {
        self.of_key.get(&key).copied().unwrap_or_default()
    }
}

impl Spent {
    pub(super) fn up_to(proofs: usize) -> Self {
        let parts = std::array::from_fn(|_| Mutex::default());
        let most_of_key = proofs.div_ceil(SHARE);
        Self { parts, count: AtomicUsize::new(0), most: proofs, most_of_key, chooser: RandomState::new() }
    }

    /// Remembers an id of this key up to the second `end`.
    pub(super) fn take(&self, key: &str, id: Id, end: i64, now: i64) -> Result<(), NotTaken> {
        let is_full = || self.count.load(Ordering::Relaxed) >= self.most;
        if is_full() {
            // What is too old in other parts makes room.
            self.len(now);
        }
        let key = self.chooser.hash_one(key);
        let mut part = lock(&self.parts[key as usize % PARTS]);
        self.forget(&mut part, now);
        if end <= part.forgotten || part.ids.contains(&id) {
            return Err(NotTaken::Again);
        }
        let is_scarce = self.count.load(Ordering::Relaxed) * 2 >= self.most;
        if is_full() || is_scarce && part.count_of(key) >= self.most_of_key {
            return Err(NotTaken::Full);
        }
        part.ids.insert(id);
        part.by_end.entry(end).or_default().push((id, key));
        *part.of_key.entry(key).or_default() += 1;
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// How many are left. Without this, a part that nobody uses keeps what it has.
    pub(super) fn len(&self, now: i64) -> usize {
        let left = |part: &Mutex<Part>| {
            let mut part = lock(part);
            self.forget(&mut part, now);
            part.ids.len()
        };
        self.parts.iter().map(left).sum()
    }

    fn forget(&self, part: &mut Part, now: i64) {
        self.count.fetch_sub(part.forget(now), Ordering::Relaxed);
    }
}

fn lock(part: &Mutex<Part>) -> MutexGuard<'_, Part> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(spent: &Spent, number: u128, end: i64, now: i64) -> Result<(), NotTaken> {
        spent.take(&number.to_string(), number.to_be_bytes(), end, now)
    }

    #[test]
    fn each_is_taken_once_while_it_lives() {
        let spent = Spent::up_to(100);
        assert_eq!(take(&spent, 1, 90, 0), Ok(()));
        assert_eq!(take(&spent, 1, 90, 90), Err(NotTaken::Again));
        assert_eq!(take(&spent, 2, 90, 0), Ok(()));
        assert_eq!(spent.len(90), 2);
        // Its time is over, and whoever asks about it is told the same when the clock goes back.
        assert_eq!(take(&spent, 1, 90, 91), Err(NotTaken::Again));
        assert_eq!(take(&spent, 1, 90, 10), Err(NotTaken::Again));
        assert_eq!(spent.len(91), 0);
    }

    #[test]
    fn a_clock_that_was_ahead_for_a_while_shuts_nobody_out() {
        let spent = Spent::up_to(10_000);
        assert_eq!(take(&spent, 0, 90, 0), Ok(()));
        assert_eq!(spent.len(9000), 0);
        assert_eq!(take(&spent, 0, 90, 10), Err(NotTaken::Again));
        assert!((1..100).all(|number| take(&spent, number, 100, 10).is_ok()), "these were never there");
    }

    #[test]
    fn none_is_forgotten_for_another_one() {
        let spent = Spent::up_to(64);
        let taken: Vec<_> = (0..10_000).filter(|number| take(&spent, *number, 90, 0).is_ok()).collect();
        assert_eq!((taken.len(), spent.len(0)), (64, 64));
        let again = |number: &u128| take(&spent, *number, 90, 90) == Err(NotTaken::Again);
        assert!(taken.iter().all(again));
        assert_eq!(take(&spent, 10_000, 180, 90), Err(NotTaken::Full));
        assert_eq!(take(&spent, 10_000, 180, 91), Ok(()));
        assert_eq!(spent.len(91), 1);
    }

    #[test]
    fn one_key_has_its_share() {
        let spent = Spent::up_to(200);
        let take = |key: &str, number: u128, now| spent.take(key, number.to_be_bytes(), now + 90, now);
        assert_eq!((0..200).filter(|number| take("a", *number, 0).is_ok()).count(), 100, "half of the room");
        assert_eq!((1000..1100).filter(|number| take("b", *number, 0).is_ok()).count(), 10);
        assert_eq!((take("a", 200, 90), take("c", 200, 90)), (Err(NotTaken::Full), Ok(())));
        assert!((201..280).all(|number| take("a", number, 91).is_ok()), "there is room for as many again");
    }
}
