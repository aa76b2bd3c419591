//! The keys of trusted issuers: registered with them, or fetched and kept in memory.
//!
//! Fetched ones are kept for as long as their server says, and fetched anew ahead of that. A token that names an
//! unknown key makes one fetch, then none for a while: made-up names cost nothing more. While the server is away
//! the last good set stays, for a day.

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
    verifier::{BadKeySet, ForeignIssuer, PublicKey},
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
/// How often it is looked for what is to be fetched.
const LOOK: Duration = Duration::from_secs(1);

/// A trusted issuer, ready to check tokens.
pub(super) struct Trusted {
    pub record: TrustedIssuer,
    pub expected: ForeignIssuer,
    keys: Keys,
}

enum Keys {
    Registered(Arc<[PublicKey]>),
    Fetched(Arc<Fetching>),
}

/// The keys at an address.
struct Fetching {
    url: String,
    algorithms: Vec<Algorithm>,
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
        let algorithms = record.algorithms.clone();
        let keys = match &record.keys {
            KeySource::Json(json) => {
                Keys::Registered(PublicKey::from_foreign_jwks(json.as_bytes(), &algorithms)?.into())
            }
            KeySource::Url(url) => {
                let known = before.and_then(|before| match &before.keys {
                    Keys::Fetched(known) if before.record.id == record.id => Some(known),
                    _ => None,
                });
                let same = known.filter(|known| known.url == *url && known.algorithms == algorithms);
                let new = || Fetching {
                    url: url.clone(),
                    algorithms,
                    flight: Arc::default(),
                    known: Mutex::default(),
                };
                Keys::Fetched(same.cloned().unwrap_or_else(|| Arc::new(new())))
            }
        };
        let expected = ForeignIssuer {
            issuer: record.issuer.clone(),
            audiences: record.audiences.clone(),
            algorithms: record.algorithms.clone(),
        };
        Ok(Self { record, expected, keys })
    }

    /// The keys that may be used now.
    fn keys(&self, now: DateTime<Utc>) -> Arc<[PublicKey]> {
        match &self.keys {
            Keys::Registered(keys) => keys.clone(),
            Keys::Fetched(fetching) => fetching.known().usable(now),
        }
    }

    /// How fetching its keys goes.
    pub(super) fn fetch_state(&self) -> FetchState {
        match &self.keys {
            Keys::Registered(_) => FetchState::default(),
            Keys::Fetched(fetching) => {
                let known = fetching.known();
                FetchState { fetch_time: known.fetch_time, error: known.error.clone() }
            }
        }
    }
}

impl App {
    /// The keys to check a token with, which are fetched first where they have become too old.
    pub(super) async fn foreign_keys(self: &Arc<Self>, trusted: &Trusted) -> Result<Arc<[PublicKey]>, Error> {
        if let Keys::Fetched(fetching) = &trusted.keys
            && fetching.known().is_due(AT_THE_END, self.now())
        {
            self.fetch_keys(fetching.clone(), Why::Due).await?;
        }
        Ok(trusted.keys(self.now()))
    }

    /// Other keys than these, where a fetch finds some: for a token that names a key which is none of these.
    pub(super) async fn newer_foreign_keys(
        self: &Arc<Self>,
        trusted: &Trusted,
        known: &Arc<[PublicKey]>,
    ) -> Result<Option<Arc<[PublicKey]>>, Error> {
        let Keys::Fetched(fetching) = &trusted.keys else { return Ok(None) };
        self.fetch_keys(fetching.clone(), Why::Unknown(known.clone())).await?;
        let keys = fetching.known().other_than(known, self.now());
        Ok(keys)
    }

    /// Fetches keys for the first time, unless that goes on already.
    pub(super) async fn fetch_first(self: &Arc<Self>, trusted: &Trusted) -> Result<(), Error> {
        match &trusted.keys {
            Keys::Fetched(fetching) => self.fetch_keys(fetching.clone(), Why::Due).await,
            Keys::Registered(_) => Ok(()),
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
            Ok((keys.map_err(|bad| ("BAD_KEYS", format!("the document {bad}")))?, kept(&fetched)))
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
                tracing::warn!(url = fetching.url, error, "can't fetch the keys of a trusted issuer");
                known.error = Some(error);
            }
        }
    }

    /// Every set that is to be fetched ahead of its end, or again after a failure.
    fn due_keys(&self) -> Vec<Arc<Fetching>> {
        let now = self.now();
        let registry = self.registry();
        let fetched = registry.trusted_issuers().filter_map(|trusted| match &trusted.keys {
            Keys::Fetched(fetching) => Some(fetching),
            Keys::Registered(_) => None,
        });
        fetched.filter(|fetching| fetching.known().is_due(AHEAD, now)).cloned().collect()
    }
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
