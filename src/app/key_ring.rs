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
        issuer_key::{self, State},
    },
    models::{issuer_keys, issuer_keys::IssuerKey, session_keys::StoredKey, trust_log},
    verifier::PublicKey,
};

/// The issuer's keys as they were at one revision of the trust log.
#[derive(Default)]
pub struct KeyRing {
    keys: Vec<issuer_key::IssuerKey>,
    signers: Vec<Signer>,
    published: JwkSet,
    json: String,
    etag: String,
    since: i64,
}

/// An active key, or why it can't be used.
struct Signer {
    key: issuer_key::IssuerKey,
    opened: Result<Arc<SigningKey>, String>,
}

impl KeyRing {
    /// Opens what the database holds at `revision`. What `before` has opened is not opened again.
    fn open(stored: &[IssuerKey], sealer: &Sealer, revision: i64, before: &Self) -> Result<Self, Error> {
        let published = stored.iter().filter(|key| key.key.is_published());
        let published: Vec<Jwk> = published
            .map(|key| serde_json::from_str(&key.pair.public_jwk))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let published = JwkSet { keys: published };
        let json = serde_json::to_string(&published).map_err(unreadable)?;
        let active = stored.iter().filter(|key| key.key.state() == State::Active);
        let since = if json == before.json { before.since } else { revision };
        Ok(Self {
            keys: stored.iter().map(|key| key.key.clone()).collect(),
            signers: active.map(|key| Signer::open(key, sealer, before)).collect(),
            etag: fingerprint(json.as_bytes()),
            published,
            json,
            since,
        })
    }

    /// Every key, without its secret.
    pub(super) fn keys(&self) -> &[issuer_key::IssuerKey] {
        &self.keys
    }

    /// The key that signs: of this algorithm, else of the configured one, else any. One that is there and
    /// can't be used is not passed over.
    fn signer(&self, wanted: [Algorithm; 2], now: DateTime<Utc>) -> Result<&Arc<SigningKey>, Error> {
        let of = |algorithm| self.signers.iter().find(|signer| signer.key.algorithm == algorithm);
        let [first, second] = wanted;
        let signer = of(first).or_else(|| of(second)).or(self.signers.first());
        let signer = signer.ok_or_else(|| Error::CannotSign("no issuer key is active".to_owned()))?;
        if !signer.key.may_sign(now) {
            return Err(Error::CannotSign(format!("the issuer key {} has expired", signer.key.kid)));
        }
        let cannot = |why: &String| Error::CannotSign(format!("the issuer key {}: {why}", signer.key.kid));
        signer.opened.as_ref().map_err(cannot)
    }

    fn opened(&self, kid: &str) -> Option<Arc<SigningKey>> {
        let known = self.signers.iter().find(|signer| signer.key.kid == kid)?;
        known.opened.as_ref().ok().cloned()
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

    /// The published keys, ready to check signatures.
    fn public_keys(&self) -> Result<Vec<PublicKey>, Error> {
        let keys: Result<_, _> = self.published.keys.iter().map(PublicKey::from_jwk).collect();
        keys.map_err(|error| Error::Internal(format!("an issuer key: {error}")))
    }
}

impl Signer {
    fn open(stored: &IssuerKey, sealer: &Sealer, before: &KeyRing) -> Self {
        let opened = match before.opened(&stored.key.kid) {
            Some(opened) => Ok(opened),
            None => open_key(&stored.pair, sealer).map(Arc::new).map_err(|error| error.to_string()),
        };
        if let Err(error) = &opened {
            tracing::error!(kid = stored.key.kid, %error, "the active issuer key can't be used");
        }
        Self { key: stored.key.clone(), opened }
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

    /// How long ago the database confirmed what is known.
    pub(super) fn age(&self) -> Duration {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Whether what it says of the keys may be out of date.
    pub(super) fn is_stale(&self) -> bool {
        self.age() > self.patience
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
        let (revision, stored) = read.await?;
        let ring = KeyRing::open(&stored, &self.sealer, revision, &self.ring())?;
        self.verifier.set_issuer_keys(ring.public_keys()?);
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
