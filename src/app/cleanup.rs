//! Removes what nobody needs any more: sessions that are over, entries of the trust log that concern nothing alive,
//! old events of the audit trail, assertions that can't be used again.
//!
//! Every replica does it, a small batch in a transaction, and passes over what another one works on. A batch that is
//! interrupted is rolled back or done; the next round, here or elsewhere, goes on from there.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{App, Error};
use crate::{
    crypto::random::first_id_of,
    models::{audit_events, old_sessions, trust_log, used_assertions},
};

/// Rows of one transaction: few, so that a login waits for milliseconds.
const BATCH: i64 = 500;
/// Batches of sessions that one round goes through in search of those that expired.
const SCANNED: u32 = 40;

/// For how long what is over is kept, and how often it is looked for.
#[derive(Debug, Clone)]
pub struct CleanupSettings {
    /// The time between two rounds.
    pub interval: Duration,
    /// How long a session is kept after its end.
    pub keep_ended: TimeDelta,
    /// How long an event of the audit trail is kept; `None` keeps it for ever.
    pub keep_events: Option<TimeDelta>,
}

/// What grows.
#[derive(Debug, Clone, Copy)]
enum Heap {
    /// Sessions that were ended.
    Ended,
    /// Sessions that nobody refreshed and nobody ended.
    Expired,
    TrustLog,
    AuditTrail,
    /// Of what is good once, what was used and has expired.
    Assertions,
}

/// A round through the heaps.
#[derive(Default)]
struct Round {
    sessions: usize,
    session_keys: usize,
    trust_log: usize,
    audit_events: usize,
    assertions: usize,
    scanned: u32,
}

/// Goes round again and again until the server stops.
pub async fn keep_clean(app: &App, stop: CancellationToken) {
    let mut cursor = Uuid::nil();
    loop {
        let round = async {
            sleep(app.cleanup_pause()).await;
            let mut round = Round::default();
            round.run(app, &mut cursor).await;
            round.tell();
            app.metrics.count_cleanup_round();
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = round => {}
        }
    }
}

impl App {
    /// Replicas that were started together need not clean together.
    fn cleanup_pause(&self) -> Duration {
        let interval = self.settings.cleanup.interval;
        let share =
            self.rng.bytes().map_or(0.5, |bytes: [u8; 2]| f64::from(u16::from_be_bytes(bytes)) / 65536.0);
        interval / 2 + interval.mul_f64(share)
    }
}

impl Round {
    /// A batch of each heap in turn, until none has more.
    async fn run(&mut self, app: &App, cursor: &mut Uuid) {
        let mut heaps = vec![Heap::Ended, Heap::Expired, Heap::TrustLog, Heap::AuditTrail, Heap::Assertions];
        while !heaps.is_empty() {
            let mut unfinished = Vec::new();
            for heap in heaps {
                let begun = Instant::now();
                match self.clean(app, heap, cursor).await {
                    Ok(true) => unfinished.push(heap),
                    // Nothing is lost when another transaction came first: there is a next round.
                    Ok(false) | Err(Error::Conflict) => {}
                    Err(error) => {
                        app.metrics.count_cleanup_failure();
                        tracing::error!(%error, ?heap, "can't remove what is over");
                    }
                }
                // The database is left to others for as long as it was used.
                sleep(begun.elapsed()).await;
            }
            heaps = unfinished;
        }
    }

    /// One batch; says whether there is more.
    async fn clean(&mut self, app: &App, heap: Heap, cursor: &mut Uuid) -> Result<bool, Error> {
        let settings = &app.settings.cleanup;
        let now = app.now();
        match heap {
            Heap::Ended => self.clean_ended(app, now - settings.keep_ended).await,
            Heap::Expired => self.clean_expired(app, now - settings.keep_ended, cursor).await,
            // The clocks of those who read it may be late.
            Heap::TrustLog => self.clean_trust_log(app, now - app.settings.leeway).await,
            Heap::AuditTrail => match settings.keep_events {
                Some(keep) => self.clean_audit_trail(app, now - keep).await,
                None => Ok(false),
            },
            Heap::Assertions => self.clean_assertions(app, now).await,
        }
    }

