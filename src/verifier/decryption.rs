//! Tokens that come encrypted: a compact JWE (RFC 7516 section 7.1) around the signed token.

use std::{borrow::Cow, fmt};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jose_rs::{
    jwe::decrypt_with_jwk,
    jwk::{Jwk, jwk_from_pkcs8_pem},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{Refusal, header::MAX_TOKEN_LEN};
use crate::domain::encryption::{self, BadEncryptionKey, CONTENT_ENCRYPTION, KeyManagement, NESTED_TOKEN};

/// The private half of an audience's key.
#[derive(Clone)]
pub struct DecryptionKey {
    kid: String,
    algorithm: KeyManagement,
    jwk: Jwk,
}

impl DecryptionKey {
    /// Reads a private JWK: EC on P-256, or RSA of 2048 to 4096 bits.
    pub fn from_jwk(json: &str) -> Result<Self, BadEncryptionKey> {
        Self::new(Jwk::from_json(json).map_err(|_| BadEncryptionKey::NotJwk)?)
    }

    /// Reads a private key as `openssl genpkey` writes it: PKCS#8 in PEM. Its id is its RFC 7638 thumbprint.
    pub fn from_pem(pem: &str) -> Result<Self, BadEncryptionKey> {
        Self::new(jwk_from_pkcs8_pem(pem).map_err(|_| BadEncryptionKey::NotPem)?)
    }

    fn new(jwk: Jwk) -> Result<Self, BadEncryptionKey> {
        let (algorithm, jwk) = encryption::accept(jwk)?;
        if !encryption::is_private(&jwk) {
            return Err(BadEncryptionKey::Public);
        }
        Ok(Self { kid: jwk.kid.clone().ok_or(BadEncryptionKey::KeyId)?, algorithm, jwk })
    }

    /// The same key under the id that its public half was registered with.
    #[must_use]
    pub fn with_kid(self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), ..self }
    }

    /// Its id: the JWK's own `kid`, or else its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> KeyManagement {
        self.algorithm
    }

    /// Decrypts a token and gives the signed one inside, of which nothing is believed yet: whoever knows
    /// the public half can encrypt.
    pub fn decrypt(&self, jwe: &str) -> Result<String, Refusal> {
        self.decrypt_as(jwe, &Header::read(jwe)?)
    }

    fn decrypt_as(&self, jwe: &str, header: &Header) -> Result<String, Refusal> {
        if header.alg != self.algorithm.as_str() {
            return Err(Refusal::Invalid("another algorithm than the decryption key's"));
        }
        // One answer for all that fails from here on: which part it was would help who probes the key
        // (RFC 7516 section 11.5).
        let failed = Refusal::Invalid("it does not decrypt");
        let token = decrypt_with_jwk(&self.jwk, jwe).map_err(|_| failed)?;
        String::from_utf8(token).map_err(|_| failed)
    }
}

impl fmt::Debug for DecryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecryptionKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    enc: String,
    #[serde(default)]
    cty: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    // Compression makes a short token long, the rest would choose the key or demand what we don't know.
    #[serde(default)]
    zip: Option<IgnoredAny>,
    #[serde(default)]
    crit: Option<IgnoredAny>,
    #[serde(default)]
    jwk: Option<IgnoredAny>,
    #[serde(default)]
    jku: Option<IgnoredAny>,
    #[serde(default)]
    x5u: Option<IgnoredAny>,
    #[serde(default)]
    x5c: Option<IgnoredAny>,
}

impl Header {
    /// Reads the header of a compact JWE and refuses what no key decrypts.
    fn read(jwe: &str) -> Result<Self, Refusal> {
        if jwe.len() > MAX_TOKEN_LEN || !is_encrypted(jwe) {
            return Err(Refusal::Malformed);
        }
        let (header, _) = jwe.split_once('.').ok_or(Refusal::Malformed)?;
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| Refusal::Malformed)?;
        let header: Self = serde_json::from_slice(&header).map_err(|_| Refusal::Malformed)?;
        let dangerous = [&header.zip, &header.crit, &header.jwk, &header.jku, &header.x5u, &header.x5c];
        if dangerous.iter().any(|parameter| parameter.is_some()) {
            return Err(Refusal::Invalid("a header parameter that is not accepted"));
        }
        if header.enc != CONTENT_ENCRYPTION {
            return Err(Refusal::Invalid("another content encryption than A256GCM"));
        }
        if !header.cty.as_ref().is_some_and(|cty| cty.eq_ignore_ascii_case(NESTED_TOKEN)) {
            return Err(Refusal::Invalid("no token is said to be inside"));
        }
        Ok(header)
    }
}

