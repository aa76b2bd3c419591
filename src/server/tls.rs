//! TLS from files, which are read again when they change.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    InconsistentKeys, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs::default_provider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::config;

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
    current: Arc<Current>,
    config: Arc<ServerConfig>,
}

#[derive(Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What new connections are shown.
struct Current(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The bytes of both files: what is compared to see a change.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        let read =
            |path: &Path| fs::read(path).map_err(|error| TlsError::Io { path: path.to_owned(), error });
        Ok(Contents { cert: read(&self.cert)?, key: read(&self.key)? })
    }

    fn parse(&self, contents: &Contents, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let bad = |path: &Path, problem: &dyn fmt::Display| TlsError::Pem {
            path: path.to_owned(),
            problem: problem.to_string(),
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&contents.cert)
            .collect::<Result<_, _>>()
            .map_err(|error| bad(&self.cert, &error))?;
        if chain.is_empty() {
            return Err(bad(&self.cert, &"there is no certificate in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|error| bad(&self.key, &error))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { cert: self.cert.clone(), key: self.key.clone() }
            }
            error => error.into(),
        })
    }
}

impl Tls {
    /// Reads the files, where there are any.
    pub(super) fn open(server: &config::Server) -> Result<Option<Arc<Self>>, TlsError> {
        let (Some(cert), Some(key)) = (&server.tls_cert, &server.tls_key) else {
            return Ok(None);
        };
        let files = Files { cert: cert.clone(), key: key.clone() };
        let provider = Arc::new(default_provider());
        let opened = files.read()?;
        let certified = files.parse(&opened, &provider)?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(Arc::new(Self { files, opened, current, config: Arc::new(config) })))
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.config.clone().into()
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
            match self.files.parse(&now, self.config.crypto_provider()) {
                Ok(certified) => {
                    *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                    tracing::info!("took up a new certificate");
                }
                Err(error) => tracing::error!(%error, "the new certificate is not taken up"),
            }
            seen = now;
        }
    }
}
