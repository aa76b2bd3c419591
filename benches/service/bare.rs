//! The work that no implementation could leave out, on threads of this process.

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use argon2::{Argon2, Block};
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
    Outcome, cpu,
    load::{Sample, nanos},
    support::{Issuer, parts_of},
};

/// Does it again and again on so many threads, which begin together when each has what it needs.
pub fn spin<W: FnMut() -> bool>(
    threads: usize,
    slice: Duration,
    work: impl Fn(usize) -> W + Sync,
) -> Outcome<Sample> {
    let ready = Barrier::new(threads + 1);
    let spin_here = |number: usize| {
        let (mut work, mut sample) = (work(number), Sample::default());
        ready.wait();
        let (begun, used) = (Instant::now(), cpu::of_this_thread());
        while begun.elapsed() < slice {
            let begun = Instant::now();
            if work() {
                sample.latencies.push(nanos(begun.elapsed()));
            } else {
                sample.errors += 1;
            }
        }
        sample.cpu = cpu::of_this_thread().saturating_sub(used);
        sample
    };
    let mut whole = Sample::default();
    thread::scope(|scope| {
        let spin_here = &spin_here;
        let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || spin_here(number))).collect();
        ready.wait();
        let begun = Instant::now();
        for thread in running {
            whole.extend(thread.join().map_err(|_| "a thread panicked")?);
        }
        whole.took = begun.elapsed();
        Ok(whole)
    })
}

/// argon2id with the service's parameters, on as many threads as it has. Each keeps its memory, as the service does.
pub fn argon2(settings: &HashSettings, slice: Duration) -> Outcome<Sample> {
    let params = argon2::Params::new(settings.memory_kib, settings.time, settings.lanes, None)?;
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    spin(settings.threads, slice, |_| {
        let (argon2, mut memory) = (&argon2, vec![Block::new(); argon2.params().block_count()]);
        move || {
            let (password, salt, out) = (b"nobody guesses this", &[7_u8; 16], &mut [0_u8; 32]);
            argon2.hash_password_into_with_memory(password, salt, out, &mut memory).is_ok()
        }
    })
}

/// What is left of checking tokens when everything but the signature is taken away, and of making them.
pub struct Signatures {
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
        let bare = |_| Bare::of(&issuer.new_session(now)?);
        let bare = (0..Self::SESSIONS).map(bare).collect::<Outcome<_>>()?;
        Ok(Self { bare, signer: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)? })
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
