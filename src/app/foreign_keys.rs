//! The keys of trusted issuers and of services: registered with them, or fetched and kept in memory.
//!
//! Fetched ones are kept for as long as their server says, and fetched anew ahead of that. A token that names an
//! unknown key makes one fetch, then none for a while: made-up names cost nothing more. While the server is away
//! the last good set stays, for a day. What is fetched may take so much memory and no more.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{App, Error};
use crate::{
    domain::{
        algorithm::Algorithm,
        trusted_issuer::{KeySource, TrustedIssuer},
    },
    fetch::{FetchError, Fetched},
    verifier::{BadKeySet, ForeignIssuer, PublicKey, Refusal},
};

/// How long keys are kept whose server doesn't say.
const KEPT: TimeDelta = TimeDelta::minutes(5);
/// Bounds of what it may say.
const LEAST_KEPT: TimeDelta = TimeDelta::seconds(60);
const MOST_KEPT: TimeDelta = TimeDelta::hours(1);
/// After a fetch that failed, and after one for an unknown key, there is no other for so long.
const COOL_DOWN: TimeDelta = TimeDelta::seconds(30);
/// How long keys are used whose server is away.
const LAST_GOOD: TimeDelta = TimeDelta::hours(24);
/// What fetched keys of an issuer may take in memory, in bytes: some 180 keys on curves, more with RSA.
const MOST_OF_ISSUER: usize = 128 * 1024;
/// How often it is looked for what is to be fetched.
const LOOK: Duration = Duration::from_secs(1);

/// A trusted issuer, ready to check tokens.
pub(super) struct Trusted {
    pub record: TrustedIssuer,
    pub expected: ForeignIssuer,
    pub keys: ForeignKeys,
}

/// Public keys of somebody else.
pub(super) enum ForeignKeys {
    /// Registered with it.
    Registered(Arc<[PublicKey]>),
    /// At an address of its own.
    Fetched(Arc<Fetching>),
}

/// The keys at an address.
pub(super) struct Fetching {
    url: String,
    algorithms: Vec<Algorithm>,
    /// What they may take in memory, in bytes.
    most: usize,
    /// Held while they are fetched.
    flight: Arc<tokio::sync::Mutex<()>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Option<Arc<[PublicKey]>>,
    /// When they were fetched, and for how long they may be kept.
    fetch_time: Option<DateTime<Utc>>,
    kept: TimeDelta,
    /// The last attempt.
    try_time: Option<DateTime<Utc>>,
    error: Option<String>,
    /// The last attempt for a token that named an unknown key.
    ask_time: Option<DateTime<Utc>>,
}

/// How fetching an issuer's keys goes.
#[derive(Debug, Clone, Default)]
pub struct FetchState {
    /// When it succeeded last.
    pub fetch_time: Option<DateTime<Utc>>,
    /// Why it failed last, unless it has succeeded since.
    pub error: Option<String>,
}

/// Why keys are fetched.
enum Why {
    /// They are old, or not there yet.
    Due,
    /// A token names a key that is none of these.
    Unknown(Arc<[PublicKey]>),
}

/// Whether `now` lies less than the cool-down after `then`; a clock that went back does not count.
fn is_hot(then: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    then.is_some_and(|then| (then..then + COOL_DOWN).contains(&now))
}

impl Known {
    fn usable(&self, now: DateTime<Utc>) -> Arc<[PublicKey]> {
        let is_fresh = self.fetch_time.is_some_and(|time| now < time + LAST_GOOD);
        self.keys.clone().filter(|_| is_fresh).unwrap_or_default()
    }

    /// Those that may be used, unless they are the same as these.
    fn other_than(&self, seen: &Arc<[PublicKey]>, now: DateTime<Utc>) -> Option<Arc<[PublicKey]>> {
        Some(self.usable(now)).filter(|keys| !keys.is_empty() && !Arc::ptr_eq(keys, seen))
    }

    /// Whether what is known is older than a part of the time that it may be kept.
    fn is_older_than(&self, part: (i32, i32), now: DateTime<Utc>) -> bool {
        let age = self.fetch_time.map(|time| now - time);
        age.is_none_or(|age| age >= self.kept * part.0 / part.1 || age < TimeDelta::zero())
    }

    fn is_due(&self, part: (i32, i32), now: DateTime<Utc>) -> bool {
        self.is_older_than(part, now) && !is_hot(self.try_time, now)
    }
}

