//! How a verifier is connected.

use std::{path::PathBuf, sync::Arc, time::Duration};

use chrono::TimeDelta;
use http::Uri;
use tokio::{sync::watch, time::timeout};
use tonic::transport::{Channel, Endpoint};

use super::{
    Connected, ConnectedVerifier, Core, OnStale, Standing, Task, ask::Issuer, contact::Contact, feed::Feed,
    lookups::Lookups, news::News, state_file::StateFile,
};
#[cfg(feature = "encryption")]
use crate::verifier::DecryptionKey;
use crate::{
    clock::{Clock, SystemClock},
    domain::claims::MAX_LEEWAY_SECONDS,
    verifier::{CallToken, Expected, SharedKey, Verifier, call_token::Calls, channel::connect_lazily},
};

/// The issuer forgets revocations that concern nothing which is accepted within so much.
const MOST_LEEWAY: Duration = Duration::from_secs(MAX_LEEWAY_SECONDS.unsigned_abs());

/// Why a verifier doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint is none, or its TLS settings are of no use.
    #[error("the endpoint: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// Without it, a token of any issuer that shares its keys, or for any service, would be good.
    #[error("{0} is not set")]
    Unset(&'static str),
    /// The leeway is so long that revocations would be forgotten while their tokens are accepted.
    #[error("the leeway is longer than five minutes")]
    Leeway,
    /// The issuer was not reached in time, and there is no file to go on from. The log says why.
    #[error("the issuer was not reached within {0:?}, and there is no state file to go on from")]
    IssuerAway(Duration),
}

/// Says what a verifier expects of tokens and of its issuer; [`Self::start`] makes it.
#[must_use]
pub struct ConnectBuilder {
    /// Taken out at the start.
    endpoint: Option<Result<Endpoint, tonic::transport::Error>>,
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
    max_staleness: Duration,
    on_stale: OnStale,
    first_contact: Duration,
    state_file: Option<PathBuf>,
    authorization: Option<Arc<dyn CallToken>>,
    token_cache: usize,
    lookups_per_second: u32,
    shared_secrets: Vec<SharedKey>,
    #[cfg(feature = "encryption")]
    decryption_keys: Vec<DecryptionKey>,
    #[cfg(feature = "encryption")]
    require_encryption: bool,
    clock: Arc<dyn Clock>,
}

impl Verifier {
    /// Connects to the issuer at this endpoint: a URL, or an [`Endpoint`] with TLS and timeouts of its own. `https`
    /// needs the feature `tls` and trusts the system's roots unless the endpoint says otherwise.
    ///
    /// Which tokens are good is decided by whoever answers there: over a network that others share, use TLS.
    pub fn connect<E>(endpoint: E) -> ConnectBuilder
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        ConnectBuilder {
            endpoint: Some(Endpoint::new(endpoint)),
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(30),
            max_staleness: Duration::from_secs(30),
            on_stale: OnStale::default(),
            first_contact: Duration::from_secs(10),
            state_file: None,
            authorization: None,
            token_cache: 10_000,
            lookups_per_second: 10,
            shared_secrets: Vec::new(),
            #[cfg(feature = "encryption")]
            decryption_keys: Vec::new(),
            #[cfg(feature = "encryption")]
            require_encryption: false,
            clock: Arc::new(SystemClock),
        }
    }
}

impl ConnectBuilder {
    /// The claim `iss` that a token must have: the issuer's setting `tokens.issuer`, exactly. Must be given: an
    /// issuer that was asked for its own name could call itself anything.
    pub fn issuer(mut self, issuer: impl Into<String>) -> Self {
        self.issuer = Some(issuer.into());
        self
    }

