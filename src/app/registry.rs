//! What admins have registered and every token depends on, in memory: tenants' algorithms and rules for
//! sessions, audiences' keys, trusted issuers.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{App, Error, audience_keys::AudienceKeys, foreign_keys::Trusted};
use crate::{
    domain::{
        InvalidField,
        algorithm::Algorithm,
        audience::{Way, Ways},
        claims::{OWN_AUDIENCE, PERSON_SCOPES},
        session_rules::SessionRules,
        tenant::{Tenant, TenantSigning},
        trusted_issuer,
    },
    models::{
        Slice, audience_secrets, audience_secrets::SealedSecret, audiences, tenants, trust_log,
        trusted_issuers, trusted_issuers::Found,
    },
    verifier::SharedKey,
};

/// Everything registered, as it was at one version.
#[derive(Default)]
pub(super) struct Registry {
    version: i64,
    /// Those that have a way of their own, or are suspended.
    tenants: HashMap<Uuid, Tenant>,
    /// Those whose row makes no sense: nobody signs in there or goes on, and all others are served.
    damaged_tenants: HashSet<Uuid>,
    /// By name, those whose tokens are made in a way of their own.
    audiences: HashMap<String, AudienceKeys>,
    /// By audience, what those say of tokens for them that say something.
    rules: HashMap<String, Rules>,
    /// An audience, or a key of one, can't be used.
    pub(super) is_damaged: bool,
    /// By the claim `iss`.
    trusted_issuers: HashMap<String, Arc<Trusted>>,
}

/// What an audience says of tokens for it.
struct Rules {
    /// Its scopes, where it has said which.
    scopes: Option<HashSet<String>>,
    ways: Ways,
    token_ttl: Option<TimeDelta>,
}

impl From<audiences::Rules> for Rules {
    fn from(told: audiences::Rules) -> Self {
        let scopes = Some(told.scopes.into_iter().collect()).filter(|scopes: &HashSet<_>| !scopes.is_empty());
        Self { scopes, ways: told.ways, token_ttl: told.token_ttl }
    }
}

impl Registry {
    /// How a tenant wants its tokens signed.
    pub(super) fn signing_of(&self, tenant_id: Uuid) -> TenantSigning {
        self.tenants.get(&tenant_id).map(|tenant| tenant.signing).unwrap_or_default()
    }

    /// Refuses to give tokens to a tenant that is suspended, or whose rules can't be read.
    pub(super) fn check_tenant(&self, tenant_id: Uuid) -> Result<(), Error> {
        if self.tenants.get(&tenant_id).is_some_and(Tenant::is_suspended) {
            return Err(Error::TenantSuspended);
        }
        if self.damaged_tenants.contains(&tenant_id) {
            return Err(Error::Internal(format!("the row of tenant {tenant_id} is damaged")));
        }
        Ok(())
    }

    /// How tokens for this audience are made, where not like any other. Never those for Tessera's own API.
    fn audience(&self, name: &str) -> Option<&AudienceKeys> {
        self.audiences.get(name).filter(|_| name != OWN_AUDIENCE)
    }

    /// The same for the audience of a token that has one. A token for several is made like any other: whoever holds
    /// the secret of one of them could make it for the others.
    pub(super) fn only_audience(&self, audiences: &[String]) -> Option<&AudienceKeys> {
        match audiences {
            [only] => self.audience(only),
            _ => None,
        }
    }

    /// Refuses audiences that no token can be made for together.
    pub(super) fn check_audiences(&self, audiences: &[String]) -> Result<(), InvalidField> {
        match audiences.iter().find_map(|name| self.audience(name)) {
            Some(keys) if audiences.len() > 1 => {
                Err(InvalidField::new("audience", format!("`{}` must be asked for alone", keys.name())))
            }
            _ => Ok(()),
        }
    }

    /// Whether there are these scopes at each of the audiences, as far as it has said. What a person lets be known of itself is no
    /// audience's.
    pub(super) fn have_scopes(&self, audiences: &[String], scopes: &[&str]) -> bool {
        let mut said = self.rules_of(audiences).filter_map(|rules| rules.scopes.as_ref());
        said.all(|its| scopes.iter().all(|scope| PERSON_SCOPES.contains(scope) || its.contains(*scope)))
    }

