//! A public key with the one algorithm that it is for.

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    DecodingKey, DecodingKeyKind,
    jwk::{AlgorithmParameters, Jwk, JwkSet, ThumbprintHash},
};

use super::header::Checks;
use crate::domain::algorithm::Algorithm;

/// A key that Tessera can't check signatures with.
#[derive(Debug, thiserror::Error)]
pub enum BadKey {
    /// Not a JWK set.
    #[error("not a JWK set: {0}")]
    Json(#[from] serde_json::Error),
    /// Its `alg` is missing or not one that Tessera makes keys for.
    #[error("a key without an algorithm that is accepted")]
    Algorithm,
    /// A shared secret goes by no id but its own.
    #[error("a shared secret without a key id")]
    KeyId,
    /// A shared secret that is no base64url, or shorter than 256 bits.
    #[error("a shared secret is at least 32 bytes in base64url")]
    Short,
    /// Its parameters make no key.
    #[error("unusable key: {0}")]
    Parameters(#[from] jsonwebtoken::errors::Error),
    /// Its parameters make no point of its curve.
    #[error("unusable key: not a point of its curve")]
    Point,
}

/// A public key, ready to check signatures. Cheap to clone.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    kid: String,
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    /// On a curve: read once. To read it for each signature takes a tenth of the time that the check takes.
    Curve(ParsedPublicKey),
    Rsa(DecodingKey, jsonwebtoken::Algorithm),
}

impl Key {
    fn read(algorithm: Algorithm, jwk: &Jwk) -> Result<Self, BadKey> {
        let curve = |way, point: Vec<u8>| {
            ParsedPublicKey::new(way, point).map(Self::Curve).map_err(|_| BadKey::Point)
        };
        // What does not fit together is refused by jsonwebtoken in its own words.
        let known = DecodingKey::from_jwk(jwk)?;
        match (algorithm, &jwk.algorithm) {
            (Algorithm::Es256, AlgorithmParameters::EllipticCurve(key)) => {
                curve(&ECDSA_P256_SHA256_FIXED, uncompressed(&key.x, &key.y)?)
            }
            (Algorithm::Es384, AlgorithmParameters::EllipticCurve(key)) => {
                curve(&ECDSA_P384_SHA384_FIXED, uncompressed(&key.x, &key.y)?)
            }
            (Algorithm::EdDsa, AlgorithmParameters::OctetKeyPair(key)) => curve(&ED25519, bytes(&key.x)?),
            (Algorithm::Rs256, AlgorithmParameters::RSA(_)) => {
                Ok(Self::Rsa(known, jsonwebtoken::Algorithm::RS256))
            }
            (Algorithm::Ps256, AlgorithmParameters::RSA(_)) => {
                Ok(Self::Rsa(known, jsonwebtoken::Algorithm::PS256))
            }
            _ => Err(BadKey::Algorithm),
        }
    }

    /// What it takes beside itself.
    fn size(&self) -> usize {
        match self {
            // The point in affine and in projective coordinates, as it was written, and what the library keeps with it.
            Self::Curve(_) => 512,
            Self::Rsa(key, _) => match key.kind() {
                DecodingKeyKind::RsaModulusExponent { n, e } => n.len() + e.len(),
                DecodingKeyKind::SecretOrDer(bytes) => bytes.len(),
            },
        }
    }

    fn verifies(&self, message: &[u8], signature: &str) -> bool {
        match self {
            Self::Curve(key) => {
                let signature = URL_SAFE_NO_PAD.decode(signature);
                signature.is_ok_and(|signature| key.verify_sig(message, &signature).is_ok())
            }
            Self::Rsa(key, algorithm) => {
                jsonwebtoken::crypto::verify(signature, message, key, *algorithm).unwrap_or(false)
            }
        }
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, BadKey> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| BadKey::Point)
}

/// The point of a key as SEC 1 writes it without compression (section 2.3.3).
fn uncompressed(x: &str, y: &str) -> Result<Vec<u8>, BadKey> {
    Ok([&[4][..], &bytes(x)?, &bytes(y)?].concat())
}

impl PublicKey {
    /// Reads a JWK. The key id is its thumbprint (RFC 7638), whatever the JWK says.
    pub fn from_jwk(jwk: &Jwk) -> Result<Self, BadKey> {
        let algorithm = jwk.common.key_algorithm.as_ref().ok_or(BadKey::Algorithm)?;
        let algorithm: Algorithm = algorithm.to_string().parse().map_err(|_| BadKey::Algorithm)?;
        Self::with_kid(jwk.thumbprint(ThumbprintHash::SHA256)?, algorithm, jwk)
    }

    /// The key of a JWK under this id, for this algorithm.
    pub(super) fn with_kid(kid: String, algorithm: Algorithm, jwk: &Jwk) -> Result<Self, BadKey> {
        Ok(Self(Arc::new(Inner { kid, algorithm, key: Key::read(algorithm, jwk)? })))
    }

    /// Reads a JWK set (RFC 7517 section 5).
    pub fn from_jwks(json: &str) -> Result<Vec<Self>, BadKey> {
        let set: JwkSet = serde_json::from_str(json)?;
        set.keys.iter().map(Self::from_jwk).collect()
    }

    /// Reads what it can of the issuer's JWK set: a newer issuer may have keys that this release doesn't know, which
    /// are passed over.
    pub(super) fn readable_of_jwks(json: &str) -> Result<Vec<Self>, BadKey> {
        #[derive(serde::Deserialize)]
        struct Keys {
            keys: Vec<serde_json::Value>,
        }
        let set: Keys = serde_json::from_str(json)?;
        let read = set.keys.into_iter().filter_map(|key| {
            let key = serde_json::from_value(key).map_err(BadKey::from).and_then(|jwk| Self::from_jwk(&jwk));
            key.inspect_err(|error| tracing::warn!(%error, "an issuer key that is of no use here")).ok()
        });
        Ok(read.collect())
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// What it is for.
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// What it takes in memory, in bytes, near enough to bound how many are held.
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of::<Inner>() + self.0.kid.len() + self.0.key.size()
    }

    /// Checks a base64url signature over `message`.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        self.0.key.verifies(message, signature)
    }
}

impl Checks for PublicKey {
    fn algorithm(&self) -> &'static str {
        self.algorithm().as_str()
    }

    fn verifies(&self, message: &[u8], signature: &str) -> bool {
        self.verifies(message, signature)
    }
}
