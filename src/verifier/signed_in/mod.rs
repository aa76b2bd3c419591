//! The other side: a client that keeps itself signed in, and sends its token along with each call.

mod builder;
mod error;
mod issuer;

use std::{
    fmt,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use http::Extensions;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tonic::Status;
use tower_layer::Layer;

use super::{
    attach::{AccessToken, Bearer, Held, Prover, TokenLayer, UNBOUND, WithToken},
    budget::{Backoff, Budget},
};
use crate::{clock::Clock, proto::Tokens};
pub use builder::{Login, OnSessionEnd, SignIn, TokenSourceBuilder};
pub use error::TokenError;
pub(super) use error::{DOMAIN, reason};
use issuer::Issuer;

/// The longest wait between two failed attempts, and between two that are refused: nobody changes a password back soon.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT_OF_REFUSED: Duration = Duration::from_secs(300);
/// How often a token is exchanged that another service refuses: so many at once, and one more after each so long. A
/// service that refuses whatever it gets would otherwise have everybody sign in with each call.
const REFUSED_AT_ONCE: u32 = 5;
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// A token whose time has not passed: signs in, refreshes ahead of the token's end, and signs in again where it is told
/// to. That the token was revoked it learns where the token is refused. However many ask, one of them does it. Cheap to
/// clone.
#[derive(Clone)]
pub struct TokenSource(Arc<Source>);

struct Source {
    issuer: Issuer,
    sign_in: SignIn,
    on_session_end: OnSessionEnd,
    clock: Arc<dyn Clock>,
    /// Shows the key that its tokens are to be bound to.
    prover: Option<Prover>,
    held: RwLock<Option<Held>>,
    flight: Mutex<Flight>,
    /// Somebody renews a token that is still good.
    is_renewing: AtomicBool,
    refused: Budget,
}

/// What only the one who renews touches.
struct Flight {
    refresh_token: Option<SecretString>,
    /// Why there is no token, and until when that is not tried again; for ever, where it is over.
    failure: Option<(TokenError, Option<Instant>)>,
    backoff: Backoff,
    backoff_of_refused: Backoff,
}

impl TokenSource {
    /// A token whose time has not passed. Asks the issuer only where the one that is held is near its end, and waits for the
    /// answer only where it has passed.
    ///
    /// # Errors
    /// If there is none: the issuer is away, refuses, or the session is over for good.
    pub async fn token(&self) -> Result<AccessToken, TokenError> {
        let now = self.0.clock.now();
        match self.0.held() {
            Some(held) if now < held.renew_time => Ok(held.token),
            Some(held) if now < held.expire_time => {
                self.renew_beside();
                Ok(held.token)
            }
            _ => self.renew(None).await,
        }
    }

    /// The layer that sends this source's token along.
    pub fn layer(&self) -> TokenLayer {
        TokenLayer::of(self)
    }

    /// A channel, or what stands around it, whose calls carry this source's token: `Client::new(source.attach(channel))`.
    pub fn attach<S>(&self, inner: S) -> WithToken<S> {
        self.layer().layer(inner)
    }

    /// In a task of its own: a caller that goes away must not take the answer with it, since the refresh token that
    /// was sent is spent.
    async fn renew(&self, refused: Option<AccessToken>) -> Result<AccessToken, TokenError> {
        let source = self.0.clone();
        let renewal = tokio::spawn(async move { source.renew(refused).await });
        renewal.await.unwrap_or(Err(TokenError::Interrupted))
    }

    /// The token that is held is good for a while; nobody waits.
    fn renew_beside(&self) {
        if self.0.is_renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let source = self.0.clone();
        tokio::spawn(async move {
            // Who fails has told the log why, and the next call tries again.
            let _ = source.renew(None).await;
            source.is_renewing.store(false, Ordering::Release);
        });
    }
}

impl Bearer for TokenSource {
    async fn bearer(&self) -> Result<AccessToken, Status> {
        Ok(self.token().await?)
    }

    async fn instead_of(&self, refused: AccessToken) -> Option<AccessToken> {
        let other = self.renew(Some(refused.clone())).await.ok()?;
        (other != refused).then_some(other)
    }

    fn exchange_beside(&self, refused: AccessToken) {
        let source = self.0.clone();
        tokio::spawn(async move { source.renew(Some(refused)).await });
    }

    fn prover(&self) -> Option<Prover> {
        self.0.prover.as_ref().map(Prover::apart)
    }
}

impl Source {
    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One at a time; who had to wait finds what the one before it got. A token that was refused is given back where
    /// too many were of late.
    async fn renew(&self, refused: Option<AccessToken>) -> Result<AccessToken, TokenError> {
        let mut flight = self.flight.lock().await;
        let now = self.clock.now();
        let is_good = |held: &Held| now < held.renew_time && refused.as_ref() != Some(&held.token);
        if let Some(held) = self.held().filter(is_good) {
            return Ok(held.token);
        }
        if let Some((error, until)) = &flight.failure
            && until.is_none_or(|until| Instant::now() < until)
        {
            return Err(error.clone());
        }
        // Only who would exchange it pays for that, and not those who wait for the same.
        if let Some(refused) = refused
            && !self.refused.take()
        {
            return Ok(refused);
        }
        let obtained = self.obtain(&mut flight).await.and_then(|tokens| self.bound(&mut flight, tokens));
        match obtained {
            Ok(tokens) => Ok(self.hold(&mut flight, tokens)),
            Err(error) => {
                tracing::warn!(%error, "has no new token");
                let wait = match &error {
                    TokenError::SessionEnded(_) => None,
                    TokenError::Refused(_) => Some(flight.backoff_of_refused.wait()),
                    TokenError::Unavailable(_) | TokenError::Interrupted => Some(flight.backoff.wait()),
                };
                flight.failure = Some((error.clone(), wait.map(|wait| Instant::now() + wait)));
                Err(error)
            }
        }
    }

    /// Refuses what is good in anybody's hands, where it was to be bound to a key. The session goes on.
    fn bound(&self, flight: &mut Flight, tokens: Tokens) -> Result<Tokens, TokenError> {
        if self.issuer.showing.has_bound(&tokens) {
            return Ok(tokens);
        }
        flight.refresh_token = Some(tokens.refresh_token.into());
        Err(TokenError::Refused(UNBOUND.to_owned()))
    }

    fn hold(&self, flight: &mut Flight, tokens: Tokens) -> AccessToken {
        let held = Held::new(&tokens, Extensions::default(), self.clock.now());
        let token = held.token.clone();
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = Some(held);
        flight.refresh_token = Some(tokens.refresh_token.into());
        flight.failure = None;
        flight.backoff.reset();
        flight.backoff_of_refused.reset();
        token
    }

    /// Refreshes, or signs in where there is nothing to refresh.
    async fn obtain(&self, flight: &mut Flight) -> Result<Tokens, TokenError> {
        let mut ended = None;
        if let Some(refresh_token) = flight.refresh_token.clone() {
            match self.issuer.refresh(&refresh_token).await {
                Err(TokenError::SessionEnded(reason)) => ended = Some(reason),
                answer => return answer,
            }
        }
        if let Some(reason) = &ended {
            tracing::warn!(reason, "the session is over");
            flight.refresh_token = None;
            *self.held.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        match (&self.sign_in, ended) {
            (SignIn::Password(_), Some(reason)) if self.on_session_end == OnSessionEnd::GiveUp => {
                Err(TokenError::SessionEnded(reason))
            }
            (SignIn::Password(login), _) => self.issuer.log_in(login).await,
            (SignIn::RefreshToken(_), ended) => Err(TokenError::SessionEnded(ended.unwrap_or_default())),
        }
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSource").field("sign_in", &self.0.sign_in).finish_non_exhaustive()
    }
}
