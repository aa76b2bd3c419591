//! The revocations that a verifier knows of, and the one predicate over them.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::{
    claims::{Claims, MAX_ACCESS_TTL_SECONDS},
    trust::{Revocation, Standing},
};

/// How long nothing is forgotten, whatever the wall clock says: nothing that was alive when it was revoked lives longer,
/// and ten minutes are for clocks that differ. A clock that was ahead for a while brings nothing back to life.
const HOLD: Duration = Duration::from_secs(MAX_ACCESS_TTL_SECONDS.unsigned_abs() + 600);

/// What the trust log said up to a revision. Grows with revocations, shrinks as what they concern dies.
#[derive(Default)]
pub struct TrustState(RwLock<Inner>);

/// A revocation, and when nothing that it concerns can be alive any more.
pub type Until = (Revocation, DateTime<Utc>);

/// How long an entry is held.
#[derive(Clone, Copy)]
struct Life {
    until: DateTime<Utc>,
    /// When it was told first, by [`crate::clock::Clock::uptime`].
    told: Duration,
}

impl Life {
    /// Takes in what was told once more: it counts anew where it is not the same entry.
    fn prolong(&mut self, other: Self) {
        if other.until > self.until {
            *self = other;
        }
    }

    fn has_passed(self, now: DateTime<Utc>, uptime: Duration) -> bool {
        self.until <= now && uptime.saturating_sub(self.told) >= HOLD
    }
}

#[derive(Default)]
struct Inner {
    revision: i64,
    sessions: HashMap<Uuid, Life>,
    user_versions: HashMap<Uuid, (i64, Life)>,
    /// By the token's id and its owner's.
    tokens: HashMap<(Uuid, Uuid), Life>,
    tenants: HashMap<Uuid, (Standing, Life)>,
}

impl Inner {
    fn admit(&mut self, revocation: &Revocation, life: Life) {
        match *revocation {
            Revocation::Session(id) => self.sessions.entry(id).or_insert(life).prolong(life),
            Revocation::UserVersion { user_id, version } => {
                let known = self.user_versions.entry(user_id).or_insert((version, life));
                if version > known.0 {
                    *known = (version, Life { until: life.until.max(known.1.until), ..life });
                } else {
                    known.1.prolong(life);
                }
            }
            Revocation::Token { jti, owner_id } => {
                self.tokens.entry((jti, owner_id)).or_insert(life).prolong(life);
            }
            Revocation::Tenant { tenant_id, standing } => {
                let known = self.tenants.entry(tenant_id).or_insert((standing, life));
                if standing.version > known.0.version {
                    *known = (standing, Life { until: life.until.max(known.1.until), ..life });
                } else if standing.version == known.0.version {
                    known.1.prolong(life);
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

    fn is_outdated(&self, id: Uuid, version: i64) -> bool {
        self.user_versions.get(&id).is_some_and(|(lowest, _)| version < *lowest)
    }

    fn is_suspended(&self, tenant_id: Uuid) -> bool {
        self.tenants.get(&tenant_id).is_some_and(|(standing, _)| standing.is_suspended)
    }
}

impl TrustState {
    /// Whether the token ended before its time.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        let state = self.read();
        let Some((version, tenant_id)) = claims.standing() else {
            return state.is_token_revoked(claims, None);
        };
        claims.user.as_ref().is_some_and(|user| state.sessions.contains_key(&user.sid))
            || state.is_outdated(claims.sub, version)
            || claims.hands().any(|service| state.is_outdated(service.sub, service.ver))
            || state.is_suspended(tenant_id)
            || state.is_token_revoked(claims, Some(tenant_id))
    }

    /// Whether the session, or every token of its user up to this version, ended before its time.
    pub fn is_session_revoked(&self, session_id: Uuid, user_id: Uuid, version: i64) -> bool {
        let state = self.read();
        state.sessions.contains_key(&session_id) || state.is_outdated(user_id, version)
    }

    /// Takes a revocation in. `until` is when nothing that it concerns can be alive any more; `uptime` is the clock's.
    pub fn admit(&self, revocation: &Revocation, until: DateTime<Utc>, uptime: Duration) {
        self.write().admit(revocation, Life { until, told: uptime });
    }

    /// Takes several in, and leaves what was known.
    pub fn admit_all(&self, entries: &[Until], uptime: Duration) {
        let mut state = self.write();
        for (revocation, until) in entries {
            state.admit(revocation, Life { until: *until, told: uptime });
        }
    }

    /// Says that every entry of the log up to `revision` has been admitted.
    pub fn reached(&self, revision: i64) {
        let mut state = self.write();
        state.revision = revision.max(state.revision);
    }

    /// Takes what the log says as a whole, as of `revision`, in the place of what was known.
    pub fn replace(&self, whole: &[Until], revision: i64, uptime: Duration) {
        let mut state = Inner { revision, ..Inner::default() };
        for (revocation, until) in whole {
            state.admit(revocation, Life { until: *until, told: uptime });
        }
        *self.write() = state;
    }

    /// Everything that it knows of.
    pub fn snapshot(&self) -> Vec<Until> {
        let state = self.read();
        let sessions = state.sessions.iter().map(|(id, life)| (Revocation::Session(*id), life.until));
        let users = state.user_versions.iter().map(|(user_id, (version, life))| {
            (Revocation::UserVersion { user_id: *user_id, version: *version }, life.until)
        });
        let tokens = state.tokens.iter().map(|((jti, owner_id), life)| {
            (Revocation::Token { jti: *jti, owner_id: *owner_id }, life.until)
        });
        let tenants = state.tenants.iter().map(|(tenant_id, (standing, life))| {
            (Revocation::Tenant { tenant_id: *tenant_id, standing: *standing }, life.until)
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

    /// Forgets what can concern nothing alive, by both clocks.
    pub fn prune(&self, now: DateTime<Utc>, uptime: Duration) {
        let mut state = self.write();
        state.sessions.retain(|_, life| !life.has_passed(now, uptime));
        state.user_versions.retain(|_, (_, life)| !life.has_passed(now, uptime));
        state.tokens.retain(|_, life| !life.has_passed(now, uptime));
        state.tenants.retain(|_, (_, life)| !life.has_passed(now, uptime));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_once_it_has_expired_by_the_clock_and_was_held_for_long_enough() {
        let (trust, session) = (TrustState::default(), Revocation::Session(Uuid::nil()));
        let at = |seconds| DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds);
        let remains = |now, uptime| {
            trust.prune(at(now), Duration::from_secs(uptime));
            !trust.is_empty()
        };
        trust.admit(&session, at(3600), Duration::from_secs(100));
        assert!(remains(100_000, 4299), "the clock was set ahead");
        assert!(remains(3599, 100_000), "it was set back");
        trust.admit(&session, at(3600), Duration::from_secs(200));
        assert!(!remains(3600, 4300), "the same was told once more");
        let user = |version| Revocation::UserVersion { user_id: Uuid::nil(), version };
        trust.admit(&user(1), at(3600), Duration::from_secs(100));
        trust.admit(&user(2), at(3600), Duration::from_secs(200));
        assert!(remains(3600, 4300), "another was told");
        assert!(!remains(3600, 4400));
    }
}
