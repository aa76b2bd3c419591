//! `tessera health`: what a container's health check runs.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime,
};
use tokio_rustls::TlsConnector;
use tonic::{
    codegen::{BoxFuture, Service},
    transport::Endpoint,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{Settings, bad_setting, failed};
use crate::config::{BadSetting, Server};

/// How long to wait for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(clap::Args)]
pub(super) struct Health {
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("can't ask: {0}")]
    Io(#[from] io::Error),
    #[error("can't ask: {0}")]
    Tls(#[from] rustls::Error),
    #[error("can't reach the service: {0}")]
    Transport(#[from] tonic::transport::Error),
    #[error("the service answers {:?}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the service does not serve")]
    NotServing,
}

impl Health {
    pub(super) fn run(self) -> ExitCode {
        let loaded = match self.settings.load() {
            Ok(loaded) => loaded,
            Err(error) => return bad_setting(&error),
        };
        let connector = match Connector::new(&loaded.config.server) {
            Ok(connector) => connector,
            Err(error) => return bad_setting(&error),
        };
        let asked = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(ask(connector)),
            Err(error) => Err(error.into()),
        };
        match asked {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        }
    }
}

async fn ask(connector: Connector) -> Result<(), Unhealthy> {
    let endpoint = Endpoint::from_static("http://tessera").connect_timeout(PATIENCE).timeout(PATIENCE);
    let channel = endpoint.connect_with_connector(connector).await?;
    let request = HealthCheckRequest::default();
    let reply =
        HealthClient::new(channel).check(request).await.map_err(|s| Unhealthy::Status(Box::new(s)))?;
    if reply.into_inner().status() == ServingStatus::Serving { Ok(()) } else { Err(Unhealthy::NotServing) }
}

/// Connects to the address that the service listens on, whatever the URI says.
#[derive(Clone)]
struct Connector {
    address: SocketAddr,
    tls: Option<TlsConnector>,
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

impl Connector {
    fn new(server: &Server) -> Result<Self, BadSetting> {
        let mut address = server.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let Some(path) = &server.tls_cert else {
            return Ok(Self { address, tls: None });
        };
        let bad = |problem: String| BadSetting {
            setting: "server.tls_cert".to_owned(),
            problem: format!("{}: {problem}", path.display()),
            source_name: "the settings".to_owned(),
        };
        let pem = fs::read(path).map_err(|error| bad(error.to_string()))?;
        let certificate = CertificateDer::from_pem_slice(&pem).map_err(|error| bad(error.to_string()))?;
        let config = pinned(certificate).map_err(|error| bad(error.to_string()))?;
        Ok(Self { address, tls: Some(Arc::new(config).into()) })
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, tls } = self.clone();
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            // The request is two small frames; the second would wait 40 ms for the first one's receipt.
            stream.set_nodelay(true)?;
            let socket: Box<dyn Socket> = match tls {
                None => Box::new(stream),
                Some(tls) => Box::new(tls.connect(ServerName::from(address.ip()), stream).await?),
            };
            Ok(TokioIo::new(socket))
        })
    }
}

/// A client that believes the service's own certificate and no other: it asks over loopback, where no
/// name of the certificate fits.
fn pinned(certificate: CertificateDer<'static>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { certificate, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate than the file's".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
