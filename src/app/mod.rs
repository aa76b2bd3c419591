//! The verbs: what Tessera does, a file for each. The only place where transactions open.
//!
//! A verb is a function over [`App`]. Hashing passwords and making keys happens before its transaction;
//! what was revoked in it reaches this server's own trust state right after the commit, whether or not the
//! client is still there.
//!
//! Must not enter: tonic, HTTP, SQL, the reading of settings.

mod audience_keys;
mod caller;
mod end_sessions;
mod error;
mod key_proofs;
mod key_ring;
mod last_seen;
mod metrics;
mod observe;
mod page;
mod prove;
mod record;
mod refresh_mismatch;
mod registry;
mod renew_profiles;
mod service_cache;
mod service_weight;
mod session_makers;
mod start;
mod start_session;
mod tokens;
mod trust_feed;
mod trust_told;
mod watch_places;

pub mod audiences;
pub mod change_password;
pub mod check_foreign_token;
pub mod cleanup;
pub mod credentials;
pub mod exchange_token;
pub mod foreign_keys;
pub mod issue_service_token;
pub mod issuer_keys;
pub mod list_events;
pub mod login;
pub mod logout;
pub mod public_keys;
pub mod refresh;
pub mod reseal;
pub mod revoke_token;
pub mod rsa_pool;
pub mod service_accounts;
pub mod sessions;
pub mod sign_up;
pub mod suspend_tenant;
pub mod tenants;
pub mod trust_tail;
pub mod trusted_issuers;
pub mod users;
pub mod verify_token;
pub mod watch;
pub mod watch_session;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    clock::Clock,
    crypto::{
        passwords::PasswordHasher,
        random::{OrderedIds, Randomness},
        sealing::Sealer,
    },
    domain::{
        algorithm::Algorithm,
        certificate_header::CertificateHeader,
        claims::{Claims, MAX_ACCESS_TTL_SECONDS, MAX_LEEWAY_SECONDS, OWN_AUDIENCE},
        network::Prefixes,
        password::PasswordPolicy,
        proxy::TrustedProxies,
        session_rules::SessionRules,
        trust::{Revocation, TrustChange},
    },
    fetch::Fetcher,
    models::{Conn, Store, Work, trust_log},
    verifier::{Expected, Refusal, SharedKey, Shown, Verifier},
};
pub use caller::{Caller, ServiceCaller};
pub use error::Error;
pub use key_proofs::{KeyProofSettings, Proved};
pub use key_ring::KeyRing;
pub use metrics::{CallLabels, MethodLabel, Metrics};
pub use page::{Page, Paged};
pub use start::{Bootstrap, Parts};
pub use start_session::SignedIn;
pub use tokens::{IssuedTokens, ServiceToken};

use cleanup::CleanupSettings;
use key_proofs::Proving;
use key_ring::Keys;
use last_seen::LastSeen;
use registry::Registered;
use rsa_pool::OpenedKeys;
use service_cache::Services;
use session_makers::SessionMakers;
use trust_feed::TrustFeed;

/// What the verbs are told to do, of all settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The claim `iss`.
    pub issuer: String,
    /// The audiences of a token for which none was asked.
    pub default_audience: Vec<String>,
    /// How long an access token lives.
    pub access_ttl: TimeDelta,
    /// How long a service's token lives that has no rule of its own.
    pub service_ttl: TimeDelta,
    /// How far clocks may differ.
    pub leeway: TimeDelta,
    /// What proofs of keys must be.
    pub key_proofs: KeyProofSettings,
    /// What sessions of tenants keep to that have no rules of their own.
    pub sessions: SessionRules,
    /// Which addresses count as one place.
    pub prefixes: Prefixes,
    /// Whose word for a caller's address counts.
    pub trusted_proxies: TrustedProxies,
    /// Clients may show a certificate when they connect.
    pub asks_for_certificates: bool,
    /// Where a trusted proxy tells its client's certificate.
    pub certificate_header: Option<CertificateHeader>,
    /// People can make themselves users.
    pub signup_open: bool,
    /// Keys and signatures.
    pub signing: SigningSettings,
    /// How often the trust log is read.
    pub poll_interval: Duration,
    /// Replicas tell each other when they append to it.
    pub listen_notify: bool,
    /// Verifiers that may follow it here.
    pub max_watchers: usize,
    /// Those of them that may be at one address.
    pub max_watchers_per_address: usize,
    /// Those that follow must be services.
    pub is_watch_for_services: bool,
    /// Those that ask whether a token is good must be services.
    pub is_introspection_for_services: bool,
    /// What is removed, and when.
    pub cleanup: CleanupSettings,
}

