//! Keys that nobody vouches for in the token's header: the issuer is asked for them, once and not too often.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use quick_cache::sync::Cache;
use tokio::time::timeout;

use super::{Core, Denial, ask::PATIENCE};
use crate::verifier::{Refusal, budget::Budget};

/// Answers that are remembered.
const REMEMBERED: usize = 10_000;
/// How long a key that the issuer doesn't know is not asked for again.
const COOL_DOWN: Duration = Duration::from_secs(10);
/// The same for one that it knows, and for an issuer key that is on its way here by the feed.
const BREATH: Duration = Duration::from_secs(1);

/// What came of asking for a key.
#[derive(Clone, Copy)]
struct Answer {
    is_known: bool,
    good_until: Instant,
}

/// Who asks for a key that is being asked for waits for that answer.
pub(super) struct Lookups {
    answers: Cache<String, Answer>,
    budget: Budget,
}

impl Lookups {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        Self {
            answers: Cache::new(REMEMBERED),
            budget: Budget::new(per_second, Duration::from_secs(1) / per_second),
        }
    }

    /// How many answers are remembered.
    pub(super) fn remembered(&self) -> usize {
        self.answers.len()
    }

    /// Whether the issuer may be asked once more on behalf of a token that nothing vouches for.
    pub(super) fn may_ask(&self) -> bool {
        self.budget.take()
    }
}

impl Core {
    /// Learns the key of this id from the issuer. Who waits for the answer of another waits no longer than that one.
    pub(super) async fn find_key(&self, kid: &str) -> Result<(), Denial> {
        if !is_thumbprint(kid) {
            return Err(Refusal::UnknownKey.into());
        }
        timeout(PATIENCE, self.find_key_at_last(kid)).await.unwrap_or(Err(Denial::Unreachable))
    }

    async fn find_key_at_last(&self, kid: &str) -> Result<(), Denial> {
        let answers = &self.lookups.answers;
        let answer = loop {
            match answers.get_value_or_guard_async(kid).await {
                Ok(answer) if answer.good_until > Instant::now() => break answer,
                Ok(_) => {
                    answers.remove_if(kid, |answer| answer.good_until <= Instant::now());
                }
                Err(guard) => {
                    let answer = self.look_up(kid).await?;
                    // Fails only where it was removed meanwhile, and then nobody waits for it.
                    let _ = guard.insert(answer);
                    break answer;
                }
            }
        };
        if answer.is_known { Ok(()) } else { Err(Refusal::UnknownKey.into()) }
    }

    async fn look_up(&self, kid: &str) -> Result<Answer, Denial> {
        if !self.lookups.may_ask() {
            self.counters.spared.fetch_add(1, Ordering::Relaxed);
            return Err(Denial::Busy);
        }
        self.counters.lookups.fetch_add(1, Ordering::Relaxed);
        let until = |wait| Instant::now() + wait;
        let Some(found) = self.issuer.key(kid).await? else {
            return Ok(Answer { is_known: false, good_until: until(COOL_DOWN) });
        };
        // Nobody endorses an issuer key. It is taken from the feed alone: an answer that was late could bring back
        // one that was withdrawn meanwhile.
        let is_known = !found.endorsement.is_empty()
            && self
                .verifier
                .learn(kid, &found.endorsement, &self.expected)
                .inspect_err(|error| tracing::warn!(kid, %error, "the issuer's endorsement is of no use"))
                .is_ok();
        Ok(Answer { is_known, good_until: until(BREATH) })
    }
}

/// Whether it has the form of an RFC 7638 thumbprint with SHA-256, as the id of each session's key has.
fn is_thumbprint(kid: &str) -> bool {
    kid.len() == 43 && kid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}
