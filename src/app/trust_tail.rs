//! Follows the trust log: what other replicas revoked is revoked here as soon as they say so, and at the latest
//! within the poll interval; then everyone who follows this server is told.

use std::time::Instant;

use tokio::{
    sync::watch,
    time::{self, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    App, Error,
    trust_feed::{Attempt, Place},
};
use crate::{
    domain::trust::TrustChange,
    models::trust_log::{self, Entry},
};

/// Entries that are read at once.
const BATCH: i64 = 1000;

impl App {
    /// Admits everything of the log that this server hasn't seen and that still matters, and tells of it.
    pub(super) async fn catch_up(&self) -> Result<(), Error> {
        let asked = Instant::now();
        let seen = self.feed.place();
        let (at, services) = (seen.revision, self.services.count());
        // Every entry up to the head is there, since revisions follow the order of commits.
        let (head, at_seen) =
            self.store.read(async move |conn| trust_log::head_and_at(conn, at).await).await?;
        if went_back(&seen, head.revision, at_seen.as_ref()) {
            tracing::error!(head = head.revision, seen = at, "the trust log went back; it is read anew");
            self.verifier.trust().rewind();
            self.services.clear();
            self.reload_keys().await?;
            self.feed.begin_anew(Place::default());
        }
        while self.feed.place().revision < head.revision {
            self.read_on(head.revision).await?;
        }
        self.feed.confirm(asked);
        self.services.follow(services, head.services);
        // Last: whatever is wrong with what is registered, revocations are heard.
        self.follow_registry(head.registry).await?;
        self.keys.confirm(asked);
        Ok(())
    }

    /// Takes in the next entries up to `head`.
    async fn read_on(&self, head: i64) -> Result<(), Error> {
        let (after, now) = (self.feed.place().revision, self.now());
        let entries =
            self.store.read(async move |conn| trust_log::after(conn, after, now, BATCH).await).await?;
        entries.iter().for_each(|entry| self.take_in(entry));
        if entries.iter().any(|entry| matches!(entry.change, Some(TrustChange::IssuerKey(_)))) {
            // Nobody may take this place to include the keys before it does.
            self.reload_keys().await.inspect_err(|_| self.feed.tell_ahead(&entries))?;
        }
        let is_all = i64::try_from(entries.len()).is_ok_and(|count| count < BATCH);
        let reached = match entries.last().map(Place::of) {
            Some(last) if !is_all || last.revision >= head => last,
            // What lies between concerns nothing alive.
            _ => Place { revision: head, mark: String::new() },
        };
        self.verifier.trust().reached(reached.revision);
        self.feed.tell(&entries, reached);
        Ok(())
    }

    /// An entry that a newer release wrote is passed over: stopping at it would miss all that follow.
    fn take_in(&self, entry: &Entry) {
        match &entry.change {
            Some(TrustChange::Revoked(revocation)) => {
                self.verifier.trust().admit(revocation, entry.expire_time, self.clock.uptime());
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

/// Whether the log is not the one that was read, as after the database was restored from a backup: it is shorter, or
/// has another entry where one was read. An entry that has died may be gone.
fn went_back(seen: &Place, head: i64, at_seen: Option<&Entry>) -> bool {
    let is_another = at_seen.is_some_and(|entry| !seen.mark.is_empty() && Place::of(entry) != *seen);
    head < seen.revision || is_another
}

/// Catches up again and again until the server stops, and tells `can_sign` whether tokens can be signed.
pub async fn follow(app: &App, can_sign: watch::Sender<bool>, stop: CancellationToken) {
    let mut ticks = interval(app.settings.key_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.feed.grown() => {}
            _ = ticks.tick() => {
                app.verifier.trust().prune(app.now(), app.clock.uptime());
                app.feed.rest();
            }
        }
        let begun = time::Instant::now();
        let caught_up = app.catch_up().await;
        app.feed.attempted(Attempt { begun, is_good: caught_up.is_ok() });
        if let Err(error) = caught_up {
            app.metrics.count_tail_failure();
            tracing::error!(%error, "can't catch up with the trust log; what other replicas change may not be seen");
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

/// Hears when other replicas append to the log, and tells them when this one does, until the server stops, and then
/// once more what nobody was told yet. Nothing but haste depends on it: what is missed is read at the next poll.
pub async fn hear_others(app: &App, stop: CancellationToken) {
    if !app.settings.listen_notify || !app.store.can_listen() {
        return;
    }
    let feed = app.feed.clone();
    let heard = move || feed.wake();
    loop {
        let Err(error) = app.store.listen(&heard, app.feed.to_announce(), &stop).await else { return };
        if stop.is_cancelled() {
            return;
        }
        tracing::warn!(%error, "can't hear other replicas; their revocations are seen when the log is polled");
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(app.settings.poll_interval) => {}
        }
    }
}
