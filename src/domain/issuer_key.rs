//! Issuer keys: the life that each one leads, and the plan that moves them along.
//!
//! `PREPARED → ACTIVE → RETIRED`, or `REVOKED` from anywhere. A key is published before it signs and stays
//! published until nothing that it signed is alive, so that a verifier with a cached key set never notices.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::algorithm::Algorithm;

/// An issuer key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerKey {
    /// Its id: the RFC 7638 thumbprint.
    pub kid: String,
    /// The one algorithm that it signs with.
    pub algorithm: Algorithm,
    /// When it was made, which is when it began to be published.
    pub create_time: DateTime<Utc>,
    /// Where it stands.
    pub life: Life,
}

/// Where a key stands, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Published, and doesn't sign yet.
    Prepared,
    /// Signs.
    Active {
        /// When it began to sign.
        since: DateTime<Utc>,
        /// When it must not sign any more, rotated or not; the first release set no such limit.
        until: Option<DateTime<Utc>>,
    },
    /// Signs no more; what it signed is still good.
    Retired {
        /// When it stopped signing.
        since: DateTime<Utc>,
    },
    /// Nothing that it signed is good any more.
    Revoked {
        /// When it was withdrawn.
        since: DateTime<Utc>,
    },
}

/// The word for where a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// See [`Life::Prepared`].
    Prepared,
    /// See [`Life::Active`].
    Active,
    /// See [`Life::Retired`].
    Retired,
    /// See [`Life::Revoked`].
    Revoked,
}

impl State {
    /// The word in the database and the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "PREPARED",
            Self::Active => "ACTIVE",
            Self::Retired => "RETIRED",
            Self::Revoked => "REVOKED",
        }
    }
}

/// When keys move along by themselves.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    /// How long a key signs before the next one does.
    pub rotate_every: TimeDelta,
    /// How long a key is published before it may sign.
    pub publish_before: TimeDelta,
    /// How long a retired key stays published: longer than anything lives that it signed.
    pub keep_retired: TimeDelta,
}

impl Schedule {
    /// When a key that begins to sign `now` must have stopped, if nobody rotated it: a whole period late.
    fn until(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        now.checked_add_signed(self.rotate_every * 2)
    }
}

/// What was asked of a key does not follow from where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutOfOrder {
    /// There is one already that waits for its turn.
    #[error("the key {0} is PREPARED already")]
    AlreadyPrepared(String),
    /// Only a prepared key can become active.
    #[error("the key is {}, and only a PREPARED one can be activated", .0.as_str())]
    NotPrepared(State),
    /// Verifiers may not have fetched it yet.
    #[error("the key was not published long enough; it may sign from {} on", .0.to_rfc3339_opts(SecondsFormat::AutoSi, true))]
    TooEarly(DateTime<Utc>),
}

/// One change of one key. Of several, the order matters: one key gives way before the next one takes its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A new key.
    Add(IssuerKey),
    /// A key goes on from where it stood.
    Move {
        /// The key as it is from now on.
        key: IssuerKey,
        /// Where it stood.
        from: State,
    },
    /// A key is gone: nothing that it signed is alive.
    Forget(String),
}

impl Change {
    /// The key that changes.
    pub fn kid(&self) -> &str {
        match self {
            Self::Add(key) | Self::Move { key, .. } => &key.kid,
            Self::Forget(kid) => kid,
        }
    }
}

impl IssuerKey {
    /// Where it stands, in a word.
    pub const fn state(&self) -> State {
        match self.life {
            Life::Prepared => State::Prepared,
            Life::Active { .. } => State::Active,
            Life::Retired { .. } => State::Retired,
            Life::Revoked { .. } => State::Revoked,
        }
    }

    /// Whether verifiers are told of it.
    pub const fn is_published(&self) -> bool {
        !matches!(self.life, Life::Revoked { .. })
    }

    /// Whether it may sign.
    pub fn may_sign(&self, now: DateTime<Utc>) -> bool {
        matches!(self.life, Life::Active { until, .. } if until.is_none_or(|until| now < until))
    }

    fn is_in(&self, algorithm: Algorithm, state: State) -> bool {
        self.algorithm == algorithm && self.state() == state
    }

    /// When it may sign at the earliest, published long enough.
    fn ready_time(&self, schedule: &Schedule) -> DateTime<Utc> {
        self.create_time + schedule.publish_before
    }

