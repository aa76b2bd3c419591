//! Makes keys away from the threads that serve: an RSA key takes a good part of a second.

use std::{sync::Arc, thread};

use secrecy::SecretSlice;
use tokio::sync::oneshot;

use super::{
    CryptoError,
    random::Randomness,
    signing::{NewKey, SigningKey},
};
use crate::domain::algorithm::Algorithm;

/// The kindest a thread can be to all others.
const LOWEST_PRIORITY: i32 = 19;

/// How much a key is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// It is made when nothing else is to be done.
    None,
    /// It is made like anything else is done: somebody waits for it.
    Wanted,
}

/// Makes a key, an RSA one on a thread of its own.
pub async fn make(
    algorithm: Algorithm,
    rsa_bits: usize,
    rng: Arc<dyn Randomness>,
    haste: Haste,
) -> Result<NewKey, CryptoError> {
    if !algorithm.is_rsa() {
        return NewKey::generate(algorithm, rsa_bits, &*rng);
    }
    apart(haste, move || NewKey::generate(algorithm, rsa_bits, &*rng)).await
}

/// Reads an RSA key, and signs with it once: what aws-lc computes for the first signature is kept for all others.
pub async fn open_ahead(algorithm: Algorithm, pkcs8: SecretSlice<u8>) -> Result<SigningKey, CryptoError> {
    apart(Haste::None, move || {
        let key = SigningKey::from_pkcs8(algorithm, &pkcs8)?;
        key.sign(&[])?;
        Ok(key)
    })
    .await
}

/// Runs a job on a thread of its own.
async fn apart<T: Send + 'static>(
    haste: Haste,
    job: impl FnOnce() -> Result<T, CryptoError> + Send + 'static,
) -> Result<T, CryptoError> {
    let failed = CryptoError("the thread that makes keys");
    let (sender, receiver) = oneshot::channel();
    let working = move || {
        if haste == Haste::None {
            // Linux gives each thread its own. Refused, the job is done all the same.
            let _ = rustix::process::nice(LOWEST_PRIORITY);
        }
        // Nobody may want it any more when it is done.
        let _ = sender.send(job());
    };
    thread::Builder::new().name("make-key".to_owned()).spawn(working).map_err(|_| failed)?;
    receiver.await.map_err(|_| failed)?
}