    async fn clean_ended(&mut self, app: &App, time: DateTime<Utc>) -> Result<bool, Error> {
        let find = async move |conn: &mut _| old_sessions::ended_by(conn, time, BATCH).await;
        let ids = app.store.read(find).await?;
        let is_full = is_full(&ids);
        Ok(self.remove_sessions(app, ids, time).await? > 0 && is_full)
    }

    /// Goes on where the last round of this replica stopped, and begins anew where the sessions begin that are
    /// too young to be over for so long.
    async fn clean_expired(
        &mut self,
        app: &App,
        time: DateTime<Utc>,
        cursor: &mut Uuid,
    ) -> Result<bool, Error> {
        let (after, before) = (*cursor, first_id_of(time));
        let find = async move |conn: &mut _| old_sessions::expired_by(conn, time, after, before, BATCH).await;
        let page = app.store.read(find).await?;
        self.remove_sessions(app, page.expired, time).await?;
        *cursor = page.next.unwrap_or_default();
        self.scanned += 1;
        Ok(page.next.is_some() && self.scanned < SCANNED)
    }

    async fn remove_sessions(
        &mut self,
        app: &App,
        ids: Vec<Uuid>,
        time: DateTime<Utc>,
    ) -> Result<usize, Error> {
        if ids.is_empty() {
            return Ok(0);
        }
        let removing =
            app.store.tx(async move |conn| Ok::<_, Error>(old_sessions::remove(conn, &ids, time).await?));
        let removed = removing.await?;
        app.metrics.count_cleaned("sessions", removed.sessions);
        app.metrics.count_cleaned("session_keys", removed.keys);
        self.sessions += removed.sessions;
        self.session_keys += removed.keys;
        Ok(removed.sessions)
    }

    async fn clean_trust_log(&mut self, app: &App, time: DateTime<Utc>) -> Result<bool, Error> {
        let find = async move |conn: &mut _| trust_log::expired_by(conn, time, BATCH).await;
        let revisions = app.store.read(find).await?;
        if revisions.is_empty() {
            return Ok(false);
        }
        let is_full = is_full(&revisions);
        let removing =
            app.store.tx(async move |conn| Ok::<_, Error>(trust_log::remove(conn, &revisions).await?));
        let removed = removing.await?;
        app.metrics.count_cleaned("trust_log", removed);
        self.trust_log += removed;
        Ok(removed > 0 && is_full)
    }

    async fn clean_audit_trail(&mut self, app: &App, time: DateTime<Utc>) -> Result<bool, Error> {
        let find = async move |conn: &mut _| audit_events::before(conn, time, BATCH).await;
        let ids = app.store.read(find).await?;
        if ids.is_empty() {
            return Ok(false);
        }
        let is_full = is_full(&ids);
        let removing = app
            .store
            .tx(async move |conn| Ok::<_, Error>(audit_events::remove_before(conn, time, &ids).await?));
        let removed = removing.await?;
        app.metrics.count_cleaned("audit_events", removed);
        self.audit_events += removed;
        Ok(removed > 0 && is_full)
    }

    async fn clean_assertions(&mut self, app: &App, time: DateTime<Utc>) -> Result<bool, Error> {
        let find = async move |conn: &mut _| used_assertions::expired_by(conn, time, BATCH).await;
        let digests = app.store.read(find).await?;
        if digests.is_empty() {
            return Ok(false);
        }
        let is_full = is_full(&digests);
        let removing =
            app.store.tx(async move |conn| Ok::<_, Error>(used_assertions::remove(conn, &digests).await?));
        let removed = removing.await?;
        app.metrics.count_cleaned("used_assertions", removed);
        self.assertions += removed;
        Ok(removed > 0 && is_full)
    }

    fn tell(&self) {
        let Self { sessions, session_keys, trust_log, audit_events, assertions, .. } = self;
        if sessions + session_keys + trust_log + audit_events + assertions > 0 {
            tracing::info!(
                sessions,
                session_keys,
                trust_log,
                audit_events,
                assertions,
                "removed what was over"
            );
        }
    }
}

fn is_full<T>(found: &[T]) -> bool {
    i64::try_from(found.len()).is_ok_and(|count| count == BATCH)
}
