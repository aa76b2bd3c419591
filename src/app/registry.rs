//! What admins have registered and every token depends on, in memory: tenants' algorithms.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::{algorithm::Algorithm, tenant::TenantSigning},
    models::{tenants, trust_log},
};

/// Everything registered, as it was at one version.
#[derive(Default)]
pub(super) struct Registry {
    version: i64,
    tenants: HashMap<Uuid, TenantSigning>,
}

impl Registry {
    /// How a tenant wants its tokens signed.
    pub(super) fn signing_of(&self, tenant_id: Uuid) -> TenantSigning {
        self.tenants.get(&tenant_id).copied().unwrap_or_default()
    }

    fn tenants(&self) -> impl Iterator<Item = &TenantSigning> {
        self.tenants.values()
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
            Ok((head.registry, tenants::list_own_signing(conn).await?))
        });
        let (version, tenants) = read.await?;
        let tenants = tenants.into_iter().map(|tenant| (tenant.id, tenant.signing)).collect();
        *self.registered.now.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(Registry { version, tenants });
        Ok(())
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

    /// The algorithm of the keys of this tenant's new sessions.
    pub(super) fn session_algorithm(&self, tenant_id: Uuid) -> Algorithm {
        let own = self.registry().signing_of(tenant_id);
        own.session_algorithm.unwrap_or(self.settings.signing.session_algorithm)
    }

    /// Whether new sessions of any tenant have RSA keys.
    pub(super) fn needs_rsa(&self) -> bool {
        let signing = &self.settings.signing;
        let is_rsa = |tenant: &TenantSigning| tenant.session_algorithm.is_some_and(Algorithm::is_rsa);
        !signing.by_issuer_key
            && (signing.session_algorithm.is_rsa() || self.registry().tenants().any(is_rsa))
    }
}
