//! Service accounts in use, in memory: warm, a token is issued without a look into the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use quick_cache::sync::{Cache, EntryAction, EntryResult};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    App, Error,
    foreign_keys::ForeignKeys,
    service_weight::{self, ByWeight, MOST_FETCHED},
};
use crate::{
    domain::{
        Inconsistent,
        algorithm::Algorithm,
        service_account::{Credential, Proof, ServiceAccount},
        trust::Revocation,
    },
    models::{Conn, Work, service_accounts, service_credentials, trust_log},
    verifier::budget::Budget,
};

/// How long a look-up may take, in which others may have to be waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Refusals of an account that are recorded at once, and how soon there may be another one.
const MOST_RECORDED: u32 = 100;
const RECORDED_EVERY: Duration = Duration::from_secs(10);

/// An account and its credentials, as they were at a count of all changes.
pub(super) struct Service {
    pub count: i64,
    pub account: ServiceAccount,
    pub credentials: Vec<Opened>,
    /// What may still be recorded.
    pub recorded: Arc<Recorded>,
}

/// Refusals that may still be recorded. Whoever knows no more than a client id uses up none of those who have proved it.
pub(super) struct Recorded {
    /// Attempts without proof.
    pub guessed: Budget,
    /// What it asked for itself.
    pub refused: Budget,
    /// Tokens that others had handed to it.
    pub handed: Budget,
}

impl Default for Recorded {
    fn default() -> Self {
        let budget = || Budget::new(MOST_RECORDED, RECORDED_EVERY);
        Self { guessed: budget(), refused: budget(), handed: budget() }
    }
}

/// A credential, ready to check what is presented.
pub(super) struct Opened {
    pub credential: Credential,
    /// The keys, where it has some.
    pub keys: Option<ForeignKeys>,
}

/// What a transaction did.
pub(super) enum Changed {
    /// It found everything as it was to be.
    Nothing,
    /// It changed an account, or what that proves itself with.
    Account,
    /// The same, and this is no longer accepted.
    AccountAnd(Revocation),
}

/// Those that are kept.
pub(super) struct Services {
    cache: Cache<Uuid, Arc<Service>, ByWeight>,
    /// Changes of any account so far, as far as this server knows.
    count: AtomicI64,
}

impl Default for Services {
    fn default() -> Self {
        Self { cache: service_weight::cache(), count: AtomicI64::default() }
    }
}

impl Services {
    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// How many changes this server knows of.
    pub(super) fn count(&self) -> i64 {
        self.count.load(Ordering::Acquire)
    }

    /// Takes up that there were so many, where `before` were known when it was asked. Of a database that went back nothing
    /// is believed any more.
    pub(super) fn follow(&self, before: i64, count: i64) {
        if count < before {
            self.count.store(count, Ordering::Release);
            self.clear();
        } else {
            self.reached(count);
        }
    }

    /// Takes up a change of this server's own.
    pub(super) fn reached(&self, count: i64) {
        self.count.fetch_max(count, Ordering::AcqRel);
    }

    pub(super) fn clear(&self) {
        self.cache.clear();
    }
}

impl App {
    /// Runs a transaction that changes an account or what it proves itself with. From the commit on this server obeys it
    /// and the others are told; nothing of that happens where `work` says that nothing changed.
    pub(super) async fn change_service<T, F>(&self, now: DateTime<Utc>, work: F) -> Result<T, Error>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<(T, Changed), Error>
            + for<'c> Work<'c, Result<(T, Changed), Error>>
            + Send
            + 'static,
        T: Send + 'static,
    {
        let (services, feed) = (self.services.clone(), self.feed.clone());
        let work = async move |conn: &mut Conn| {
            let (value, changed) = work(conn).await?;
            // Last, since that holds the head of the log.
            let (count, revocations) = match changed {
                Changed::Nothing => (None, Vec::new()),
                Changed::Account => (Some(trust_log::raise_services(conn).await?), Vec::new()),
                Changed::AccountAnd(revocation) => {
                    (Some(trust_log::raise_services(conn).await?), vec![revocation])
                }
            };
            Ok::<_, Error>(((value, count), revocations))
        };
        let after = move |(_, count): &(T, Option<i64>)| {
            if let Some(count) = count {
                services.reached(*count);
                feed.announce();
            }
        };
        Ok(self.change_then(now, work, after).await?.0)
    }

