//! What the trust log said lately, for everyone who follows it: remote verifiers, and clients that wait for the end
//! of their session. Held in memory, so that a watcher costs the database nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;

use super::Error;
use crate::{
    crypto::digest::fingerprint,
    domain::trust::TrustChange,
    models::trust_log::Entry,
    verifier::{TrustState, Until},
};

/// Entries that a watcher which comes back can still be told without a snapshot.
const RECENT: usize = 16_384;
/// Messages that a watcher may be behind before it gets a snapshot instead.
const BEHIND: usize = 128;

/// A place in the log: a revision, and what tells the entry there from another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The revision.
    pub revision: i64,
    /// The entry's mark; empty where no entry was seen there.
    pub mark: String,
}

impl Place {
    /// The place of an entry.
    pub(super) fn of(entry: &Entry) -> Self {
        let told = format!("{} {} {}", entry.revision, entry.subject, entry.create_time.timestamp_micros());
        let mut mark = fingerprint(told.as_bytes());
        mark.truncate(16);
        Self { revision: entry.revision, mark }
    }
}

/// What came to the log.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Revocations in the order of the log.
    pub entries: Vec<Until>,
    /// The issuer's keys have changed.
    pub are_keys_new: bool,
    /// The place that is reached with them.
    pub place: Place,
}

/// What followers hear.
#[derive(Debug, Clone)]
pub(super) enum Heard {
    News(Arc<News>),
    /// The log went back: what was told of it is to be told anew.
    WentBack,
}

/// The state as a whole, at a place.
pub(super) struct Snapshot {
    pub entries: Vec<Until>,
    pub place: Place,
}

/// What a new follower begins with.
pub(super) struct Beginning {
    /// The whole state, unless the follower's own is recent enough.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What came since.
    pub since: News,
    /// What comes from now on.
    pub heard: broadcast::Receiver<Heard>,
}

struct Recent {
    place: Place,
    revocation: Option<Until>,
    is_key: bool,
}

#[derive(Default)]
struct Told {
    /// Before the first of `recent`.
    base: Place,
    recent: VecDeque<Recent>,
    /// Shared by all that need one, for as long as its place is among the recent ones.
    snapshot: Option<Arc<Snapshot>>,
}

/// The feed of one server.
pub(super) struct TrustFeed {
    told: Mutex<Told>,
    /// When the log was asked for what was told to its end.
    confirmed: Mutex<Instant>,
    heard: broadcast::Sender<Heard>,
    places: Arc<Semaphore>,
    /// Apart, so that signed-in clients take no place from verifiers.
    session_places: Arc<Semaphore>,
    /// The log may have grown: it is to be read before the next poll.
    grown: Notify,
    /// This server made it grow: others are to be told.
    to_announce: Notify,
    /// The server is about to stop.
    closing: CancellationToken,
}

