//! A service's own certificate and its key, in files that are replaced while it runs: as cert-manager does it, or a helper
//! of SPIFFE.
//!
//! A token that is bound to a certificate (RFC 8705) keeps it beside it, and a [`CertifiedChannel`] shows that very one
//! with the call. So the tokens of before are used to their end, over the connections of before, while the next ones are
//! got with the new certificate; and none is ever sent over a connection that it is not good for.

mod connections;

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tonic::transport::{self, ClientTlsConfig, Endpoint, Identity};

use super::files;
pub use connections::CertifiedChannel;
use connections::Connections;

/// How often the files are looked at for calls that carry no token of theirs.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why there is no certificate to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct BadCertificate(String);

/// A certificate, with those that vouch for it, and its key: two files in PEM. They are read whenever a token is got, so
/// that they may be replaced at any time; while they make no sense together, as in the middle of being replaced, what they
/// held before goes on counting, and the log says so. Cheap to clone: give the identity and all channels the same.
///
/// ```no_run
/// # use tessera::verifier::{CertificateFiles, ServiceIdentity};
/// # use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
/// # fn ledger(ca: Certificate) -> Result<(), tonic::transport::Error> {
/// let own = CertificateFiles::new("/run/tls/tls.crt", "/run/tls/tls.key");
/// let tls = ClientTlsConfig::new().ca_certificate(ca);
/// let tessera = Endpoint::from_static("https://tessera.example:50051");
/// let orders = ServiceIdentity::by_certificate(tessera, tls.clone(), "the client_id", &own).build()?;
/// let channel = own.connect(Endpoint::from_static("https://ledger.example"), tls)?;
/// // For any generated client: LedgerClient::new(…)
/// let ledger = orders.tokens(&["ledger"], &["entries:write"]).attach(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct CertificateFiles(Arc<Files>);

struct Files {
    cert: PathBuf,
    key: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    looked: Option<Instant>,
}

/// What the files held when they last made sense.
struct Held {
    contents: Contents,
    certificate: OwnCertificate,
}

struct Contents {
    cert: SecretString,
    key: SecretString,
}

/// A certificate and its key, ready to be shown. Cheap to clone.
#[derive(Clone)]
pub(super) struct OwnCertificate(Arc<Identity>);

impl CertificateFiles {
    /// The certificate in this file, with the key in that one.
    pub fn new(cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self(Arc::new(Files { cert: cert.into(), key: key.into(), state: Mutex::default() }))
    }

    /// A channel to the service at this endpoint, which shows the certificate: with a token that is bound to one, that one,
    /// and else the newest. It connects when it is used. `tls` says whom to trust, and counts instead of what the endpoint
    /// says.
    ///
    /// # Errors
    /// If the TLS settings are of no use.
    pub fn connect(
        &self,
        endpoint: Endpoint,
        tls: ClientTlsConfig,
    ) -> Result<CertifiedChannel, transport::Error> {
        Ok(CertifiedChannel::new(self.clone(), Connections::new(endpoint, tls)?))
    }

    /// What the files hold now, or held before, while that makes no sense.
    async fn look(&self) -> Result<OwnCertificate, BadCertificate> {
        self.look_into(&mut *self.0.state.lock().await).await
    }

    async fn look_into(&self, state: &mut State) -> Result<OwnCertificate, BadCertificate> {
        state.looked = Some(Instant::now());
        match (self.take_up(state).await, &state.held) {
            (Err(problem), Some(held)) => {
                tracing::error!(%problem, "the new certificate is not taken up");
                Ok(held.certificate.clone())
            }
            (taken, _) => taken,
        }
    }

    /// The same for what carries no token of theirs, and may come often.
    async fn newest(&self) -> Result<OwnCertificate, BadCertificate> {
        // Of many that come at once, one looks.
        let mut state = self.0.state.lock().await;
        let is_new = state.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY);
        if let Some(held) = state.held.as_ref().filter(|_| is_new) {
            return Ok(held.certificate.clone());
        }
        self.look_into(&mut state).await
    }

    async fn take_up(&self, state: &mut State) -> Result<OwnCertificate, BadCertificate> {
        let Files { cert, key, .. } = &*self.0;
        let contents = Contents { cert: read(cert).await?, key: read(key).await? };
        if let Some(held) = state.held.as_ref().filter(|held| held.contents.is(&contents)) {
            return Ok(held.certificate.clone());
        }
        let certificate = contents.certificate().map_err(|problem| {
            BadCertificate(format!("{} and {}: {problem}", cert.display(), key.display()))
        })?;
        if state.held.is_some() {
            tracing::info!(cert = %cert.display(), "took up a new certificate");
        }
        state.held = Some(Held { contents, certificate: certificate.clone() });
        Ok(certificate)
    }
}

async fn read(path: &Path) -> Result<SecretString, BadCertificate> {
    let read = files::read(path).await;
    read.map_err(|problem| BadCertificate(format!("{}: {problem}", path.display())))
}

impl Contents {
    fn is(&self, other: &Self) -> bool {
        let same = |one: &SecretString, other: &SecretString| one.expose_secret() == other.expose_secret();
        same(&self.cert, &other.cert) && same(&self.key, &other.key)
    }

    /// The two, where they are a certificate and its own key: TLS settings can be made of no others.
    fn certificate(&self) -> Result<OwnCertificate, String> {
        let identity = Identity::from_pem(self.cert.expose_secret(), self.key.expose_secret());
        let tls = ClientTlsConfig::new().identity(identity.clone());
        match Endpoint::from_static("http://localhost").tls_config(tls) {
            Ok(_) => Ok(OwnCertificate(Arc::new(identity))),
            Err(error) => Err(error.source().map_or_else(|| error.to_string(), ToString::to_string)),
        }
    }
}

impl OwnCertificate {
    fn identity(&self) -> Identity {
        (*self.0).clone()
    }
}

impl PartialEq for OwnCertificate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateFiles({}, {})", self.0.cert.display(), self.0.key.display())
    }
}
