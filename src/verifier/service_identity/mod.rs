//! Who a service is to others: it proves itself to the issuer, holds short tokens for those that it calls, and acts for
//! those who call it.
//!
//! What it gets may be bound to a key of its own (RFC 9449), which it shows to the issuer and, by `attach/`, to whom it calls;
//! or to its certificate (RFC 8705). That one may be replaced while it runs, and goes along with each token: `reach.rs` leads to
//! the issuer over the connection that a token is good on.

mod assertion;
mod cache;
mod credential;
mod error;
mod issuer;
mod private_key;
mod reach;
mod slot;
mod tokens;

use std::{fmt, sync::Arc};

use http::Uri;
#[cfg(feature = "tls")]
use tonic::transport::ClientTlsConfig;
use tonic::transport::{Channel, Endpoint, Error};

#[cfg(feature = "tls")]
use super::CertificateFiles;
use super::{
    HolderKey,
    attach::{AccessToken, Prover, Showing},
    channel::connect_lazily,
};
use crate::{
    clock::{Clock, SystemClock},
    proto::auth_client::AuthClient,
};
use cache::{Purpose, Slots};
pub use credential::Credential;
pub use error::IdentityError;
use issuer::{Exchange, Issue};
use reach::Reach;
use slot::Kept;
pub use tokens::ServiceTokens;
use tokens::Way;

/// How many tokens of its own a service holds: one for each set of audiences and scopes.
const OWN_TOKENS: usize = 1000;
/// How many it holds to act with, at some 3 KiB each, unless said otherwise.
const TOKENS_TO_ACT_WITH: usize = 10_000;

/// A service, as its issuer knows it. Gets a token for each service that it calls, once for all who ask; renews it ahead
/// of its end, at a moment by chance, so that a hundred copies of a service don't come at once; and goes on with the
/// one that it has for as long as that lives, where the issuer is away. Cheap to clone.
///
/// ```no_run
/// # use tessera::verifier::{Credential, ServiceIdentity};
/// # use tonic::transport::Channel;
/// # fn ledger(channel: Channel) -> Result<(), tonic::transport::Error> {
/// let secret = Credential::client_secret_file("/run/secrets/orders");
/// let orders = ServiceIdentity::at("http://127.0.0.1:50051", "the client_id", secret).build()?;
/// // For any generated client: LedgerClient::new(…)
/// let ledger = orders.tokens(&["ledger"], &["entries:write"]).attach(channel);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ServiceIdentity(Arc<Core>);

struct Core {
    client_id: String,
    credential: Credential,
    reach: Reach,
    /// The key that its tokens are to be bound to, for those that it calls, and for the issuer.
    prover: Option<Prover>,
    showing: Showing,
    clock: Arc<dyn Clock>,
    own: Slots,
    to_act_with: Slots,
}

/// What a service exports of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityFigures {
    /// Tokens of its own that there is a place for, a thousand at most: one for each set of audiences and scopes.
    pub own_tokens: usize,
    /// The same of tokens to act with, as many as [`ServiceIdentityBuilder::tokens_to_act_with`] says at most.
    pub tokens_to_act_with: usize,
}

/// Says who a service is; [`Self::build`] makes it.
#[must_use]
pub struct ServiceIdentityBuilder {
    reach: Result<Reach, Error>,
    /// Where the issuer is, as far as that is known.
    at: Option<Uri>,
    client_id: String,
    credential: Credential,
    key: Option<HolderKey>,
    clock: Arc<dyn Clock>,
    tokens_to_act_with: usize,
}

