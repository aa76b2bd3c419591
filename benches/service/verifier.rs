//! The verifier in a process of its own user, which remembers as many tokens as one does by default: a token that it has
//! not seen, of a session whose key it knows, against one ES256 verification; and one that it has seen.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use tessera::{
    clock::{Clock, SystemClock},
    verifier::{PublicKey, Verifier},
};

use super::{
    Bench, Outcome, ahead, bare,
    case::{Case, Limit, Place, Rounds},
    load::Sample,
    report::Report,
    support::Issuer,
};

pub const NEW: &str = "verifier_new_token";
pub const SEEN: &str = "verifier_seen_token";
/// How much longer than the signature alone a new token may take.
const NEW_FACTOR: f64 = 1.15;
const NEW_MORE_US: f64 = 2.0;
const SEEN_US: f64 = 3.0;
/// How often the signature and the check take turns in a round: the processor's own pace changes within one.
const TURNS: u32 = 32;
/// A round costs little here, and the bound leaves a few microseconds.
const ROUNDS: usize = 8;
/// What a connected verifier remembers that isn't told otherwise.
const REMEMBERED: usize = 10_000;
/// As many as the bare signatures have keys.
const SESSIONS: usize = 256;
/// Of each: together more than are checked in a round.
const TOKENS: usize = 256;
/// The share of new tokens that may be found remembered nevertheless.
const MOST_HITS: f64 = 0.01;

/// Measures both.
pub fn measure(bench: &Bench, report: &mut Report) -> Outcome {
    if !bench.wants(NEW) && !bench.wants(SEEN) {
        return Ok(());
    }
    let (issuer, now) = (Issuer::new()?, SystemClock.now());
    let sessions = ahead::make(SESSIONS, |_| issuer.tokens_of_new_session(now, TOKENS))?;
    // One of each session in turn.
    let nth_of_each = |number: usize| sessions.iter().filter_map(move |tokens| tokens.get(number).cloned());
    let (seen, new) = (Tokens::of(nth_of_each(0)), Tokens::of((1..TOKENS).flat_map(nth_of_each)));
    let (mut of_new, mut of_seen) = (Rounds::default(), Rounds::default());
    for round in 0..=bench.pace.rounds.max(ROUNDS) {
        // Another one each time: of tokens that go round, one that has seen them all would know some again.
        let verifier = Verifier::new(vec![PublicKey::from_jwk(issuer.jwk())?]).with_token_cache(REMEMBERED);
        let (mut bare, mut news) = (Sample::default(), Sample::default());
        for _ in 0..TURNS {
            bare.extend(bench.signatures.verify(1, bench.pace.slice / TURNS)?);
            news.extend(new.check(&verifier, bench.pace.slice / TURNS)?);
        }
        let hits = verifier.remembered_token_hits();
        if hits as f64 > news.latencies.len() as f64 * MOST_HITS {
            return Err(format!("of {} new tokens {hits} were remembered", news.latencies.len()).into());
        }
        let bare_us = bare.quantile_us(0.5);
        let ratio = news.quantile_us(0.5) / (NEW_FACTOR * bare_us + NEW_MORE_US);
        of_new.push(round, news, bare, ratio, bare_us);
        let again = seen.check(&verifier, bench.pace.slice / 4)?;
        let ratio = again.quantile_us(0.5) / SEEN_US;
        of_seen.push(round, again, Sample::default(), ratio, SEEN_US);
    }
    let place = Place { database: "none", sessions: None };
    if bench.wants(NEW) {
        report.add(Case::of(NEW, place, of_new, "1.15 × one ES256 verify + 2 µs", Limit::AtMost(1.0)))?;
    }
    if bench.wants(SEEN) {
        report.add(Case::of(SEEN, place, of_seen, "3 µs", Limit::AtMost(1.0)))?;
    }
    Ok(())
}

/// Tokens that take turns, also from one slice to the next.
struct Tokens {
    tokens: Vec<String>,
    next: AtomicUsize,
}

impl Tokens {
    fn of(tokens: impl Iterator<Item = String>) -> Self {
        Self { tokens: tokens.collect(), next: AtomicUsize::default() }
    }

    fn check(&self, verifier: &Verifier, slice: Duration) -> Outcome<Sample> {
        let (expected, now) = (Issuer::expected(), SystemClock.now());
        bare::spin(1, slice, |_| {
            || {
                let next = self.next.fetch_add(1, Ordering::Relaxed);
                verifier.check(&self.tokens[next % self.tokens.len()], &expected, now).is_ok()
            }
        })
    }
}