/// Ahead of the end, and at it.
const AHEAD: (i32, i32) = (3, 4);
const AT_THE_END: (i32, i32) = (1, 1);

impl Fetching {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trusted {
    /// Opens what is registered. Keys that `before` has fetched are not fetched again.
    pub(super) fn open(record: TrustedIssuer, before: Option<&Self>) -> Result<Self, BadKeySet> {
        let before = before.filter(|before| before.record.id == record.id).map(|before| &before.keys);
        let keys = ForeignKeys::open(&record.keys, &record.algorithms, MOST_OF_ISSUER, before)?;
        let expected = ForeignIssuer {
            issuer: record.issuer.clone(),
            audiences: record.audiences.clone(),
            algorithms: record.algorithms.clone(),
        };
        Ok(Self { record, expected, keys })
    }
}

impl ForeignKeys {
    /// Opens what is registered. Keys that `before` has fetched from there are not fetched again; those that are take `most`
    /// bytes at most.
    pub(super) fn open(
        source: &KeySource,
        algorithms: &[Algorithm],
        most: usize,
        before: Option<&Self>,
    ) -> Result<Self, BadKeySet> {
        let url = match source {
            KeySource::Json(json) => {
                let keys = PublicKey::from_foreign_jwks(json.as_bytes(), algorithms)?;
                return Ok(Self::Registered(keys.into()));
            }
            KeySource::Url(url) => url,
        };
        let same = before.and_then(|before| match before {
            Self::Fetched(known) if known.url == *url && known.algorithms == algorithms => {
                Some(known.clone())
            }
            _ => None,
        });
        let new = || Fetching {
            url: url.clone(),
            algorithms: algorithms.to_vec(),
            most,
            flight: Arc::default(),
            known: Mutex::default(),
        };
        Ok(Self::Fetched(same.unwrap_or_else(|| Arc::new(new()))))
    }

    /// What they may ever take in memory, in bytes: whoever weighs them must not find another weight once they are fetched.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Registered(keys) => size(keys),
            Self::Fetched(fetching) => size_of::<Fetching>() + fetching.url.len() + fetching.most,
        }
    }

    /// Those that may be used now.
    fn usable(&self, now: DateTime<Utc>) -> Arc<[PublicKey]> {
        match self {
            Self::Registered(keys) => keys.clone(),
            Self::Fetched(fetching) => fetching.known().usable(now),
        }
    }

    /// How fetching them goes.
    pub(super) fn fetch_state(&self) -> FetchState {
        match self {
            Self::Registered(_) => FetchState::default(),
            Self::Fetched(fetching) => {
                let known = fetching.known();
                FetchState { fetch_time: known.fetch_time, error: known.error.clone() }
            }
        }
    }
}

impl App {
    /// Checks something with foreign keys, which are fetched first where they have become too old, and once more where
    /// it names a key that is none of them.
    pub(super) async fn check_foreign<T>(
        self: &Arc<Self>,
        keys: &ForeignKeys,
        check: impl Fn(&[PublicKey]) -> Result<T, Refusal>,
    ) -> Result<T, Error> {
        if let ForeignKeys::Fetched(fetching) = keys
            && fetching.known().is_due(AT_THE_END, self.now())
        {
            self.fetch_keys(fetching.clone(), Why::Due).await?;
        }
        let known = keys.usable(self.now());
        let checked = match check(&known) {
            Err(Refusal::UnknownKey) => match self.newer_foreign_keys(keys, &known).await? {
                Some(newer) => check(&newer),
                None => Err(Refusal::UnknownKey),
            },
            checked => checked,
        };
        Ok(checked?)
    }

    /// Other keys than these, where a fetch finds some.
    async fn newer_foreign_keys(
        self: &Arc<Self>,
        keys: &ForeignKeys,
        known: &Arc<[PublicKey]>,
    ) -> Result<Option<Arc<[PublicKey]>>, Error> {
        let ForeignKeys::Fetched(fetching) = keys else { return Ok(None) };
        self.fetch_keys(fetching.clone(), Why::Unknown(known.clone())).await?;
        let keys = fetching.known().other_than(known, self.now());
        Ok(keys)
    }

    /// Fetches keys for the first time, unless that goes on already.
    pub(super) async fn fetch_first(self: &Arc<Self>, keys: &ForeignKeys) -> Result<(), Error> {
        match keys {
            ForeignKeys::Fetched(fetching) => self.fetch_keys(fetching.clone(), Why::Due).await,
            ForeignKeys::Registered(_) => Ok(()),
        }
    }