/// How tokens are signed.
#[derive(Debug, Clone)]
pub struct SigningSettings {
    /// The algorithm of issuer keys.
    pub algorithm: Algorithm,
    /// The algorithm of the keys of new sessions.
    pub session_algorithm: Algorithm,
    /// The issuer's key signs users' tokens, and sessions get no keys.
    pub by_issuer_key: bool,
    /// Access tokens carry their key's endorsement.
    pub endorse_in_header: bool,
    /// How long an issuer key signs.
    pub rotate_every: TimeDelta,
    /// How long an issuer key is published before it signs.
    pub publish_before: TimeDelta,
    /// Bits of an RSA key.
    pub rsa_bits: usize,
    /// RSA keys that are made ahead of need.
    pub rsa_pool: u32,
}

impl Settings {
    /// Whether anybody can have a certificate here.
    pub fn takes_certificates(&self) -> bool {
        self.asks_for_certificates || self.certificate_header.is_some()
    }

    /// How long anything may be believed that is signed now, with clocks that differ.
    fn longest_life(&self) -> TimeDelta {
        longest_life(self.leeway)
    }

    /// How often the issuer's keys are looked after: in time for what is published to be known everywhere.
    fn key_interval(&self) -> Duration {
        let publish_before = self.signing.publish_before.to_std().unwrap_or_default();
        self.poll_interval.min(publish_before / 4)
    }

    /// How long a server may sign without hearing from the database that its key is still the right one.
    fn patience_with_keys(&self) -> TimeDelta {
        let polls = TimeDelta::from_std(self.key_interval() * 10).unwrap_or(TimeDelta::MAX);
        polls.max(TimeDelta::minutes(1))
    }
}

/// How long a token may be believed, with clocks that differ by this much.
pub fn longest_life(leeway: TimeDelta) -> TimeDelta {
    TimeDelta::seconds(MAX_ACCESS_TTL_SECONDS) + leeway * 2
}

/// Everything that the verbs work with.
pub struct App {
    /// The settings.
    pub settings: Settings,
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Metrics,
    rng: Arc<dyn Randomness>,
    ids: Arc<OrderedIds>,
    hasher: PasswordHasher,
    policy: PasswordPolicy,
    sealer: Arc<Sealer>,
    keys: Keys,
    feed: Arc<TrustFeed>,
    registered: Registered,
    fetcher: Fetcher,
    spare_key_taken: Notify,
    opened_spare_keys: Arc<OpenedKeys>,
    makers: SessionMakers,
    services: Arc<Services>,
    proving: Proving,
    last_seen: LastSeen,
    verifier: Arc<Verifier>,
    default_tenant_id: Uuid,
}

impl App {
    /// The time.
    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// What a token must be for this audience.
    fn expected(&self, audience: Option<&str>) -> Expected {
        Expected {
            issuer: self.settings.issuer.clone(),
            audience: audience.map(str::to_owned),
            leeway: self.settings.leeway,
        }
    }

    /// Who calls with this token, and shows this beside it.
    pub async fn authenticate(&self, token: &str, shown: &Shown) -> Result<Caller, Error> {
        Caller::new(self.check_own(token, shown).await?, self.default_tenant_id)
    }

