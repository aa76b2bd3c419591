//! Who a service is to others: it proves itself to the issuer, holds short tokens for those that it calls, and acts for
//! those who call it.

mod assertion;
mod cache;
mod credential;
mod error;
mod issuer;
mod private_key;
mod slot;
mod tokens;

use std::{fmt, sync::Arc};

use tonic::transport::{Channel, Endpoint};

use super::{attach::AccessToken, channel::connect_lazily};
use crate::{
    clock::{Clock, SystemClock},
    proto::auth_client::AuthClient,
};
use cache::{Purpose, Slots};
pub use credential::Credential;
pub use error::IdentityError;
use issuer::{Exchange, Issue};
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
    auth: AuthClient<Channel>,
    clock: Arc<dyn Clock>,
    own: Slots,
    to_act_with: Slots,
}

/// Says who a service is; [`Self::build`] makes it.
#[must_use]
pub struct ServiceIdentityBuilder {
    channel: Result<Channel, tonic::transport::Error>,
    client_id: String,
    credential: Credential,
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
        builder(Endpoint::new(endpoint).map(connect_lazily), client_id.into(), credential)
    }

    /// The same over a channel that is there, whichever way it connects.
    pub fn over(
        channel: Channel,
        client_id: impl Into<String>,
        credential: Credential,
    ) -> ServiceIdentityBuilder {
        builder(Ok(channel), client_id.into(), credential)
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

    fn kept(&self, purpose: Purpose) -> Kept<Issue> {
        let purpose = Arc::new(purpose);
        Kept { slot: self.0.own.of(&purpose), way: Issue { core: self.0.clone(), purpose } }
    }
}

fn builder(
    channel: Result<Channel, tonic::transport::Error>,
    client_id: String,
    credential: Credential,
) -> ServiceIdentityBuilder {
    ServiceIdentityBuilder {
        channel,
        client_id,
        credential,
        clock: Arc::new(SystemClock),
        tokens_to_act_with: TOKENS_TO_ACT_WITH,
    }
}

impl ServiceIdentityBuilder {
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
    pub fn build(self) -> Result<ServiceIdentity, tonic::transport::Error> {
        Ok(ServiceIdentity(Arc::new(Core {
            client_id: self.client_id,
            credential: self.credential,
            auth: AuthClient::new(self.channel?),
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
