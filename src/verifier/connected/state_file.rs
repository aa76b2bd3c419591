//! What is known, in a file: with it a verifier starts while the issuer is away.
//!
//! Whoever can write the file decides which tokens are good, so it is refused where others can.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::{
    fs::{self, OpenOptions},
    io::{AsyncReadExt, AsyncWriteExt},
    time::sleep,
};

use super::{
    Core,
    news::{News, Place},
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
    #[error("it is somebody else's")]
    Owner,
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
    /// Empty where something was passed over, which a later release may understand: it is to be told all anew.
    mark: String,
    /// Beyond `revision` where that is of a replica that was behind.
    #[serde(default)]
    known: i64,
    /// The issuer's JWK set.
    jwks: String,
    /// The rest as a `TrustSnapshot` in base64.
    trust: String,
}

/// The file of a verifier.
pub(super) struct StateFile {
    path: PathBuf,
    /// Where it is written before it takes its place.
    beside: PathBuf,
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
        Self { beside: beside(&path), path, core, every }
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
        let file: File = serde_json::from_slice(&self.read_private().await?)?;
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
        verifier.trust().replace(&entries, file.revision, self.core.clock.uptime());
        self.core.contact.remembered(file.as_of, self.core.expected.leeway);
        tracing::info!(revision = file.revision, as_of = %file.as_of, "goes on from its state file");
        let known = file.known.max(file.revision);
        Ok(Place { revision: file.revision, mark: file.mark, known, jwks_json: file.jwks })
    }

    /// What is in the file, where nobody else could have written it.
    async fn read_private(&self) -> Result<Vec<u8>, Unusable> {
        let mut file = fs::File::open(&self.path).await?;
        let found = file.metadata().await?;
        if found.mode() & 0o077 != 0 {
            return Err(Unusable::Mode);
        }
        if found.uid() != self.own_uid().await? {
            return Err(Unusable::Owner);
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content).await?;
        Ok(content)
    }

    /// Who owns what this process makes in the file's folder.
    async fn own_uid(&self) -> io::Result<u32> {
        let uid = open_new(&self.beside).await?.metadata().await?.uid();
        fs::remove_file(&self.beside).await?;
        Ok(uid)
    }

    /// Writes it whenever there is news, until it is aborted.
    pub(super) async fn keep(self, news: Arc<News>) {
        let mut last: Option<Written> = None;
        loop {
            news.came().await;
            let is_due = |last: &Written| last.place != *news.hold() || last.at.elapsed() >= self.every;
            if !last.as_ref().is_none_or(is_due) {
                continue;
            }
            let began = Instant::now();
            match self.write(&news).await {
                Ok(place) => last = Some(Written { place, at: began }),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "can't write the verifier's state");
                }
            }
            sleep(PAUSE.max(began.elapsed() * PAUSES)).await;
        }
    }

    async fn write(&self, news: &News) -> io::Result<Place> {
        let (place, file) = self.content(news);
        self.replace(&serde_json::to_vec(&file)?).await?;
        Ok(place)
    }

    /// What is to be in it, all of one message.
    fn content(&self, news: &News) -> (Place, File) {
        let place = news.hold();
        let passed_over = self.core.counters.unknown_entries.load(Ordering::Relaxed) > 0;
        let entries = self.core.verifier.trust().snapshot().iter().map(wire::entry).collect();
        let snapshot = TrustSnapshot { entries, ..TrustSnapshot::default() };
        let file = File {
            version: VERSION,
            issuer: self.core.expected.issuer.clone(),
            as_of: self.core.contact.as_of().unwrap_or_default(),
            revision: place.revision,
            mark: if passed_over { String::new() } else { place.mark.clone() },
            known: place.known,
            jwks: place.jwks_json.clone(),
            trust: STANDARD.encode(snapshot.encode_to_vec()),
        };
        (place.clone(), file)
    }

    /// Writes beside it and then takes its place, so that a crash leaves the one or the other whole.
    async fn replace(&self, content: &[u8]) -> io::Result<()> {
        let mut file = open_new(&self.beside).await?;
        file.write_all(content).await?;
        file.sync_all().await?;
        fs::rename(&self.beside, &self.path).await
    }
}

fn entries_of(trust: &str) -> Option<Vec<Until>> {
    let snapshot = TrustSnapshot::decode(&*STANDARD.decode(trust).ok()?).ok()?;
    Some(snapshot.entries.iter().filter_map(wire::revocation).collect())
}

/// Makes a file that only its owner reads and writes, in the place of one that a crash has left.
async fn open_new(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

/// A name beside the file that no other verifier has, of this process or of another one.
fn beside(path: &Path) -> PathBuf {
    static INSTANCES: AtomicU64 = AtomicU64::new(0);
    let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.{instance}.new", process::id()));
    beside.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verifier::Verifier;

    #[tokio::test]
    async fn where_something_was_passed_over_all_is_to_be_told_anew() -> Result<(), Box<dyn std::error::Error>>
    {
        let (core, _) = Verifier::connect("http://127.0.0.1:1").issuer("i").audience("a").unconnected()?;
        let file = StateFile::new("verifier.json".into(), core.clone());
        let news = News::default();
        news.hold().mark = "m".to_owned();
        assert_eq!(file.content(&news).1.mark, "m");
        core.counters.unknown_entries.fetch_add(1, Ordering::Relaxed);
        assert_eq!(file.content(&news).1.mark, "");
        Ok(())
    }
}
