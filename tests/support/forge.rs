//! Signs whatever a test wants with the server's own keys, and with keys of the test's own: what a verifier must
//! refuse has to differ from a good token in one thing only.

use std::{error::Error, fs};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rsa::KeyPair as RsaKeyPair,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        KeyPair,
    },
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{EncodingKey, crypto::sign, jwk::Jwk};
use rsa::{pkcs1::EncodeRsaPrivateKey, pkcs8::DecodePrivateKey};
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::Value;
use tessera::{
    crypto::{
        random::SystemRandomness,
        sealing::Sealer,
        signing::{NewKey, SigningKey},
    },
    domain::algorithm::Algorithm,
};

use super::Home;

/// Opens the keys of a server.
pub struct Forge<'h> {
    home: &'h Home,
    sealer: Sealer,
}

/// A private key that signs anything.
pub struct Key {
    key: SigningKey,
    pkcs8: SecretSlice<u8>,
}

impl<'h> Forge<'h> {
    /// Of the server that lives here; it must have been started before.
    pub fn of(home: &'h Home) -> Result<Self, Box<dyn Error>> {
        let sealer = fs::read_to_string(home.dir().join("data/kek"))?.parse()?;
        Ok(Self { home, sealer })
    }

    /// One of the issuer's keys.
    pub async fn issuer_key(&self, kid: &str) -> Result<Key, Box<dyn Error>> {
        self.key("issuer_keys", kid).await
    }

    /// The key of a session.
    pub async fn session_key(&self, kid: &str) -> Result<Key, Box<dyn Error>> {
        self.key("session_keys", kid).await
    }

    async fn key(&self, table: &str, kid: &str) -> Result<Key, Box<dyn Error>> {
        let as_text = match self.home.database_url() {
            None => "hex(sealed_private_key)",
            Some(_) => "encode(sealed_private_key, 'hex')",
        };
        let query = format!("SELECT algorithm || ' ' || {as_text} AS first FROM {table} WHERE kid = '{kid}'");
        let found = self.home.query(&query).await?;
        let (algorithm, sealed) = found
            .first()
            .and_then(|row| row.split_once(' '))
            .ok_or_else(|| format!("no {kid} in {table}"))?;
        let bytes = (0..sealed.len()).step_by(2).map(|at| u8::from_str_radix(&sealed[at..at + 2], 16));
        let sealed: Vec<u8> = bytes.collect::<Result<_, _>>()?;
        let pkcs8 = self.sealer.open(&format!("key:{kid}"), &sealed)?;
        Ok(Key { key: SigningKey::from_pkcs8(algorithm.parse()?, &pkcs8)?, pkcs8 })
    }
}

impl Key {
    /// One that no server knows.
    pub fn generate(algorithm: Algorithm) -> Result<Self, Box<dyn Error>> {
        let NewKey { key, pkcs8 } = NewKey::generate(algorithm, 2048, &SystemRandomness)?;
        Ok(Self { key, pkcs8 })
    }

    /// The same key for another algorithm.
    pub fn signing_with(&self, algorithm: Algorithm) -> Result<Self, Box<dyn Error>> {
        let pkcs8 = self.pkcs8.clone();
        Ok(Self { key: SigningKey::from_pkcs8(algorithm, &pkcs8)?, pkcs8 })
    }

    /// Its id.
    pub fn kid(&self) -> &str {
        self.key.kid()
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm()
    }

    /// Its public half.
    pub fn jwk(&self) -> &Jwk {
        self.key.jwk()
    }

    /// The same in PEM (RFC 7468 section 13).
    pub fn public_pem(&self) -> Result<String, Box<dyn Error>> {
        let private = self.pkcs8.expose_secret();
        let der: PublicKeyX509Der<'_> = match self.algorithm() {
            Algorithm::Es256 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private)?.public_key().as_der()?
            }
            Algorithm::Es384 => {
                EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, private)?.public_key().as_der()?
            }
            Algorithm::EdDsa => Ed25519KeyPair::from_pkcs8(private)?.public_key().as_der()?,
            Algorithm::Rs256 | Algorithm::Ps256 => RsaKeyPair::from_pkcs8(private)?.public_key().as_der()?,
        };
        let base64 = STANDARD.encode(der.as_ref());
        let lines: Vec<&[u8]> = base64.as_bytes().chunks(64).collect();
        let lines = String::from_utf8(lines.join(&b'\n'))?;
        Ok(format!("-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n"))
    }

    /// Its private bytes (PKCS#8).
    pub fn pkcs8(&self) -> &[u8] {
        self.pkcs8.expose_secret()
    }

    /// A compact JWS of these claims. What the header says of `alg` is not looked at: the key signs with its own.
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, Box<dyn Error>> {
        let private = self.pkcs8.expose_secret();
        let encoding_key = match self.algorithm() {
            Algorithm::Es256 | Algorithm::Es384 => EncodingKey::from_ec_der(private),
            Algorithm::EdDsa => EncodingKey::from_ed_der(private),
            Algorithm::Rs256 | Algorithm::Ps256 => {
                let pkcs1 = rsa::RsaPrivateKey::from_pkcs8_der(private)?.to_pkcs1_der()?;
                EncodingKey::from_rsa_der(pkcs1.as_bytes())
            }
        };
        signed(header, claims, &encoding_key, self.algorithm().as_str())
    }
}

/// The same under a shared secret, with HS256.
pub fn sign_hs256(secret: &[u8], header: &Value, claims: &Value) -> Result<String, Box<dyn Error>> {
    signed(header, claims, &EncodingKey::from_secret(secret), "HS256")
}

/// The same without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}.", encode(header), encode(claims))
}

/// The header and the claims of a token, unchecked.
pub fn parts_of(token: &str) -> Result<(Value, Value), Box<dyn Error>> {
    let mut parts = token.split('.').map(|part| -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part)?)?)
    });
    let (header, claims) = (parts.next().ok_or("no header")??, parts.next().ok_or("no claims")??);
    Ok((header, claims))
}

fn signed(
    header: &Value,
    claims: &Value,
    key: &EncodingKey,
    algorithm: &str,
) -> Result<String, Box<dyn Error>> {
    let mut message = unsigned(header, claims);
    message.pop();
    let signature = sign(message.as_bytes(), key, algorithm.parse()?)?;
    Ok(format!("{message}.{signature}"))
}
