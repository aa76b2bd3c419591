//! The other end of a connection, and the certificate of whoever calls through it.

use std::{net::SocketAddr, sync::Arc};

use http::{Extensions, HeaderMap};

use crate::{
    app::App,
    domain::{certificate::Certificate, certificate_header::CertificateHeader},
    verifier::certificate_thumbprint,
};

/// The peer of a connection, as the listener puts it into the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct Peer {
    pub(super) address: SocketAddr,
    /// What it has shown in its TLS handshake.
    certificate: Option<Arc<Certificate>>,
}

impl Peer {
    /// One at this address, without a certificate.
    pub const fn new(address: SocketAddr) -> Self {
        Self { address, certificate: None }
    }

    /// The same, which has shown a certificate of this DER: its authority is trusted here, and it has its key.
    #[must_use]
    pub fn with_certificate(self, der: &[u8]) -> Self {
        let certificate = Certificate::read(der, certificate_thumbprint(der));
        if certificate.is_none() {
            tracing::warn!(peer = %self.address, "a client's certificate can't be read, and counts as none");
        }
        Self { certificate: certificate.map(Arc::new), ..self }
    }
}

/// The certificate of whoever calls, if it is good now: its connection's, or what a proxy tells that is trusted. A proxy's
/// own counts for nothing: not every proxy says that it calls for somebody.
pub(super) fn certificate(
    app: &App,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Option<Arc<Certificate>> {
    let peer = extensions.get::<Peer>()?;
    let is_proxy = || app.settings.trusted_proxies.trusts(peer.address.ip());
    let certificate = match &app.settings.certificate_header {
        Some(header) if is_proxy() => told(header, headers),
        None if peer.certificate.is_some() && is_proxy() => None,
        _ => peer.certificate.clone(),
    }?;
    if certificate.is_good(app.now()) {
        return Some(certificate);
    }
    tracing::info!(peer = %peer.address, "a client's certificate has expired, or is not good yet");
    None
}

/// What a trusted proxy tells. Of two lines a client may have written one.
fn told(header: &CertificateHeader, headers: &HeaderMap) -> Option<Arc<Certificate>> {
    let mut lines = headers.get_all(header.name()).iter();
    let line = lines.next()?;
    let der = line.to_str().ok().filter(|_| lines.next().is_none()).and_then(|line| header.read(line));
    let certificate = der.and_then(|der| Certificate::read(&der, certificate_thumbprint(&der)));
    if certificate.is_none() {
        tracing::warn!(header = %header.name(), "a trusted proxy tells no certificate that can be read");
    }
    certificate.map(Arc::new)
}
