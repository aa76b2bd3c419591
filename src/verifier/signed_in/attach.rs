//! The layer that sends the token along.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Request, Response, Uri, header::AUTHORIZATION, request::Parts};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tower_layer::Layer;
use tower_service::Service;

use super::{AccessToken, Prover, TokenError, TokenSource, deadline, replay::Replay};
use crate::verifier::not_begun;

/// Puts the token of a [`TokenSource`] into the header `authorization` of each call, and where it is bound to a key a proof of
/// that into `dpop`: a tower layer.
///
/// A token that is refused as unauthenticated is exchanged. The call is made once more with the new one, if a
/// [`Guard`](crate::verifier::Guard) says that its method was not begun, as Tessera itself does, and if its request is
/// short enough to be kept (64 KiB). Any other call fails, since its method may have done its work; the next one has the
/// new token.
#[derive(Debug, Clone)]
pub struct TokenLayer(TokenSource);

/// What a call is given, and where from.
#[derive(Clone)]
struct Giving {
    source: TokenSource,
    /// Of the one service behind this channel.
    prover: Option<Prover>,
}

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
        let source = self.0.clone();
        let prover = source.0.prover.as_ref().map(Prover::apart);
        WithToken { giving: Giving { source, prover }, inner }
    }
}

/// A channel whose calls carry a token.
#[derive(Clone)]
pub struct WithToken<S> {
    giving: Giving,
    inner: S,
}

impl<S: fmt::Debug> fmt::Debug for WithToken<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { giving, inner } = self;
        f.debug_struct("WithToken").field("source", &giving.source).field("inner", inner).finish()
    }
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
        let giving = self.giving.clone();
        Box::pin(async move {
            // One for everything: the token, the call, and the call once more.
            let Some(patience) = deadline::of(request.headers()) else {
                return send(giving, inner, request).await;
            };
            let sent = timeout(patience, send(giving, inner, request)).await;
            sent.unwrap_or_else(|_| Ok(Status::deadline_exceeded("the call took too long").into_http()))
        })
    }
}

async fn send<S, R>(giving: Giving, mut inner: S, request: Request<Body>) -> Result<Response<R>, S::Error>
where
    S: Service<Request<Body>, Response = Response<R>>,
    R: Default,
{
    let source = &giving.source;
    let token = match source.token().await {
        Ok(token) => token,
        Err(error) => return Ok(without_token(error)),
    };
    let call = not_begun::new_call();
    let (parts, body) = request.into_parts();
    let (first, kept) = Replay::of(body);
    let mut response = inner.call(giving.with(&token, &call, parts.clone(), Body::new(first))).await?;
    let may_be_sent_again = |response: &Response<R>| {
        not_begun::was_refused(response.headers(), &call).then(|| kept.again()).flatten()
    };
    // The token is good, and its proof lacked what the service tells only now.
    if giving.is_told(&response) {
        let Some(again) = may_be_sent_again(&response) else { return Ok(response) };
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        response = inner.call(giving.with(&token, &call, parts.clone(), Body::new(again))).await?;
    }
    if !is_unauthenticated(&response) {
        return Ok(response);
    }
    let Some(again) = may_be_sent_again(&response) else {
        source.exchange_beside(token);
        return Ok(response);
    };
    let Some(token) = source.instead_of(token).await else { return Ok(response) };
    std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
    inner.call(giving.with(&token, &call, parts, Body::new(again))).await
}

impl Giving {
    fn with(&self, token: &AccessToken, call: &HeaderValue, parts: Parts, body: Body) -> Request<Body> {
        let mut request = Request::from_parts(parts, body);
        not_begun::name(request.headers_mut(), call);
        if let Some(value) = token.header() {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        if let Some(prover) = self.prover.as_ref().filter(|_| token.is_bound_to_key()) {
            let target = target(request.uri());
            prover.show(request.headers_mut(), &target, Some(token.expose()));
        }
        request
    }

    /// Takes up what an answer tells of the next proof; says whether that is what this one lacked.
    fn is_told<R>(&self, response: &Response<R>) -> bool {
        let Some(prover) = &self.prover else { return false };
        match Status::from_header_map(response.headers()) {
            Some(status) => prover.hear_refusal(&status),
            None => {
                prover.hear(response.headers());
                false
            }
        }
    }
}

/// Where a call goes, as far as its request says.
fn target(uri: &Uri) -> String {
    match uri.scheme_str().zip(uri.authority()) {
        Some((scheme, authority)) => format!("{scheme}://{authority}{}", uri.path()),
        None => uri.path().to_owned(),
    }
}

/// A refusal comes in the headers, before anything else.
fn is_unauthenticated<R>(response: &Response<R>) -> bool {
    Status::from_header_map(response.headers()).is_some_and(|status| status.code() == Code::Unauthenticated)
}

fn without_token<R: Default>(error: TokenError) -> Response<R> {
    Status::from(error).into_http()
}
