//! RSA keys for sessions, made ahead of need: a login takes one and never waits for a prime.

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use jsonwebtoken::jwk::{Jwk, KeyAlgorithm};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{App, Error, key_ring};
use crate::{
    crypto::{making, sealing::Sealer, signing::SigningKey},
    domain::algorithm::Algorithm,
    models::{Conn, session_keys::StoredKey, spare_keys, spare_keys::SpareKey},
};

/// Takes a key from the pool, in the transaction that stores its session.
pub(super) async fn take(
    conn: &mut Conn,
    algorithm: Algorithm,
    bits: i32,
    sealer: &Sealer,
) -> Result<(StoredKey, SigningKey), Error> {
    let spare = spare_keys::take(conn, bits).await?.ok_or(Error::NoSpareKey)?;
    let stored = StoredKey {
        public_jwk: with_algorithm(&spare.public_jwk, algorithm)?,
        kid: spare.kid,
        algorithm,
        sealed_private_key: spare.sealed_private_key,
    };
    // Opened here: a key that can't be used must not end the session that gives way to this one.
    let key = key_ring::open_key(&stored, sealer)?;
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
    async fn make_spare_key(&self) -> Result<(), Error> {
        let new = making::make(Algorithm::Rs256, self.settings.signing.rsa_bits, self.rng.clone()).await?;
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
        let depth = self.store.read(async move |conn| spare_keys::count(conn, bits).await).await?;
        self.metrics.observe_spare_keys(depth);
        let missing = i64::from(self.settings.signing.rsa_pool) - depth;
        Ok(usize::try_from(missing).unwrap_or_default())
    }

    /// The first login need not be refused: a server that serves has a key for it.
    pub(super) async fn prime_rsa_pool(&self) -> Result<(), Error> {
        let is_empty = self.missing_spare_keys().await? == self.settings.signing.rsa_pool as usize;
        if self.needs_rsa() && is_empty { self.make_spare_key().await } else { Ok(()) }
    }

    /// Makes as many keys at the same time as there are processors, until the pool is full.
    async fn fill_rsa_pool(self: &Arc<Self>) -> Result<(), Error> {
        let at_once = available_parallelism().map_or(1, NonZero::get);
        while self.needs_rsa() {
            let missing = self.missing_spare_keys().await?;
            if missing == 0 {
                break;
            }
            let mut making = JoinSet::new();
            for _ in 0..missing.min(at_once) {
                let app = self.clone();
                making.spawn(async move { app.make_spare_key().await });
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
