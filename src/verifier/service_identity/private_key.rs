//! A service's own key: read from PEM or from a JWK, and used to sign.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeyPairComponents, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, EllipticCurveKeyType,
    Jwk, OctetKeyPairParameters, OctetKeyPairType, RSAKeyParameters, RSAKeyType, ThumbprintHash,
};
use serde::Deserialize;

use crate::domain::algorithm::Algorithm;

/// Why a private key is of no use. Never repeats anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadPrivateKey {
    #[error("is neither a private key in PEM nor a JWK, or not the whole of it")]
    Form,
    #[error("is encrypted")]
    Encrypted,
    #[error("is no private key on P-256, P-384 or Ed25519, nor one of RSA with 2048 bits at least")]
    Key,
    #[error("can't sign")]
    Sign,
}

/// A private key, ready to sign.
pub(super) struct PrivateKey {
    pair: Pair,
    algorithm: Algorithm,
    kid: String,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A private JWK (RFC 7518 section 6, RFC 8037).
#[derive(Deserialize)]
struct PrivateJwk {
    kty: String,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
    n: Option<String>,
    e: Option<String>,
    p: Option<String>,
    q: Option<String>,
    dp: Option<String>,
    dq: Option<String>,
    qi: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
}

impl PrivateKey {
    /// Reads PEM or a JWK. `kid` is what the key is called, whatever it says itself.
    pub(super) fn read(text: &str, kid: Option<&str>) -> Result<Self, BadPrivateKey> {
        let (pair, algorithm, own_kid) = if text.trim_start().starts_with('{') {
            let jwk: PrivateJwk = serde_json::from_str(text).map_err(|_| BadPrivateKey::Form)?;
            let (pair, algorithm) = of_jwk(&jwk)?;
            (pair, algorithm, jwk.kid)
        } else {
            let (pair, algorithm) = of_der(&der_of(text)?)?;
            (pair, algorithm, None)
        };
        let kid = match kid.map(str::to_owned).or(own_kid) {
            Some(kid) => kid,
            None => public_jwk(&pair, algorithm)
                .thumbprint(ThumbprintHash::SHA256)
                .map_err(|_| BadPrivateKey::Key)?,
        };
        Ok(Self { pair, algorithm, kid })
    }

