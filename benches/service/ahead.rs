//! What is made before it is measured, on all processors.

use std::thread;

use super::{Outcome, bare::all_processors};

/// Makes so many, by their numbers and in their order.
pub fn make<T: Send>(count: usize, make: impl Fn(usize) -> Outcome<T> + Sync) -> Outcome<Vec<T>> {
    let share = count.div_ceil(all_processors());
    let (make, mut all) = (&make, Vec::with_capacity(count));
    thread::scope(|scope| {
        let made_by = |number: usize| {
            let mine = number * share..count.min((number + 1) * share);
            let made = mine.map(move |number| make(number).map_err(|error| error.to_string()));
            scope.spawn(move || made.collect::<Result<Vec<T>, String>>())
        };
        let running: Vec<_> = (0..all_processors()).map(made_by).collect();
        for thread in running {
            all.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        Ok(all)
    })
}
