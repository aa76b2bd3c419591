//! A verifier with nothing but the issuer's key, before one token of each of a million sessions.
//!
//! Each session has its own ES256 key, so that no check can use what another one learnt: the endorsement and the
//! token are verified each time. Ends with an error if memory grows once the verifier remembers all it may.

use std::{
    env,
    error::Error,
    fs,
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use tessera::{
    clock::{Clock, SystemClock},
    verifier::{PublicKey, Verifier},
};

#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{Issuer, parts_of};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Tokens that are there at the same time.
const BATCH: usize = 1_000;
/// After so many sessions a line is printed, and after the last.
const MILESTONES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
/// From so many sessions on memory must stay.
const FULL: usize = 2 * Verifier::REMEMBERS_AT_MOST;
/// What the allocator may be late in giving back.
const SLACK_KIB: u64 = 4 * 1024;

/// Time spent since the last line.
#[derive(Default)]
struct Spent {
    checks: usize,
    verifier: Duration,
    ceiling: Duration,
}

fn main() -> Outcome<()> {
    let sessions = wanted_sessions()?;
    let issuer = Issuer::new()?;
    let verifier = Verifier::new(vec![PublicKey::from_jwk(issuer.jwk())?]);
    let issuer_key = parse(&point(issuer.jwk())?)?;
    let (mut done, mut spent, mut memory_when_full) = (0, Spent::default(), Vec::new());
    println!("  sessions  memory KiB  remembered keys  checks/s  bare verifies of both/s  ratio");
    while done < sessions {
        let now = SystemClock.now();
        let size = BATCH.min(sessions - done);
        let tokens: Vec<String> = (0..size).map(|_| issuer.new_session(now)).collect::<Outcome<_>>()?;
        spent.verifier += check(&verifier, &tokens, now)?;
        spent.ceiling += verify_bare(&issuer_key, &tokens)?;
        spent.checks += size;
        done += size;
        let memory = resident_kib()?;
        if done >= FULL {
            memory_when_full.push(memory);
        }
        if MILESTONES.contains(&done) || done == sessions {
            spent.print(done, memory, verifier.remembered_keys());
            spent = Spent::default();
        }
    }
    require_bounded(&memory_when_full)
}

/// What `--sessions` says.
fn wanted_sessions() -> Outcome<usize> {
    let mut arguments = env::args().skip_while(|argument| argument != "--sessions").skip(1);
    Ok(arguments.next().map_or(Ok(1_000_000), |number| number.parse())?)
}

fn require_bounded(memory: &[u64]) -> Outcome<()> {
    let (Some(first), Some(highest)) = (memory.first(), memory.iter().max()) else {
        return Err(format!("less than {FULL} sessions say nothing about memory").into());
    };
    let grown = highest - first;
    println!("After {FULL} sessions memory grew by {grown} KiB at most.");
    if grown > SLACK_KIB { Err(format!("that is more than {SLACK_KIB} KiB").into()) } else { Ok(()) }
}

/// How long the verifier takes.
fn check(verifier: &Verifier, tokens: &[String], now: DateTime<Utc>) -> Outcome<Duration> {
    let expected = Issuer::expected();
    let begun = Instant::now();
    for token in tokens {
        verifier.check(token, &expected, now)?;
    }
    Ok(begun.elapsed())
}

/// The ceiling: how long aws-lc-rs takes for the two signatures of each token alone, the session's key read from its
/// point.
fn verify_bare(issuer_key: &ParsedPublicKey, tokens: &[String]) -> Outcome<Duration> {
    let bare: Vec<Bare> = tokens.iter().map(|token| Bare::of(token)).collect::<Outcome<_>>()?;
    let begun = Instant::now();
    for Bare { endorsement, session_point, token } in &bare {
        issuer_key.verify_sig(&endorsement.message, &endorsement.signature)?;
        parse(session_point)?.verify_sig(&token.message, &token.signature)?;
    }
    Ok(begun.elapsed())
}

/// What is signed in a token, decoded.
struct Bare {
    endorsement: Signed,
    session_point: Vec<u8>,
    token: Signed,
}

struct Signed {
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Bare {
    fn of(token: &str) -> Outcome<Self> {
        let (header, _) = parts_of(token)?;
        let endorsement = header["skc"].as_str().ok_or("no endorsement")?;
        let (_, claims) = parts_of(endorsement)?;
        let jwk: Jwk = serde_json::from_value(claims["cnf"]["jwk"].clone())?;
        Ok(Self {
            endorsement: Signed::of(endorsement)?,
            session_point: point(&jwk)?,
            token: Signed::of(token)?,
        })
    }
}

impl Signed {
    fn of(jws: &str) -> Outcome<Self> {
        let (message, signature) = jws.rsplit_once('.').ok_or("no signature")?;
        Ok(Self { message: message.into(), signature: URL_SAFE_NO_PAD.decode(signature)? })
    }
}

/// The uncompressed point of a key (SEC 1 section 2.3.3).
fn point(jwk: &Jwk) -> Outcome<Vec<u8>> {
    let AlgorithmParameters::EllipticCurve(key) = &jwk.algorithm else {
        return Err("not on a curve".into());
    };
    Ok([&[4][..], &URL_SAFE_NO_PAD.decode(&key.x)?, &URL_SAFE_NO_PAD.decode(&key.y)?].concat())
}

fn parse(point: &[u8]) -> Outcome<ParsedPublicKey> {
    Ok(ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)?)
}

impl Spent {
    fn print(&self, sessions: usize, memory: u64, remembered: usize) {
        let per_second = |time: Duration| self.checks as f64 / time.as_secs_f64();
        let (checks, ceiling) = (per_second(self.verifier), per_second(self.ceiling));
        println!(
            "{sessions:>10}  {memory:>10}  {remembered:>15}  {checks:>8.0}  {ceiling:>23.0}  {:>5.2}",
            checks / ceiling
        );
    }
}

/// The memory of this process that is resident.
fn resident_kib() -> Outcome<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
