//! Connections to one service, each with the certificate that is shown on it.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    body::Body,
    transport::{Channel, ClientTlsConfig, Endpoint, Error},
};
use tower_service::Service;

use super::{BadCertificate, CertificateFiles, OwnCertificate};
use crate::verifier::channel::connect_lazily;

/// Certificates whose connections are kept: tokens end long before so many have followed theirs.
const KEPT: usize = 4;

/// The connections to one service.
pub(super) struct Connections {
    endpoint: Endpoint,
    tls: ClientTlsConfig,
    /// Each certificate has one; that which was needed first stands first.
    open: Mutex<Vec<(OwnCertificate, Channel)>>,
}

impl Connections {
    /// Those to the service at this endpoint.
    pub(super) fn new(endpoint: Endpoint, tls: ClientTlsConfig) -> Result<Self, Error> {
        let endpoint = endpoint.tls_config(tls.clone())?;
        Ok(Self { endpoint, tls, open: Mutex::default() })
    }

    /// The one on which this certificate is shown.
    fn showing(&self, certificate: &OwnCertificate) -> Result<Channel, Error> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = open.iter().find(|(shown, _)| shown == certificate) {
            return Ok(channel.clone());
        }
        let tls = self.tls.clone().identity(certificate.identity());
        let channel = connect_lazily(self.endpoint.clone().tls_config(tls)?);
        if open.len() == KEPT {
            open.remove(0);
        }
        open.push((certificate.clone(), channel.clone()));
        Ok(channel)
    }
}

/// A channel that shows a certificate which may be replaced while it runs, made by [`CertificateFiles::connect`]. Cheap to
/// clone.
#[derive(Clone)]
pub struct CertifiedChannel {
    files: CertificateFiles,
    connections: Arc<Connections>,
}

impl CertifiedChannel {
    pub(super) fn new(files: CertificateFiles, connections: Connections) -> Self {
        Self { files, connections: Arc::new(connections) }
    }

    /// What the files hold now.
    pub(in crate::verifier) async fn look(&self) -> Result<OwnCertificate, BadCertificate> {
        self.files.look().await
    }

    /// The connection on which this certificate is shown.
    pub(in crate::verifier) fn showing(&self, certificate: &OwnCertificate) -> Result<Channel, Error> {
        self.connections.showing(certificate)
    }
}

impl Service<Request<Body>> for CertifiedChannel {
    type Response = Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    /// Which connection it will be says the call.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { files, connections } = self.clone();
        let of_token = request.extensions().get::<OwnCertificate>().cloned();
        Box::pin(async move {
            let certificate = match of_token {
                Some(certificate) => certificate,
                None => files.newest().await?,
            };
            let mut channel = connections.showing(&certificate)?;
            poll_fn(|cx| channel.poll_ready(cx)).await?;
            Ok(channel.call(request).await?)
        })
    }
}

impl fmt::Debug for CertifiedChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, connections } = self;
        f.debug_struct("CertifiedChannel")
            .field("files", files)
            .field("uri", connections.endpoint.uri())
            .finish()
    }
}
