//! The token that a verifier's own calls to the issuer carry, where the issuer wants to know who asks.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Uri, header::AUTHORIZATION};
use tonic::{Code, Request, Response, Status};

use super::{
    AccessToken, HolderKey, TokenError,
    attach::{Prover, Showing},
};
use crate::clock::Clock;

/// What comes of asking a [`CallToken`].
pub type CallTokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Status>> + Send + 'a>>;

/// Where a verifier gets the token that it calls the issuer with: a service account's own, for the audience `tessera`.
pub trait CallToken: Send + Sync {
    /// A token that is good now. It is asked for with each call, so keep it until it is near its end; but not one that the
    /// issuer has `refused`, as it does once the account's tokens were ended.
    fn token(&self, refused: Option<AccessToken>) -> CallTokenFuture<'_>;

    /// The key that its tokens are bound to (RFC 9449), where they are: it is shown with each call.
    fn key(&self) -> Option<&HolderKey> {
        None
    }
}

/// The verifier's calls.
pub(super) struct Calls {
    source: Option<Arc<dyn CallToken>>,
    showing: Showing,
    sent: Mutex<Sent>,
}

/// The newest token that was sent.
#[derive(Default)]
struct Sent {
    token: Option<AccessToken>,
    is_refused: bool,
}

impl Calls {
    /// Those to the issuer that is reached there.
    pub(super) fn new(source: Option<Arc<dyn CallToken>>, at: &Uri, clock: &Arc<dyn Clock>) -> Self {
        let key = source.as_ref().and_then(|source| source.key());
        let prover = key.map(|key| Prover::new(key.clone(), clock.clone()));
        let showing = Showing::new(prover.as_ref(), Some(at));
        Self { source, showing, sent: Mutex::default() }
    }

    /// Makes a call of this method, with a token where there is a source of them.
    pub(super) async fn make<T, A, F>(
        &self,
        path: &str,
        request: impl Fn() -> Request<T>,
        call: impl Fn(Request<T>) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let Some(source) = &self.source else { return call(request()).await };
        let mut answer = call(self.authorized(&**source, path, request()).await?).await;
        // The token is good, and the proof of its key lacked what the issuer tells only now.
        if self.showing.is_told(&answer) {
            answer = call(self.authorized(&**source, path, request()).await?).await;
        }
        answer.inspect_err(|status| self.note(status))
    }

    async fn authorized<T>(
        &self,
        source: &dyn CallToken,
        path: &str,
        mut request: Request<T>,
    ) -> Result<Request<T>, Status> {
        let refused = self.take_refused();
        let token = source.token(refused.clone()).await.inspect_err(|_| self.put_back(refused))?;
        let no_token = || TokenError::Refused("it is no token".to_owned());
        let value = token.header().ok_or_else(no_token)?;
        request.metadata_mut().as_mut().insert(AUTHORIZATION, value);
        let shown = self.showing.shown(path, Some(&token), request);
        *self.sent() = Sent { token: Some(token), is_refused: false };
        Ok(shown)
    }

    /// Takes in what a call, or a reply that went on for a while, ended with.
    pub(super) fn note(&self, status: &Status) {
        if status.code() == Code::Unauthenticated {
            self.sent().is_refused = true;
        }
    }

    fn take_refused(&self) -> Option<AccessToken> {
        let mut sent = self.sent();
        if std::mem::take(&mut sent.is_refused) { sent.token.clone() } else { None }
    }

    /// There was no other token: the next call asks for one again.
    fn put_back(&self, refused: Option<AccessToken>) {
        self.sent().is_refused |= refused.is_some();
    }

    // A panic elsewhere leaves it whole.
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
