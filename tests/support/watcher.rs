//! Somebody who follows `Keys.Watch`.

use std::{collections::BTreeSet, error::Error};

use tessera::{
    proto::{TrustEntry, WatchRequest, WatchResponse, trust_entry::Subject, watch_response::Event},
    verifier::wire,
};
use tokio::time::timeout;
use tonic::{Request, Status, Streaming};

use super::{FENCE, Server, authorized};

/// A stream, and what it has told.
pub struct Watching {
    stream: Streaming<WatchResponse>,
    /// What was told of sessions, users, tokens and tenants.
    pub entries: Vec<TrustEntry>,
    /// The newest keys.
    pub jwks_json: String,
    /// The place that is reached.
    pub place: (i64, String),
    /// How many snapshots there were.
    pub snapshots: usize,
}

impl Server {
    /// Begins to watch from this place.
    pub async fn watch_from(&self, place: (i64, String)) -> Result<Watching, Status> {
        self.watch_by(Request::new(WatchRequest { resume_revision: place.0, resume_mark: place.1 })).await
    }

    /// Begins to watch with a token.
    pub async fn watch_as(&self, token: &str) -> Result<Watching, Status> {
        self.watch_by(authorized(token, WatchRequest::default())).await
    }

    async fn watch_by(&self, request: Request<WatchRequest>) -> Result<Watching, Status> {
        let stream = self.keys().watch(request).await?.into_inner();
        let (entries, jwks_json, place) = Default::default();
        Ok(Watching { stream, entries, jwks_json, place, snapshots: 0 })
    }

    /// Begins to watch with nothing known, and hears the snapshot.
    pub async fn watch(&self) -> Result<Watching, Box<dyn Error>> {
        let mut watching = self.watch_from(Default::default()).await?;
        while watching.snapshots == 0 {
            watching.hear().await?;
        }
        Ok(watching)
    }
}

impl Watching {
    /// Hears the next message, which must come.
    pub async fn hear(&mut self) -> Result<(), Status> {
        let message = timeout(FENCE, self.stream.message()).await.expect("nothing came")?;
        let message = message.ok_or_else(|| Status::unknown("the stream ended without a status"))?;
        let (mut entries, jwks_json) = match message.event.expect("an event") {
            Event::Snapshot(snapshot) => {
                if snapshot.is_first {
                    self.entries.clear();
                    assert!(!snapshot.jwks_json.is_empty(), "a snapshot brings the keys");
                }
                self.snapshots += usize::from(snapshot.is_last);
                (snapshot.entries, snapshot.jwks_json)
            }
            Event::Changes(changes) => (changes.entries, changes.jwks_json),
            Event::Heartbeat(_) => Default::default(),
        };
        assert!(entries.iter().all(|entry| wire::revocation(entry).is_some()), "{entries:?}");
        self.entries.append(&mut entries);
        if !jwks_json.is_empty() {
            self.jwks_json = jwks_json;
        }
        if message.revision > 0 {
            assert!(message.revision >= self.place.0 || self.snapshots > 1, "it never goes back by itself");
            self.place = (message.revision, message.mark);
        }
        assert!(message.age.is_some());
        Ok(())
    }

    /// Hears until it holds.
    pub async fn until(&mut self, mut holds: impl FnMut(&Self) -> bool) -> Result<(), Box<dyn Error>> {
        let hearing = async {
            while !holds(self) {
                self.hear().await?;
            }
            Ok::<_, Status>(())
        };
        Ok(timeout(FENCE, hearing).await.map_err(|_| "it never held")??)
    }

    /// The sessions that it was told of.
    pub fn sessions(&self) -> BTreeSet<String> {
        let told = self.entries.iter().filter_map(|entry| match &entry.subject {
            Some(Subject::SessionId(id)) => Some(id.clone()),
            _ => None,
        });
        told.collect()
    }

    /// Whether it was told of this session.
    pub fn knows(&self, session_id: &str) -> bool {
        self.sessions().contains(session_id)
    }
}
