//! Places for those who follow: so many in all, and so many for one holder, so that nobody takes those of others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Error;

/// The places.
pub(super) struct Places<K> {
    most: usize,
    most_each: usize,
    taken: Mutex<Taken<K>>,
}

struct Taken<K> {
    all: usize,
    each: HashMap<K, usize>,
}

/// One of them, until it is dropped.
pub(super) struct Admitted<K: Eq + Hash> {
    places: Arc<Places<K>>,
    holder: K,
}

impl<K: Eq + Hash + Clone> Places<K> {
    pub(super) fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self { most, most_each, taken: Mutex::new(Taken { all: 0, each: HashMap::new() }) })
    }

    /// Takes one for this holder.
    pub(super) fn admit(self: &Arc<Self>, holder: K) -> Result<Admitted<K>, Error> {
        let mut taken = self.taken();
        let held = taken.each.get(&holder).copied().unwrap_or_default();
        if taken.all >= self.most || held >= self.most_each {
            return Err(Error::TooManyWatchers);
        }
        taken.all += 1;
        taken.each.insert(holder.clone(), held + 1);
        Ok(Admitted { places: self.clone(), holder })
    }
}

impl<K> Places<K> {
    /// How many are taken.
    pub(super) fn count(&self) -> usize {
        self.taken().all
    }

    // A panic elsewhere leaves it whole: nothing in between can panic.
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Admitted<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(held) = taken.each.get_mut(&self.holder) {
            *held -= 1;
            if *held == 0 {
                taken.each.remove(&self.holder);
            }
        }
    }
}
