//! The layer that sends the token along.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Code, Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

use super::{AccessToken, TokenError, TokenSource, replay::Replay};

/// Puts the token of a [`TokenSource`] into the header `authorization` of each call: a tower layer. A call that is
/// refused as unauthenticated is tried once more with another token, as far as its request is short enough to be kept
/// (64 KiB).
#[derive(Debug, Clone)]
pub struct TokenLayer(TokenSource);

impl TokenSource {
    /// The layer that sends this source's token along.
    pub fn layer(&self) -> TokenLayer {
        TokenLayer(self.clone())
    }

    /// A channel, or what stands around it, whose calls carry this source's token: `Client::new(source.attach(channel))`.
    pub fn attach<S>(&self, inner: S) -> WithToken<S> {
        self.layer().layer(inner)
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = WithToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        WithToken { source: self.0.clone(), inner }
    }
}

/// A channel whose calls carry a token.
#[derive(Debug, Clone)]
pub struct WithToken<S> {
    source: TokenSource,
    inner: S,
}

impl<S, R> Service<Request<Body>> for WithToken<S>
where
    S: Service<Request<Body>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was found ready makes this call; its clone is asked anew.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let source = self.source.clone();
        Box::pin(send(source, inner, request))
    }
}

async fn send<S, R>(
    source: TokenSource,
    mut inner: S,
    request: Request<Body>,
) -> Result<Response<R>, S::Error>
where
    S: Service<Request<Body>, Response = Response<R>>,
    R: Default,
{
    let token = match source.token().await {
        Ok(token) => token,
        Err(error) => return Ok(without_token(error)),
    };
    let (parts, body) = request.into_parts();
    let (first, kept) = Replay::of(body);
    let response = inner.call(with(&token, parts.clone(), Body::new(first))).await?;
    if !is_unauthenticated(&response) {
        return Ok(response);
    }
    // What was refused was not begun: it may be sent again, if it is still there.
    let Some(again) = kept.again() else { return Ok(response) };
    let Some(token) = source.instead_of(token).await else { return Ok(response) };
    std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
    inner.call(with(&token, parts, Body::new(again))).await
}

fn with(token: &AccessToken, parts: http::request::Parts, body: Body) -> Request<Body> {
    let mut request = Request::from_parts(parts, body);
    if let Some(value) = token.header() {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    request
}

/// A refusal comes in the headers, before anything else.
fn is_unauthenticated<R>(response: &Response<R>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Unauthenticated)
}

fn without_token<R: Default>(error: TokenError) -> Response<R> {
    Status::from(error).into_http()
}
