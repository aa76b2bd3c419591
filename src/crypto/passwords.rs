//! Password hashing: argon2id on a bounded number of threads behind a bounded queue, so that a flood of
//! logins slows logins and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use argon2::Params;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
    time::timeout,
};

pub use super::argon::Verdict;
use super::{CryptoError, argon::Argon, random::Randomness};

/// How passwords are hashed.
#[derive(Debug, Clone)]
pub struct HashSettings {
    /// Memory of one hash in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub time: u32,
    /// Lanes.
    pub lanes: u32,
    /// Hashes at the same time.
    pub threads: usize,
    /// Hashes that may wait.
    pub queue: usize,
    /// How long one may wait.
    pub deadline: Duration,
}

/// Hashes passwords and checks them.
pub struct PasswordHasher {
    argon: Arc<Argon>,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
    deadline: Duration,
    rng: Arc<dyn Randomness>,
    /// What an unknown user's password is compared with.
    dummy: String,
}

/// No hash was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The queue is full, or the deadline passed in it.
    #[error("too many passwords wait to be hashed")]
    Overloaded,
    /// argon2 or the source of randomness failed, or a stored hash is damaged.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl PasswordHasher {
    /// Makes a hasher; computes one hash.
    pub fn new(settings: &HashSettings, rng: Arc<dyn Randomness>) -> Result<Self, CryptoError> {
        let params = Params::new(settings.memory_kib, settings.time, settings.lanes, None)
            .map_err(|_| CryptoError("argon2 parameters"))?;
        let argon = Arc::new(Argon::new(params));
        let dummy = argon.hash("", rng.bytes()?)?;
        Ok(Self {
            argon,
            permits: Arc::new(Semaphore::new(settings.threads)),
            waiting: Arc::default(),
            queue: settings.queue,
            deadline: settings.deadline,
            rng,
            dummy,
        })
    }

    /// Gives back the memory that it keeps for the next hash.
    pub fn rest(&self) {
        self.argon.rest();
    }

    /// How much that is, in bytes: as many pieces as there were ever hashes at the same time, but those in use.
    pub fn kept_bytes(&self) -> usize {
        self.argon.kept_bytes()
    }

    /// Hashes a new password into a PHC string.
    pub async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        let salt = self.rng.bytes()?;
        let argon = self.argon.clone();
        self.run(move || argon.hash(password.expose_secret(), salt)).await
    }

    /// Compares a password with a stored hash. Without one it takes as long and is wrong.
    pub async fn verify(&self, password: SecretString, stored: Option<String>) -> Result<Verdict, HashError> {
        let salt = self.rng.bytes()?;
        let argon = self.argon.clone();
        let is_known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.dummy.clone());
        let verdict = self.run(move || argon.verify(password.expose_secret(), &stored, salt)).await?;
        Ok(if is_known { verdict } else { Verdict::Wrong })
    }

    /// How many hashes wait for a thread.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How many threads are free.
    pub fn free_threads(&self) -> usize {
        self.permits.available_permits()
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, CryptoError> + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = self.permit().await?;
        let done = spawn_blocking(move || {
            // Held until the hash is done: a client that leaves must not free the thread's place.
            let _permit = permit;
            job()
        });
        Ok(done.await.map_err(|_| CryptoError("the hashing thread"))??)
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, HashError> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::enter(&self.waiting, self.queue).ok_or(HashError::Overloaded)?;
        let permit = timeout(self.deadline, self.permits.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(HashError::Overloaded)
    }
}

/// A place in the queue, given back when dropped, also by a client that leaves.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(waiting: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let place = Self(waiting.clone());
        (waiting.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::random::SystemRandomness, *};

    fn hasher(time: u32, threads: usize, queue: usize) -> Result<PasswordHasher, CryptoError> {
        let settings = HashSettings {
            memory_kib: 1024,
            time,
            lanes: 1,
            threads,
            queue,
            deadline: Duration::from_secs(60),
        };
        PasswordHasher::new(&settings, Arc::new(SystemRandomness))
    }

    #[tokio::test]
    async fn a_hash_by_other_parameters_is_renewed() -> Result<(), HashError> {
        let (old, new) = (hasher(1, 1, 1)?, hasher(2, 1, 1)?);
        let stored = old.hash("correct horse".into()).await?;
        assert!(stored.starts_with("$argon2id$v=19$m=1024,t=1,p=1$"), "{stored}");
        assert_eq!(old.verify("correct horse".into(), Some(stored.clone())).await?, Verdict::Right);
        let Verdict::RightRehashed(renewed) =
            new.verify("correct horse".into(), Some(stored.clone())).await?
        else {
            panic!("the hash was not renewed");
        };
        assert_eq!(new.verify("correct horse".into(), Some(renewed)).await?, Verdict::Right);
        assert_eq!(new.verify("correct hors".into(), Some(stored)).await?, Verdict::Wrong);
        assert_eq!(new.verify("".into(), None).await?, Verdict::Wrong, "the dummy's own password");
        Ok(())
    }

    #[tokio::test]
    async fn a_full_queue_refuses_and_a_client_that_leaves_frees_nothing() -> Result<(), HashError> {
        let hasher = Arc::new(hasher(1, 1, 1)?);
        let held = hasher.permits.clone().acquire_owned().await.map_err(|_| HashError::Overloaded)?;
        let waits = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.hash("first".into()).await }
        });
        while hasher.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hasher.hash("second".into()).await, Err(HashError::Overloaded));
        waits.abort();
        let _ = waits.await;
        assert_eq!(hasher.waiting(), 0, "the place of one that left is free");
        drop(held);
        assert!(hasher.hash("third".into()).await.is_ok());
        Ok(())
    }
}