    /// This service's own name, which must be among a token's audiences. Must be given: a token for another service
    /// is not for this one.
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// How far clocks may differ; 30 s unless said otherwise, and at most five minutes.
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.leeway = leeway;
        self
    }

    /// How old what is known may be before [`OnStale`] decides; 30 s unless said otherwise. The issuer is heard
    /// every 5 s, so much less than 15 s takes a short hiccup for a loss.
    pub fn max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// What to do then; [`OnStale::FailClosed`] unless said otherwise.
    pub fn on_stale(mut self, on_stale: OnStale) -> Self {
        self.on_stale = on_stale;
        self
    }

    /// How long [`Self::start`] waits for the issuer; 10 s unless said otherwise. With zero it doesn't wait at all,
    /// and tokens are dealt with as [`OnStale`] says until the issuer is heard.
    pub fn first_contact(mut self, wait: Duration) -> Self {
        self.first_contact = wait;
        self
    }

    /// Keeps what is known in a file of mode 0600, so that the verifier can start while the issuer is away. How stale
    /// it is counts from the time in the file. Its folder must exist, and be writable by this process alone.
    pub fn state_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.state_file = Some(path.into());
        self
    }

    /// Sends a token along with the verifier's own calls, `Keys.Watch`, `Keys.GetJwk` and `Auth.VerifyToken`: an issuer with
    /// `server.watch = "services"` or `tokens.introspection = "services"` wants to know which service asks. One of its
    /// account's `own_audiences`, or its name where it has none, must be this verifier's audience where [`OnStale::AskIssuer`] is
    /// chosen: the issuer tells a service nothing of tokens that are not for it.
    pub fn authorization(mut self, source: Arc<dyn CallToken>) -> Self {
        self.authorization = Some(source);
        self
    }

    /// How many checked tokens are remembered, at about 1 KiB each; 10,000 unless said otherwise, 0 for none.
    pub fn token_cache(mut self, tokens: usize) -> Self {
        self.token_cache = tokens;
        self
    }

    /// How often in a second the issuer may be asked for keys that it doesn't vouch for in the token's header; 10
    /// unless said otherwise. An issuer with `signing.endorse_in_header = false` is asked once for each session.
    pub fn lookups_per_second(mut self, lookups: u32) -> Self {
        self.lookups_per_second = lookups;
        self
    }

    /// Takes tokens signed with these secrets too, which the issuer shares with the audience.
    pub fn shared_secrets(mut self, secrets: Vec<SharedKey>) -> Self {
        self.shared_secrets = secrets;
        self
    }

    /// Decrypts tokens that come encrypted to one of these keys, and still takes those that are only signed.
    #[cfg(feature = "encryption")]
    pub fn decryption_keys(mut self, keys: Vec<DecryptionKey>) -> Self {
        self.decryption_keys = keys;
        self
    }

    /// Refuses tokens that are only signed.
    #[cfg(feature = "encryption")]
    pub fn require_encryption(mut self) -> Self {
        self.require_encryption = true;
        self
    }

    /// Asks this clock for the time, and not the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Starts to follow the issuer, and waits until its state is known or a file has told enough of it.
    ///
    /// # Errors
    /// If something is not set or makes no sense, or if the issuer is away and there is no file to go on from.
    pub async fn start(mut self) -> Result<ConnectedVerifier, StartError> {
        let expected = self.expected()?;
        let (first_contact, state_file) = (self.first_contact, self.state_file.clone());
        let endpoint = self.endpoint.take().ok_or(StartError::Unset("the endpoint"))??;
        let (at, channel) = (endpoint.uri().clone(), connect_lazily(endpoint));
        let core = Arc::new(self.core(expected, &channel, &at));
        let news = Arc::<News>::default();
        let mut tasks = Vec::new();
        let mut place = None;
        if let Some(path) = state_file {
            let file = StateFile::new(path, core.clone());
            place = file.load().await;
            tasks.push(Task::spawn(file.keep(news.clone())));
        }
        let is_fresh = core.contact.staleness().is_some_and(|age| age <= core.max_staleness);
        let has_state = place.is_some();
        let feed = Feed::new(core.clone(), &channel, place.unwrap_or_default(), news);
        tasks.push(Task::spawn(feed.follow()));
        if !is_fresh && !first_contact.is_zero() {
            let mut standing = core.contact.standing();
            let heard = timeout(first_contact, standing.wait_for(|now| *now == Standing::Connected)).await;
            if heard.is_err() && !has_state {
                return Err(StartError::IssuerAway(first_contact));
            }
        }
        Ok(ConnectedVerifier(Arc::new(Connected { core, _tasks: tasks })))
    }

    #[cfg(test)]
    pub(super) fn unconnected(mut self) -> Result<(Arc<Core>, Channel), StartError> {
        let endpoint = self.endpoint.take().ok_or(StartError::Unset("the endpoint"))??;
        let (at, channel) = (endpoint.uri().clone(), connect_lazily(endpoint));
        let expected = self.expected()?;
        Ok((Arc::new(self.core(expected, &channel, &at)), channel))
    }

    fn expected(&self) -> Result<Expected, StartError> {
        let set = |text: &Option<String>, name| {
            text.clone().filter(|text| !text.is_empty()).ok_or(StartError::Unset(name))
        };
        if self.leeway > MOST_LEEWAY {
            return Err(StartError::Leeway);
        }
        Ok(Expected {
            issuer: set(&self.issuer, "the issuer")?,
            audience: Some(set(&self.audience, "the audience")?),
            leeway: TimeDelta::from_std(self.leeway).map_err(|_| StartError::Leeway)?,
        })
    }

    fn core(self, expected: Expected, channel: &Channel, at: &Uri) -> Core {
        let audience = expected.audience.clone().unwrap_or_default();
        let verifier = Verifier::default()
            .with_token_cache(self.token_cache)
            .with_shared_secrets(&audience, self.shared_secrets);
        #[cfg(feature = "encryption")]
        let verifier = verifier.with_decryption_keys(self.decryption_keys);
        #[cfg(feature = "encryption")]
        let verifier = if self.require_encryption { verifier.require_encryption() } else { verifier };
        let calls = Calls::new(self.authorization, at, &self.clock);
        Core {
            verifier,
            expected,
            contact: Contact::new(self.clock.clone()),
            clock: self.clock,
            max_staleness: self.max_staleness,
            on_stale: self.on_stale,
            lookups: Lookups::new(self.lookups_per_second),
            issuer: Issuer::new(channel, calls),
            counters: super::Counters::default(),
            revisions: watch::Sender::new(0),
        }
    }
}
