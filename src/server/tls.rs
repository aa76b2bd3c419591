//! TLS from files, which are read again when they change.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    InconsistentKeys, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    time_provider::TimeProvider,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{clock::Clock, config};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Pem {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The key is another certificate's.
    #[error("{key}: is not the key of the certificate in {cert}")]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// rustls refuses it.
    #[error("the certificate and its key can't be used: {0}")]
    Refused(#[from] rustls::Error),
}

/// The files and what they held when they were last good.
pub(super) struct Tls {
    files: Files,
    opened: Contents,
    /// What new connections get. With what was replaced went the sessions that clients could have resumed: each new
    /// connection is checked by what is trusted now.
    current: RwLock<Arc<ServerConfig>>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    provider: Arc<CryptoProvider>,
    time: Arc<Time>,
}

/// The bytes of the files: what is compared to see a change.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// By which clients' certificates have begun and not ended.
struct Time(Arc<dyn Clock>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.0.now().timestamp()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

fn bad(path: &Path, problem: &dyn fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), problem: problem.to_string() }
}

/// The certificates of a file, at least one.
fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| bad(path, &error))?;
    if found.is_empty() { Err(bad(path, &"there is no certificate in it")) } else { Ok(found) }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        let read =
            |path: &PathBuf| fs::read(path).map_err(|error| TlsError::Io { path: path.clone(), error });
        Ok(Contents {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_ref().map(read).transpose()?,
        })
    }

    fn parse(&self, contents: &Contents) -> Result<Arc<ServerConfig>, TlsError> {
        let (provider, time) = (self.provider.clone(), self.time.clone());
        let mut config = ServerConfig::builder_with_details(provider, time)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(self.clients(contents)?)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.own(contents)?)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn own(&self, contents: &Contents) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.cert, &contents.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| bad(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, &self.provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert: self.cert.clone(), key: self.key.clone() }
            }
            error => error.into(),
        })
    }

    /// Who may vouch for clients. None of them has to show a certificate: people have none.
    fn clients(&self, contents: &Contents) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let (Some(path), Some(pem)) = (&self.client_ca, &contents.client_ca) else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path, pem)? {
            roots.add(certificate).map_err(|error| bad(path, &error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), self.provider.clone());
        verifier.allow_unauthenticated().build().map_err(|error| bad(path, &error))
    }
}

impl Tls {
    /// Reads the files, where there are any.
    pub(super) fn open(
        server: &config::Server,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(cert), Some(key)) = (&server.tls_cert, &server.tls_key) else {
            return Ok(None);
        };
        let files = Files {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: server.client_ca.clone(),
            provider: Arc::new(default_provider()),
            time: Arc::new(Time(clock.clone())),
        };
        let opened = files.read()?;
        let current = RwLock::new(files.parse(&opened)?);
        Ok(Some(Arc::new(Self { files, opened, current })))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().into()
    }

    /// Takes the files up again whenever they change. While they make no sense, as in the middle of being
    /// replaced, the last good ones stay.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.opened.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = match self.files.read() {
                Ok(now) if seen == now => continue,
                Ok(now) => now,
                Err(error) => {
                    tracing::debug!(%error, "can't look at the certificate");
                    continue;
                }
            };
            match self.files.parse(&now) {
                Ok(config) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
                    tracing::info!("took up a new certificate");
                }
                Err(error) => tracing::error!(%error, "the new certificate is not taken up"),
            }
            seen = now;
        }
    }
}
