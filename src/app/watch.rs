//! Tells a verifier what the trust log says, from a place on.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, broadcast},
    time::{Instant, Interval, interval_at},
};
use tokio_util::sync::CancellationToken;

pub use super::trust_feed::Place;
use super::{
    App, Error,
    trust_feed::{Heard, News, Snapshot},
};
use crate::verifier::Until;

/// How long nothing is said at most.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Entries of a snapshot that go into one message: about 100 KB.
const PART: usize = 1000;

/// What a watcher takes in.
#[derive(Debug)]
pub struct Message {
    /// What happened.
    pub event: Event,
    /// The place that the watcher has reached with it; none while a snapshot goes on.
    pub place: Option<Place>,
    /// How old this server's own knowledge of the log is.
    pub age: Duration,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A part of the whole state.
    Snapshot {
        /// The first part.
        is_first: bool,
        /// The last part.
        is_last: bool,
        /// What is not accepted.
        entries: Vec<Until>,
        /// The issuer's keys, with the first part.
        jwks_json: String,
    },
    /// What came to it.
    Changes {
        /// What is no longer accepted, or accepted again.
        entries: Vec<Until>,
        /// The issuer's keys where they have changed, else empty.
        jwks_json: String,
    },
    /// Nothing came to it.
    Heartbeat,
}

/// Follows the log for one remote verifier.
pub struct Watcher {
    app: Arc<App>,
    /// The snapshot that is being told, and how many of its entries have been.
    snapshot: Option<(Arc<Snapshot>, usize)>,
    /// What came before there was anything to hear.
    since: Option<News>,
    heard: broadcast::Receiver<Heard>,
    reached: Place,
    heartbeat: Interval,
    closing: CancellationToken,
    _admitted: OwnedSemaphorePermit,
}

/// Begins to watch, from where the watcher's own state has come to.
pub fn watch(app: &Arc<App>, from: &Place) -> Result<Watcher, Error> {
    let admitted = app.feed.admit()?;
    let beginning = app.feed.follow(from, app.verifier.trust());
    Ok(Watcher {
        app: app.clone(),
        snapshot: beginning.snapshot.map(|snapshot| (snapshot, 0)),
        since: Some(beginning.since),
        heard: beginning.heard,
        reached: from.clone(),
        heartbeat: interval_at(Instant::now() + HEARTBEAT, HEARTBEAT),
        closing: app.feed.closing(),
        _admitted: admitted,
    })
}

impl Watcher {
    /// Waits for the next message. An error is the last thing that is said.
    pub async fn next(&mut self) -> Result<Message, Error> {
        loop {
            if let Some((snapshot, told)) = self.snapshot.take() {
                return Ok(self.part(snapshot, told));
            }
            if let Some(since) = self.since.take() {
                return Ok(self.changes(&since));
            }
            let heard = tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(Error::Stopping),
                heard = self.heard.recv() => heard,
                _ = self.heartbeat.tick() => return Ok(self.message(Event::Heartbeat)),
            };
            match heard {
                Ok(Heard::News(news)) => return Ok(self.changes(&news)),
                Ok(Heard::WentBack) | Err(broadcast::error::RecvError::Lagged(_)) => self.begin_anew(),
                Err(broadcast::error::RecvError::Closed) => return Err(Error::Stopping),
            }
        }
    }

    /// What it missed is too much to tell: it gets the whole instead.
    fn begin_anew(&mut self) {
        let beginning = self.app.feed.follow(&Place::default(), self.app.verifier.trust());
        self.snapshot = beginning.snapshot.map(|snapshot| (snapshot, 0));
        self.since = Some(beginning.since);
        self.heard = beginning.heard;
    }

    fn part(&mut self, snapshot: Arc<Snapshot>, told: usize) -> Message {
        let is_first = told == 0;
        let rest = snapshot.entries.get(told..).unwrap_or_default();
        let mut entries: Vec<_> = rest.iter().take(PART).cloned().collect();
        let is_last = entries.len() == rest.len();
        // The newest, maybe newer than the snapshot: the keys are told as a whole each time.
        let jwks_json = if is_first { self.app.ring().json().to_owned() } else { String::new() };
        let told = told + entries.len();
        if is_last {
            // The snapshot may have been made for somebody else, a while ago.
            let since = self.since.take().unwrap_or_default();
            entries.extend(since.entries);
            self.reached = since.place;
            return self.message(Event::Snapshot { is_first, is_last, entries, jwks_json });
        }
        let event = Event::Snapshot { is_first, is_last, entries, jwks_json };
        self.snapshot = Some((snapshot, told));
        Message { event, place: None, age: self.app.feed.age() }
    }

    fn changes(&mut self, news: &News) -> Message {
        self.reached = news.place.clone();
        if news.entries.is_empty() && !news.are_keys_new {
            return self.message(Event::Heartbeat);
        }
        let jwks_json = if news.are_keys_new { self.app.ring().json().to_owned() } else { String::new() };
        self.message(Event::Changes { entries: news.entries.clone(), jwks_json })
    }

    fn message(&self, event: Event) -> Message {
        Message { event, place: Some(self.reached.clone()), age: self.app.feed.age() }
    }
}
