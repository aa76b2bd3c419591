//! RSA keys for sessions, made ahead of need: a login takes one and never waits for a prime.

use std::{
    collections::{HashMap, HashSet},
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    thread::available_parallelism,
};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{App, Error, key_ring};
use crate::{
    crypto::{
        making::{self, Haste},
        sealing::Sealer,
        signing::SigningKey,
    },
    domain::algorithm::Algorithm,
    models::{Conn, session_keys::StoredKey, spare_keys, spare_keys::SpareKey},
};

/// Keys of the pool that are opened ahead of need too.
const OPENED: i64 = 64;
/// Damaged keys that are known as such, some 100 bytes each: more than the largest pool has, and no more than SQLite takes in one
/// statement. Where there are more, each is tried anew, and logins may find none that can be opened.
const MOST_DAMAGED: usize = 16_384;
/// Damaged keys that one login passes over before it is told to come back.
const PASSED_OVER: usize = 8;

/// What is known of the keys that will be taken next.
#[derive(Default)]
pub(super) struct OpenedKeys(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Ready to sign: to read an RSA key and to sign with it for the first time takes as long as several signatures do
    /// later.
    opened: HashMap<String, SigningKey>,
    /// They can't be opened: nobody takes them, and they don't count.
    damaged: HashSet<String>,
}

impl OpenedKeys {
    fn take(&self, kid: &str, algorithm: Algorithm) -> Option<SigningKey> {
        self.change(|known| known.opened.remove(kid)).filter(|key| key.algorithm() == algorithm)
    }

    /// Forgets those that are not among these, and says which of these are not opened yet.
    fn keep(&self, kids: Vec<String>) -> Vec<String> {
        self.change(|Known { opened, .. }| {
            opened.retain(|kid, _| kids.contains(kid));
            kids.into_iter().filter(|kid| !opened.contains_key(kid)).collect()
        })
    }

    fn insert(&self, key: SigningKey) {
        self.change(|known| known.opened.insert(key.kid().to_owned(), key));
    }

    fn damaged(&self) -> Vec<String> {
        self.change(|known| known.damaged.iter().cloned().collect())
    }

    /// It stays where it is: who has the right key-encryption key can still open it.
    fn pass_over(&self, kid: &str, error: &Error) {
        tracing::error!(kid, %error, "can't open a spare key; it is passed over");
        self.change(|known| {
            if known.damaged.len() < MOST_DAMAGED {
                known.damaged.insert(kid.to_owned());
            }
        });
    }

