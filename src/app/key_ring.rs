//! The issuer's keys, in memory: those that verifiers are told of, and the one that signs.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use secrecy::SecretSlice;

use super::Error;
use crate::{
    crypto::{
        CryptoError,
        sealing::Sealer,
        signing::{NewKey, SigningKey},
    },
    models::{issuer_keys::IssuerKey, session_keys::StoredKey},
    verifier::PublicKey,
};

/// The issuer's keys.
pub(super) struct KeyRing {
    active: SigningKey,
    published: JwkSet,
    json: String,
}

impl KeyRing {
    /// Opens what the database holds.
    pub(super) fn open(stored: &[IssuerKey], sealer: &Sealer) -> Result<Self, Error> {
        let active = stored.iter().find(|key| key.is_active);
        let active = active.ok_or_else(|| Error::Internal("no issuer key may sign".to_owned()))?;
        let private = unseal(&active.key.kid, &active.key.sealed_private_key, sealer)?;
        let active = SigningKey::from_pkcs8(active.key.algorithm, &private)?;
        let keys: Vec<Jwk> = stored
            .iter()
            .map(|key| serde_json::from_str(&key.key.public_jwk))
            .collect::<Result<_, _>>()
            .map_err(unreadable)?;
        let published = JwkSet { keys };
        let json = serde_json::to_string(&published).map_err(unreadable)?;
        Ok(Self { active, published, json })
    }

    /// The key that signs.
    pub(super) fn active(&self) -> &SigningKey {
        &self.active
    }

    /// Every key that may have signed something which still lives.
    pub(super) fn published(&self) -> &[Jwk] {
        &self.published.keys
    }

    /// The same as a JWK set.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// The same, ready to check signatures.
    pub(super) fn public_keys(&self) -> Result<Vec<PublicKey>, Error> {
        let keys: Result<_, _> = self.published.keys.iter().map(PublicKey::from_jwk).collect();
        keys.map_err(|error| Error::Internal(format!("an issuer key: {error}")))
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

/// What a sealed private key opens for: its own kid and no other.
fn bound_to(kid: &str) -> String {
    format!("key:{kid}")
}

fn unreadable(_: serde_json::Error) -> CryptoError {
    CryptoError("reading or writing a public key")
}