    /// The account of this id, from memory where no account has changed since it was read.
    pub(super) async fn service(&self, id: Uuid) -> Result<Option<Arc<Service>>, Error> {
        // What names no account; nobody has to be asked about it.
        if id.is_nil() {
            return Ok(None);
        }
        let count = self.services.count();
        if let Some(known) = self.services.cache.get(&id).filter(|known| known.count >= count) {
            return Ok(Some(known));
        }
        // In a box: so rare that no call should carry the room for it.
        let looked = timeout(PATIENCE, Box::pin(self.look_up_service(id))).await;
        looked.unwrap_or_else(|_| Err(Error::StoreUnavailable("no account was found in time".to_owned())))
    }

    async fn look_up_service(&self, id: Uuid) -> Result<Option<Arc<Service>>, Error> {
        // Asked first: what is read is at least as new.
        let count = self.services.count();
        let is_current = |_: &Uuid, known: &mut Arc<Service>| {
            if known.count >= count {
                EntryAction::Retain(known.clone())
            } else {
                EntryAction::ReplaceWithGuard
            }
        };
        // Of many that ask at once, one reads.
        let (place, before) = match self.services.cache.entry_async(&id, is_current).await {
            EntryResult::Retained(known) => return Ok(Some(known)),
            EntryResult::Vacant(place) => (place, None),
            EntryResult::Replaced(place, before) => (place, Some(before)),
            EntryResult::Removed(..) | EntryResult::Timeout => return Err(Error::Conflict),
        };
        let read = self.read_service(id, count, before.as_deref()).await?;
        if let Some(service) = &read {
            // Whoever changed everything meanwhile has thrown the place away.
            let _ = place.insert(service.clone());
        }
        Ok(read)
    }

    async fn read_service(
        &self,
        id: Uuid,
        count: i64,
        before: Option<&Service>,
    ) -> Result<Option<Arc<Service>>, Error> {
        let read = self.store.read(async move |conn| {
            let Some(found) = service_accounts::find(conn, id).await? else { return Ok(None) };
            Ok(Some((found.account, service_credentials::of_account(conn, id).await?)))
        });
        let Some((account, credentials)) = read.await? else { return Ok(None) };
        let account = account.map_err(|error| Error::Internal(error.to_string()))?;
        let usable = |(id, credential): (Uuid, Result<Credential, Inconsistent>)| {
            let opened = credential.map_err(|error| error.to_string()).and_then(|it| open(it, before));
            opened.inspect_err(|error| tracing::error!(%id, error, "can't use a credential")).ok()
        };
        let credentials = credentials.into_iter().filter_map(usable).collect();
        let recorded = before.map(|before| before.recorded.clone()).unwrap_or_default();
        Ok(Some(Arc::new(Service { count, account, credentials, recorded })))
    }
}

/// Keys that were fetched for it before are not fetched again.
pub(super) fn open(credential: Credential, before: Option<&Service>) -> Result<Opened, String> {
    let keys = match &credential.proof {
        Proof::ClientSecret(_) | Proof::Federated(_) | Proof::Mtls(_) => None,
        Proof::PrivateKeyJwt(source) => {
            let known = before.and_then(|before| {
                let same = before.credentials.iter().find(|known| known.credential.id == credential.id)?;
                same.keys.as_ref()
            });
            let keys = ForeignKeys::open(source, &Algorithm::ALL, MOST_FETCHED, known);
            Some(keys.map_err(|bad| format!("its key set {bad}"))?)
        }
    };
    Ok(Opened { credential, keys })
}
