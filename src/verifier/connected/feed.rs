//! Follows the issuer's trust log, for as long as it takes.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tonic::{Status, transport::Channel};

use super::Core;
use crate::{
    proto::{
        TrustEntry, TrustSnapshot, WatchRequest, WatchResponse, keys_client::KeysClient,
        watch_response::Event,
    },
    verifier::{BadKey, PublicKey, Until, budget::Backoff, wire},
};

/// How often the issuer says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Who is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// The longest wait between two attempts to reach it.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The longest message, in bytes: a part of a snapshot.
const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;

/// Why the feed ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    #[error("the stream ended")]
    Ended,
    #[error("no word for {SILENCE:?}")]
    Silent,
    #[error("a message out of order")]
    OutOfOrder,
    #[error("the issuer's keys: {0}")]
    Keys(#[from] BadKey),
}

/// Where the log is to be gone on with, and the issuer's keys there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: i64,
    pub(super) mark: String,
    pub(super) jwks_json: String,
}

/// Takes in what the issuer says.
pub(super) struct Feed {
    core: Arc<Core>,
    keys: KeysClient<Channel>,
    place: Place,
    /// A snapshot of which more is to come.
    arriving: Option<Arriving>,
    news: Arc<News>,
}

/// Tells whoever writes it down how far the feed has come.
#[derive(Default)]
pub(super) struct News {
    place: Mutex<Place>,
    came: Notify,
}

impl News {
    fn tell(&self, place: &Place) {
        place.clone_into(&mut self.place.lock().unwrap_or_else(PoisonError::into_inner));
        self.came.notify_one();
    }

    /// Waits for the next; of several, it is the newest.
    pub(super) async fn next(&self) -> Place {
        self.came.notified().await;
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

struct Arriving {
    entries: Vec<Until>,
    jwks_json: String,
}

impl Feed {
    pub(super) fn new(core: Arc<Core>, channel: &Channel, place: Place, news: Arc<News>) -> Self {
        let keys = KeysClient::new(channel.clone()).max_decoding_message_size(LONGEST_MESSAGE);
        Self { core, keys, place, arriving: None, news }
    }

    /// Follows until it is aborted.
    pub(super) async fn follow(mut self) {
        let mut backoff = Backoff::up_to(LONGEST_WAIT);
        loop {
            let started = Instant::now();
            let lost = match self.watch().await {
                Ok(never) => match never {},
                Err(lost) => lost,
            };
            if self.core.contact.lost(&lost) {
                self.core.counters.disconnects.fetch_add(1, Ordering::Relaxed);
            }
            // An issuer that ends each stream at once is not well.
            if started.elapsed() > HEARTBEAT {
                backoff.reset();
            }
            sleep(backoff.wait()).await;
        }
    }

    /// One stream, up to its end.
    async fn watch(&mut self) -> Result<Infallible, Lost> {
        self.arriving = None;
        let Place { revision, mark, .. } = self.place.clone();
        let request = WatchRequest { resume_revision: revision, resume_mark: mark };
        let stream = timeout(SILENCE, self.keys.watch(request)).await.map_err(|_| Lost::Silent)?;
        let mut stream = stream?.into_inner();
        loop {
            let message = timeout(SILENCE, stream.message()).await.map_err(|_| Lost::Silent)?;
            self.take_in(message?.ok_or(Lost::Ended)?)?;
        }
    }

    fn take_in(&mut self, message: WatchResponse) -> Result<(), Lost> {
        let WatchResponse { event, revision, mark, age } = message;
        let core = self.core.clone();
        let trust = core.verifier.trust();
        match event {
            Some(Event::Snapshot(part)) => {
                let Some(whole) = self.arrive(part)? else { return Ok(()) };
                self.set_keys(whole.jwks_json)?;
                trust.replace(&whole.entries, revision);
                tracing::info!(revision, revocations = trust.len(), "has the issuer's whole state");
            }
            // Something of which the snapshot that is still arriving knows nothing.
            Some(_) if self.arriving.is_some() => return Err(Lost::OutOfOrder),
            Some(Event::Changes(changes)) => {
                self.require_onward(revision)?;
                if !changes.jwks_json.is_empty() {
                    self.set_keys(changes.jwks_json)?;
                }
                for (revocation, until) in self.readable(&changes.entries) {
                    trust.admit(&revocation, until);
                }
                trust.reached(revision);
            }
            Some(Event::Heartbeat(_)) => {
                self.require_onward(revision)?;
                trust.reached(revision);
                trust.prune(core.clock.now());
            }
            // Of a newer release. What it says was not taken in, so nothing is any fresher.
            None => return Ok(()),
        }
        self.place.revision = revision;
        self.place.mark = mark;
        core.contact.heard(age.and_then(|age| age.try_into().ok()).unwrap_or_default());
        self.news.tell(&self.place);
        Ok(())
    }

    fn set_keys(&mut self, jwks_json: String) -> Result<(), Lost> {
        let keys = PublicKey::readable_of_jwks(&jwks_json)?;
        if self.place.jwks_json != jwks_json {
            tracing::info!(keys = keys.len(), "has other issuer keys");
        }
        self.core.verifier.set_issuer_keys(keys);
        self.place.jwks_json = jwks_json;
        Ok(())
    }

    /// Takes a part of a snapshot; the whole with the last one.
    fn arrive(&mut self, part: TrustSnapshot) -> Result<Option<Arriving>, Lost> {
        if part.is_first {
            self.arriving = Some(Arriving { entries: Vec::new(), jwks_json: part.jwks_json });
        }
        let entries = self.readable(&part.entries);
        let arriving = self.arriving.as_mut().ok_or(Lost::OutOfOrder)?;
        arriving.entries.extend(entries);
        Ok(if part.is_last { self.arriving.take() } else { None })
    }

    /// A log that went back can't be gone on with: the next attempt takes it from its beginning.
    fn require_onward(&mut self, revision: i64) -> Result<(), Lost> {
        if revision >= self.place.revision {
            return Ok(());
        }
        self.place = Place::default();
        Err(Lost::OutOfOrder)
    }

    /// An entry of a newer release is passed over: stopping at it would miss all that follow.
    fn readable(&self, entries: &[TrustEntry]) -> Vec<Until> {
        let read: Vec<_> = entries.iter().filter_map(wire::revocation).collect();
        let unknown = entries.len() - read.len();
        if unknown > 0 {
            self.core.counters.unknown_entries.fetch_add(unknown as u64, Ordering::Relaxed);
            tracing::error!(unknown, "this release doesn't understand entries of the trust log");
        }
        read
    }
}
