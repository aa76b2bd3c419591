//! Moves the issuer's keys along in their lives, by hand and by schedule.
//!
//! However many replicas and admins do it at once, each step is taken once: the keys are read and the step is
//! decided inside the transaction, which holds the head of the trust log. Keys are made outside it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{App, Caller, Error, key_ring, record::Trail};
use crate::{
    crypto::{
        making::{self, Haste},
        signing::NewKey,
    },
    domain::{
        algorithm::Algorithm,
        audit::{Action, Origin, Target},
        issuer_key::{self, Change, IssuerKey, Life, Schedule, State},
        trust::TrustChange,
    },
    models::{Conn, audit_events, issuer_keys, session_keys::StoredKey, trust_log},
};

/// What is asked of the keys.
enum Deed {
    /// A new installation, or one that nobody has used for so long that no token is alive, gets a key that signs.
    Begin(Algorithm),
    /// What the schedule wants for these algorithms.
    Schedule(Vec<Algorithm>),
    Prepare,
    Activate(String),
    Revoke(String),
}

/// A new key and how it is stored.
struct Made {
    key: IssuerKey,
    pair: StoredKey,
}

/// An issuer key as an admin sees it.
#[derive(Debug, Clone)]
pub struct KeyInfo {
    /// The key.
    pub key: IssuerKey,
    /// When it may sign at the earliest.
    pub ready_time: DateTime<Utc>,
    /// When a retired or revoked one is forgotten.
    pub forget_time: Option<DateTime<Utc>>,
}

impl App {
    /// The schedule of the issuer's keys.
    fn schedule(&self) -> Schedule {
        let signing = &self.settings.signing;
        Schedule {
            rotate_every: signing.rotate_every,
            publish_before: signing.publish_before,
            keep_retired: self.settings.longest_life() + self.settings.patience_with_keys(),
        }
    }

    fn info(&self, key: IssuerKey) -> KeyInfo {
        let schedule = self.schedule();
        let forget_time = match key.life {
            Life::Retired { since } | Life::Revoked { since } => Some(since + schedule.keep_retired),
            _ => None,
        };
        KeyInfo { ready_time: key.create_time + schedule.publish_before, forget_time, key }
    }

    async fn make_issuer_key(&self, algorithm: Algorithm) -> Result<NewKey, Error> {
        let bits = self.settings.signing.rsa_bits;
        Ok(making::make(algorithm, bits, self.rng.clone(), Haste::None).await?)
    }

    /// Does what is asked, if it is in order, and obeys it at once. Gives every key that changed.
    async fn change_keys(&self, deed: Deed, made: Vec<NewKey>, trail: Trail) -> Result<Vec<Change>, Error> {
        let now = trail.now;
        let seal = |new: NewKey| {
            let pair = key_ring::seal(&new, &self.sealer)?;
            let (kid, algorithm) = (pair.kid.clone(), pair.algorithm);
            let key = IssuerKey { kid, algorithm, create_time: now, life: Life::Prepared };
            Ok(Made { key, pair })
        };
        let made: Vec<Made> = made.into_iter().map(seal).collect::<Result<_, Error>>()?;
        let schedule = self.schedule();
        let expire_time = Self::revocation_expire_time(now);
        let feed = self.feed.clone();
        let work = async move |conn: &mut Conn| {
            trust_log::hold(conn).await?;
            let keys = readable(issuer_keys::list(conn).await?);
            let new = made.iter().map(|made| made.key.clone()).collect();
            let changes = decide(deed, &keys, new, &schedule, now)?;
            write(conn, &changes, made, &trail).await?;
            let entries: Vec<_> =
                changes.iter().map(|change| TrustChange::IssuerKey(change.kid().to_owned())).collect();
            trust_log::append(conn, &entries, now, expire_time).await?;
            Ok::<_, Error>(changes)
        };
        let changes = self.store.tx_then(work, move |_| feed.announce()).await?;
        if !changes.is_empty() {
            self.reload_keys().await?;
        }
        Ok(changes)
    }

