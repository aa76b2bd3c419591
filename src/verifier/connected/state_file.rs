//! What is known, in a file: with it a verifier starts while the issuer is away.
//!
//! Whoever can write the file decides which tokens are good, so it is refused where others can.

use std::{
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::{
    fs::{self, OpenOptions},
    io::AsyncWriteExt,
    time::sleep,
};

use super::{
    Core,
    feed::{News, Place},
};
use crate::{
    proto::TrustSnapshot,
    verifier::{PublicKey, Until, wire},
};

/// The form of the file.
const VERSION: u32 = 1;
/// Not more often than this, whatever happens.
const PAUSE: Duration = Duration::from_secs(1);
/// A write that takes long is followed by a pause of so many times that.
const PAUSES: u32 = 20;

/// Why a file is as good as none.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("others than its owner may read or write it; its mode must be 0600")]
    Mode,
    #[error("it is of another issuer")]
    Issuer,
    #[error("it is of another release")]
    Version,
    #[error("it is not whole: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is not whole")]
    Broken,
}

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    issuer: String,
    /// When all this was the issuer's state.
    as_of: DateTime<Utc>,
    revision: i64,
    mark: String,
    /// The issuer's JWK set.
    jwks: String,
    /// The rest as a `TrustSnapshot` in base64.
    trust: String,
}

/// The file of a verifier.
pub(super) struct StateFile {
    path: PathBuf,
    core: Arc<Core>,
    /// How often the time in it is renewed where nothing else changes.
    every: Duration,
}

/// What was written last.
struct Written {
    place: Place,
    at: Instant,
}

impl StateFile {
    pub(super) fn new(path: PathBuf, core: Arc<Core>) -> Self {
        let every = core.max_staleness / 3;
        Self { path, core, every }
    }

    /// Takes in what the file says, and gives the place to go on from. One that is unusable is as good as none.
    pub(super) async fn load(&self) -> Option<Place> {
        match self.read().await {
            Ok(place) => Some(place),
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::error!(path = %self.path.display(), %error, "the verifier's state file is not used");
                None
            }
        }
    }

    async fn read(&self) -> Result<Place, Unusable> {
        require_private(&self.path).await?;
        let file: File = serde_json::from_slice(&fs::read(&self.path).await?)?;
        if file.version != VERSION {
            return Err(Unusable::Version);
        }
        if file.issuer != self.core.expected.issuer {
            return Err(Unusable::Issuer);
        }
        let keys = PublicKey::readable_of_jwks(&file.jwks).map_err(|_| Unusable::Broken)?;
        let entries = entries_of(&file.trust).ok_or(Unusable::Broken)?;
        let verifier = &self.core.verifier;
        verifier.set_issuer_keys(keys);
        verifier.trust().replace(&entries, file.revision);
        self.core.contact.remembered(file.as_of);
        tracing::info!(revision = file.revision, as_of = %file.as_of, "goes on from its state file");
        Ok(Place { revision: file.revision, mark: file.mark, jwks_json: file.jwks })
    }

    /// Writes it whenever there is news, until it is aborted.
    pub(super) async fn keep(self, news: Arc<News>) {
        let mut last: Option<Written> = None;
        loop {
            let place = news.next().await;
            if last.as_ref().is_some_and(|last| last.place == place && last.at.elapsed() < self.every) {
                continue;
            }
            let began = Instant::now();
            match self.write(&place).await {
                Ok(()) => last = Some(Written { place, at: began }),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "can't write the verifier's state");
                }
            }
            sleep(PAUSE.max(began.elapsed() * PAUSES)).await;
        }
    }

    async fn write(&self, place: &Place) -> Result<(), io::Error> {
        let Some(as_of) = self.core.contact.as_of() else { return Ok(()) };
        let verifier = &self.core.verifier;
        // What came after `place` may be in it already: taking it in twice does no harm.
        let entries = verifier.trust().snapshot().iter().map(wire::entry).collect();
        let snapshot = TrustSnapshot { entries, ..TrustSnapshot::default() };
        let file = File {
            version: VERSION,
            issuer: self.core.expected.issuer.clone(),
            as_of,
            revision: place.revision,
            mark: place.mark.clone(),
            jwks: place.jwks_json.clone(),
            trust: STANDARD.encode(snapshot.encode_to_vec()),
        };
        replace(&self.path, &serde_json::to_vec(&file)?).await
    }
}

fn entries_of(trust: &str) -> Option<Vec<Until>> {
    let snapshot = TrustSnapshot::decode(&*STANDARD.decode(trust).ok()?).ok()?;
    Some(snapshot.entries.iter().filter_map(wire::revocation).collect())
}

async fn require_private(path: &Path) -> Result<(), Unusable> {
    let file = fs::metadata(path).await?;
    if file.mode() & 0o077 != 0 { Err(Unusable::Mode) } else { Ok(()) }
}

/// Writes beside it and then takes its place, so that a crash leaves the one or the other whole.
async fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", process::id()));
    let beside = PathBuf::from(beside);
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside).await?;
    // One that lay there from before kept its mode.
    fs::set_permissions(&beside, PermissionsExt::from_mode(0o600)).await?;
    file.write_all(content).await?;
    file.sync_all().await?;
    fs::rename(&beside, path).await
}
