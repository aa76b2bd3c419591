//! The data directory: made where it is missing, locked where the embedded database lies in it; and the
//! key-encryption key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use tempfile::NamedTempFile;

use crate::{
    config::Keks,
    crypto::{
        CryptoError,
        random::Randomness,
        sealing::{BadKek, Kek, Sealer, kek_id},
    },
    models::{Database, Store, StoreError, sealed, sealed::SealedTable},
};

/// The data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// A file or directory.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// Another server has it.
    #[error("{0}: another server uses this database")]
    InUse(PathBuf),
    /// The file of key-encryption keys holds none.
    #[error("{path}: {error}")]
    Kek {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: BadKek,
    },
    /// The database holds what was sealed under a key that is not there any more.
    #[error(
        "{path}: there is no such file, and the database is sealed under its key-encryption key `{id}`; \
         put the file back, or give the key in sealing.kek_file or sealing.keks"
    )]
    KekLost {
        /// Where it was to be.
        path: PathBuf,
        /// The id of the key.
        id: String,
    },
    /// The database can't be asked.
    #[error("can't read the database: {0}")]
    Store(#[from] StoreError),
    /// No key-encryption key could be made.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |error| DataDirError::Io { path, error }
}

/// Keeps other servers from an embedded database.
pub(super) struct Lock(File);

impl Drop for Lock {
    /// By name: a child process that this one begins at the same moment holds a copy of the file, and with it the lock,
    /// until it becomes another program.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "can't unlock the database; it is unlocked when this process ends");
        }
    }
}

/// Makes the directories that are needed. An embedded database belongs to one server: the lock is held
/// as long as what this returns.
pub(super) fn open(data_dir: &Path, database: &Database, keks: &Keks) -> Result<Option<Lock>, DataDirError> {
    if matches!(keks, Keks::Own(_)) {
        make(data_dir)?;
    }
    let Database::Sqlite(path) = database else {
        return Ok(None);
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make(parent)?;
    }
    // Not the database itself: SQLite locks ranges of that.
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let lock = private().create(true).truncate(false).open(&lock_path).map_err(at(&lock_path))?;
    // Made here so that nobody else may read it; SQLite gives its own side files the same mode.
    private().create(true).truncate(false).open(path).map_err(at(path))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(Lock(lock))),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.clone())),
        Err(TryLockError::Error(error)) => Err(at(&lock_path)(error)),
    }
}

fn make(dir: &Path) -> Result<(), DataDirError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// The key-encryption keys, made where they are our own and missing, and nothing is sealed yet.
pub(super) async fn sealer(keks: Keks, store: &Store, rng: &dyn Randomness) -> Result<Sealer, DataDirError> {
    match keks {
        Keks::Given(sealer) => Ok(sealer),
        Keks::File(path) => read(&path),
        Keks::Own(path) => {
            if !path.try_exists().map_err(at(&path))? {
                match sealed_under(store).await? {
                    None => write_new(&path, &Kek::generate(rng)?)?,
                    // Another server that starts may have made the key meanwhile and sealed something.
                    Some(id) if !path.try_exists().map_err(at(&path))? => {
                        return Err(DataDirError::KekLost { path, id });
                    }
                    Some(_) => {}
                }
            }
            read(&path)
        }
    }
}

/// The id of the key-encryption key that the issuer's keys are sealed under, where there are any.
async fn sealed_under(store: &Store) -> Result<Option<String>, StoreError> {
    let keys = store.read(async |conn| sealed::page(conn, SealedTable::IssuerKeys, "", 1).await).await?;
    Ok(keys.first().map(|(_, sealed)| kek_id(sealed).unwrap_or_default().to_owned()))
}

fn read(path: &Path) -> Result<Sealer, DataDirError> {
    let text = SecretString::from(fs::read_to_string(path).map_err(at(path))?);
    let mode = fs::metadata(path).map_err(at(path))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others can read the key-encryption key; its mode should be 0600");
    }
    text.expose_secret().parse().map_err(|error| DataDirError::Kek { path: path.to_owned(), error })
}

/// Writes the key whole or not at all: of the servers that start at once the first one's key stays.
fn write_new(path: &Path, kek: &Kek) -> Result<(), DataDirError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(dir).map_err(at(dir))?;
    writeln!(file, "{}", kek.to_text().expose_secret()).map_err(at(file.path()))?;
    file.as_file().sync_all().map_err(at(file.path()))?;
    match file.persist_noclobber(path) {
        Err(failed) if failed.error.kind() != io::ErrorKind::AlreadyExists => Err(at(path)(failed.error)),
        _ => File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir)),
    }
}