/// Five parts, where a signed token has three.
fn is_encrypted(token: &str) -> bool {
    token.as_bytes().iter().filter(|byte| **byte == b'.').count() == 4
}

/// What a verifier does with encrypted tokens.
#[derive(Default)]
pub(super) struct Decryption {
    pub(super) keys: Vec<DecryptionKey>,
    /// Refuses tokens that are only signed.
    pub(super) is_required: bool,
}

impl Decryption {
    /// The signed token: what is inside an encrypted one, any other as it is.
    pub(super) fn signed<'t>(&self, token: &'t str) -> Result<Cow<'t, str>, Refusal> {
        if token.len() > MAX_TOKEN_LEN {
            return Err(Refusal::Malformed);
        }
        if is_encrypted(token) {
            let header = Header::read(token)?;
            return self.key_for(&header)?.decrypt_as(token, &header).map(Cow::Owned);
        }
        if self.is_required { Err(Refusal::Invalid("not encrypted")) } else { Ok(Cow::Borrowed(token)) }
    }

    /// The only key, or the one that the header names.
    fn key_for(&self, header: &Header) -> Result<&DecryptionKey, Refusal> {
        match &*self.keys {
            [] => Err(Refusal::Invalid("encrypted, and there is no key to decrypt it with")),
            [only] => Ok(only),
            several => several
                .iter()
                .find(|key| header.kid.as_deref() == Some(key.kid()))
                .ok_or(Refusal::Invalid("encrypted to another key")),
        }
    }
}

#[cfg(test)]
mod tests {
    use jose_rs::{
        JoseHeader, JweAlgorithm, JweEncryption,
        jwe::{JweEncryptOptions, encrypt_with_jwk_header_options},
        jwk::{generate_ec, generate_rsa, private_pem_from_jwk},
    };
    use serde_json::json;

    use super::*;

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const FAILED: Refusal = Refusal::Invalid("it does not decrypt");

    /// The same key as JWK and as OpenSSL writes it.
    const JWK: &str = r#"{"kty":"EC","crv":"P-256","x":"_xYSgoh_r31enfwMnqyMC9bIMqCa-WvVj_3CHggaZ3c",
        "y":"c8QE3d9qAgnEzLGoYWfL65WFA0MQWTj1Kg7Whvz7hSE","d":"_RlXZtmQaDr56NBSxI68g64KPNieLtKV2zB5o1sbA6U"}"#;
    const PEM: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/RlXZtmQaDr56NBS
