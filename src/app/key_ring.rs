//! The issuer's keys, in memory: those that verifiers are told of, and those that sign.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use secrecy::SecretSlice;
use uuid::Uuid;

use super::{App, Error};
use crate::{
    crypto::{
        CryptoError,
        digest::fingerprint,
        sealing::Sealer,
        signing::{NewKey, SigningKey},
    },
    domain::{
        algorithm::Algorithm,
        issuer_key::{self, Schedule},
    },
    models::{
        issuer_keys,
        issuer_keys::{Found, IssuerKey},
        session_keys::StoredKey,
        trust_log,
    },
    verifier::PublicKey,
};

/// The issuer's keys as they were at one revision of the trust log.
#[derive(Default)]
pub struct KeyRing {
    keys: Vec<issuer_key::IssuerKey>,
    signers: Vec<Signer>,
    /// A key signs there that makes no sense here: what it signed may be alive.
    has_unreadable_signer: bool,
    published: JwkSet,
    /// The same, ready to check signatures.
    public_keys: Vec<PublicKey>,
    json: String,
    etag: String,
    since: i64,
}

/// An active key, or why it can't be used.
struct Signer {
    kid: String,
    algorithm: Algorithm,
    opened: Result<(issuer_key::IssuerKey, Arc<SigningKey>), String>,
}

impl KeyRing {
    /// Opens what the database holds at `revision`, each key by itself. What `before` has opened is not opened again.
    fn open(found: Vec<Found>, sealer: &Sealer, revision: i64, before: &Self) -> Result<Self, Error> {
        let mut ring = Self::default();
        for found in found {
            ring.take_in(found, sealer, before);
        }
        ring.json = serde_json::to_string(&ring.published).map_err(unreadable)?;
        ring.etag = fingerprint(ring.json.as_bytes());
        ring.since = if ring.json == before.json { before.since } else { revision };
        Ok(ring)
    }

    /// Takes in a key. One that makes no sense holds up no other; but one that is there to sign keeps its place.
    fn take_in(&mut self, found: Found, sealer: &Sealer, before: &Self) {
        let Found { kid, algorithm, is_active, key } = found;
        self.has_unreadable_signer |= is_active && key.is_err();
        let known = key.map_err(|error| error.to_string()).and_then(|stored| {
            self.keys.push(stored.key.clone());
            self.publish(&stored)?;
            Ok(stored)
        });
        if let Err(error) = &known {
            tracing::error!(kid, error, "can't use an issuer key");
        }
        let Some(algorithm) = algorithm.filter(|_| is_active) else { return };
        let opened = known.and_then(|stored| match before.opened(&kid) {
            Some(opened) => Ok((stored.key, opened)),
            None => match open_key(&stored.pair, sealer) {
                Ok(opened) => Ok((stored.key, Arc::new(opened))),
                Err(error) => Err(error.to_string()),
            },
        });
        if let Err(error) = &opened {
            tracing::error!(kid, error, "the active issuer key can't be used");
        }
        self.signers.push(Signer { kid, algorithm, opened });
    }

    /// Tells verifiers of a key, unless it was withdrawn.
    fn publish(&mut self, stored: &IssuerKey) -> Result<(), String> {
        if !stored.key.is_published() {
            return Ok(());
        }
        let jwk: Jwk =
            serde_json::from_str(&stored.pair.public_jwk).map_err(|error| unreadable(error).to_string())?;
        let public_key = PublicKey::from_jwk(&jwk).map_err(|error| error.to_string())?;
        self.published.keys.push(jwk);
        self.public_keys.push(public_key);
        Ok(())
    }

    /// Every key that makes sense, without its secret.
    pub(super) fn keys(&self) -> &[issuer_key::IssuerKey] {
        &self.keys
    }

    /// The key that signs: of this algorithm, else of the configured one, else any. One that is there and
    /// can't be used is not passed over.
    fn signer(&self, wanted: [Algorithm; 2], now: DateTime<Utc>) -> Result<&Arc<SigningKey>, Error> {
        let of = |algorithm| self.signers.iter().find(|signer| signer.algorithm == algorithm);
        let [first, second] = wanted;
        let signer = of(first).or_else(|| of(second)).or(self.signers.first());
        let signer = signer.ok_or_else(|| Error::CannotSign("no issuer key is active".to_owned()))?;
        let cannot = |why: &str| Error::CannotSign(format!("the issuer key {}: {why}", signer.kid));
        let (key, opened) = signer.opened.as_ref().map_err(|why| cannot(why))?;
        if key.may_sign(now) { Ok(opened) } else { Err(cannot("it has expired")) }
    }

    fn opened(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let known = self.signers.iter().find(|signer| signer.kid == kid)?;
        known.opened.as_ref().ok().map(|(_, opened)| opened.clone())
    }

