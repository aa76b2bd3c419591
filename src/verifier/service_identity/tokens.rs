//! Tokens for one purpose: asked for one by one, or sent along with each call.

use std::fmt;

use tonic::Status;
use tower_layer::Layer;

use super::{
    Core, IdentityError,
    issuer::{Exchange, Issue},
    slot::Kept,
};
use crate::verifier::{
    CallToken, CallTokenFuture, HolderKey,
    attach::{AccessToken, Bearer, Prover, TokenLayer, WithToken},
};

/// A service's tokens for certain audiences and scopes: its own ones, or those with which it acts for somebody. Cheap to
/// clone.
#[derive(Clone)]
pub struct ServiceTokens(pub(super) Way);

#[derive(Clone)]
pub(super) enum Way {
    Own(Kept<Issue>),
    ActingFor(Kept<Exchange>),
}

impl ServiceTokens {
    /// A token whose time has not passed. The issuer is asked ahead of its end, and waited for only where there is none.
    ///
    /// # Errors
    /// If there is none: the issuer refuses, is away, or the credential can't be used.
    pub async fn token(&self) -> Result<AccessToken, IdentityError> {
        match &self.0 {
            Way::Own(kept) => kept.token().await,
            Way::ActingFor(kept) => kept.token().await,
        }
    }

    /// The layer that sends these tokens along.
    pub fn layer(&self) -> TokenLayer<Self> {
        TokenLayer::of(self)
    }

    /// A channel, or what stands around it, whose calls carry these tokens: `Client::new(tokens.attach(channel))`.
    pub fn attach<S>(&self, inner: S) -> WithToken<S, Self> {
        self.layer().layer(inner)
    }

    fn core(&self) -> &Core {
        match &self.0 {
            Way::Own(kept) => &kept.way.core,
            Way::ActingFor(kept) => &kept.way.own.way.core,
        }
    }
}

impl Bearer for ServiceTokens {
    async fn bearer(&self) -> Result<AccessToken, Status> {
        Ok(self.token().await?)
    }

    async fn instead_of(&self, refused: AccessToken) -> Option<AccessToken> {
        let other = match &self.0 {
            Way::Own(kept) => kept.replace(refused.clone()).await,
            Way::ActingFor(kept) => kept.replace(refused.clone()).await,
        };
        other.ok().filter(|other| *other != refused)
    }

    fn exchange_beside(&self, refused: AccessToken) {
        match &self.0 {
            Way::Own(kept) => kept.replace_beside(refused),
            Way::ActingFor(kept) => kept.replace_beside(refused),
        }
    }

    fn prover(&self) -> Option<Prover> {
        self.core().prover.as_ref().map(Prover::apart)
    }
}

/// Those for the audience `tessera` are what a verifier calls its issuer with.
impl CallToken for ServiceTokens {
    fn token(&self, refused: Option<AccessToken>) -> CallTokenFuture<'_> {
        Box::pin(async move {
            match refused {
                Some(refused) => match &self.0 {
                    Way::Own(kept) => Ok(kept.replace(refused).await?),
                    Way::ActingFor(kept) => Ok(kept.replace(refused).await?),
                },
                None => self.bearer().await,
            }
        })
    }

    fn key(&self) -> Option<&HolderKey> {
        self.core().prover.as_ref().map(Prover::key)
    }
}

impl fmt::Debug for ServiceTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (purpose, acts) = match &self.0 {
            Way::Own(kept) => (&kept.way.purpose, false),
            Way::ActingFor(kept) => (&kept.way.purpose, true),
        };
        f.debug_struct("ServiceTokens")
            .field("audience", &purpose.audience)
            .field("scope", &purpose.scope)
            .field("acts_for_another", &acts)
            .finish_non_exhaustive()
    }
}
