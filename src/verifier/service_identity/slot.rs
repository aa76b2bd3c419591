//! One token that is held: one gets it for all who ask, ahead of its end.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use http::Extensions;
use tokio::sync::Mutex;

use super::IdentityError;
use crate::{
    proto::Tokens,
    verifier::{
        attach::{AccessToken, Held},
        budget::{Backoff, Budget},
    },
};

/// The longest wait between two attempts to renew a token that is still good.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How long at most the same is told to those who have no token, and nobody asked.
const LONGEST_TOLD: Duration = Duration::from_secs(1);
/// How often a token is exchanged that another service refuses: so many at once, and one more after each so long.
const REFUSED_AT_ONCE: u32 = 5;
const REFUSED_EVERY: Duration = Duration::from_secs(10);

/// How a token is got.
pub(super) trait Obtain: Clone + Send + Sync + 'static {
    /// What time it is.
    fn now(&self) -> DateTime<Utc>;

    /// Gets one.
    fn obtain(&self) -> impl Future<Output = Result<Obtained, IdentityError>> + Send;
}

/// What was got.
pub(super) struct Obtained {
    pub(super) tokens: Tokens,
    /// What goes along with the token wherever it is sent.
    pub(super) beside: Extensions,
}

/// The place of a token.
pub(super) struct Slot {
    held: RwLock<Option<Held>>,
    flight: Mutex<Flight>,
    /// Somebody renews a token that is still good.
    is_renewing: AtomicBool,
    refused: Budget,
}

/// What only the one who renews touches.
struct Flight {
    failure: Option<Failure>,
    backoff: Backoff,
}

/// Why there is no new token.
struct Failure {
    error: IdentityError,
    /// Until then who needs one is told this.
    told_until: Instant,
    /// And until then nobody tries again who needs none yet.
    waits_until: Instant,
}

/// Why another token is wanted.
enum Why {
    /// The one that is held is near its end.
    Ahead,
    /// There is none.
    Needed,
    /// A service refused this one.
    Refused(AccessToken),
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            held: RwLock::default(),
            flight: Mutex::new(Flight { failure: None, backoff: Backoff::up_to(LONGEST_WAIT) }),
            is_renewing: AtomicBool::default(),
            refused: Budget::new(REFUSED_AT_ONCE, REFUSED_EVERY),
        }
    }
}

impl Slot {
    fn held(&self) -> Option<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Option<Held>) {
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Forgets a token, if it is still the one that is held.
    fn forget(&self, token: &AccessToken) {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if held.as_ref().is_some_and(|held| held.token == *token) {
            *held = None;
        }
    }
}

/// A place and how its token is got. Cheap to clone.
#[derive(Clone)]
pub(super) struct Kept<O> {
    pub(super) slot: Arc<Slot>,
    pub(super) way: O,
}

impl<O: Obtain> Kept<O> {
    /// A token whose time has not passed. Waits for the issuer only where there is none.
    pub(super) async fn token(&self) -> Result<AccessToken, IdentityError> {
        let now = self.way.now();
        match self.slot.held() {
            Some(held) if now < held.renew_time => Ok(held.token),
            Some(held) if now < held.expire_time => {
                self.renew_beside();
                Ok(held.token)
            }
            _ => self.renew(Why::Needed).await,
        }
    }

    /// What there is instead of a token that a service refused; the same, where too many were of late.
    pub(super) async fn replace(&self, refused: AccessToken) -> Result<AccessToken, IdentityError> {
        self.renew(Why::Refused(refused)).await
    }

    /// The same for those who come later. Nobody waits.
    pub(super) fn replace_beside(&self, refused: AccessToken) {
        let kept = self.clone();
        tokio::spawn(async move { kept.renew_here(Why::Refused(refused)).await });
    }

    /// The token that is held is good for a while; nobody waits.
    fn renew_beside(&self) {
        if self.slot.is_renewing.swap(true, Ordering::AcqRel) {
            return;
        }
        let kept = self.clone();
        tokio::spawn(async move {
            // Who fails has told the log why, and a later call tries again.
            let _ = kept.renew_here(Why::Ahead).await;
            kept.slot.is_renewing.store(false, Ordering::Release);
        });
    }

    /// In a task of its own: a caller that goes away must not take the answer from the others.
    async fn renew(&self, why: Why) -> Result<AccessToken, IdentityError> {
        let kept = self.clone();
        let renewal = tokio::spawn(async move { kept.renew_here(why).await });
        renewal.await.unwrap_or(Err(IdentityError::Interrupted))
    }

    /// One at a time; who had to wait finds what the one before it got.
    async fn renew_here(&self, why: Why) -> Result<AccessToken, IdentityError> {
        let mut flight = self.slot.flight.lock().await;
        let now = self.way.now();
        let is_good = |held: &Held| now < held.renew_time && !why.is_about(&held.token);
        if let Some(held) = self.slot.held().filter(is_good) {
            return Ok(held.token);
        }
        let failed = flight.failure.as_ref().filter(|failure| Instant::now() < failure.until(&why));
        let outcome = match failed {
            Some(failure) => Err(failure.error.clone()),
            None => match &why {
                // Only who would exchange it pays for that, and not those who wait for the same.
                Why::Refused(refused) if !self.slot.refused.take() => return Ok(refused.clone()),
                _ => self.obtain(&mut flight, &why).await,
            },
        };
        match (&outcome, &why) {
            // What it stands for has ended, whoever has noticed.
            (Err(IdentityError::SubjectRefused(_)), _) => self.slot.hold(None),
            // Neither the service nor the issuer wants it any more.
            (Err(error), Why::Refused(refused)) if error.is_refusal() => self.slot.forget(refused),
            _ => {}
        }
        outcome
    }

    async fn obtain(&self, flight: &mut Flight, why: &Why) -> Result<AccessToken, IdentityError> {
        match self.way.obtain().await {
            Ok(Obtained { tokens, beside }) => {
                let mut held = Held::new(&tokens, beside, self.way.now());
                let before = self.slot.held().map(|before| before.expire_time);
                if matches!(why, Why::Ahead) && before.is_some_and(|before| held.expire_time <= before) {
                    // What it stands for ends then; asking more often would make it live no longer.
                    held.renew_time = held.expire_time;
                }
                let token = held.token.clone();
                self.slot.hold(Some(held));
                flight.failure = None;
                flight.backoff.reset();
                Ok(token)
            }
            Err(error) => {
                let (now, wait) = (Instant::now(), flight.backoff.wait());
                flight.failure = Some(Failure {
                    error: error.clone(),
                    told_until: now + wait.min(LONGEST_TOLD),
                    waits_until: now + wait,
                });
                Err(error)
            }
        }
    }
}

impl Why {
    fn is_about(&self, token: &AccessToken) -> bool {
        matches!(self, Self::Refused(refused) if refused == token)
    }
}

impl Failure {
    /// Until when who asks for this reason has to be content with it.
    fn until(&self, why: &Why) -> Instant {
        match why {
            Why::Ahead => self.waits_until,
            Why::Needed | Why::Refused(_) => self.told_until,
        }
    }
}
