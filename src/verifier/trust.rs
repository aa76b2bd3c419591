//! The revocations that a verifier knows of, and the one predicate over them.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{claims::Claims, trust::Revocation};

/// What the trust log said up to a revision. Grows with revocations, shrinks as what they concern dies.
#[derive(Default)]
pub struct TrustState(RwLock<Inner>);

#[derive(Default)]
struct Inner {
    revision: i64,
    sessions: HashMap<Uuid, DateTime<Utc>>,
    user_versions: HashMap<Uuid, (i64, DateTime<Utc>)>,
}

impl TrustState {
    /// Whether the token ended before its time.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let Some(user) = &claims.user else {
            return false;
        };
        let state = self.read();
        state.sessions.contains_key(&user.sid)
            || state.user_versions.get(&claims.sub).is_some_and(|(lowest, _)| user.ver < *lowest)
    }

    /// Takes a revocation in. `until` is when nothing that it concerns can be alive any more.
    pub fn admit(&self, revocation: &Revocation, until: DateTime<Utc>) {
        let mut state = self.write();
        match *revocation {
            Revocation::Session(id) => {
                let known = state.sessions.entry(id).or_insert(until);
                *known = until.max(*known);
            }
            Revocation::UserVersion { user_id, version } => {
                let known = state.user_versions.entry(user_id).or_insert((version, until));
                *known = (version.max(known.0), until.max(known.1));
            }
        }
    }

    /// Says that every entry of the log up to `revision` has been admitted.
    pub fn reached(&self, revision: i64) {
        let mut state = self.write();
        state.revision = revision.max(state.revision);
    }

    /// Takes these in the place of all that it held.
    pub fn replace(&self, entries: Vec<(Revocation, DateTime<Utc>)>, revision: i64) {
        let fresh = Self::default();
        entries.iter().for_each(|(revocation, until)| fresh.admit(revocation, *until));
        let mut inner = fresh.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        inner.revision = revision;
        *self.write() = inner;
    }

    /// Everything that it holds, and the revision that this is the state of.
    pub fn snapshot(&self) -> (Vec<(Revocation, DateTime<Utc>)>, i64) {
        let state = self.read();
        let sessions = state.sessions.iter().map(|(id, until)| (Revocation::Session(*id), *until));
        let users = state.user_versions.iter().map(|(user_id, (version, until))| {
            (Revocation::UserVersion { user_id: *user_id, version: *version }, *until)
        });
        (sessions.chain(users).collect(), state.revision)
    }

    /// Forgets how far it has come, and nothing else: the log is to be read anew.
    pub fn rewind(&self) {
        self.write().revision = 0;
    }

    /// The revision that it has reached.
    pub fn revision(&self) -> i64 {
        self.read().revision
    }

    /// Forgets what can concern nothing alive.
    pub fn prune(&self, now: DateTime<Utc>) {
        let mut state = self.write();
        state.sessions.retain(|_, until| *until > now);
        state.user_versions.retain(|_, (_, until)| *until > now);
    }

    /// How many revocations it holds.
    pub fn len(&self) -> usize {
        let state = self.read();
        state.sessions.len() + state.user_versions.len()
    }

    /// Holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    // A panic elsewhere can't leave the maps half-written: each entry is one insertion.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
