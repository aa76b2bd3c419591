//! Follows the issuer's trust log, for as long as it takes.

use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};
use tonic::{Request, Status, transport::Channel};

use super::{
    Core,
    news::{News, Place},
};
use crate::{
    proto::{
        TrustEntry, TrustSnapshot, WatchRequest, WatchResponse, keys_client::KeysClient,
        watch_response::Event,
    },
    verifier::{BadKey, PublicKey, Until, budget::Backoff, wire},
};

const WATCH: &str = "/tessera.v1.Keys/Watch";
/// How often the issuer says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Who is silent for so long is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// What it says has come within so long, or is not listened to any more.
const ON_THE_WAY: Duration = SILENCE.saturating_mul(2);
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

/// Takes in what the issuer says.
pub(super) struct Feed {
    core: Arc<Core>,
    keys: KeysClient<Channel>,
    place: Place,
    /// When the issuer last said a revision that is not below the one that is known.
    confirmed: Instant,
    /// A snapshot of which more is to come.
    arriving: Option<Arriving>,
    news: Arc<News>,
}

struct Arriving {
    entries: Vec<Until>,
    jwks_json: String,
}

impl Feed {
    pub(super) fn new(core: Arc<Core>, channel: &Channel, place: Place, news: Arc<News>) -> Self {
        let keys = KeysClient::new(channel.clone()).max_decoding_message_size(LONGEST_MESSAGE);
        Self { core, keys, place, confirmed: Instant::now(), arriving: None, news }
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
            if let Lost::Status(status) = &lost {
                self.core.issuer.calls.note(status);
            }
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
        let clock = self.core.clock.clone();
        let mut last = (clock.now(), Instant::now());
        let (core, keys) = (self.core.clone(), &self.keys);
        let call = core.issuer.calls.make(
            WATCH,
            || Request::new(request.clone()),
            |request| {
                let mut keys = keys.clone();
                async move { keys.watch(request).await }
            },
        );
        let stream = timeout(SILENCE, call).await.map_err(|_| Lost::Silent)?;
        let mut stream = stream?.into_inner();
        loop {
            let message = timeout(SILENCE, stream.message()).await.map_err(|_| Lost::Silent)?;
            // While the program or the machine stood still, a message may have lain here: nobody knows how old it is.
            let by_wall = (clock.now() - last.0).to_std().unwrap_or_default();
            if by_wall.max(last.1.elapsed()) > SILENCE {
                return Err(Lost::Silent);
            }
            last = (clock.now(), Instant::now());
            self.take_in(message?.ok_or(Lost::Ended)?)?;
        }
    }

    fn take_in(&mut self, message: WatchResponse) -> Result<(), Lost> {
        let WatchResponse { event, revision, mark, age } = message;
        let age = age.and_then(|age| age.try_into().ok()).unwrap_or_default();
        let (core, news) = (self.core.clone(), self.news.clone());
        let (trust, uptime) = (core.verifier.trust(), core.clock.uptime());
        let mut told = news.hold();
        match event {
            Some(Event::Snapshot(part)) => {
                let Some(whole) = self.arrive(part)? else { return Ok(()) };
                if self.is_behind(revision) && !self.went_back(age) {
                    trust.admit_all(&whole.entries, uptime);
                    tracing::warn!(revision, known = self.place.known, "hears a server that is behind");
                } else {
                    self.set_keys(whole.jwks_json)?;
                    trust.replace(&whole.entries, revision, uptime);
                    self.place.known = revision;
                    tracing::info!(revision, revocations = trust.len(), "has the issuer's whole state");
                }
            }
            // Something of which the snapshot that is still arriving knows nothing.
            Some(_) if self.arriving.is_some() => return Err(Lost::OutOfOrder),
            Some(Event::Changes(changes)) => {
                self.require_onward(revision, age)?;
                if !changes.jwks_json.is_empty() && !self.is_behind(revision) {
                    self.set_keys(changes.jwks_json)?;
                }
                trust.admit_all(&self.readable(&changes.entries), uptime);
                trust.reached(revision);
            }
            Some(Event::Heartbeat(_)) => {
                self.require_onward(revision, age)?;
                trust.reached(revision);
                trust.prune(core.clock.now(), uptime);
            }
            // Of a newer release. What it says was not taken in, so nothing is any fresher.
            None => return Ok(()),
        }
        if !self.is_behind(revision) {
            self.place.known = revision;
            self.confirmed = Instant::now();
        }
        self.place.revision = revision;
        self.place.mark = mark;
        core.contact.heard(age);
        core.revisions.send_if_modified(|reached| std::mem::replace(reached, revision) != revision);
        self.place.clone_into(&mut told);
        drop(told);
        news.tell();
        Ok(())
    }

    /// Whether more than this is known, from another replica that had read further. What such a server says is taken
    /// in beside what is known, and its keys are not: they may be those from before one was withdrawn.
    fn is_behind(&self, revision: i64) -> bool {
        revision < self.place.known
    }