    /// Makes the first key of an installation.
    pub(super) async fn begin_signing(&self) -> Result<(), Error> {
        let (now, schedule) = (self.now(), self.schedule());
        if !self.ring().is_lifeless(&schedule, now) {
            return Ok(());
        }
        let algorithm = self.settings.signing.algorithm;
        let made = vec![self.make_issuer_key(algorithm).await?];
        self.change_keys(Deed::Begin(algorithm), made, self.own_trail(now)).await?;
        Ok(())
    }

    /// Does what the schedule wants now, if anything.
    async fn keep_schedule(&self) -> Result<(), Error> {
        let (now, schedule, wanted) = (self.now(), self.schedule(), self.issuer_algorithms());
        let ring = self.ring();
        let keys = ring.keys();
        let mut made = Vec::new();
        for algorithm in issuer_key::to_prepare(keys, &wanted, &schedule, now) {
            made.push(self.make_issuer_key(algorithm).await?);
        }
        let is_idle = issuer_key::scheduled(keys, &wanted, Vec::new(), &schedule, now).is_empty();
        if made.is_empty() && is_idle {
            return Ok(());
        }
        let changes = self.change_keys(Deed::Schedule(wanted), made, self.own_trail(now)).await?;
        for change in &changes {
            tracing::info!(kid = change.kid(), action = action(change).as_str(), "moved an issuer key along");
        }
        if changes.is_empty() {
            // Another replica was first, and what this one knows is old.
            self.reload_keys().await?;
        }
        Ok(())
    }

    /// What this server does by itself.
    fn own_trail(&self, now: DateTime<Utc>) -> Trail {
        self.trail(self.default_tenant_id, None, &Origin::default(), now)
    }

    fn trail_of(&self, caller: &Caller, origin: &Origin) -> Trail {
        self.trail(self.default_tenant_id, Some(caller.user_id), origin, self.now())
    }
}

/// The keys that make sense. What doesn't stays as it is, and what is read anew tells the log of it.
fn readable(found: Vec<issuer_keys::Found>) -> Vec<IssuerKey> {
    found.into_iter().filter_map(|found| Some(found.key.ok()?.key)).collect()
}

fn find<'k>(keys: &'k [IssuerKey], kid: &str) -> Result<&'k IssuerKey, Error> {
    keys.iter().find(|key| key.kid == kid).ok_or(Error::NotFound("issuer key"))
}

fn decide(
    deed: Deed,
    keys: &[IssuerKey],
    mut made: Vec<IssuerKey>,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Result<Vec<Change>, Error> {
    Ok(match deed {
        Deed::Begin(algorithm) => issuer_key::begin(keys, algorithm, made.pop(), schedule, now),
        Deed::Schedule(wanted) => issuer_key::scheduled(keys, &wanted, made, schedule, now),
        Deed::Prepare => match made.pop() {
            Some(new) => issuer_key::prepare(keys, new)?,
            None => Vec::new(),
        },
        Deed::Activate(kid) => issuer_key::activate(keys, find(keys, &kid)?, schedule, now)?,
        Deed::Revoke(kid) => issuer_key::revoke(keys, find(keys, &kid)?, made.pop(), schedule, now),
    })
}

async fn write(conn: &mut Conn, changes: &[Change], mut made: Vec<Made>, trail: &Trail) -> Result<(), Error> {
    for change in changes {
        let is_done = match change {
            Change::Move { key, from } => issuer_keys::move_on(conn, key, *from).await?,
            Change::Forget(kid) => issuer_keys::delete(conn, kid).await?,
            Change::Add(key) => {
                let place = made.iter().position(|made| made.key.kid == key.kid).ok_or(Error::Conflict)?;
                let pair = made.swap_remove(place).pair;
                issuer_keys::insert_if_free(conn, &issuer_keys::IssuerKey { key: key.clone(), pair }).await?
            }
        };
        if !is_done {
            return Err(Error::Conflict);
        }
        let event = trail.event(action(change), Target::Key(change.kid().to_owned()))?;
        audit_events::append(conn, &event).await?;
    }
    Ok(())
}

/// What the trail calls it.
fn action(change: &Change) -> Action {
    match change {
        Change::Forget(_) => Action::ForgetKey,
        Change::Add(key) | Change::Move { key, .. } => match key.state() {
            State::Prepared => Action::PrepareKey,
            State::Active => Action::ActivateKey,
            State::Retired => Action::RetireKey,
            State::Revoked => Action::RevokeKey,
        },
    }
}

/// The key of the changes that now stands so.
fn changed(changes: Vec<Change>, state: State) -> Option<IssuerKey> {
    changes.into_iter().find_map(|change| match change {
        Change::Add(key) | Change::Move { key, .. } if key.state() == state => Some(key),
        _ => None,
    })
}

/// The issuer's keys, the newest first, without those that make no sense.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<KeyInfo>, Error> {
    caller.require_root()?;
    let found = app.store.read(async |conn| issuer_keys::list(conn).await).await?;
    Ok(readable(found).into_iter().map(|key| app.info(key)).collect())
}

