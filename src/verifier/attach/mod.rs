//! The layer that sends a token along with each call, whoever keeps the token: [`TokenSource`] for a person,
//! [`ServiceTokens`](super::ServiceTokens) for a service. Both get theirs from the issuer with what `showing.rs` shows it.

mod deadline;
mod held;
mod prover;
mod replay;
mod showing;

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

use super::{TokenSource, not_begun};
pub use held::AccessToken;
pub(super) use held::Held;
pub(super) use prover::NONCE;
pub use prover::Prover;
use replay::Replay;
pub(super) use showing::{Showing, UNBOUND};

/// Who keeps a token for calls.
pub trait Bearer: Clone + Send + Sync + 'static {
    /// A token whose time has not passed, or what the call ends with that has none.
    fn bearer(&self) -> impl Future<Output = Result<AccessToken, Status>> + Send;

    /// Another token than the one that a service refused, if one is to be had.
    fn instead_of(&self, refused: AccessToken) -> impl Future<Output = Option<AccessToken>> + Send;

    /// Sees to it that later calls have another token than the one that a service refused. Nobody waits.
    fn exchange_beside(&self, refused: AccessToken);

    /// Shows the key that its tokens are bound to, to one service.
    fn prover(&self) -> Option<Prover> {
        None
    }
}

/// Puts the token of a [`TokenSource`], or of a service, into the header `authorization` of each call, and where it is bound to
/// a key a proof of that into `dpop`: a tower layer.
///
/// A token that is refused as unauthenticated is exchanged. The call is made once more with the new one, if a
/// [`Guard`](crate::verifier::Guard) says that its method was not begun, as Tessera itself does, and if its request is
/// short enough to be kept (64 KiB). Any other call fails, since its method may have done its work; the next one has the
/// new token.
#[derive(Debug, Clone)]
pub struct TokenLayer<T = TokenSource>(T);

impl<T: Bearer> TokenLayer<T> {
    pub(super) fn of(tokens: &T) -> Self {
        Self(tokens.clone())
    }
}

impl<S, T: Bearer> Layer<S> for TokenLayer<T> {
    type Service = WithToken<S, T>;

    fn layer(&self, inner: S) -> Self::Service {
        let (tokens, prover) = (self.0.clone(), self.0.prover());
        WithToken { giving: Giving { tokens, prover }, inner }
    }
}

/// A channel whose calls carry a token.
#[derive(Clone)]
pub struct WithToken<S, T = TokenSource> {
    giving: Giving<T>,
    inner: S,
}

/// What a call is given, and where from.
#[derive(Clone)]
struct Giving<T> {
    tokens: T,
    /// Of the one service behind this channel.
    prover: Option<Prover>,
}

impl<S: fmt::Debug, T: fmt::Debug> fmt::Debug for WithToken<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { giving, inner } = self;
        f.debug_struct("WithToken").field("tokens", &giving.tokens).field("inner", inner).finish()
    }
}

impl<S, T, R> Service<Request<Body>> for WithToken<S, T>
where
    T: Bearer,
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

async fn send<S, T, R>(
    giving: Giving<T>,
    mut inner: S,
    request: Request<Body>,
) -> Result<Response<R>, S::Error>
where
    T: Bearer,
    S: Service<Request<Body>, Response = Response<R>>,
    R: Default,
{
    let tokens = &giving.tokens;
    let token = match tokens.bearer().await {
        Ok(token) => token,
        Err(status) => return Ok(status.into_http()),
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
        tokens.exchange_beside(token);
        return Ok(response);
    };
    let Some(token) = tokens.instead_of(token).await else { return Ok(response) };
    std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
    inner.call(giving.with(&token, &call, parts, Body::new(again))).await
}

impl<T> Giving<T> {
    fn with(&self, token: &AccessToken, call: &HeaderValue, parts: Parts, body: Body) -> Request<Body> {
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().extend(token.beside().clone());
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
