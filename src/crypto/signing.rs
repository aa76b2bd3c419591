//! Signing keys: made here, sealed elsewhere, parsed once, used to sign JWTs.

use std::{fmt, sync::OnceLock};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeyPair as RsaKeyPair,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    Jwk, KeyAlgorithm, OctetKeyPairParameters, OctetKeyPairType, PublicKeyUse, RSAKeyParameters, RSAKeyType,
    ThumbprintHash,
};
use rsa::{RsaPrivateKey, pkcs8::EncodePrivateKey, rand_core::UnwrapErr};
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};

use super::{
    CryptoError,
    random::{ForRsa, Randomness},
};
use crate::domain::{algorithm::Algorithm, claims::ACCESS_TOKEN_TYPE};

/// A private key, parsed and ready to sign.
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    jwk: Jwk,
    pair: Pair,
    /// That of its access tokens without an endorsement, once it has signed one.
    access_header: OnceLock<EncodedHeader>,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
}

/// A new key and its private bytes (PKCS#8), which are to be sealed.
pub struct NewKey {
    /// Ready to sign.
    pub key: SigningKey,
    /// PKCS#8.
    pub pkcs8: SecretSlice<u8>,
}

/// A protected header, written once for every token that carries it.
pub struct EncodedHeader(String);

impl EncodedHeader {
    pub(super) fn of(header: &Header<'_>) -> Result<Self, CryptoError> {
        let mut text = String::with_capacity(1024);
        append_json(&mut text, header)?;
        text.shrink_to_fit();
        Ok(Self(text))
    }

    /// The endorsement in it.
    pub fn endorsement(&self) -> Result<String, CryptoError> {
        #[derive(Deserialize)]
        struct Endorsed {
            skc: String,
        }
        let json = URL_SAFE_NO_PAD.decode(&self.0).ok();
        let read = json.and_then(|json| serde_json::from_slice(&json).ok());
        read.map(|Endorsed { skc }| skc).ok_or(CryptoError("reading an endorsement"))
    }
}

/// The protected header of what Tessera signs.
#[derive(Serialize)]
pub(super) struct Header<'h> {
    pub(super) typ: &'static str,
    pub(super) alg: &'static str,
    pub(super) kid: &'h str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) skc: Option<&'h str>,
}

impl NewKey {
    /// Makes a key. An RSA key takes a good part of a second: not on a thread that serves.
    pub fn generate(
        algorithm: Algorithm,
        rsa_bits: usize,
        rng: &dyn Randomness,
    ) -> Result<Self, CryptoError> {
        let failed = CryptoError("making a key");
        let pkcs8: SecretSlice<u8> = match algorithm {
            Algorithm::Es256 => ec_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::Es384 => ec_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::EdDsa => {
                let document =
                    Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1()).map_err(|_| failed)?;
                document.as_ref().to_vec().into()
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                // This release of `rsa` takes only a generator that can't fail, so a system without
                // randomness ends the thread.
                let key = RsaPrivateKey::new(&mut UnwrapErr(ForRsa(rng)), rsa_bits).map_err(|_| failed)?;
                key.to_pkcs8_der().map_err(|_| failed)?.as_bytes().to_vec().into()
            }
        };
        Ok(Self { key: SigningKey::from_pkcs8(algorithm, &pkcs8)?, pkcs8 })
    }
}

fn ec_pkcs8(curve: &'static EcdsaSigningAlgorithm) -> Result<SecretSlice<u8>, CryptoError> {
    let document = EcdsaKeyPair::generate(curve).and_then(|pair| pair.to_pkcs8v1());
    Ok(document.map_err(|_| CryptoError("making a key"))?.as_ref().to_vec().into())
}