    /// Whether a server that is behind knows all that there is: it has looked into the log after what is known here was
    /// last confirmed. Then the log went back, as after the database was restored from a backup, and is followed.
    fn went_back(&self, age: Duration) -> bool {
        self.confirmed.elapsed() > age.saturating_add(ON_THE_WAY)
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
    fn require_onward(&mut self, revision: i64, age: Duration) -> Result<(), Lost> {
        let is_another = self.is_behind(revision) && self.went_back(age);
        if revision >= self.place.revision && !is_another {
            return Ok(());
        }
        self.place.revision = 0;
        self.place.mark.clear();
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

#[cfg(test)]
mod tests {
    use prost_types::Duration as Age;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::{
        domain::trust::Revocation,
        proto::{Heartbeat, TrustChanges},
        verifier::Verifier,
    };

    const KEPT: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const WITHDRAWN: &str = "BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

    /// Of these public keys.
    fn jwks(keys: &[&str]) -> String {
        let key = |x| json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x});
        json!({"keys": keys.iter().map(key).collect::<Vec<_>>()}).to_string()
    }

    fn session(number: u128) -> TrustEntry {
        wire::entry(&(Revocation::Session(Uuid::from_u128(number)), chrono::DateTime::UNIX_EPOCH))
    }

    fn message(event: Event, revision: i64) -> WatchResponse {
        let age = Some(Age { seconds: 1, nanos: 0 });
        WatchResponse { event: Some(event), revision, mark: format!("of {revision}"), age }
    }

    fn snapshot(entries: Vec<TrustEntry>, keys: &[&str], revision: i64) -> WatchResponse {
        let part = TrustSnapshot { entries, jwks_json: jwks(keys), is_first: true, is_last: true };
        message(Event::Snapshot(part), revision)
    }

    /// A feed that knows the end of session 1 and that a key was withdrawn, at revision 10.
    fn feed() -> Result<Feed, Box<dyn std::error::Error>> {
        let (core, channel) =
            Verifier::connect("http://127.0.0.1:1").issuer("i").audience("a").unconnected()?;
        let mut feed = Feed::new(core, &channel, Place::default(), Arc::default());
        feed.take_in(snapshot(Vec::new(), &[KEPT, WITHDRAWN], 9))?;
        let entries = vec![session(1)];
        feed.take_in(message(Event::Changes(TrustChanges { entries, jwks_json: jwks(&[KEPT]) }), 10))?;
        assert_eq!(known(&feed), (vec![1], 1));
        Ok(feed)
    }

    /// The sessions that have ended, of 1 to 3, and how many keys there are.
    fn known(feed: &Feed) -> (Vec<u128>, usize) {
        let verifier = &feed.core.verifier;
        let has_ended =
            |number: &u128| verifier.trust().is_session_revoked(Uuid::from_u128(*number), Uuid::nil(), 0);
        ((1..=3).filter(has_ended).collect(), verifier.issuer_keys().len())
    }

    #[tokio::test]
    async fn a_replica_that_is_behind_takes_nothing_away() -> Result<(), Box<dyn std::error::Error>> {
        let mut feed = feed()?;
        feed.take_in(snapshot(vec![session(2)], &[KEPT, WITHDRAWN], 8))?;
        assert_eq!(known(&feed), (vec![1, 2], 1));
        let changes = TrustChanges { entries: vec![session(3)], jwks_json: jwks(&[KEPT, WITHDRAWN]) };
        feed.take_in(message(Event::Changes(changes.clone()), 9))?;
        assert_eq!(known(&feed), (vec![1, 2, 3], 1));
        let place = feed.news.hold().clone();
        assert_eq!((place.revision, place.known, &*place.mark), (9, 10, "of 9"), "it is gone on with");
        assert_eq!(place.jwks_json, jwks(&[KEPT]));
        feed.take_in(message(Event::Changes(changes), 10))?;
        assert_eq!(known(&feed).1, 2, "it has caught up");
        Ok(())
    }

    #[tokio::test]
    async fn a_log_that_went_back_is_followed() -> Result<(), Box<dyn std::error::Error>> {
        let mut feed = feed()?;
        feed.take_in(snapshot(vec![session(2)], &[KEPT, WITHDRAWN], 8))?;
        let long_ago = Instant::now().checked_sub(ON_THE_WAY * 2).ok_or("the machine just started")?;
        feed.confirmed = long_ago;
        let lost = feed.take_in(message(Event::Heartbeat(Heartbeat {}), 8));
        assert!(matches!(lost, Err(Lost::OutOfOrder)), "the server has looked since, and there is no more");
        assert_eq!((feed.place.revision, known(&feed)), (0, (vec![1, 2], 1)));
        feed.take_in(snapshot(vec![session(2)], &[KEPT, WITHDRAWN], 8))?;
        assert_eq!((feed.place.known, known(&feed)), (8, (vec![2], 2)));
        Ok(())
    }
}