xI68g64KPNieLtKV2zB5o1sbA6WhRANCAAT/FhKCiH+vfV6d/AyerIwL1sgyoJr5
a9WP/cIeCBpnd3PEBN3fagIJxMyxqGFny+uVhQNDEFk49SoO1ob8+4Uh
-----END PRIVATE KEY-----
";
    /// `aaa.bbb.ccc`, encrypted to that key by joserfc 1.8.0 and by jose 5.9.5.
    const BY_OTHERS: [&str; 2] = [
        "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJjdHkiOiJKV1QiLCJraWQiOiJ0aGVpcnMiLCJlcGsiOnsi\
         Y3J2IjoiUC0yNTYiLCJ4IjoiaUlKNHZyZlVvU1EydUdlQ3VMNWFFbHNDeUVJZnJna0hodzFnTEZsVjNUNCIsInkiOiJjSDI5LWlE\
         U2hFeF9uX0lRcXUxMVJwTmIwb3ZXSklhTlBXcXlVcHZhMUY0Iiwia3R5IjoiRUMifX0.ckF8nzY4XAJMKunb8wXA4YTYgeNJA47W\
         3mtFZSmRpGiBbTAwFebgGw.1V_msokfAxhtPrNC.zLZ8bJF4OUEJ_RA.xJavwkNms9uoNvUm8fmxBA",
        "eyJhbGciOiJFQ0RILUVTK0EyNTZLVyIsImVuYyI6IkEyNTZHQ00iLCJjdHkiOiJKV1QiLCJraWQiOiJ0aGVpcnMiLCJlcGsiOnsi\
         eCI6IjB3RHlhYkkzSERsTFZ0Y1dOenB1bVBhWHFjaU1nV3VjemRFbVQ2ZlZTakEiLCJjcnYiOiJQLTI1NiIsImt0eSI6IkVDIiwi\
         eSI6Ind6T2ZVemZRcUt1X1Nqekdza1hTS1Ruc2ktWXpBckhEZm5iRlFHbEMtSTQifX0.GTUz9PBpBpfqSqcxA78tgFaMJih_BsQO\
         DVLYlNgg1GBa7u_vGSNyHw.T8mmQT6Maq5qG7C-.fj1u5IGXdMR7waA.dQJyjHDxhr_cOl_c36_1AQ",
    ];

    /// Encrypts to the public half, with a header of the test's choice.
    fn encrypted(
        key: &DecryptionKey,
        enc: JweEncryption,
        change: impl FnOnce(&mut JoseHeader),
    ) -> jose_rs::Result<String> {
        let algorithm = match key.algorithm {
            KeyManagement::EcdhEsA256Kw => JweAlgorithm::EcdhEsA256kw,
            KeyManagement::RsaOaep256 => JweAlgorithm::RsaOaep256,
        };
        let mut header = JoseHeader::for_jwe(algorithm, enc);
        header.cty = Some("JWT".to_owned());
        change(&mut header);
        let options = JweEncryptOptions::new().with_key_reference_headers(true);
        encrypt_with_jwk_header_options(&key.jwk.to_public_jwk(), header, b"aaa.bbb.ccc", enc, &options)
    }

    /// The same token with another header, which no key authenticates.
    fn with_header(
        jwe: &str,
        name: &str,
        value: serde_json::Value,
    ) -> Result<String, Box<dyn std::error::Error>> {
        let (header, rest) = jwe.split_once('.').ok_or("no header")?;
        let mut header: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?;
        header[name] = value;
        Ok(format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string())))
    }

    #[test]
    fn what_other_libraries_encrypt_decrypts() -> Outcome {
        let key = DecryptionKey::from_jwk(JWK)?;
        let of_pem = DecryptionKey::from_pem(PEM)?;
        assert_eq!(of_pem.kid(), "tbwlNYH-seAk1lw3-TiMHJPafhr_x2DrxzTAQ-KNYaA");
        assert_eq!(key.kid(), of_pem.kid());
        for jwe in BY_OTHERS {
            assert_eq!(key.decrypt(jwe)?, "aaa.bbb.ccc");
            assert_eq!(of_pem.decrypt(jwe)?, "aaa.bbb.ccc");
        }
        let rsa = generate_rsa(2048)?;
        let rsa = DecryptionKey::from_pem(&private_pem_from_jwk(&rsa)?)?;
        let jwe = encrypted(&rsa, JweEncryption::A256GCM, |_| ())?;
        assert_eq!(rsa.decrypt(&jwe)?, "aaa.bbb.ccc");
        assert_eq!(format!("{key:?}"), format!("DecryptionKey {{ kid: {:?}, .. }}", key.kid()));
        Ok(())
    }

    #[test]
    fn a_change_in_any_part_is_refused() -> Outcome {
        let rsa = DecryptionKey::from_jwk(&generate_rsa(2048)?.to_json()?)?;
        for key in [DecryptionKey::from_jwk(JWK)?, rsa] {
            let jwe = encrypted(&key, JweEncryption::A256GCM, |_| ())?;
            let parts: Vec<&str> = jwe.split('.').collect();
            // The parts after the header, one bit at both ends of each; nothing tells them apart.
            for index in 1..parts.len() {
                let bytes = URL_SAFE_NO_PAD.decode(parts[index])?;
                for at in [0, bytes.len() - 1] {
                    let mut bytes = bytes.clone();
                    bytes[at] ^= 1;
                    let part = URL_SAFE_NO_PAD.encode(bytes);
                    let mut parts = parts.clone();
                    parts[index] = &part;
                    assert_eq!(key.decrypt(&parts.join(".")), Err(FAILED), "part {index}, byte {at}");
                }
                let mut parts = parts.clone();
                parts[index] = "";
                assert_eq!(key.decrypt(&parts.join(".")), Err(FAILED), "part {index}, gone");
            }
            assert_eq!(key.decrypt(&with_header(&jwe, "kid", json!("another"))?), Err(FAILED));
            assert_eq!(key.decrypt(&with_header(&jwe, "cty", json!("jwt"))?), Err(FAILED));
            assert_eq!(key.decrypt(&parts[..4].join(".")), Err(Refusal::Malformed));
            assert_eq!(key.decrypt(&format!("{jwe}.")), Err(Refusal::Malformed));
        }
        Ok(())
    }

    #[test]
    fn one_algorithm_one_content_encryption_and_a_token_inside() -> Outcome {
        let key = DecryptionKey::from_jwk(JWK)?;
        let jwe = encrypted(&key, JweEncryption::A256GCM, |_| ())?;
        let algorithm = Refusal::Invalid("another algorithm than the decryption key's");
        for alg in ["RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "dir", "none"] {
            assert_eq!(key.decrypt(&with_header(&jwe, "alg", json!(alg))?), Err(algorithm), "{alg}");
        }
        let rsa = DecryptionKey::from_jwk(&generate_rsa(2048)?.to_json()?)?;
        assert_eq!(rsa.decrypt(&jwe), Err(algorithm));

        let content = Refusal::Invalid("another content encryption than A256GCM");
        for enc in [JweEncryption::A128GCM, JweEncryption::A256CbcHs512] {
            assert_eq!(key.decrypt(&encrypted(&key, enc, |_| ())?), Err(content));
        }
        let inside = Refusal::Invalid("no token is said to be inside");
        for cty in [None, Some("json".to_owned())] {
            let jwe = encrypted(&key, JweEncryption::A256GCM, |header| header.cty = cty)?;
            assert_eq!(key.decrypt(&jwe), Err(inside));
        }
        let lower = encrypted(&key, JweEncryption::A256GCM, |header| header.cty = Some("jwt".to_owned()))?;
        assert_eq!(key.decrypt(&lower)?, "aaa.bbb.ccc");

        let parameter = Refusal::Invalid("a header parameter that is not accepted");
        for (name, value) in [("zip", json!("DEF")), ("crit", json!(["exp"])), ("x5c", json!(["AA"]))] {
            assert_eq!(key.decrypt(&with_header(&jwe, name, value)?), Err(parameter), "{name}");
        }
        let jku = |header: &mut JoseHeader| header.jku = Some("https://elsewhere.example".to_owned());
        assert_eq!(key.decrypt(&encrypted(&key, JweEncryption::A256GCM, jku)?), Err(parameter));
        assert!(key.decrypt(&with_header(&jwe, "epk", json!({"kty": "EC"}))?).is_err());

        let long =
            encrypted(&key, JweEncryption::A256GCM, |header| header.kid = Some("k".repeat(MAX_TOKEN_LEN)))?;
        assert_eq!(key.decrypt(&long), Err(Refusal::Malformed));
        assert_eq!(key.decrypt("aaa.bbb.ccc"), Err(Refusal::Malformed));
        assert_eq!(key.decrypt("...."), Err(Refusal::Malformed));
        Ok(())
    }

    #[test]
    fn what_decrypts_nothing_is_refused_by_name() -> Outcome {
        let refused = |jwk: &Jwk| jwk.to_json().map(|json| DecryptionKey::from_jwk(&json).err());
        let mut mixed = Jwk::from_json(JWK)?;
        assert_eq!(refused(&mixed.to_public_jwk())?, Some(BadEncryptionKey::Public));
        mixed.d = generate_ec("P-256")?.d.clone();
        assert_eq!(refused(&mixed)?, Some(BadEncryptionKey::Unusable), "the halves of two keys");
        assert_eq!(refused(&generate_ec("P-384")?)?, Some(BadEncryptionKey::Type));
        assert_eq!(DecryptionKey::from_jwk("{}").err(), Some(BadEncryptionKey::NotJwk));
        assert_eq!(DecryptionKey::from_pem(JWK).err(), Some(BadEncryptionKey::NotPem));
        let public = PEM.replace("PRIVATE", "PUBLIC");
        assert_eq!(DecryptionKey::from_pem(&public).err(), Some(BadEncryptionKey::NotPem));
        Ok(())
    }
}
