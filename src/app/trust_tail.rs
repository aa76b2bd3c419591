//! Follows the trust log: what other replicas revoked is revoked here within the poll interval.

use std::time::Instant;

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::{
    domain::trust::TrustChange,
    models::trust_log::{self, Entry},
};

/// Entries that are read at once.
const BATCH: i64 = 1000;

impl App {
    /// Admits everything of the log that this server hasn't seen and that still matters.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        let trust = self.verifier.trust();
        let asked = Instant::now();
        // Asked first: every entry up to the head is there, since revisions follow the order of commits.
        let head = self.store.read(async |conn| trust_log::head(conn).await).await?;
        self.follow_registry(head.registry).await?;
        let head = head.revision;
        if head < trust.revision() {
            tracing::error!(head, seen = trust.revision(), "the trust log went back; it is read anew");
            trust.rewind();
            self.reload_keys().await?;
        }
        let now = self.now();
        while trust.revision() < head {
            let revision = trust.revision();
            let entries =
                self.store.read(async move |conn| trust_log::after(conn, revision, now, BATCH).await).await?;
            entries.iter().for_each(|entry| self.take_in(entry));
            if entries.iter().any(|entry| matches!(entry.change, Some(TrustChange::IssuerKey(_)))) {
                self.reload_keys().await?;
            }
            let is_all = i64::try_from(entries.len()).is_ok_and(|count| count < BATCH);
            let last = entries.last().map_or(head, |last| last.revision);
            trust.reached(if is_all { last.max(head) } else { last });
        }
        trust.prune(now);
        self.keys.confirm(asked);
        Ok(())
    }

    /// An entry that a newer release wrote is passed over: stopping at it would miss all that follow.
    fn take_in(&self, entry: &Entry) {
        match &entry.change {
            Some(TrustChange::Revoked(revocation)) => {
                self.verifier.trust().admit(revocation, entry.expire_time);
            }
            // The keys are read anew once for all such entries.
            Some(TrustChange::IssuerKey(_)) => {}
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

/// Catches up again and again until the server stops, and tells `can_sign` whether tokens can be signed.
pub async fn follow(app: &App, can_sign: watch::Sender<bool>, stop: CancellationToken) {
    let mut ticks = interval(app.settings.key_interval());
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
        let signing = app.check_signing();
        can_sign.send_if_modified(|can_sign| {
            let was_able = std::mem::replace(can_sign, signing.is_ok());
            match &signing {
                Err(error) if was_able => tracing::error!(%error, "no token is signed any more"),
                Ok(()) if !was_able => tracing::info!("tokens are signed again"),
                _ => {}
            }
            was_able != *can_sign
        });
    }
}