    /// Which service calls with this token, and shows this beside it, of which the certificate ends at `certificate_end`; `None`
    /// where the token is good, and somebody else's.
    pub async fn calling_service(
        &self,
        token: &str,
        shown: &Shown,
        certificate_end: Option<DateTime<Utc>>,
    ) -> Result<Option<ServiceCaller>, Error> {
        Ok(ServiceCaller::new(self.check_own(token, shown).await?, certificate_end))
    }

    async fn check_own(&self, token: &str, shown: &Shown) -> Result<Claims, Error> {
        let claims = self.check(token, &[], Some(OWN_AUDIENCE)).await?;
        shown.require(&claims)?;
        Ok(claims)
    }

    /// Checks a token, whoever holds it: in memory, but for the first of a session whose tokens carry no endorsement.
    /// `secrets` are the audience's, where tokens that they signed count here.
    async fn check(
        &self,
        token: &str,
        secrets: &[SharedKey],
        audience: Option<&str>,
    ) -> Result<Claims, Error> {
        let expected = self.expected(audience);
        match self.verifier.check_with(token, secrets, &expected, self.now()) {
            // Whatever is configured now, it may have been issued without an endorsement before.
            // In a box: so rare that no call should carry the room for it.
            Err(Refusal::UnknownKey) => Box::pin(self.check_by_look_up(token, secrets, &expected)).await,
            outcome => Ok(outcome?),
        }
    }

    async fn check_by_look_up(
        &self,
        token: &str,
        secrets: &[SharedKey],
        expected: &Expected,
    ) -> Result<Claims, Error> {
        let kid = self.verifier.plausible(token, expected, self.now())?;
        let unknown = Error::from(Refusal::UnknownKey);
        let key = match public_keys::find_key(self, &kid).await {
            Err(Error::NotFound(_)) => return Err(unknown),
            found => found?,
        };
        let (endorsement, _) = public_keys::endorsement(self, &key).await?.ok_or(unknown)?;
        self.verifier.learn(&kid, &endorsement, expected)?;
        Ok(self.verifier.check_with(token, secrets, expected, self.now())?)
    }

    /// When a revocation of now concerns nothing alive any more, whatever leeway its verifiers have.
    fn revocation_expire_time(now: DateTime<Utc>) -> DateTime<Utc> {
        now + longest_life(TimeDelta::seconds(MAX_LEEWAY_SECONDS))
    }

    /// Runs a transaction that revokes: what `work` names goes into the trust log, last, since that holds
    /// the log's head; and this server obeys it from the commit on, before it reads it there.
    async fn change<T, F>(&self, now: DateTime<Utc>, work: F) -> Result<T, Error>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<(T, Vec<Revocation>), Error>
            + for<'c> Work<'c, Result<(T, Vec<Revocation>), Error>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        self.change_then(now, work, |_| {}).await
    }

    /// The same, and `after` the commit whatever has to follow from it, also when the caller has gone away.
    async fn change_then<T, F>(
        &self,
        now: DateTime<Utc>,
        work: F,
        after: impl FnOnce(&T) + Send + 'static,
    ) -> Result<T, Error>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<(T, Vec<Revocation>), Error>
            + for<'c> Work<'c, Result<(T, Vec<Revocation>), Error>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        let expire_time = Self::revocation_expire_time(now);
        let (verifier, feed, uptime) = (self.verifier.clone(), self.feed.clone(), self.clock.uptime());
        let changed = self.store.tx_then(
            async move |conn| {
                let (value, revocations) = work(conn).await?;
                let entries: Vec<_> = revocations.iter().cloned().map(TrustChange::Revoked).collect();
                trust_log::append(conn, &entries, now, expire_time).await?;
                Ok::<_, Error>((value, revocations))
            },
            move |(value, revocations)| {
                after(value);
                for revocation in revocations {
                    verifier.trust().admit(revocation, expire_time, uptime);
                }
                if !revocations.is_empty() {
                    feed.announce();
                }
            },
        );
        Ok(changed.await?.0)
    }

    /// Ends all streams that would go on for ever: the server is about to stop.
    pub fn close_watches(&self) {
        self.feed.close();
    }
}