impl TrustFeed {
    pub(super) fn new(max_watchers: usize) -> Self {
        Self {
            told: Mutex::default(),
            confirmed: Mutex::new(Instant::now()),
            heard: broadcast::Sender::new(BEHIND),
            places: Arc::new(Semaphore::new(max_watchers)),
            session_places: Arc::new(Semaphore::new(max_watchers)),
            grown: Notify::new(),
            to_announce: Notify::new(),
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

    /// Ends all that follow.
    pub(super) fn close(&self) {
        self.closing.cancel();
    }

    pub(super) fn closing(&self) -> CancellationToken {
        self.closing.clone()
    }

    /// A place among those that follow.
    pub(super) fn admit(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.places.clone().try_acquire_owned().map_err(|_| Error::TooManyWatchers)
    }

    /// A place among the clients that wait for the end of their session.
    pub(super) fn admit_session(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.session_places.clone().try_acquire_owned().map_err(|_| Error::TooManyWatchers)
    }

    /// What comes from now on.
    pub(super) fn hear(&self) -> broadcast::Receiver<Heard> {
        self.heard.subscribe()
    }

    pub(super) fn followers(&self) -> usize {
        self.heard.receiver_count()
    }

    /// How far the log has been told.
    pub(super) fn place(&self) -> Place {
        self.told().place().clone()
    }

    /// Tells what came to the log, which the trust state has admitted before.
    pub(super) fn tell(&self, entries: &[Entry], reached: Place) {
        let mut told = self.told();
        let at = told.recent.len();
        told.recent.extend(entries.iter().map(Recent::from));
        if told.place().revision < reached.revision {
            // What lies between has died.
            told.recent.push_back(Recent { place: reached, revocation: None, is_key: false });
        }
        let news = told.after(at);
        told.forget_old();
        // Nobody may be there to hear.
        let _ = self.heard.send(Heard::News(Arc::new(news)));
    }

    /// Tells of the revocations that came to the log, and leaves the place where it is: they are told again once
    /// all that came with them is known.
    pub(super) fn tell_ahead(&self, entries: &[Entry]) {
        let place = self.place();
        let entries: Vec<_> = entries.iter().filter_map(|entry| Recent::from(entry).revocation).collect();
        if !entries.is_empty() {
            // Nobody may be there to hear.
            let _ = self.heard.send(Heard::News(Arc::new(News { entries, are_keys_new: false, place })));
        }
    }

    /// Says that everything was told that the log held at `asked`.
    pub(super) fn confirm(&self, asked: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = asked.max(*confirmed);
    }

    /// How old what was told is.
    pub(super) fn age(&self) -> Duration {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Begins anew at this place, after the log went back.
    pub(super) fn begin_anew(&self, place: Place) {
        *self.told() = Told { base: place, ..Told::default() };
        let _ = self.heard.send(Heard::WentBack);
    }

    /// Forgets a snapshot that nobody is being told. It is kept until then, so that whoever comes and goes all the
    /// time does not have one made each time.
    pub(super) fn rest(&self) {
        self.told().snapshot.take_if(|snapshot| Arc::strong_count(snapshot) == 1);
    }

    /// Begins to follow, from where the follower's own state has come to.
    pub(super) fn follow(&self, from: &Place, trust: &TrustState) -> Beginning {
        let mut told = self.told();
        let heard = self.heard.subscribe();
        if let Some(since) = told.since(from) {
            return Beginning { snapshot: None, since, heard };
        }
        let shared = told.snapshot.clone();
        if let Some((snapshot, since)) =
            shared.and_then(|shared| Some((shared.clone(), told.since(&shared.place)?)))
        {
            return Beginning { snapshot: Some(snapshot), since, heard };
        }
        let place = told.place().clone();
        // It may hold newer entries too; taking those in again changes nothing.
        let snapshot = Arc::new(Snapshot { entries: trust.snapshot(), place: place.clone() });
        told.snapshot = Some(snapshot.clone());
        Beginning { snapshot: Some(snapshot), since: News { place, ..News::default() }, heard }
    }

    // A panic elsewhere leaves it whole: each change is one call of a collection.
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Entry> for Recent {
    fn from(entry: &Entry) -> Self {
        let (revocation, is_key) = match &entry.change {
            Some(TrustChange::Revoked(revocation)) => (Some((revocation.clone(), entry.expire_time)), false),
            Some(TrustChange::IssuerKey(_)) => (None, true),
            None => (None, false),
        };
        Self { place: Place::of(entry), revocation, is_key }
    }
}

impl Told {
    fn place(&self) -> &Place {
        self.recent.back().map_or(&self.base, |recent| &recent.place)
    }

    /// What came after this place; `None` where that is not known any more.
    fn since(&self, from: &Place) -> Option<News> {
        if from.mark.is_empty() {
            return None;
        }
        if *from == self.base {
            return Some(self.after(0));
        }
        let at = self.recent.binary_search_by_key(&from.revision, |recent| recent.place.revision).ok()?;
        (self.recent.get(at)?.place == *from).then(|| self.after(at + 1))
    }

    fn after(&self, at: usize) -> News {
        let recent = || self.recent.range(at..);
        News {
            entries: recent().filter_map(|recent| recent.revocation.clone()).collect(),
            are_keys_new: recent().any(|recent| recent.is_key),
            place: self.place().clone(),
        }
    }

    fn forget_old(&mut self) {
        while self.recent.len() > RECENT {
            if let Some(oldest) = self.recent.pop_front() {
                self.base = oldest.place;
            }
        }
    }
}