    /// The one algorithm that it signs with.
    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its id.
    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    /// A signature as a JWS has it.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BadPrivateKey> {
        let (rng, failed) = (SystemRandom::new(), |_| BadPrivateKey::Sign);
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&rng, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Ed(pair) => Ok(pair.try_sign(message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                let encoding =
                    if self.algorithm == Algorithm::Ps256 { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
                pair.sign(encoding, &rng, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

/// What a PEM text holds (RFC 7468): the first block that is a private key. Others may stand before it.
fn der_of(pem: &str) -> Result<Vec<u8>, BadPrivateKey> {
    let mut lines = pem.lines().map(str::trim);
    let label = lines
        .by_ref()
        .find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("PRIVATE KEY-----"))
        .ok_or(BadPrivateKey::Form)?;
    if label.contains("ENCRYPTED") {
        return Err(BadPrivateKey::Encrypted);
    }
    let mut body = String::new();
    for line in lines {
        if line.starts_with("-----END ") {
            return STANDARD.decode(body).map_err(|_| BadPrivateKey::Form);
        }
        // RFC 1421 encryption of old.
        if line.contains("ENCRYPTED") {
            return Err(BadPrivateKey::Encrypted);
        }
        body.push_str(line);
    }
    Err(BadPrivateKey::Form)
}

/// A key in PKCS#8, or as SEC 1 or PKCS#1 have it.
fn of_der(der: &[u8]) -> Result<(Pair, Algorithm), BadPrivateKey> {
    let ec = |curve| EcdsaKeyPair::from_private_key_der(curve, der).map(Pair::Ec);
    if let Ok(pair) = ec(&ECDSA_P256_SHA256_FIXED_SIGNING) {
        return Ok((pair, Algorithm::Es256));
    }
    if let Ok(pair) = ec(&ECDSA_P384_SHA384_FIXED_SIGNING) {
        return Ok((pair, Algorithm::Es384));
    }
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        return Ok((Pair::Ed(pair), Algorithm::EdDsa));
    }
    let pair = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
    Ok((Pair::Rsa(pair.map_err(|_| BadPrivateKey::Key)?), Algorithm::Rs256))
}

fn of_jwk(jwk: &PrivateJwk) -> Result<(Pair, Algorithm), BadPrivateKey> {
    let read = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("EC", Some("P-256")) => (Pair::Ec(ec(jwk, &ECDSA_P256_SHA256_FIXED_SIGNING)?), Algorithm::Es256),
        ("EC", Some("P-384")) => (Pair::Ec(ec(jwk, &ECDSA_P384_SHA384_FIXED_SIGNING)?), Algorithm::Es384),
        ("OKP", Some("Ed25519")) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&bytes(&jwk.d)?, &bytes(&jwk.x)?);
            (Pair::Ed(pair.map_err(|_| BadPrivateKey::Key)?), Algorithm::EdDsa)
        }
        ("RSA", _) => {
            let is_pss = jwk.alg.as_deref() == Some(Algorithm::Ps256.as_str());
            (Pair::Rsa(rsa(jwk)?), if is_pss { Algorithm::Ps256 } else { Algorithm::Rs256 })
        }
        _ => return Err(BadPrivateKey::Key),
    };
    // One key, one algorithm.
    let is_for_it = jwk.alg.as_deref().is_none_or(|told| told == read.1.as_str());
    if is_for_it { Ok(read) } else { Err(BadPrivateKey::Key) }
}

fn bytes(member: &Option<String>) -> Result<Vec<u8>, BadPrivateKey> {
    let text = member.as_deref().ok_or(BadPrivateKey::Form)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| BadPrivateKey::Form)
}

fn ec(jwk: &PrivateJwk, curve: &'static EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, BadPrivateKey> {
    // SEC 1 section 2.3.3: 04, then both coordinates.
    let point = [&[4][..], &bytes(&jwk.x)?, &bytes(&jwk.y)?].concat();
    EcdsaKeyPair::from_private_key_and_public_key(curve, &bytes(&jwk.d)?, &point)
        .map_err(|_| BadPrivateKey::Key)
}

fn rsa(jwk: &PrivateJwk) -> Result<RsaKeyPair, BadPrivateKey> {
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n: bytes(&jwk.n)?, e: bytes(&jwk.e)? },
        d: bytes(&jwk.d)?,
        p: bytes(&jwk.p)?,
        q: bytes(&jwk.q)?,
        dP: bytes(&jwk.dp)?,
        dQ: bytes(&jwk.dq)?,
        qInv: bytes(&jwk.qi)?,
    };
    RsaKeyPair::from_components(&components).map_err(|_| BadPrivateKey::Key)
}

