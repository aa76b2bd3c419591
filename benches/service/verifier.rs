//! The verifier in a process of its own user: a token that it has not seen, of a session whose key it knows, against
//! one ES256 verification; and a token that it has seen.

use std::time::Duration;

use tessera::{
    clock::{Clock, SystemClock},
    verifier::{PublicKey, Verifier},
};

use super::{
    Bench, Outcome, bare,
    case::{Case, Limit, Place, Rounds},
    load::Sample,
    report::Report,
    support::Issuer,
};

const NEW: &str = "verifier_new_token";
const SEEN: &str = "verifier_seen_token";
/// How much longer than the signature alone a new token may take.
const NEW_FACTOR: f64 = 1.15;
const NEW_MORE_US: f64 = 2.0;
const SEEN_US: f64 = 3.0;
/// How often the signature and the check take turns in a round: the processor's own pace changes within one.
const TURNS: u32 = 32;
/// A round costs little here, and the bound leaves a few microseconds.
const ROUNDS: usize = 8;

/// Measures both.
pub fn measure(bench: &Bench, report: &mut Report) -> Outcome {
    let place = Place { database: "none", sessions: None };
    let issuer_keys =
        || Ok::<_, Box<dyn std::error::Error>>(vec![PublicKey::from_jwk(bench.signatures.issuer.jwk())?]);
    // Without a cache of tokens it checks each signature, however often it sees it.
    let news = Verifier::new(issuer_keys()?);
    let remembers = Verifier::new(issuer_keys()?).with_token_cache(bench.signatures.tokens.len() * 4);
    let (mut of_new, mut of_seen) = (Rounds::default(), Rounds::default());
    for round in 0..=bench.pace.rounds.max(ROUNDS) {
        let (mut bare, mut new) = (Sample::default(), Sample::default());
        for _ in 0..TURNS {
            bare.extend(bench.signatures.verify(1, bench.pace.slice / TURNS)?);
            new.extend(check(bench, &news, bench.pace.slice / TURNS)?);
        }
        let bare_us = bare.quantile_us(0.5);
        let ratio = new.quantile_us(0.5) / (NEW_FACTOR * bare_us + NEW_MORE_US);
        of_new.push(round, new, bare, ratio, bare_us);
        let seen = check(bench, &remembers, bench.pace.slice / 4)?;
        let ratio = seen.quantile_us(0.5) / SEEN_US;
        of_seen.push(round, seen, Sample::default(), ratio, SEEN_US);
    }
    if bench.wants(NEW) {
        report.add(Case::of(NEW, place, of_new, "1.15 × one ES256 verify + 2 µs", Limit::AtMost(1.0)));
    }
    if bench.wants(SEEN) {
        report.add(Case::of(SEEN, place, of_seen, "3 µs", Limit::AtMost(1.0)));
    }
    Ok(())
}

fn check(bench: &Bench, verifier: &Verifier, slice: Duration) -> Outcome<Sample> {
    let (expected, now, tokens) = (Issuer::expected(), SystemClock.now(), &bench.signatures.tokens);
    bare::spin(1, slice, |number| {
        let (mut next, expected) = (number, expected.clone());
        move || {
            next += 1;
            verifier.check(&tokens[next % tokens.len()], &expected, now).is_ok()
        }
    })
}
