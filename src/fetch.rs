//! Gets small documents over HTTP: GET and nothing else, no redirect, a limit in time and one in size.

use std::{error::Error, sync::Arc, time::Duration};

use headers::{CacheControl, HeaderMapExt};
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::time::timeout;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest document, in bytes.
const LONGEST: usize = 256 * 1024;
/// Who asks.
const USER_AGENT: &str = concat!("tessera/", env!("CARGO_PKG_VERSION"));

/// Why there is no document. The text is for an operator.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer came.
    #[error("can't be reached: {0}")]
    Unreachable(String),
    /// The answer took too long.
    #[error("did not answer in full within 5 s")]
    Timeout,
    /// The answer is no document; redirects are not followed.
    #[error("answered with {0}")]
    Status(StatusCode),
    /// The document is too long.
    #[error("is longer than 256 KiB")]
    TooLong,
}

/// A document.
#[derive(Debug)]
pub struct Fetched {
    /// What it says.
    pub body: Vec<u8>,
    /// How long it may be kept, where that was said.
    pub max_age: Option<Duration>,
}

/// The client.
pub struct Fetcher(Client<HttpsConnector<HttpConnector>, Empty<&'static [u8]>>);

impl Fetcher {
    /// A client that believes the certificates that the system believes.
    pub fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (added, ignored) = roots.add_parsable_certificates(found.certs);
        if added == 0 {
            // Those who fetch nothing need none.
            tracing::info!(ignored, errors = ?found.errors, "the system has no root certificates; https fails");
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().build();
        // It is asked so seldom that no connection is worth keeping.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self(client))
    }

    /// Gets what is at this URL.
    pub async fn get(&self, url: &str) -> Result<Fetched, FetchError> {
        timeout(PATIENCE, self.get_patiently(url)).await.unwrap_or(Err(FetchError::Timeout))
    }

    async fn get_patiently(&self, url: &str) -> Result<Fetched, FetchError> {
        let url: Uri = url.parse().map_err(|error| unreachable(&error))?;
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|error| unreachable(&error))?;
        let reply = self.0.request(request).await.map_err(|error| unreachable(&error))?;
        if reply.status() != StatusCode::OK {
            return Err(FetchError::Status(reply.status()));
        }
        let max_age = reply.headers().typed_get::<CacheControl>().and_then(|cache| {
            let is_old_at_once = cache.no_cache() || cache.no_store();
            if is_old_at_once { Some(Duration::ZERO) } else { cache.max_age() }
        });
        let body = Limited::new(reply.into_body(), LONGEST).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { FetchError::TooLong } else { unreachable(&*error) }
        })?;
        Ok(Fetched { body: body.to_bytes().to_vec(), max_age })
    }
}

/// The error and what is behind it.
fn unreachable(error: &(dyn Error + 'static)) -> FetchError {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    FetchError::Unreachable(text)
}
