//! The tower layer in front of a service's methods: no call gets past it without a token that is good for it.

mod answer;
mod interceptor;
mod requirement;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, header};
use tower_layer::Layer;
use tower_service::Service;

use super::{ClientCertificate, ConnectedVerifier, Denial, Refusal, Shown, not_begun};
use crate::domain::claims::Claims;
pub use interceptor::GuardInterceptor;
use requirement::Policy;
pub use requirement::Requirement;

/// Guards the methods of a tonic server, or the paths of any other HTTP service: a tower layer. Each call needs a good
/// token, and what its path requires beside; a gRPC call is refused with a status of the error table, and any other
/// with an HTTP status and `WWW-Authenticate` (RFC 6750 section 3). The claims go along in the request's extensions,
/// see [`ClaimsOf`]. A token that is bound to a certificate is good for who has shown it, see [`ClientCertificate`].
///
/// ```no_run
/// # use tessera::verifier::{ConnectedVerifier, Guard, Requirement};
/// # fn guard(verifier: ConnectedVerifier) -> Guard {
/// Guard::new(verifier)
///     .require("/shop.v1.Orders/Delete", Requirement::scopes(["orders:write"]).any_role(["clerk", "admin"]))
///     .allow_anonymous("/grpc.health.v1.Health/*")
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Guard {
    verifier: ConnectedVerifier,
    policy: Arc<Policy>,
}

impl Guard {
    /// One that lets each call in that has a good token.
    pub fn new(verifier: ConnectedVerifier) -> Self {
        Self { verifier, policy: Arc::default() }
    }

    /// What calls of this path need beside a good token. A path is a method, as `/shop.v1.Orders/Delete`, or with
    /// `*` in the method's place each method of the service that isn't named itself. It must be what the router
    /// matches, letter by letter.
    pub fn require(mut self, path: &str, requirement: Requirement) -> Self {
        Arc::make_mut(&mut self.policy).set(path, Some(requirement));
        self
    }

    /// Lets calls of this path in without a token. One that they have is not looked at.
    pub fn allow_anonymous(mut self, path: &str) -> Self {
        Arc::make_mut(&mut self.policy).set(path, None);
        self
    }

    /// What calls of all other paths need; a good token, unless said otherwise. With [`Requirement::nobody`] a path
    /// that was forgotten is refused.
    pub fn others(mut self, requirement: Requirement) -> Self {
        Arc::make_mut(&mut self.policy).others = requirement;
        self
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded { guard: self.clone(), inner }
    }
}

/// A service behind a [`Guard`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S: tonic::server::NamedService> tonic::server::NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B, R> Service<http::Request<B>> for Guarded<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // The one that was found ready serves this call; its clone is asked anew.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let Some(requirement) = self.guard.policy.of(request.uri().path()) else {
            not_begun::let_in(request.headers_mut());
            return Box::pin(inner.call(request));
        };
        // Nearly always it is known at once, and nothing has to be kept for later.
        let shown = shown(request.extensions());
        let known = match bearer(request.headers()) {
            Ok(token) => self.guard.verifier.try_check_shown(token, &shown),
            Err(denial) => Some(Err(denial)),
        };
        if let Some(checked) = known {
            let admitted = checked.and_then(|claims| requirement.admit(claims));
            return match admitted {
                Ok(claims) => {
                    let_in(&mut request, claims);
                    Box::pin(inner.call(request))
                }
                Err(denial) => {
                    let response = answer::refuse(&denial, &request);
                    Box::pin(std::future::ready(Ok(response)))
                }
            };
        }
        let guard = self.guard.clone();
        Box::pin(async move {
            // Apart from the request, whose body may not be shared between threads.
            let (headers, path) = (request.headers().clone(), request.uri().path().to_owned());
            match guard.admit(&headers, &path, &shown).await {
                Ok(claims) => {
                    let_in(&mut request, claims);
                    inner.call(request).await
                }
                Err(denial) => Ok(answer::refuse(&denial, &request)),
            }
        })
    }
}

fn let_in<B>(request: &mut http::Request<B>, claims: Claims) {
    not_begun::let_in(request.headers_mut());
    request.extensions_mut().insert(claims);
}

impl Guard {
    /// The same where the issuer has to be asked.
    async fn admit(&self, headers: &HeaderMap, path: &str, shown: &Shown) -> Result<Claims, Denial> {
        let claims = self.verifier.check_shown(bearer(headers)?, shown).await?;
        match self.policy.of(path) {
            Some(requirement) => requirement.admit(claims),
            None => Ok(claims),
        }
    }
}

/// What the caller has shown beside its token.
fn shown(extensions: &http::Extensions) -> Shown {
    let certificate = extensions.get::<ClientCertificate>();
    Shown { certificate: certificate.map(|it| it.thumbprint().to_owned()), ..Shown::default() }
}

/// The one bearer token of a request (RFC 6750 section 2.1).
///
/// # Errors
/// If there is none; or if there are two, since an intermediary and we might each believe another.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Denial> {
    const MALFORMED: Denial = Denial::Refused(Refusal::Malformed);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(Denial::Missing)?;
    if values.next().is_some() {
        return Err(MALFORMED);
    }
    let value = value.to_str().map_err(|_| MALFORMED)?;
    let (scheme, token) = value.split_once(' ').ok_or(MALFORMED)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(Denial::Missing) }
}

/// The claims that a [`Guard`] found good, of a request that it let in.
pub trait ClaimsOf {
    /// The claims; `None` where the path needs no token.
    fn claims(&self) -> Option<&Claims>;
}

impl ClaimsOf for http::Extensions {
    fn claims(&self) -> Option<&Claims> {
        self.get()
    }
}

impl<T> ClaimsOf for tonic::Request<T> {
    fn claims(&self) -> Option<&Claims> {
        self.extensions().get()
    }
}

impl<T> ClaimsOf for http::Request<T> {
    fn claims(&self) -> Option<&Claims> {
        self.extensions().get()
    }
}
