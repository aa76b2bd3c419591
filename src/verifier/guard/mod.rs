//! The tower layer in front of a service's methods: no call gets past it without a token that is good for it.

mod answer;
mod interceptor;
mod presented;
mod requirement;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{ConnectedVerifier, Denial, KeyProofs, not_begun};
use crate::domain::claims::Claims;
pub use interceptor::GuardInterceptor;
use presented::{Presented, shown};
pub use presented::{Scheme, bearer, credentials};
use requirement::Policy;
pub use requirement::Requirement;

/// Guards the methods of a tonic server, or the paths of any other HTTP service: a tower layer. Each call needs a good
/// token, and what its path requires beside; a gRPC call is refused with a status of the error table, and any other
/// with an HTTP status and `WWW-Authenticate` (RFC 6750 section 3). The claims go along in the request's extensions,
/// see [`ClaimsOf`]. A token that is bound to a certificate is good for who has shown it, see [`ClientCertificate`].
///
/// A token that is bound to a key is let in under the scheme `DPoP` with a proof of the key that was made for this call and
/// this token (RFC 9449), and under no other. The proof names the path as the guard sees it. Each is good once, at this guard
/// and its clones; with [`KeyProofs::with_nonces`] it must carry what the guard has told.
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
    proofs: Arc<KeyProofs>,
}

impl Guard {
    /// One that lets each call in that has a good token.
    pub fn new(verifier: ConnectedVerifier) -> Self {
        Self { verifier, policy: Arc::default(), proofs: Arc::default() }
    }

    /// What proofs of keys must be. Guards that share these take each proof once between them.
    pub fn key_proofs(mut self, proofs: impl Into<Arc<KeyProofs>>) -> Self {
        self.proofs = proofs.into();
        self
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
        let admitted = match Presented::of(&request, &self.guard.proofs, &self.guard.verifier) {
            Ok(presented) => match self.guard.verifier.try_check_shown(&presented.token, &presented.shown) {
                Some(checked) => {
                    let admitted =
                        checked.and_then(|claims| self.guard.admit(requirement, claims, &presented));
                    Ok(admitted.map(|claims| (claims, presented.next_nonce)))
                }
                None => Err(presented.into_owned()),
            },
            Err(denial) => Ok(Err(denial)),
        };
        let presented = match admitted {
            Ok(Ok((claims, None))) => {
                let_in(&mut request, claims);
                return Box::pin(inner.call(request));
            }
            Ok(Ok((claims, next_nonce))) => {
                let_in(&mut request, claims);
                return Box::pin(telling(inner.call(request), next_nonce));
            }
            Ok(Err(denial)) => {
                let response = answer::refuse(&denial, &request);
                return Box::pin(std::future::ready(Ok(response)));
            }
            Err(presented) => presented,
        };
        let guard = self.guard.clone();
        Box::pin(async move {
            // Apart from the request, whose body may not be shared between threads.
            let path = request.uri().path().to_owned();
            match guard.ask_and_admit(&presented, &path).await {
                Ok(claims) => {
                    let_in(&mut request, claims);
                    telling(inner.call(request), presented.next_nonce).await
                }
                Err(denial) => Ok(answer::refuse(&denial, &request)),
            }
        })
    }
}

/// The answer of a method, with what the caller's next proof is to carry.
async fn telling<R, E>(
    answer: impl Future<Output = Result<http::Response<R>, E>>,
    next_nonce: Option<String>,
) -> Result<http::Response<R>, E> {
    let mut answer = answer.await?;
    if let Some(nonce) = next_nonce {
        answer::tell_nonce(&nonce, answer.headers_mut());
    }
    Ok(answer)
}

fn let_in<B>(request: &mut http::Request<B>, claims: Claims) {
    not_begun::let_in(request.headers_mut());
    request.extensions_mut().insert(claims);
}

impl Guard {
    /// Lets in who has a good token that is enough, with a proof that is used by that.
    fn admit(
        &self,
        requirement: &Requirement,
        claims: Claims,
        presented: &Presented<'_>,
    ) -> Result<Claims, Denial> {
        let claims = requirement.admit(claims)?;
        if let Some(proof) = &presented.proof {
            self.proofs.take(proof, self.verifier.time().0)?;
        }
        Ok(claims)
    }

    /// The same where the issuer has to be asked.
    async fn ask_and_admit(&self, presented: &Presented<'_>, path: &str) -> Result<Claims, Denial> {
        let claims = self.verifier.check_shown(&presented.token, &presented.shown).await?;
        match self.policy.of(path) {
            Some(requirement) => self.admit(requirement, claims, presented),
            None => Ok(claims),
        }
    }
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
