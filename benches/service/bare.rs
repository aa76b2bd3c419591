//! The work that no implementation could leave out, on threads of this process.

use std::{
    thread,
    time::{Duration, Instant},
};

use argon2::Argon2;
use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, ParsedPublicKey},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use tessera::{
    clock::{Clock, SystemClock},
    crypto::passwords::HashSettings,
};

use super::{
    Outcome,
    load::{Sample, nanos},
    support::{Issuer, parts_of},
};

/// Does it again and again on so many threads.
pub fn spin<W: FnMut() -> bool>(
    threads: usize,
    slice: Duration,
    work: impl Fn(usize) -> W + Sync,
) -> Outcome<Sample> {
    let begun = Instant::now();
    let spin_here = |number: usize| {
        let (mut work, mut sample) = (work(number), Sample::default());
        while begun.elapsed() < slice {
            let begun = Instant::now();
            if work() {
                sample.latencies.push(nanos(begun.elapsed()));
            } else {
                sample.errors += 1;
            }
        }
        sample
    };
    let mut whole = Sample::default();
    thread::scope(|scope| {
        let spin_here = &spin_here;
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || spin_here(number))).collect();
        for thread in running {
            let sample = thread.join().map_err(|_| "a thread panicked")?;
            whole.errors += sample.errors;
            whole.latencies.extend(sample.latencies);
        }
        Ok::<_, &str>(())
    })?;
    whole.took = begun.elapsed();
    whole.cpu = Duration::from_nanos(whole.latencies.iter().sum());
    Ok(whole)
}

/// argon2id with the service's parameters, on as many threads as it has.
pub fn argon2(settings: &HashSettings, slice: Duration) -> Outcome<Sample> {
    let params = argon2::Params::new(settings.memory_kib, settings.time, settings.lanes, None)?;
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    spin(settings.threads, slice, |_| {
        || argon2.hash_password_into(b"nobody guesses this", &[7; 16], &mut [0; 32]).is_ok()
    })
}

/// Tokens of many sessions, and what is left of checking one when everything but the signature is taken away.
pub struct Signatures {
    pub issuer: Issuer,
    pub tokens: Vec<String>,
    bare: Vec<Bare>,
    signer: EcdsaKeyPair,
}

struct Bare {
    key: ParsedPublicKey,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Signatures {
    /// So few that they stay in the processor's cache, as those of busy sessions do.
    const SESSIONS: usize = 256;

    pub fn new() -> Outcome<Self> {
        let (issuer, now) = (Issuer::new()?, SystemClock.now());
        let tokens: Vec<String> =
            (0..Self::SESSIONS).map(|_| issuer.new_session(now)).collect::<Outcome<_>>()?;
        let bare = tokens.iter().map(|token| Bare::of(token)).collect::<Outcome<_>>()?;
        let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        Ok(Self { issuer, tokens, bare, signer })
    }

    /// One ES256 signature after another, over as much as a service's token is signed over.
    pub fn sign(&self, threads: usize, slice: Duration) -> Outcome<Sample> {
        let (rng, message) = (SystemRandom::new(), [b's'; 600]);
        spin(threads, slice, |_| || self.signer.sign(&rng, &message).is_ok())
    }

    /// One ES256 verification after another.
    pub fn verify(&self, threads: usize, slice: Duration) -> Outcome<Sample> {
        spin(threads, slice, |number| {
            let mut next = number;
            move || {
                next += 1;
                let Bare { key, message, signature } = &self.bare[next % self.bare.len()];
                key.verify_sig(message, signature).is_ok()
            }
        })
    }
}

impl Bare {
    fn of(token: &str) -> Outcome<Self> {
        let (header, _) = parts_of(token)?;
        let (_, endorsement) = parts_of(header["skc"].as_str().ok_or("no endorsement")?)?;
        let jwk: Jwk = serde_json::from_value(endorsement["cnf"]["jwk"].clone())?;
        let (message, signature) = token.rsplit_once('.').ok_or("no signature")?;
        Ok(Self {
            key: ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point(&jwk)?)?,
            message: message.into(),
            signature: URL_SAFE_NO_PAD.decode(signature)?,
        })
    }
}

/// The uncompressed point of a key (SEC 1 section 2.3.3).
fn point(jwk: &Jwk) -> Outcome<Vec<u8>> {
    let AlgorithmParameters::EllipticCurve(key) = &jwk.algorithm else {
        return Err("not on a curve".into());
    };
    Ok([&[4][..], &URL_SAFE_NO_PAD.decode(&key.x)?, &URL_SAFE_NO_PAD.decode(&key.y)?].concat())
}

/// The threads that all processors are busy with.
pub fn all_processors() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