/// The public half.
fn public_jwk(pair: &Pair, algorithm: Algorithm) -> Jwk {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let parameters = match pair {
        Pair::Ec(pair) => {
            let point = pair.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                key_type: EllipticCurveKeyType::EC,
                curve: if algorithm == Algorithm::Es384 { EllipticCurve::P384 } else { EllipticCurve::P256 },
                x: encode(x),
                y: encode(y),
            })
        }
        Pair::Ed(pair) => AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
            key_type: OctetKeyPairType::OctetKeyPair,
            curve: EllipticCurve::Ed25519,
            x: encode(pair.public_key().as_ref()),
        }),
        Pair::Rsa(pair) => AlgorithmParameters::RSA(RSAKeyParameters {
            key_type: RSAKeyType::RSA,
            n: encode(pair.public_key().modulus().big_endian_without_leading_zero()),
            e: encode(pair.public_key().exponent().big_endian_without_leading_zero()),
        }),
    };
    Jwk { common: CommonParameters::default(), algorithm: parameters }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der},
        rsa::KeySize,
    };

    use super::*;
    use crate::verifier::PublicKey;

    /// RFC 8037 appendix A.
    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const ED25519_THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    fn pem(label: &str, der: &[u8]) -> String {
        let body: Vec<String> = STANDARD
            .encode(der)
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into())
            .collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", body.join("\n"))
    }

    fn is_good(key: &PrivateKey) -> bool {
        let mut jwk = public_jwk(&key.pair, key.algorithm);
        jwk.common.key_algorithm = key.algorithm.as_str().parse().ok();
        let (public, signature) = (PublicKey::from_jwk(&jwk), key.sign(b"message").unwrap());
        public.is_ok_and(|public| public.verifies(b"message", &URL_SAFE_NO_PAD.encode(signature)))
    }

    #[test]
    fn pem_is_read_in_each_form() -> Result<(), Box<dyn std::error::Error>> {
        let mut texts = Vec::new();
        for (curve, algorithm) in [
            (&ECDSA_P256_SHA256_FIXED_SIGNING, Algorithm::Es256),
            (&ECDSA_P384_SHA384_FIXED_SIGNING, Algorithm::Es384),
        ] {
            let pair = EcdsaKeyPair::generate(curve)?;
            texts.push((algorithm, pem("PRIVATE KEY", pair.to_pkcs8v1()?.as_ref())));
            let der: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der()?;
            // As `openssl ecparam -genkey` writes it.
            let parameters = pem("EC PARAMETERS", &[6, 1, 0]);
            texts.push((algorithm, parameters + &pem("EC PRIVATE KEY", der.as_ref())));
        }
        let pair = Ed25519KeyPair::generate()?;
        texts.push((Algorithm::EdDsa, pem("PRIVATE KEY", pair.to_pkcs8v1()?.as_ref())));
        let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let der: Pkcs8V1Der<'_> = pair.as_der()?;
        texts.push((Algorithm::Rs256, pem("PRIVATE KEY", der.as_ref())));
        for (algorithm, text) in &texts {
            let key = PrivateKey::read(text, None)?;
            assert_eq!(key.algorithm(), *algorithm);
            assert!(is_good(&key) && key.kid().len() == 43, "{algorithm}");
            assert_eq!(PrivateKey::read(text, Some("k1"))?.kid(), "k1");
            // As it is while it is written.
            for length in [0, 10, text.len() / 2, text.len() - 26] {
                assert_eq!(PrivateKey::read(&text[..length], None).err(), Some(BadPrivateKey::Form));
            }
        }
        Ok(())
    }

    #[test]
    fn a_jwk_says_what_it_is_for() -> Result<(), Box<dyn std::error::Error>> {
        let key = PrivateKey::read(ED25519, None)?;
        assert!(is_good(&key));
        assert_eq!(key.kid(), ED25519_THUMBPRINT);
        let with = |more: &str| ED25519.replacen('{', &format!("{{{more},"), 1);
        assert_eq!(PrivateKey::read(&with(r#""kid":"a","alg":"EdDSA""#), None)?.kid(), "a");
        assert_eq!(PrivateKey::read(&with(r#""kid":"a""#), Some(""))?.kid(), "");
        let other = ED25519.replace("11qY", "22qY");
        for (text, why) in [
            (with(r#""alg":"ES256""#), BadPrivateKey::Key),
            (other, BadPrivateKey::Key),
            (ED25519.replace("Ed25519", "Ed448"), BadPrivateKey::Key),
            (ED25519.replace("\"d\"", "\"e\""), BadPrivateKey::Form),
            (ED25519[..ED25519.len() - 2].to_owned(), BadPrivateKey::Form),
            (pem("ENCRYPTED PRIVATE KEY", b"?"), BadPrivateKey::Encrypted),
            (pem("PRIVATE KEY", b"?"), BadPrivateKey::Key),
            (pem("PUBLIC KEY", b"?"), BadPrivateKey::Form),
        ] {
            assert_eq!(PrivateKey::read(&text, None).err(), Some(why), "{text}");
        }
        Ok(())
    }
}
