//! Follows the trust log: what other replicas revoked is revoked here within the poll interval.

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::models::trust_log;

/// Entries that are read at once.
const BATCH: i64 = 1000;

impl App {
    /// Admits everything that the log holds and this server hasn't seen.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        let trust = self.verifier.trust();
        loop {
            let revision = trust.revision();
            let entries = self
                .store
                .read(async move |conn| trust_log::after(conn, revision, BATCH).await)
                .await?;
            let Some(last) = entries.last() else { break };
            let reached = last.revision;
            for entry in &entries {
                trust.admit(&entry.revocation, entry.expire_time);
            }
            trust.reached(reached);
        }
        trust.prune(self.now());
        Ok(())
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
