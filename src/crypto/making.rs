//! Makes keys away from the threads that serve: an RSA key takes a good part of a second.

use std::{sync::Arc, thread};

use tokio::sync::oneshot;

use super::{CryptoError, random::Randomness, signing::NewKey};
use crate::domain::algorithm::Algorithm;

/// The kindest a thread can be to all others.
const LOWEST_PRIORITY: i32 = 19;

/// Makes a key, an RSA one on a thread of its own that has the lowest priority.
pub async fn make(
    algorithm: Algorithm,
    rsa_bits: usize,
    rng: Arc<dyn Randomness>,
) -> Result<NewKey, CryptoError> {
    if !algorithm.is_rsa() {
        return NewKey::generate(algorithm, rsa_bits, &*rng);
    }
    let failed = CryptoError("the thread that makes keys");
    let (sender, receiver) = oneshot::channel();
    let making = move || {
        // Linux gives each thread its own. Refused, the key is made all the same.
        let _ = rustix::process::nice(LOWEST_PRIORITY);
        // Nobody may want it any more when it is done.
        let _ = sender.send(NewKey::generate(algorithm, rsa_bits, &*rng));
    };
    thread::Builder::new().name("make-key".to_owned()).spawn(making).map_err(|_| failed)?;
    receiver.await.map_err(|_| failed)?
}
