//! Brings what comes to the trust log to everyone who follows it: remote verifiers, and clients that wait for the end
//! of their session. Held in memory, so that a watcher costs the database nothing.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicI64, Ordering},
    },
    time::{self, Duration},
};

use chrono::{DateTime, Utc};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use super::trust_told::{News, Place};
use super::{
    Error,
    trust_told::{Count, Snapshot, Told, revocation},
    watch_places::{Admitted, Places},
};
use crate::{domain::network::Prefixes, models::trust_log::Entry, verifier::TrustState};

/// Messages that a watcher may be behind before it gets a snapshot instead.
const BEHIND: usize = 128;
/// Clients that may wait for the end of one session.
const MOST_OF_SESSION: usize = 8;
/// Whose places are counted as one's: who has an IPv6 address has all of its network.
const ONE_HOLDER: Prefixes = Prefixes { v4: 32, v6: 64 };

/// What followers hear.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    News(Arc<News>),
    /// The log went back: what was told of it is to be told anew.
    WentBack,
}

/// What came after a count.
pub(super) struct Since {
    /// The first part of it.
    pub news: News,
    /// How many have been told with that.
    pub by: Count,
    /// What comes from then on, where that is all.
    pub heard: Option<broadcast::Receiver<Heard>>,
}

/// An attempt to read the log to its end, which is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    /// When it began.
    pub begun: Instant,
    /// It got there.
    pub is_good: bool,
}

/// The feed of one server.
pub(super) struct TrustFeed {
    told: Mutex<Told>,
    /// When the log was asked for what was told to its end.
    confirmed: Mutex<time::Instant>,
    heard: broadcast::Sender<Heard>,
    places: Arc<Places<String>>,
    /// Apart, so that signed-in clients take no place from verifiers.
    session_places: Arc<Places<Uuid>>,
    /// The log may have grown: it is to be read before the next poll.
    grown: Notify,
    /// This server made it grow: others are to be told.
    to_announce: Notify,
    /// The newest attempt to catch up with the log.
    attempt: watch::Sender<Attempt>,
    /// Until when an entry matters that was not understood, in microseconds since 1970.
    passed_over_until: AtomicI64,
    /// The server is about to stop.
    closing: CancellationToken,
}

impl TrustFeed {
    pub(super) fn new(max_watchers: usize, max_watchers_per_address: usize) -> Self {
        Self {
            told: Mutex::default(),
            confirmed: Mutex::new(time::Instant::now()),
            heard: broadcast::Sender::new(BEHIND),
            places: Places::new(max_watchers, max_watchers_per_address),
            session_places: Places::new(max_watchers, MOST_OF_SESSION),
            grown: Notify::new(),
            to_announce: Notify::new(),
            attempt: watch::Sender::new(Attempt { begun: Instant::now(), is_good: true }),
            passed_over_until: AtomicI64::new(0),
            closing: CancellationToken::new(),
        }
    }

    /// This server committed something that goes through the log.
    pub(super) fn announce(&self) {
        self.grown.notify_one();
        self.to_announce.notify_one();
    }

    /// Somebody says that the log has grown.
    pub(super) fn wake(&self) {
        self.grown.notify_one();
    }

    /// Waits until the log may have grown.
    pub(super) async fn grown(&self) {
        self.grown.notified().await;
    }

    /// Notified when this server has something to announce.
    pub(super) fn to_announce(&self) -> &Notify {
        &self.to_announce
    }

    /// An attempt to catch up with the log is over.
    pub(super) fn attempted(&self, attempt: Attempt) {
        self.attempt.send_replace(attempt);
    }

    /// The attempts to catch up with the log.
    pub(super) fn attempts(&self) -> watch::Receiver<Attempt> {
        self.attempt.subscribe()
    }

    /// Ends all that follow.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// A place among those that follow, for somebody at this address.
    pub(super) fn admit(&self, address: &str) -> Result<Admitted<String>, Error> {
        self.places.admit(ONE_HOLDER.network(address))
    }

    /// A place among the clients that wait for the end of their session.
    pub(super) fn admit_session(&self, session_id: Uuid) -> Result<Admitted<Uuid>, Error> {
        self.session_places.admit(session_id)
    }

    /// What comes from now on.
    pub(super) fn hear(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    pub(super) fn followers(&self) -> usize {
        self.places.count() + self.session_places.count()
    }

    /// How many entries are kept for those who come back.
    pub(super) fn remembered(&self) -> usize {
        self.told().len()
    }

    /// How far the log has been told.
    pub(super) fn place(&self) -> Place {
        self.told().place().clone()
    }

    /// Tells what came to the log, which the trust state has admitted before.
    pub(super) fn tell(&self, entries: &[Entry], reached: Place) {
        let passed_over = entries.iter().filter(|entry| entry.change.is_none());
        if let Some(until) = passed_over.map(|entry| entry.expire_time.timestamp_micros()).max() {
            self.passed_over_until.fetch_max(until, Ordering::Relaxed);
        }
        let mut told = self.told();
        let news = told.tell(entries, reached);
        // Nobody may be there to hear.
        let _ = self.heard.send(Heard::News(Arc::new(news)));
    }

    /// A place as followers are told it: without a mark while there is something that this release passed over, so
    /// that whoever goes on from there, at a server that may understand it, gets a snapshot.
    pub(super) fn to_resume_with(&self, place: &Place, now: DateTime<Utc>) -> Place {
        if now.timestamp_micros() < self.passed_over_until.load(Ordering::Relaxed) {
            return Place { revision: place.revision, mark: String::new() };
        }
        place.clone()
    }

    /// Tells of the revocations that came to the log, and leaves the place where it is: they are told again once
    /// all that came with them is known.
    pub(super) fn tell_ahead(&self, entries: &[Entry]) {
        let place = self.place();
        let entries: Vec<_> = entries.iter().filter_map(revocation).collect();
        if !entries.is_empty() {
            // Nobody may be there to hear.
            let _ = self.heard.send(Heard::News(Arc::new(News { entries, are_keys_new: false, place })));
        }
    }

    /// Says that everything was told that the log held at `asked`.
    pub(super) fn confirm(&self, asked: time::Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = asked.max(*confirmed);
    }

    /// How old what was told is.
    pub(super) fn age(&self) -> Duration {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Begins anew at this place, after the log went back.
    pub(super) fn begin_anew(&self, place: Place) {
        let mut told = self.told();
        told.begin_anew(place);
        let _ = self.heard.send(Heard::WentBack);
    }

    /// Forgets a snapshot that nobody is being told.
    pub(super) fn rest(&self) {
        self.told().rest();
    }

    /// How many had been told at this place; `None` where it is not known.
    pub(super) fn find(&self, place: &Place) -> Option<Count> {
        self.told().find(place)
    }

    /// What came after so many; `None` where that is not known any more.
    pub(super) fn since(&self, by: Count) -> Option<Since> {
        let told = self.told();
        let (news, by) = told.after(by)?;
        // What is told from now on is told under the same lock.
        let heard = (by == told.count()).then(|| self.heard.subscribe());
        Some(Since { news, by, heard })
    }

    /// The state as a whole.
    pub(super) fn snapshot(&self, trust: &TrustState) -> Weak<Snapshot> {
        self.told().snapshot(trust)
    }

    // A panic elsewhere leaves it whole: each change is one call of a collection.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