impl ServiceIdentity {
    /// The service account with this `client_id`, which proves itself so at the issuer at this endpoint: a URL, or an
    /// [`Endpoint`] with TLS and timeouts of its own. Over a network that others share, use TLS: the credential goes there.
    /// To be said on a runtime of tokio's, which tonic's channels run on.
    pub fn at<E>(endpoint: E, client_id: impl Into<String>, credential: Credential) -> ServiceIdentityBuilder
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let endpoint = Endpoint::new(endpoint);
        let at = endpoint.as_ref().ok().map(|endpoint| endpoint.uri().clone());
        let reach = endpoint.map(|endpoint| channel(connect_lazily(endpoint)));
        ServiceIdentityBuilder::new(reach, at, client_id.into(), credential)
    }

    /// The same over a channel that is there, whichever way it connects. Proofs of a key name no more than the path of the
    /// method then, which is not enough for an issuer with `tokens.dpop_origins`.
    pub fn over(
        channel: Channel,
        client_id: impl Into<String>,
        credential: Credential,
    ) -> ServiceIdentityBuilder {
        ServiceIdentityBuilder::new(Ok(self::channel(channel)), None, client_id.into(), credential)
    }

    /// The service account with this `client_id`, which proves itself with the certificate in these files (RFC 8705) at
    /// the issuer at this endpoint. The files may be replaced at any time: the next token is then got over a new
    /// connection, while those of before are used to their end. All tokens are bound to their certificate, so call others
    /// over a [`CertifiedChannel`](super::CertifiedChannel) of the same files. `tls` says whom to trust, and counts instead
    /// of what the endpoint says.
    #[cfg(feature = "tls")]
    pub fn by_certificate(
        endpoint: Endpoint,
        tls: ClientTlsConfig,
        client_id: impl Into<String>,
        files: &CertificateFiles,
    ) -> ServiceIdentityBuilder {
        let at = Some(endpoint.uri().clone());
        let reach = files.connect(endpoint, tls).map(Reach::Certified);
        ServiceIdentityBuilder::new(reach, at, client_id.into(), Credential::connection())
    }

    /// Its tokens for these audiences with these scopes, whose order does not matter. None of either is what the issuer
    /// takes for that.
    pub fn tokens(&self, audience: &[&str], scope: &[&str]) -> ServiceTokens {
        ServiceTokens(Way::Own(self.kept(Purpose::of(audience, scope))))
    }

    /// A token for these audiences with these scopes.
    ///
    /// # Errors
    /// If there is none: the issuer refuses, is away, or the credential can't be used.
    pub async fn token(&self, audience: &[&str], scope: &[&str]) -> Result<AccessToken, IdentityError> {
        self.tokens(audience, scope).token().await
    }

    /// The tokens with which it acts, at these audiences and with these scopes, for whom it was handed this token of
    /// (RFC 8693): for one call that it serves, `Client::new(identity.acting_for(token, …).attach(channel))`. It needs
    /// the grant `token_exchange`, and may ask tokens for `tessera`. They end with the token that it was handed.
    pub fn acting_for(&self, token: &str, audience: &[&str], scope: &[&str]) -> ServiceTokens {
        let purpose = Arc::new(Purpose::acting_for(token, audience, scope));
        let slot = self.0.to_act_with.of(&purpose);
        let own = self.kept(issuer::own_purpose());
        let way = Exchange { own, purpose, subject_token: Arc::new(token.into()) };
        ServiceTokens(Way::ActingFor(Kept { slot, way }))
    }

    /// A token with which it acts for whom it was handed this token of.
    ///
    /// # Errors
    /// If there is none: as [`Self::token`], or since the token that it was handed has ended.
    pub async fn exchange(
        &self,
        token: &str,
        audience: &[&str],
        scope: &[&str],
    ) -> Result<AccessToken, IdentityError> {
        self.acting_for(token, audience, scope).token().await
    }

    /// What there is to measure. A place counts whether or not its token was got, and until another one takes it.
    pub fn figures(&self) -> IdentityFigures {
        IdentityFigures { own_tokens: self.0.own.len(), tokens_to_act_with: self.0.to_act_with.len() }
    }

    fn kept(&self, purpose: Purpose) -> Kept<Issue> {
        let purpose = Arc::new(purpose);
        Kept { slot: self.0.own.of(&purpose), way: Issue { core: self.0.clone(), purpose } }
    }
}

fn channel(channel: Channel) -> Reach {
    Reach::Channel(AuthClient::new(channel))
}

impl ServiceIdentityBuilder {
    fn new(reach: Result<Reach, Error>, at: Option<Uri>, client_id: String, credential: Credential) -> Self {
        let (clock, tokens_to_act_with) = (Arc::new(SystemClock), TOKENS_TO_ACT_WITH);
        Self { reach, at, client_id, credential, key: None, clock, tokens_to_act_with }
    }

    /// Has its tokens bound to this key (DPoP, RFC 9449), those to act with too, and shows it with each call that they are
    /// attached to: who takes a token can do nothing with it. A token that comes back unbound, as from an older issuer, is
    /// not used. One key may be that of a whole fleet, or each program makes its own with [`HolderKey::generate`]: the
    /// issuer asks for no other than the one that is shown.
    ///
    /// The proofs name the path of the method that is called; where a service wants its origin too, tell the generated
    /// client with `with_origin`.
    pub fn bound_to_key(mut self, key: HolderKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Asks this clock for the time, and not the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How many tokens to act with are held, at some 3 KiB each; 10,000 unless said otherwise. One more takes the place
    /// of one that was not asked for of late.
    pub fn tokens_to_act_with(mut self, tokens: usize) -> Self {
        self.tokens_to_act_with = tokens;
        self
    }

    /// Makes it. Nothing is asked of the issuer before the first token is.
    ///
    /// # Errors
    /// If the endpoint is none, or its TLS settings are of no use.
    pub fn build(self) -> Result<ServiceIdentity, Error> {
        let prover = self.key.map(|key| Prover::new(key, self.clock.clone()));
        Ok(ServiceIdentity(Arc::new(Core {
            client_id: self.client_id,
            credential: self.credential,
            reach: self.reach?,
            showing: Showing::new(prover.as_ref(), self.at.as_ref()),
            prover,
            clock: self.clock,
            own: Slots::up_to(OWN_TOKENS),
            to_act_with: Slots::up_to(self.tokens_to_act_with),
        })))
    }
}

impl fmt::Debug for ServiceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceIdentity")
            .field("client_id", &self.0.client_id)
            .field("credential", &self.0.credential)
            .finish_non_exhaustive()
    }
}