    /// One at a time for each issuer, and to its end even if whoever wanted it has left.
    async fn fetch_keys(self: &Arc<Self>, fetching: Arc<Fetching>, why: Why) -> Result<(), Error> {
        let flight = fetching.flight.clone().lock_owned().await;
        let now = self.now();
        {
            let mut known = fetching.known();
            // Others may have done it while this one waited.
            let is_needless = match &why {
                Why::Due => !known.is_due(AHEAD, now),
                Why::Unknown(seen) => {
                    let is_hot = is_hot(known.ask_time, now) || is_hot(known.try_time, now);
                    is_hot || known.other_than(seen, now).is_some()
                }
            };
            if is_needless {
                return Ok(());
            }
            known.try_time = Some(now);
            if matches!(why, Why::Unknown(_)) {
                known.ask_time = Some(now);
            }
        }
        let app = self.clone();
        let fetched = tokio::spawn(async move {
            let _flight = flight;
            app.fetch_now(&fetching, now).await;
        });
        fetched.await.map_err(|error| Error::Internal(error.to_string()))
    }

    async fn fetch_now(&self, fetching: &Fetching, now: DateTime<Utc>) {
        let fetched = self.fetcher.get(&fetching.url).await;
        let fetched = fetched.map_err(|error| (outcome(&error), error.to_string())).and_then(|fetched| {
            let keys = PublicKey::from_foreign_jwks(&fetched.body, &fetching.algorithms);
            let keys = keys.map_err(|bad| ("BAD_KEYS", format!("the document {bad}")))?;
            if size(&keys) > fetching.most {
                return Err(("BAD_KEYS", "the document holds more keys than are kept".to_owned()));
            }
            Ok((keys, kept(&fetched)))
        });
        let mut known = fetching.known();
        match fetched {
            Ok((keys, kept)) => {
                self.metrics.count_foreign_fetch("OK");
                *known = Known {
                    keys: Some(keys.into()),
                    fetch_time: Some(now),
                    kept,
                    try_time: None,
                    error: None,
                    ask_time: known.ask_time,
                };
            }
            Err((outcome, error)) => {
                self.metrics.count_foreign_fetch(outcome);
                tracing::warn!(url = fetching.url, error, "can't fetch foreign keys");
                known.error = Some(error);
            }
        }
    }

    /// Every set that is to be fetched ahead of its end, or again after a failure.
    fn due_keys(&self) -> Vec<Arc<Fetching>> {
        let now = self.now();
        let registry = self.registry();
        let fetched = registry.trusted_issuers().filter_map(|trusted| match &trusted.keys {
            ForeignKeys::Fetched(fetching) => Some(fetching),
            ForeignKeys::Registered(_) => None,
        });
        fetched.filter(|fetching| fetching.known().is_due(AHEAD, now)).cloned().collect()
    }
}

fn size(keys: &[PublicKey]) -> usize {
    keys.iter().map(PublicKey::size).sum()
}

fn kept(fetched: &Fetched) -> TimeDelta {
    let told = fetched.max_age.map(|age| TimeDelta::from_std(age).unwrap_or(MOST_KEPT));
    told.unwrap_or(KEPT).clamp(LEAST_KEPT, MOST_KEPT)
}

const fn outcome(error: &FetchError) -> &'static str {
    match error {
        FetchError::Unreachable(_) => "UNREACHABLE",
        FetchError::Timeout => "TIMEOUT",
        FetchError::Status(_) => "BAD_STATUS",
        FetchError::TooLong => "TOO_LONG",
    }
}

/// Keeps fetched keys fresh until the server stops. A server that doesn't answer holds up no other.
pub async fn keep_fresh(app: &Arc<App>, stop: CancellationToken) {
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fetches = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(done) = fetches.join_next() => {
                let done: Result<Result<(), Error>, _> = done;
                if let Err(error) = done.map_err(|error| Error::Internal(error.to_string())).flatten() {
                    tracing::error!(%error, "can't fetch the keys of a trusted issuer");
                }
                continue;
            }
            _ = ticks.tick() => {}
        }
        for fetching in app.due_keys() {
            let app = app.clone();
            fetches.spawn(async move { app.fetch_keys(fetching, Why::Due).await });
        }
    }
}
