//! The certificates of callers, for tokens that are bound to one (RFC 8705 section 3).

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The `x5t#S256` of a certificate: the SHA-256 of its DER, in base64url without padding.
pub fn certificate_thumbprint(der: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, der))
}

/// The certificate that a caller has shown, where a [`Guard`](super::Guard) or a
/// [`GuardInterceptor`](super::GuardInterceptor) looks for it: in the request's extensions. Whoever accepts the connection
/// puts it there, in front of the guard; without it no token that is bound to a certificate is let in. Cheap to clone: make
/// one for a connection, and give each of its requests a clone.
///
/// TLS has proved that the caller has the key. Nothing else is asked here of the certificate; whether to accept one that has
/// expired, or that nobody vouches for, is for the TLS of the service to say. Nor is a header read in which a proxy tells the
/// certificate of its client: a guard doesn't know who its peer is. Where the service knows that it is a proxy which
/// overwrites that header, it makes this of the DER that the header tells.
///
/// A server of tonic that asks for certificates has them in [`tonic::Request`]:
///
/// ```no_run
/// use tessera::verifier::{ClientCertificate, Guard};
/// use tonic::{Request, Status, service::InterceptorLayer, transport::{Server, ServerTlsConfig}};
///
/// fn with_certificate(mut request: Request<()>) -> Result<Request<()>, Status> {
///     if let Some(certificate) = request.peer_certs().and_then(|chain| ClientCertificate::of_chain(&chain)) {
///         request.extensions_mut().insert(certificate);
///     }
///     Ok(request)
/// }
///
/// # fn serve(tls: ServerTlsConfig, guard: Guard) -> Result<(), tonic::transport::Error> {
/// let server = Server::builder().tls_config(tls)?.layer(InterceptorLayer::new(with_certificate)).layer(guard);
/// # let _ = server;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(Arc<str>);

impl ClientCertificate {
    /// The one with this DER.
    pub fn from_der(der: &[u8]) -> Self {
        Self(certificate_thumbprint(der).into())
    }

    /// The client's own of the chain that it has shown, as tonic and rustls tell it: the first one.
    pub fn of_chain<C: AsRef<[u8]>>(chain: &[C]) -> Option<Self> {
        chain.first().map(|own| Self::from_der(own.as_ref()))
    }

    /// Its `x5t#S256`.
    pub fn thumbprint(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thumbprint_is_of_the_first_certificate() {
        let empty = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";
        assert_eq!(certificate_thumbprint(b""), empty);
        let shown = ClientCertificate::of_chain(&[&b""[..], b"ca"]);
        assert_eq!(shown.as_ref().map(ClientCertificate::thumbprint), Some(empty));
        assert_eq!(ClientCertificate::of_chain::<&[u8]>(&[]), None);
    }
}