    /// How many are open, and how many damaged ones are known.
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.change(|Known { opened, damaged }| (opened.len(), damaged.len()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Takes the oldest key that can be opened from the pool, in the transaction that stores its session.
pub(super) async fn take(
    conn: &mut Conn,
    algorithm: Algorithm,
    bits: i32,
    sealer: &Sealer,
    opened: &OpenedKeys,
) -> Result<(StoredKey, SigningKey), Error> {
    for _ in 0..PASSED_OVER {
        let spare = spare_keys::hold(conn, bits, &opened.damaged()).await?.ok_or(Error::NoSpareKey)?;
        let kid = spare.kid.clone();
        match open(spare, algorithm, sealer, opened) {
            Ok(taken) if spare_keys::take(conn, &kid).await? => return Ok(taken),
            Ok(_) => return Err(Error::NoSpareKey),
            Err(error) => opened.pass_over(&kid, &error),
        }
    }
    Err(Error::NoSpareKey)
}

fn open(
    spare: SpareKey,
    algorithm: Algorithm,
    sealer: &Sealer,
    opened: &OpenedKeys,
) -> Result<(StoredKey, SigningKey), Error> {
    let stored = StoredKey {
        public_jwk: with_algorithm(&spare.public_jwk, algorithm)?,
        kid: spare.kid,
        algorithm,
        sealed_private_key: spare.sealed_private_key,
    };
    let key = match opened.take(&stored.kid, algorithm) {
        Some(key) => key,
        None => key_ring::open_key(&stored, sealer)?,
    };
    Ok((stored, key))
}

/// A spare key gets its one algorithm when it is taken; its thumbprint does not depend on it (RFC 7638).
fn with_algorithm(public_jwk: &str, algorithm: Algorithm) -> Result<String, Error> {
    let mut jwk: Jwk = serde_json::from_str(public_jwk).map_err(key_ring::unreadable)?;
    jwk.common.key_algorithm = Some(match algorithm {
        Algorithm::Ps256 => KeyAlgorithm::PS256,
        _ => KeyAlgorithm::RS256,
    });
    Ok(serde_json::to_string(&jwk).map_err(key_ring::unreadable)?)
}

impl App {
    /// Bits of an RSA key, as the database keeps them.
    pub(super) fn rsa_bits(&self) -> Result<i32, Error> {
        i32::try_from(self.settings.signing.rsa_bits).map_err(|error| Error::Internal(error.to_string()))
    }

    /// Makes one key and puts it into the pool.
    async fn make_spare_key(&self, haste: Haste) -> Result<(), Error> {
        let bits = self.settings.signing.rsa_bits;
        let new = making::make(Algorithm::Rs256, bits, self.rng.clone(), haste).await?;
        let mut jwk = new.key.jwk().clone();
        jwk.common.key_algorithm = None;
        let key = key_ring::seal(&new, &self.sealer)?;
        let spare = SpareKey {
            bits: self.rsa_bits()?,
            public_jwk: serde_json::to_string(&jwk).map_err(key_ring::unreadable)?,
            kid: key.kid,
            sealed_private_key: key.sealed_private_key,
        };
        let now = self.now();
        self.store.tx(async move |conn| spare_keys::insert(conn, &spare, now).await).await?;
        self.metrics.count_spare_key();
        Ok(())
    }

    /// How many keys the pool lacks.
    async fn missing_spare_keys(&self) -> Result<usize, Error> {
        let bits = self.rsa_bits()?;
        let damaged = self.opened_spare_keys.damaged();
        let count = self.store.read(async move |conn| spare_keys::count(conn, bits, &damaged).await);
        let depth = count.await?;
        self.metrics.observe_spare_keys(depth);
        let missing = i64::from(self.settings.signing.rsa_pool) - depth;
        Ok(usize::try_from(missing).unwrap_or_default())
    }

    /// Opens the keys that will be taken next.
    async fn open_next_spare_keys(&self) -> Result<(), Error> {
        let bits = self.rsa_bits()?;
        let damaged = self.opened_spare_keys.damaged();
        let next = self.store.read(async move |conn| spare_keys::next(conn, bits, &damaged, OPENED).await);
        // A tenant with the other algorithm opens its own when it takes one.
        let configured = self.settings.signing.session_algorithm;
        let algorithm = if configured.is_rsa() { configured } else { Algorithm::Rs256 };
        for kid in self.opened_spare_keys.keep(next.await?) {
            let wanted = kid.clone();
            let find = self.store.read(async move |conn| spare_keys::find_sealed(conn, &wanted).await);
            // It may be taken meanwhile.
            let Some(sealed) = find.await? else { continue };
            let opening = async {
                let private = key_ring::unseal(&kid, &sealed, &self.sealer)?;
                Ok(making::open_ahead(algorithm, private).await?)
            };
            match opening.await {
                Ok(key) => self.opened_spare_keys.insert(key),
                Err(error) => self.opened_spare_keys.pass_over(&kid, &error),
            }
        }
        Ok(())
    }

    /// The first login need not be refused: a server that serves has a key for it.
    pub(super) async fn prime_rsa_pool(&self) -> Result<(), Error> {
        let is_empty = self.missing_spare_keys().await? == self.settings.signing.rsa_pool as usize;
        if self.needs_rsa() && is_empty { self.make_spare_key(Haste::Wanted).await } else { Ok(()) }
    }

    /// Makes as many keys at the same time as there are processors, until the pool is full. While it is empty their
    /// making is not put off for other work, of which those who are refused and come back make more and more.
    async fn fill_rsa_pool(self: &Arc<Self>) -> Result<(), Error> {
        let at_once = available_parallelism().map_or(1, NonZero::get);
        while self.needs_rsa() {
            self.open_next_spare_keys().await?;
            let missing = self.missing_spare_keys().await?;
            if missing == 0 {
                break;
            }
            let is_empty = missing == self.settings.signing.rsa_pool as usize;
            let haste = if is_empty { Haste::Wanted } else { Haste::None };
            let mut making = JoinSet::new();
            for _ in 0..missing.min(at_once) {
                let app = self.clone();
                making.spawn(async move { app.make_spare_key(haste).await });
            }
            while let Some(made) = making.join_next().await {
                made.map_err(|error| Error::Internal(error.to_string()))??;
            }
        }
        Ok(())
    }
}

/// Keeps the pool full until the server stops; looks after each key that is taken here, and now and then for
/// those that other replicas take.
pub async fn keep_full(app: &Arc<App>, stop: CancellationToken) {
    let mut ticks = interval(app.settings.poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let filling = async {
            tokio::select! {
                () = app.spare_key_taken.notified() => {}
                _ = ticks.tick() => {}
            }
            if let Err(error) = app.fill_rsa_pool().await {
                tracing::error!(%error, "can't fill the pool of RSA keys");
                ticks.tick().await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = filling => {}
        }
    }
}