    /// What there is of these scopes at each of the audiences: of a session, others may have gone since it began.
    pub(super) fn scope_left(&self, audiences: &[String], scope: String) -> String {
        let scopes: Vec<&str> = scope.split_ascii_whitespace().collect();
        if self.have_scopes(audiences, &scopes) {
            return scope;
        }
        let left = scopes.into_iter().filter(|scope| self.have_scopes(audiences, &[*scope]));
        left.collect::<Vec<_>>().join(" ")
    }

    /// Whether a token for all these audiences may be got in this way.
    pub(super) fn allow(&self, audiences: &[String], way: Way) -> bool {
        self.rules_of(audiences).all(|rules| rules.ways.allow(way))
    }

    /// When a token for all these audiences that would end at `end` ends, made now.
    pub(super) fn end_of_token(
        &self,
        audiences: &[String],
        end: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> DateTime<Utc> {
        let shortest = self.rules_of(audiences).filter_map(|rules| rules.token_ttl).min();
        shortest.map_or(end, |ttl| end.min(now + ttl))
    }

    fn rules_of(&self, audiences: &[String]) -> impl Iterator<Item = &Rules> {
        audiences.iter().filter_map(|name| self.rules.get(name))
    }

    /// The trusted issuer whose tokens carry this `iss`.
    pub(super) fn trusted_issuer(&self, issuer: &str) -> Option<Arc<Trusted>> {
        self.trusted_issuers.get(issuer).cloned()
    }

    /// Every trusted issuer.
    pub(super) fn trusted_issuers(&self) -> impl Iterator<Item = &Arc<Trusted>> {
        self.trusted_issuers.values()
    }

    /// How many there are of each kind.
    pub(super) fn sizes(&self) -> [(&'static str, usize); 4] {
        [
            ("tenants", self.tenants.len() + self.damaged_tenants.len()),
            ("audiences", self.audiences.len()),
            ("audience_rules", self.rules.len()),
            ("trusted_issuers", self.trusted_issuers.len()),
        ]
    }

    fn tenants(&self) -> impl Iterator<Item = &TenantSigning> {
        self.tenants.values().map(|tenant| &tenant.signing)
    }
}

/// The registry in use.
#[derive(Default)]
pub(super) struct Registered {
    now: RwLock<Arc<Registry>>,
    /// Held while it is read, so that of two readings the later one stays.
    reading: tokio::sync::Mutex<()>,
}

impl App {
    /// What is registered.
    pub(super) fn registry(&self) -> Arc<Registry> {
        self.registered.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads it anew unless it is of this version.
    pub(super) async fn follow_registry(&self, version: i64) -> Result<(), Error> {
        if self.registry().version == version { Ok(()) } else { self.reload_registry().await }
    }

    /// Reads it anew.
    pub(super) async fn reload_registry(&self) -> Result<(), Error> {
        let _reading = self.registered.reading.lock().await;
        let read = self.store.read(async |conn| {
            // Asked first: what is read includes every change up to there.
            let head = trust_log::head(conn).await?;
            let tenants = tenants::list_special(conn).await?;
            let audiences = audiences::list_own_ways(conn).await?;
            let all = Slice { before: None, limit: trusted_issuer::MOST };
            let issuers = trusted_issuers::list(conn, all).await?;
            let rules = audiences::list_rules(conn).await?;
            // Asked last: an audience that is read has its secrets.
            Ok((head.registry, tenants, issuers, rules, audiences, audience_secrets::list(conn).await?))
        });
        let (version, tenants, trusted_issuers, rules, audiences, secrets) = read.await?;
        let rules = rules.into_iter().map(|mut told| (std::mem::take(&mut told.name), told.into())).collect();
        let (tenants, damaged_tenants) = sort_out(tenants);
        let trusted_issuers = self.open_trusted_issuers(trusted_issuers);
        let mut secrets_of: HashMap<Uuid, Vec<SealedSecret>> = HashMap::new();
        for secret in secrets {
            secrets_of.entry(secret.audience_id).or_default().push(secret);
        }
        let before = self.registry();
        let open = |found: audiences::Found| {
            let (name, its) = (found.name.clone(), secrets_of.remove(&found.id).unwrap_or_default());
            let keys = AudienceKeys::open(found, its, &self.sealer, before.audience(&name));
            (name, keys)
        };
        let audiences: HashMap<_, _> = audiences.into_iter().map(open).collect();
        let is_damaged = audiences.values().any(AudienceKeys::is_damaged);
        *self.registered.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Registry {
            version,
            tenants,
            damaged_tenants,
            audiences,
            rules,
            is_damaged,
            trusted_issuers,
        });
        Ok(())
    }

    /// Opens each by itself: one that makes no sense is left out, and tokens of its issuer are refused.
    fn open_trusted_issuers(&self, found: Vec<Found>) -> HashMap<String, Arc<Trusted>> {
        let before = self.registry();
        let mut opened = HashMap::new();
        for Found { id, issuer } in found {
            let trusted = issuer.map_err(|error| error.to_string()).and_then(|record| {
                if record.issuer == self.settings.issuer {
                    return Err("it has our own name".to_owned());
                }
                let before = before.trusted_issuers.get(&record.issuer);
                Trusted::open(record, before.map(|known| &**known))
                    .map_err(|bad| format!("its key set {bad}"))
            });
            match trusted {
                Ok(trusted) => {
                    opened.insert(trusted.record.issuer.clone(), Arc::new(trusted));
                }
                Err(error) => tracing::error!(%id, error, "can't use a trusted issuer"),
            }
        }
        opened
    }

    /// Every algorithm that an issuer key is wanted of.
    pub(super) fn issuer_algorithms(&self) -> Vec<Algorithm> {
        let registry = self.registry();
        let own = registry.tenants().filter_map(|tenant| tenant.algorithm);
        let mut wanted = vec![self.settings.signing.algorithm];
        for algorithm in own {
            if !wanted.contains(&algorithm) {
                wanted.push(algorithm);
            }
        }
        wanted
    }

    /// The secrets whose signatures are accepted from this audience.
    pub(super) fn secrets_of(&self, audience: &str) -> Vec<SharedKey> {
        let registry = self.registry();
        let keys = registry.audience(audience);
        keys.map(|keys| keys.accepted(self.settings.longest_life(), self.now())).unwrap_or_default()
    }

    /// The algorithm of the keys of this tenant's new sessions.
    pub(super) fn session_algorithm(&self, tenant_id: Uuid) -> Algorithm {
        let own = self.registry().signing_of(tenant_id);
        own.session_algorithm.unwrap_or(self.settings.signing.session_algorithm)
    }

    /// What this tenant's sessions keep to.
    pub(super) fn session_rules(&self, tenant_id: Uuid) -> SessionRules {
        let own = self.registry().tenants.get(&tenant_id).map(|tenant| tenant.sessions).unwrap_or_default();
        own.over(self.settings.sessions)
    }

    /// Whether new sessions of any tenant have RSA keys.
    pub(super) fn needs_rsa(&self) -> bool {
        let signing = &self.settings.signing;
        let is_rsa = |tenant: &TenantSigning| tenant.session_algorithm.is_some_and(Algorithm::is_rsa);
        !signing.by_issuer_key
            && (signing.session_algorithm.is_rsa() || self.registry().tenants().any(is_rsa))
    }
}

/// Those that can be used, and the ids of those that can't.
fn sort_out(found: Vec<tenants::Found>) -> (HashMap<Uuid, Tenant>, HashSet<Uuid>) {
    let (mut usable, mut damaged) = (HashMap::new(), HashSet::new());
    for found in found {
        let id = found.id();
        match found.whole() {
            Ok(tenant) => {
                usable.insert(id, tenant);
            }
            Err(error) => {
                tracing::error!(%id, %error, "can't use a tenant; it gets no tokens");
                damaged.insert(id);
            }
        }
    }
    (usable, damaged)
}