    fn moved(&self, life: Life) -> Change {
        Change::Move { key: Self { life, ..self.clone() }, from: self.state() }
    }
}

fn find(keys: &[IssuerKey], algorithm: Algorithm, state: State) -> Option<&IssuerKey> {
    keys.iter().find(|key| key.is_in(algorithm, state))
}

/// The key takes its turn, and the one that signed until now retires.
fn take_turn(keys: &[IssuerKey], next: &IssuerKey, schedule: &Schedule, now: DateTime<Utc>) -> Vec<Change> {
    let active = find(keys, next.algorithm, State::Active);
    let retire = active.map(|active| active.moved(Life::Retired { since: now }));
    let activate = next.moved(Life::Active { since: now, until: schedule.until(now) });
    retire.into_iter().chain([activate]).collect()
}

/// Whether nothing can sign and nothing that was signed is alive: on an empty installation, and on one that stood
/// still for longer than a key may sign.
pub fn is_lifeless(keys: &[IssuerKey], schedule: &Schedule, now: DateTime<Utc>) -> bool {
    !keys.iter().any(|key| match key.life {
        Life::Active { until, .. } => until.is_none_or(|until| now < until + schedule.keep_retired),
        _ => false,
    })
}

/// Where nothing is alive, no verifier has to be told before: a key signs at once.
pub fn begin(
    keys: &[IssuerKey],
    algorithm: Algorithm,
    new: Option<IssuerKey>,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Vec<Change> {
    if !is_lifeless(keys, schedule, now) {
        return Vec::new();
    }
    match (find(keys, algorithm, State::Prepared), new) {
        (Some(next), _) => take_turn(keys, next, schedule, now),
        (None, Some(new)) => {
            let active = find(keys, algorithm, State::Active);
            let retire = active.map(|active| active.moved(Life::Retired { since: now }));
            let life = Life::Active { since: now, until: schedule.until(now) };
            retire.into_iter().chain([Change::Add(IssuerKey { life, ..new })]).collect()
        }
        (None, None) => Vec::new(),
    }
}

/// A key that was made by hand waits for its turn; there is one place to wait for each algorithm.
pub fn prepare(keys: &[IssuerKey], new: IssuerKey) -> Result<Vec<Change>, OutOfOrder> {
    match find(keys, new.algorithm, State::Prepared) {
        Some(waiting) => Err(OutOfOrder::AlreadyPrepared(waiting.kid.clone())),
        None => Ok(vec![Change::Add(new)]),
    }
}

/// A prepared key takes its turn by hand.
pub fn activate(
    keys: &[IssuerKey],
    key: &IssuerKey,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Result<Vec<Change>, OutOfOrder> {
    let ready = key.ready_time(schedule);
    match key.life {
        Life::Prepared if now >= ready => Ok(take_turn(keys, key, schedule, now)),
        Life::Prepared => Err(OutOfOrder::TooEarly(ready)),
        _ => Err(OutOfOrder::NotPrepared(key.state())),
    }
}

/// Withdraws a key. Where it signed, a prepared key takes its place at once, else `spare` does, which nobody has
/// fetched: what the old one signed is not good any more anyway. Empty where it was withdrawn before.
pub fn revoke(
    keys: &[IssuerKey],
    key: &IssuerKey,
    spare: Option<IssuerKey>,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Vec<Change> {
    if key.state() == State::Revoked {
        return Vec::new();
    }
    let mut changes = vec![key.moved(Life::Revoked { since: now })];
    if key.state() == State::Active {
        let life = Life::Active { since: now, until: schedule.until(now) };
        let promoted = find(keys, key.algorithm, State::Prepared).map(|next| next.moved(life));
        changes.extend(promoted.or_else(|| spare.map(|spare| Change::Add(IssuerKey { life, ..spare }))));
    }
    changes
}

/// Whether revoking this key leaves nobody to sign in its place.
pub fn needs_spare(keys: &[IssuerKey], key: &IssuerKey) -> bool {
    key.state() == State::Active && find(keys, key.algorithm, State::Prepared).is_none()
}

/// The algorithms for which the schedule wants a new key now.
pub fn to_prepare(
    keys: &[IssuerKey],
    wanted: &[Algorithm],
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Vec<Algorithm> {
    let is_due = |algorithm: &Algorithm| {
        find(keys, *algorithm, State::Prepared).is_none()
            && find(keys, *algorithm, State::Active)
                .is_none_or(|active| now >= due_time(active, schedule) - schedule.publish_before)
    };
    wanted.iter().copied().filter(is_due).collect()
}

/// When the next key takes the place of this one.
fn due_time(active: &IssuerKey, schedule: &Schedule) -> DateTime<Utc> {
    match active.life {
        Life::Active { since, .. } => since + schedule.rotate_every,
        _ => active.create_time,
    }
}

/// What the schedule changes now. `made` are new keys for what [`to_prepare`] names.
pub fn scheduled(
    keys: &[IssuerKey],
    wanted: &[Algorithm],
    made: Vec<IssuerKey>,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Vec<Change> {
    let due = to_prepare(keys, wanted, schedule, now);
    let added = made.into_iter().filter(|key| due.contains(&key.algorithm)).map(Change::Add);
    let activated = wanted.iter().flat_map(|algorithm| next_turn(keys, *algorithm, schedule, now));
    let retired = unwanted(keys, wanted, schedule, now).map(|key| key.moved(Life::Retired { since: now }));
    let forgotten = keys.iter().filter_map(|key| match key.life {
        Life::Retired { since } | Life::Revoked { since } if now >= since + schedule.keep_retired => {
            Some(Change::Forget(key.kid.clone()))
        }
        _ => None,
    });
    added.chain(activated).chain(retired).chain(forgotten).collect()
}

/// The prepared key of this algorithm takes its turn, if it is ready and the active one is due.
fn next_turn(
    keys: &[IssuerKey],
    algorithm: Algorithm,
    schedule: &Schedule,
    now: DateTime<Utc>,
) -> Vec<Change> {
    let is_due = find(keys, algorithm, State::Active).is_none_or(|active| now >= due_time(active, schedule));
    match find(keys, algorithm, State::Prepared) {
        Some(next) if is_due && now >= next.ready_time(schedule) => take_turn(keys, next, schedule, now),
        _ => Vec::new(),
    }
}

/// Active keys of algorithms that nobody is configured for any more, once they are due: another replica may
/// still be configured for them. The last one that may sign stays.
fn unwanted<'k>(
    keys: &'k [IssuerKey],
    wanted: &'k [Algorithm],
    schedule: &'k Schedule,
    now: DateTime<Utc>,
) -> impl Iterator<Item = &'k IssuerKey> {
    let has_wanted = wanted.iter().any(|algorithm| find(keys, *algorithm, State::Active).is_some());
    keys.iter().filter(move |key| {
        has_wanted
            && key.state() == State::Active
            && !wanted.contains(&key.algorithm)
            && now >= due_time(key, schedule)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: Schedule = Schedule {
        rotate_every: TimeDelta::days(30),
        publish_before: TimeDelta::minutes(10),
        keep_retired: TimeDelta::minutes(62),
    };
    const WANTED: [Algorithm; 1] = [Algorithm::Es256];

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000) + TimeDelta::minutes(minutes)
    }

    fn key(kid: &str, algorithm: Algorithm, created: i64, life: Life) -> IssuerKey {
        IssuerKey { kid: kid.to_owned(), algorithm, create_time: at(created), life }
    }

    fn active(kid: &str, algorithm: Algorithm, since: i64) -> IssuerKey {
        let life = Life::Active { since: at(since), until: SCHEDULE.until(at(since)) };
        key(kid, algorithm, since, life)
    }

    fn moves(changes: &[Change]) -> Vec<(&str, Option<State>)> {
        let to = |change: &Change| match change {
            Change::Add(key) | Change::Move { key, .. } => Some(key.state()),
            Change::Forget(_) => None,
        };
        changes.iter().map(|change| (change.kid(), to(change))).collect()
    }

    fn run(keys: &[IssuerKey], now: i64) -> Vec<Change> {
        let made = to_prepare(keys, &WANTED, &SCHEDULE, at(now));
        let made = made.into_iter().map(|algorithm| key("new", algorithm, now, Life::Prepared)).collect();
        scheduled(keys, &WANTED, made, &SCHEDULE, at(now))
    }

    #[test]
    fn a_key_is_prepared_before_its_turn_and_takes_it_when_both_are_due() {
        const DUE: i64 = 30 * 24 * 60;
        let mut keys = vec![active("old", Algorithm::Es256, 0)];
        assert_eq!(run(&keys, DUE - 11), []);
        assert_eq!(moves(&run(&keys, DUE - 10)), [("new", Some(State::Prepared))]);

        keys.push(key("new", Algorithm::Es256, DUE - 3, Life::Prepared));
        assert_eq!(run(&keys, DUE + 6), [], "due, but not published long enough");
        let turn = run(&keys, DUE + 7);
        assert_eq!(moves(&turn), [("old", Some(State::Retired)), ("new", Some(State::Active))]);
        keys = turn
            .into_iter()
            .filter_map(|change| match change {
                Change::Move { key, .. } => Some(key),
                _ => None,
            })
            .collect();
        assert_eq!(run(&keys, DUE + 7 + 61), []);
        assert_eq!(moves(&run(&keys, DUE + 7 + 62)), [("old", None)]);
    }

    #[test]
    fn a_key_that_nobody_rotated_stops_signing_by_itself() {
        let key = active("old", Algorithm::Es256, 0);
        assert!(key.may_sign(at(60 * 24 * 60 - 1)));
        assert!(!key.may_sign(at(60 * 24 * 60)));
    }

    #[test]
    fn another_algorithm_gets_its_own_key_and_the_old_one_goes_when_it_is_due() {
        let old = active("old", Algorithm::Rs256, 0);
        let keys = [old.clone()];
        assert_eq!(moves(&run(&keys, 5)), [("new", Some(State::Prepared))]);
        assert_eq!(moves(&run(&keys, 90 * 24 * 60)), [("new", Some(State::Prepared))], "the last one stays");
        let keys = [old, active("new", Algorithm::Es256, 15)];
        assert_eq!(run(&keys, 16), [], "another replica may still want it");
        assert_eq!(moves(&run(&keys, 30 * 24 * 60)), [("old", Some(State::Retired)),]);
    }

    #[test]
    fn a_revoked_key_that_signed_is_replaced_at_once() {
        let old = active("old", Algorithm::Es256, 0);
        let next = key("next", Algorithm::Es256, 1, Life::Prepared);
        let spare = || key("spare", Algorithm::Es256, 1, Life::Prepared);
        let both = [old.clone(), next.clone()];
        let revoke = |keys: &[IssuerKey], key: &IssuerKey, spare| {
            let changes = revoke(keys, key, spare, &SCHEDULE, at(2));
            moves(&changes).into_iter().map(|(kid, state)| (kid.to_owned(), state)).collect::<Vec<_>>()
        };
        let gone = |kid: &str| (kid.to_owned(), Some(State::Revoked));
        let signs = |kid: &str| (kid.to_owned(), Some(State::Active));
        assert_eq!(revoke(&both, &old, None), [gone("old"), signs("next")]);
        assert!(!needs_spare(&both, &old) && needs_spare(&both[..1], &old));
        assert_eq!(revoke(&both[..1], &old, Some(spare())), [gone("old"), signs("spare")]);
        assert_eq!(revoke(&both, &next, Some(spare())), [gone("next")]);
        let revoked = key("old", Algorithm::Es256, 0, Life::Revoked { since: at(1) });
        assert_eq!(revoke(&both, &revoked, None), []);
    }

    #[test]
    fn by_hand_the_order_is_kept_too() {
        let keys = [active("old", Algorithm::Es256, 0), key("next", Algorithm::Es256, 1, Life::Prepared)];
        let new = key("new", Algorithm::Es256, 2, Life::Prepared);
        assert_eq!(prepare(&keys, new.clone()), Err(OutOfOrder::AlreadyPrepared("next".to_owned())));
        assert!(prepare(&keys[..1], new).is_ok());
        let early = activate(&keys, &keys[1], &SCHEDULE, at(10));
        assert_eq!(early, Err(OutOfOrder::TooEarly(at(11))));
        assert_eq!(activate(&keys, &keys[1], &SCHEDULE, at(11)).map(|changes| changes.len()), Ok(2));
        let twice = activate(&keys, &keys[0], &SCHEDULE, at(11));
        assert_eq!(twice, Err(OutOfOrder::NotPrepared(State::Active)));
    }
}