impl SigningKey {
    /// Parses private bytes.
    pub fn from_pkcs8(algorithm: Algorithm, pkcs8: &SecretSlice<u8>) -> Result<Self, CryptoError> {
        let failed = CryptoError("reading a private key");
        let bytes = pkcs8.expose_secret();
        let ec = |curve| EcdsaKeyPair::from_pkcs8(curve, bytes).map(Pair::Ec).map_err(|_| failed);
        let rsa = |encoding| {
            RsaKeyPair::from_pkcs8(bytes).map(|pair| Pair::Rsa(pair, encoding)).map_err(|_| failed)
        };
        let pair = match algorithm {
            Algorithm::Es256 => ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
            Algorithm::Es384 => ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(bytes).map(Pair::Ed).map_err(|_| failed),
            Algorithm::Rs256 => rsa(&RSA_PKCS1_SHA256),
            Algorithm::Ps256 => rsa(&RSA_PSS_SHA256),
        }?;
        let mut jwk = public_jwk(algorithm, &pair)?;
        let kid = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| failed)?;
        jwk.common.key_id = Some(kid.clone());
        Ok(Self { kid, algorithm, jwk, pair, access_header: OnceLock::new() })
    }

    /// Its id: the RFC 7638 thumbprint of its public half.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that it signs with.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its public half.
    pub fn jwk(&self) -> &Jwk {
        &self.jwk
    }

    /// The header of its tokens. `endorsement` goes into it as `skc`.
    pub fn header(&self, typ: &'static str, endorsement: Option<&str>) -> Result<EncodedHeader, CryptoError> {
        EncodedHeader::of(&Header { typ, alg: self.algorithm.as_str(), kid: &self.kid, skc: endorsement })
    }

    /// Signs claims as a compact JWS under a header of this key.
    pub fn sign_under(&self, header: &EncodedHeader, claims: &impl Serialize) -> Result<String, CryptoError> {
        compact_jws(header, claims, |message| self.sign(message))
    }

    /// Signs claims as a compact JWS with a header of its own.
    pub fn sign_jwt(
        &self,
        typ: &'static str,
        endorsement: Option<&str>,
        claims: &impl Serialize,
    ) -> Result<String, CryptoError> {
        self.sign_under(&self.header(typ, endorsement)?, claims)
    }

    /// Signs the claims of an access token, without an endorsement.
    pub fn sign_access_token(&self, claims: &impl Serialize) -> Result<String, CryptoError> {
        let header = match self.access_header.get() {
            Some(header) => header,
            None => {
                let written = self.header(ACCESS_TOKEN_TYPE, None)?;
                self.access_header.get_or_init(|| written)
            }
        };
        self.sign_under(header, claims)
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let failed = CryptoError("signing");
        let rng = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair) => pair.sign(&rng, message).map(|s| s.as_ref().to_vec()).map_err(|_| failed),
            Pair::Ed(pair) => pair.try_sign(message).map(|s| s.as_ref().to_vec()).map_err(|_| failed),
            Pair::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &rng, message, &mut signature).map_err(|_| failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// RFC 7515 section 7.1.
pub(super) fn compact_jws<S: AsRef<[u8]>>(
    header: &EncodedHeader,
    claims: &impl Serialize,
    sign: impl FnOnce(&[u8]) -> Result<S, CryptoError>,
) -> Result<String, CryptoError> {
    // Enough for a service's token, and below 1 KiB, beyond which memory is dearer.
    let mut token = String::with_capacity(header.0.len() + 768);
    token.push_str(&header.0);
    token.push('.');
    append_json(&mut token, claims)?;
    let signature = sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

fn append_json(token: &mut String, value: &impl Serialize) -> Result<(), CryptoError> {
    let json = serde_json::to_vec(value).map_err(|_| CryptoError("writing claims"))?;
    URL_SAFE_NO_PAD.encode_string(json, token);
    Ok(())
}

fn public_jwk(algorithm: Algorithm, pair: &Pair) -> Result<Jwk, CryptoError> {
    let (key_algorithm, curve) = match algorithm {
        Algorithm::Es256 => (KeyAlgorithm::ES256, EllipticCurve::P256),
        Algorithm::Es384 => (KeyAlgorithm::ES384, EllipticCurve::P384),
        Algorithm::EdDsa => (KeyAlgorithm::EdDSA, EllipticCurve::Ed25519),
        Algorithm::Rs256 => (KeyAlgorithm::RS256, EllipticCurve::default()),
        Algorithm::Ps256 => (KeyAlgorithm::PS256, EllipticCurve::default()),
    };
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let algorithm = match pair {
        Pair::Ec(pair) => {
            // SEC 1 section 2.3.3: 04, then both coordinates, equally long.
            let point = pair.public_key().as_ref().strip_prefix(&[4]).ok_or(CryptoError("an EC point"))?;
            let (x, y) = point.split_at(point.len() / 2);
            AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                key_type: EllipticCurveKeyType::EC,
                curve,
                x: encode(x),
                y: encode(y),
            })
        }
        Pair::Ed(pair) => AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve,
            x: encode(pair.public_key().as_ref()),
        }),
        Pair::Rsa(pair, _) => AlgorithmParameters::RSA(RSAKeyParameters {
            key_type: RSAKeyType::RSA,
            n: encode(pair.public_key().modulus().big_endian_without_leading_zero()),
            e: encode(pair.public_key().exponent().big_endian_without_leading_zero()),
        }),
    };
    let common = CommonParameters {
        public_key_use: Some(PublicKeyUse::Signature),
        key_algorithm: Some(key_algorithm),
        ..CommonParameters::default()
    };
    Ok(Jwk { common, algorithm })
}

#[cfg(test)]
mod tests {
    use super::{super::random::SystemRandomness, *};
    use crate::verifier::PublicKey;

    #[test]
    fn every_algorithm_signs_what_its_public_half_verifies() -> Result<(), Box<dyn std::error::Error>> {
        for algorithm in Algorithm::ALL {
            let new = NewKey::generate(algorithm, 2048, &SystemRandomness)?;
            let again = SigningKey::from_pkcs8(algorithm, &new.pkcs8)?;
            assert_eq!(again.kid(), new.key.kid());

            let token = again.sign_jwt("test", None, &serde_json::json!({"a": 1}))?;
            let (message, signature) = token.rsplit_once('.').ok_or("no signature")?;
            let public = PublicKey::from_jwk(new.key.jwk())?;
            assert_eq!(public.kid(), new.key.kid());
            assert!(public.verifies(message.as_bytes(), signature), "{algorithm}");
            assert!(!public.verifies(&message.as_bytes()[1..], signature), "{algorithm}");
        }
        Ok(())
    }
}
