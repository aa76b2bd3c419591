//! Follows the trust log: what other replicas revoked is revoked here within the poll interval.

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::models::trust_log::{self, Entry};

/// Entries that are read at once.
const BATCH: i64 = 1000;

impl App {
    /// Admits everything of the log that this server hasn't seen and that still matters.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        let trust = self.verifier.trust();
        // Asked first: every entry up to the head is there, since revisions follow the order of commits.
        let head = self.store.read(async |conn| trust_log::head(conn).await).await?;
        if head < trust.revision() {
            tracing::error!(head, seen = trust.revision(), "the trust log went back; it is read anew");
            trust.rewind();
        }
        let now = self.now();
        while trust.revision() < head {
            let revision = trust.revision();
            let entries =
                self.store.read(async move |conn| trust_log::after(conn, revision, now, BATCH).await).await?;
            entries.iter().for_each(|entry| self.take_in(entry));
            let is_all = i64::try_from(entries.len()).is_ok_and(|count| count < BATCH);
            let last = entries.last().map_or(head, |last| last.revision);
            trust.reached(if is_all { last.max(head) } else { last });
        }
        trust.prune(now);
        Ok(())
    }

    /// An entry that a newer release wrote is passed over: stopping at it would miss all that follow.
    fn take_in(&self, entry: &Entry) {
        match &entry.revocation {
            Some(revocation) => self.verifier.trust().admit(revocation, entry.expire_time),
            None => {
                self.metrics.count_unknown_entry();
                tracing::error!(
                    revision = entry.revision,
                    "this release doesn't understand an entry of the trust log"
                );
            }
        }
    }
}

/// Catches up again and again until the server stops.
pub async fn follow(app: &App, stop: CancellationToken) {
    let mut ticks = interval(app.settings.poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(error) = app.catch_up().await {
            app.metrics.count_tail_failure();
            tracing::error!(%error, "can't read the trust log; revocations by other replicas are not seen");
        }
    }
}
