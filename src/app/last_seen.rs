//! Notes when and where a session was last seen, without keeping the call that shows it waiting.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::TimeDelta;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{App, Caller};
use crate::{
    domain::{audit::Origin, session::Seen},
    models::sessions,
};

/// How often it is written for one session.
const EVERY: TimeDelta = TimeDelta::minutes(1);
/// Sessions that are remembered, about half a MiB of them. One that was forgotten is written once too often at most,
/// and the statement sees to that.
const REMEMBERED: usize = 8192;
/// Writes at the same time. Where there are more to do, they are left to the sessions' next calls.
const WRITERS: usize = 2;

/// When sessions were last seen.
pub(super) struct LastSeen {
    /// The time of each in microseconds, as far as it is known here.
    times: Cache<Uuid, Arc<AtomicI64>>,
    writers: Arc<Semaphore>,
}

impl Default for LastSeen {
    fn default() -> Self {
        Self { times: Cache::new(REMEMBERED), writers: Arc::new(Semaphore::new(WRITERS)) }
    }
}

impl LastSeen {
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// When this session was seen, as far as it is known: at the latest when the caller's token was made.
    fn time_of(&self, caller: &Caller) -> Arc<AtomicI64> {
        let made = || Ok::<_, std::convert::Infallible>(Arc::new(AtomicI64::new(caller.issue_time_micros)));
        match self.times.get_or_insert_with(&caller.session_id, made) {
            Ok(time) => time,
            Err(never) => match never {},
        }
    }
}

impl App {
    /// The caller's session is alive. A database that is away harms nobody but the note.
    pub fn note_seen(&self, caller: &Caller, origin: &Origin) {
        let now = self.now();
        let micros = now.timestamp_micros();
        let time = self.last_seen.time_of(caller);
        let before = time.load(Ordering::Relaxed);
        let is_due = micros.saturating_sub(before) >= EVERY.num_microseconds().unwrap_or(i64::MAX);
        if !is_due {
            return;
        }
        let Ok(writer) = self.last_seen.writers.clone().try_acquire_owned() else { return };
        // Of many calls at once, one writes.
        if time.compare_exchange(before, micros, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let (store, id) = (self.store.clone(), caller.session_id);
        let seen = Seen { time: now, address: origin.address.clone() };
        tokio::spawn(async move {
            let _writer = writer;
            let (seen, unless_since) = (&seen, now - EVERY);
            let written = store.write(async |conn| sessions::see(conn, id, seen, unless_since).await).await;
            if let Err(error) = written {
                tracing::debug!(session_id = %id, %error, "can't note that a session was seen");
            }
        });
    }
}