    /// Whether nothing can sign and nothing that was signed is alive.
    pub(super) fn is_lifeless(&self, schedule: &Schedule, now: DateTime<Utc>) -> bool {
        !self.has_unreadable_signer && issuer_key::is_lifeless(&self.keys, schedule, now)
    }

    /// Every key that may have signed something which still lives, or will sign soon.
    pub fn published(&self) -> &[Jwk] {
        &self.published.keys
    }

    /// The same as a JWK set.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Another one for every other set (RFC 9110 section 8.8.3), without quotation marks.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// The revision of the trust log from which on the published keys are these.
    pub fn since(&self) -> i64 {
        self.since
    }
}

/// The ring in use, and how sure it is that it is still the right one.
pub(super) struct Keys {
    ring: RwLock<Arc<KeyRing>>,
    confirmed: Mutex<Instant>,
    /// Held while the keys are read, so that of two readings the later one stays.
    reading: tokio::sync::Mutex<()>,
    patience: Duration,
}

impl Keys {
    /// Without keys. One that the database has not confirmed for longer than `patience` must not sign: it may be
    /// retired and its successor's time come.
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            ring: RwLock::default(),
            confirmed: Mutex::new(Instant::now()),
            reading: tokio::sync::Mutex::default(),
            patience,
        }
    }

    pub(super) fn ring(&self) -> Arc<KeyRing> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, ring: KeyRing) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Says that the ring held all there was to know at `asked`.
    pub(super) fn confirm(&self, asked: Instant) {
        let mut confirmed = self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *confirmed = asked.max(*confirmed);
    }

    /// Whether what it says of the keys may be out of date.
    pub(super) fn is_stale(&self) -> bool {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > self.patience
    }
}

impl App {
    /// The issuer's keys.
    pub(super) fn ring(&self) -> Arc<KeyRing> {
        self.keys.ring()
    }

    /// The issuer key that signs for this tenant.
    pub(super) fn signer(&self, tenant_id: Uuid, now: DateTime<Utc>) -> Result<Arc<SigningKey>, Error> {
        if self.keys.is_stale() {
            return Err(Error::CannotSign(
                "the database has not confirmed the issuer's keys for too long".to_owned(),
            ));
        }
        let configured = self.settings.signing.algorithm;
        let own = self.registry().signing_of(tenant_id).algorithm.unwrap_or(configured);
        self.ring().signer([own, configured], now).cloned()
    }

    /// Whether tokens can be signed as it is configured.
    pub(super) fn check_signing(&self) -> Result<(), Error> {
        self.signer(self.default_tenant_id, self.now()).map(|_| ())
    }

    /// Reads the issuer's keys anew; from then on this server signs and checks with what it read.
    pub(super) async fn reload_keys(&self) -> Result<(), Error> {
        let _reading = self.keys.reading.lock().await;
        let asked = Instant::now();
        let read = self.store.read(async |conn| {
            // Asked first: the keys include every change up to there, and may include more.
            let head = trust_log::head(conn).await?;
            Ok((head.revision, issuer_keys::list(conn).await?))
        });
        let (revision, found) = read.await?;
        let ring = KeyRing::open(found, &self.sealer, revision, &self.ring())?;
        self.verifier.set_issuer_keys(ring.public_keys.clone());
        self.keys.set(ring);
        self.keys.confirm(asked);
        Ok(())
    }
}

/// A key pair as it is stored, its private half sealed.
pub(super) fn seal(new: &NewKey, sealer: &Sealer) -> Result<StoredKey, Error> {
    let kid = new.key.kid().to_owned();
    Ok(StoredKey {
        algorithm: new.key.algorithm(),
        public_jwk: serde_json::to_string(new.key.jwk()).map_err(unreadable)?,
        sealed_private_key: sealer.seal(&bound_to(&kid), &new.pkcs8)?,
        kid,
    })
}

/// The private half of a key that [`seal`] stored.
pub(super) fn unseal(kid: &str, sealed: &[u8], sealer: &Sealer) -> Result<SecretSlice<u8>, Error> {
    Ok(sealer.open(&bound_to(kid), sealed)?)
}

/// A key pair that [`seal`] stored, ready to sign.
pub(super) fn open_key(stored: &StoredKey, sealer: &Sealer) -> Result<SigningKey, Error> {
    let private = unseal(&stored.kid, &stored.sealed_private_key, sealer)?;
    Ok(SigningKey::from_pkcs8(stored.algorithm, &private)?)
}

/// What a sealed private key opens for: its own kid and no other.
pub(super) fn bound_to(kid: &str) -> String {
    format!("key:{kid}")
}

pub(super) fn unreadable(_: serde_json::Error) -> CryptoError {
    CryptoError("reading or writing a public key")
}
