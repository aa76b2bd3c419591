//! Private keys as their owners keep them.

use std::error::Error;

use aws_lc_rs::{
    encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rsa::{pkcs1::EncodeRsaPrivateKey, pkcs8::DecodePrivateKey};
use serde_json::{Value, json};
use tessera::domain::algorithm::Algorithm;

use super::Key;

impl Key {
    /// In PEM (RFC 7468 section 10).
    pub fn private_pem(&self) -> Result<String, Box<dyn Error>> {
        let base64 = STANDARD.encode(self.pkcs8());
        let lines: Vec<&[u8]> = base64.as_bytes().chunks(64).collect();
        let lines = String::from_utf8(lines.join(&b'\n'))?;
        Ok(format!("-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"))
    }

    /// As a JWK (RFC 7518 section 6, RFC 8037 section 2), which names its algorithm and its thumbprint.
    pub fn private_jwk(&self) -> Result<Value, Box<dyn Error>> {
        let mut jwk = serde_json::to_value(self.jwk())?;
        let ec = |curve| -> Result<Value, Box<dyn Error>> {
            let pair = EcdsaKeyPair::from_pkcs8(curve, self.pkcs8())?;
            let private: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
            Ok(json!(URL_SAFE_NO_PAD.encode(private.as_ref())))
        };
        match self.algorithm() {
            Algorithm::Es256 => jwk["d"] = ec(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
            Algorithm::Es384 => jwk["d"] = ec(&ECDSA_P384_SHA384_FIXED_SIGNING)?,
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::from_pkcs8(self.pkcs8())?;
                let seed: Curve25519SeedBin<'_> = pair.seed()?.as_be_bytes()?;
                jwk["d"] = json!(URL_SAFE_NO_PAD.encode(seed.as_ref()));
            }
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let pkcs1 = rsa::RsaPrivateKey::from_pkcs8_der(self.pkcs8())?.to_pkcs1_der()?;
                // After the version, `n` and `e`.
                let private = integers(pkcs1.as_bytes()).ok_or("no RSAPrivateKey")?.into_iter().skip(3);
                for (name, number) in ["d", "p", "q", "dp", "dq", "qi"].into_iter().zip(private) {
                    jwk[name] = json!(URL_SAFE_NO_PAD.encode(number));
                }
            }
        }
        Ok(jwk)
    }
}

/// The numbers of a DER sequence of such (RFC 8017 appendix A.1.2).
fn integers(der: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (sequence, _) = element(der)?;
    let (mut rest, mut numbers) = (sequence, Vec::new());
    while !rest.is_empty() {
        let (number, after) = element(rest)?;
        numbers.push(number.iter().copied().skip_while(|byte| *byte == 0).collect());
        rest = after;
    }
    Some(numbers)
}

/// What the first element holds, and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match usize::from(first) {
        short @ ..0x80 => (short, rest),
        long => {
            let (length, rest) = rest.split_at_checked(long - 0x80)?;
            (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
    };
    rest.split_at_checked(length)
}
