//! The token that a verifier's own calls to the issuer carry, where the issuer wants to know who asks.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

use super::{AccessToken, TokenError};

/// What comes of asking a [`CallToken`].
pub type CallTokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, Status>> + Send + 'a>>;

/// Where a verifier gets the token that it calls the issuer with: a service account's own, for the audience `tessera`.
pub trait CallToken: Send + Sync {
    /// A token that is good now. It is asked for with each call, so keep it until it is near its end; but not one that the
    /// issuer has `refused`, as it does once the account's tokens were ended.
    fn token(&self, refused: Option<AccessToken>) -> CallTokenFuture<'_>;
}

/// The verifier's calls.
#[derive(Default)]
pub(super) struct Calls {
    source: Option<Arc<dyn CallToken>>,
    sent: Mutex<Sent>,
}

/// The newest token that was sent.
#[derive(Default)]
struct Sent {
    token: Option<AccessToken>,
    is_refused: bool,
}

impl Calls {
    pub(super) fn new(source: Option<Arc<dyn CallToken>>) -> Self {
        Self { source, sent: Mutex::default() }
    }

    /// Makes a call, with a token where there is a source of them.
    pub(super) async fn make<T, A, F>(
        &self,
        mut request: Request<T>,
        call: impl FnOnce(Request<T>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<A, Status>>,
    {
        if let Some(source) = &self.source {
            let refused = self.take_refused();
            let token = source.token(refused.clone()).await.inspect_err(|_| self.put_back(refused))?;
            request.metadata_mut().insert("authorization", bearer(&token)?);
            *self.sent() = Sent { token: Some(token), is_refused: false };
        }
        call(request).await.inspect_err(|status| self.note(status))
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

fn bearer(token: &AccessToken) -> Result<AsciiMetadataValue, TokenError> {
    let value = format!("Bearer {}", token.expose()).parse::<AsciiMetadataValue>();
    let mut value = value.map_err(|_| TokenError::Refused("it is no token".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}
