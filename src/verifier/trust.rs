//! The revocations that a verifier knows of, and the one predicate over them.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    claims::Claims,
    trust::{Revocation, Standing},
};

/// What the trust log said up to a revision. Grows with revocations, shrinks as what they concern dies.
#[derive(Default)]
pub struct TrustState(RwLock<Inner>);

/// A revocation, and when nothing that it concerns can be alive any more.
pub type Until = (Revocation, DateTime<Utc>);

#[derive(Default)]
struct Inner {
    revision: i64,
    sessions: HashMap<Uuid, DateTime<Utc>>,
    user_versions: HashMap<Uuid, (i64, DateTime<Utc>)>,
    /// By the token's id and its owner's.
    tokens: HashMap<(Uuid, Uuid), DateTime<Utc>>,
    tenants: HashMap<Uuid, (Standing, DateTime<Utc>)>,
}

impl Inner {
    fn admit(&mut self, revocation: &Revocation, until: DateTime<Utc>) {
        match *revocation {
            Revocation::Session(id) => prolong(self.sessions.entry(id).or_insert(until), until),
            Revocation::UserVersion { user_id, version } => {
                let known = self.user_versions.entry(user_id).or_insert((version, until));
                *known = (version.max(known.0), until.max(known.1));
            }
            Revocation::Token { jti, owner_id } => {
                prolong(self.tokens.entry((jti, owner_id)).or_insert(until), until);
            }
            Revocation::Tenant { tenant_id, standing } => {
                let known = self.tenants.entry(tenant_id).or_insert((standing, until));
                if standing.version >= known.0.version {
                    *known = (standing, until.max(known.1));
                }
            }
        }
    }

    fn is_token_revoked(&self, claims: &Claims, tenant_id: Option<Uuid>) -> bool {
        if self.tokens.is_empty() {
            return false;
        }
        let Ok(jti) = Uuid::try_parse(&claims.jti) else {
            return false;
        };
        let owners = [Some(claims.sub), tenant_id, Some(Uuid::nil())];
        owners.into_iter().flatten().any(|owner_id| self.tokens.contains_key(&(jti, owner_id)))
    }

    fn is_suspended(&self, tenant_id: Uuid) -> bool {
        self.tenants.get(&tenant_id).is_some_and(|(standing, _)| standing.is_suspended)
    }
}

fn prolong(known: &mut DateTime<Utc>, until: DateTime<Utc>) {
    *known = until.max(*known);
}

impl TrustState {
    /// Whether the token ended before its time.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let state = self.read();
        let Some(user) = &claims.user else {
            return state.is_token_revoked(claims, None);
        };
        state.sessions.contains_key(&user.sid)
            || state.user_versions.get(&claims.sub).is_some_and(|(lowest, _)| user.ver < *lowest)
            || state.is_suspended(user.tenant_id)
            || state.is_token_revoked(claims, Some(user.tenant_id))
    }

    /// Whether the session, or every token of its user up to this version, ended before its time.
    pub fn is_session_revoked(&self, session_id: Uuid, user_id: Uuid, version: i64) -> bool {
        let state = self.read();
        state.sessions.contains_key(&session_id)
            || state.user_versions.get(&user_id).is_some_and(|(lowest, _)| version < *lowest)
    }

    /// Takes a revocation in. `until` is when nothing that it concerns can be alive any more.
    pub fn admit(&self, revocation: &Revocation, until: DateTime<Utc>) {
        self.write().admit(revocation, until);
    }

    /// Says that every entry of the log up to `revision` has been admitted.
    pub fn reached(&self, revision: i64) {
        let mut state = self.write();
        state.revision = revision.max(state.revision);
    }

    /// Takes what the log says as a whole, as of `revision`, in the place of what was known.
    pub fn replace(&self, whole: &[Until], revision: i64) {
        let mut state = Inner { revision, ..Inner::default() };
        for (revocation, until) in whole {
            state.admit(revocation, *until);
        }
        *self.write() = state;
    }

    /// Everything that it knows of.
    pub fn snapshot(&self) -> Vec<Until> {
        let state = self.read();
        let sessions = state.sessions.iter().map(|(id, until)| (Revocation::Session(*id), *until));
        let users = state.user_versions.iter().map(|(user_id, (version, until))| {
            (Revocation::UserVersion { user_id: *user_id, version: *version }, *until)
        });
        let tokens = state
            .tokens
            .iter()
            .map(|((jti, owner_id), until)| (Revocation::Token { jti: *jti, owner_id: *owner_id }, *until));
        let tenants = state.tenants.iter().map(|(tenant_id, (standing, until))| {
            (Revocation::Tenant { tenant_id: *tenant_id, standing: *standing }, *until)
        });
        sessions.chain(users).chain(tokens).chain(tenants).collect()
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
        state.tokens.retain(|_, until| *until > now);
        state.tenants.retain(|_, (_, until)| *until > now);
    }

    /// How many revocations it holds.
    pub fn len(&self) -> usize {
        let state = self.read();
        state.sessions.len() + state.user_versions.len() + state.tokens.len() + state.tenants.len()
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