/// Makes a key that verifiers are told of from now on, and that may sign once they had time to fetch it.
pub async fn prepare(
    app: &App,
    caller: &Caller,
    algorithm: Option<Algorithm>,
    origin: &Origin,
) -> Result<KeyInfo, Error> {
    caller.require_root()?;
    let made = vec![app.make_issuer_key(algorithm.unwrap_or(app.settings.signing.algorithm)).await?];
    let changes = app.change_keys(Deed::Prepare, made, app.trail_of(caller, origin)).await?;
    changed(changes, State::Prepared).map(|key| app.info(key)).ok_or(Error::Conflict)
}

/// Lets a prepared key sign from now on; the one that signed until now retires.
pub async fn activate(app: &App, caller: &Caller, kid: &str, origin: &Origin) -> Result<KeyInfo, Error> {
    caller.require_root()?;
    let deed = Deed::Activate(kid.to_owned());
    let changes = app.change_keys(deed, Vec::new(), app.trail_of(caller, origin)).await?;
    changed(changes, State::Active).map(|key| app.info(key)).ok_or(Error::Conflict)
}

/// Withdraws a key: nothing that it signed is good any more. Where it signed, another one does at once; gives that
/// one too. A key that was withdrawn before stays so.
pub async fn revoke(
    app: &App,
    caller: &Caller,
    kid: &str,
    origin: &Origin,
) -> Result<(KeyInfo, Option<KeyInfo>), Error> {
    caller.require_root()?;
    let keys = readable(app.store.read(async |conn| issuer_keys::list(conn).await).await?);
    let key = find(&keys, kid)?.clone();
    let mut made = Vec::new();
    if issuer_key::needs_spare(&keys, &key) {
        made.push(app.make_issuer_key(key.algorithm).await?);
    }
    let deed = Deed::Revoke(kid.to_owned());
    let changes = app.change_keys(deed, made, app.trail_of(caller, origin)).await?;
    let successor = changed(changes.clone(), State::Active).map(|key| app.info(key));
    let revoked = changed(changes, State::Revoked).unwrap_or(key);
    Ok((app.info(revoked), successor))
}

/// Keeps the schedule until the server stops.
pub async fn follow_schedule(app: &Arc<App>, stop: CancellationToken) {
    let mut ticks = interval(app.settings.key_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match app.keep_schedule().await {
            // Another replica took the same step at the same time.
            Ok(()) | Err(Error::Conflict) => {}
            Err(error) => {
                app.metrics.count_rotation_failure();
                tracing::error!(%error, "can't keep the schedule of the issuer's keys");
            }
        }
    }
}
