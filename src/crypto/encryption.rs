//! Encryption of tokens for an audience that registered a public key: what was signed is encrypted whole
//! (RFC 7519 section 5.2), so that nobody between reads the claims.
//!
//! It says nothing about who encrypted, since the key is public: the signature inside does.

use std::fmt;

use jose_rs::{JoseHeader, JweAlgorithm, JweEncryption, jwe::encrypt_with_jwk_header, jwk::Jwk};

use super::CryptoError;
use crate::domain::encryption::{self, BadEncryptionKey, KeyManagement, NESTED_TOKEN};

/// The public half of an audience's key.
#[derive(Clone)]
pub struct EncryptionKey {
    kid: String,
    algorithm: KeyManagement,
    jwk: Jwk,
}

impl EncryptionKey {
    /// Reads a JWK: EC on P-256, or RSA of 2048 to 4096 bits.
    pub fn from_jwk(json: &str) -> Result<Self, BadEncryptionKey> {
        let jwk = Jwk::from_json(json).map_err(|_| BadEncryptionKey::NotJwk)?;
        if encryption::is_private(&jwk) {
            return Err(BadEncryptionKey::Private);
        }
        let (algorithm, jwk) = encryption::accept(jwk)?;
        Ok(Self { kid: jwk.kid.clone().ok_or(BadEncryptionKey::KeyId)?, algorithm, jwk })
    }

    /// Its id: the JWK's own `kid`, by which the audience finds it, or else its RFC 7638 thumbprint.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> KeyManagement {
        self.algorithm
    }

    /// The JWK again, with `kid`, `use` and `alg`, and without what Tessera doesn't know.
    pub fn to_jwk_json(&self) -> Result<String, CryptoError> {
        self.jwk.to_json().map_err(|_| CryptoError("writing a public key"))
    }

    /// Encrypts a signed token as a compact JWE.
    pub fn encrypt(&self, token: &str) -> Result<String, CryptoError> {
        let algorithm = match self.algorithm {
            KeyManagement::EcdhEsA256Kw => JweAlgorithm::EcdhEsA256kw,
            KeyManagement::RsaOaep256 => JweAlgorithm::RsaOaep256,
        };
        let mut header = JoseHeader::for_jwe(algorithm, JweEncryption::A256GCM);
        header.cty = Some(NESTED_TOKEN.to_owned());
        header.kid = Some(self.kid.clone());
        encrypt_with_jwk_header(&self.jwk, header, token.as_bytes(), JweEncryption::A256GCM)
            .map_err(|_| CryptoError("encrypting a token"))
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use chrono::{DateTime, TimeDelta, Utc};
    use jose_rs::jwk::{generate_ec, generate_rsa};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::{
        super::{random::SystemRandomness, signing::NewKey},
        *,
    };
    use crate::{
        domain::{algorithm::Algorithm, claims::Claims},
        verifier::{DecryptionKey, Expected, PublicKey, Refusal, Verifier},
    };

    type Outcome = Result<(), Box<dyn std::error::Error>>;

    const X: &str = "_xYSgoh_r31enfwMnqyMC9bIMqCa-WvVj_3CHggaZ3c";
    const Y: &str = "c8QE3d9qAgnEzLGoYWfL65WFA0MQWTj1Kg7Whvz7hSE";

    /// A private key and its public half.
    fn pair(private: &Jwk) -> Result<(DecryptionKey, EncryptionKey), Box<dyn std::error::Error>> {
        let public = private.to_public_jwk().to_json()?;
        Ok((DecryptionKey::from_jwk(&private.to_json()?)?, EncryptionKey::from_jwk(&public)?))
    }

    fn header_of(jwe: &str) -> Result<Value, Box<dyn std::error::Error>> {
        let (header, _) = jwe.split_once('.').ok_or("no header")?;
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?)
    }

    #[test]
    fn what_is_encrypted_decrypts_with_the_private_half_alone() -> Outcome {
        for (private, other) in
            [(generate_ec("P-256")?, generate_ec("P-256")?), (generate_rsa(2048)?, generate_rsa(2048)?)]
        {
            let (decryption, encryption) = pair(&private)?;
            let jwe = encryption.encrypt("aaa.bbb.ccc")?;
            assert_eq!(decryption.decrypt(&jwe)?, "aaa.bbb.ccc");
            assert_ne!(jwe, encryption.encrypt("aaa.bbb.ccc")?, "nothing is used twice");

            let header = header_of(&jwe)?;
            assert_eq!(header["alg"], encryption.algorithm().as_str());
            assert_eq!((&header["enc"], &header["cty"]), (&json!("A256GCM"), &json!("JWT")));
            assert_eq!(header["kid"], encryption.kid());
            assert_eq!(decryption.kid(), encryption.kid());

            let (other, _) = pair(&other)?;
            assert_eq!(other.decrypt(&jwe), Err(Refusal::Invalid("it does not decrypt")));
        }
        Ok(())
    }

    #[test]
    fn a_key_goes_by_its_own_id_or_by_its_thumbprint() -> Outcome {
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
        let key = EncryptionKey::from_jwk(&jwk.to_string())?;
        assert_eq!(key.kid(), "tbwlNYH-seAk1lw3-TiMHJPafhr_x2DrxzTAQ-KNYaA");
        let normal: Value = serde_json::from_str(&key.to_jwk_json()?)?;
        let mut expected = jwk.clone();
        expected["kid"] = key.kid().into();
        expected["use"] = "enc".into();
        expected["alg"] = "ECDH-ES+A256KW".into();
        assert_eq!(normal, expected);
        assert_eq!(EncryptionKey::from_jwk(&normal.to_string())?.kid(), key.kid());

        let mut own = jwk;
        own["kid"] = "of-the-audience".into();
        own["key_ops"] = json!([]);
        own["ext"] = true.into();
        let key = EncryptionKey::from_jwk(&own.to_string())?;
        assert_eq!(key.kid(), "of-the-audience");
        assert!(!key.to_jwk_json()?.contains("ext"));
        assert_eq!(format!("{key:?}"), "EncryptionKey { kid: \"of-the-audience\", .. }");
        Ok(())
    }

    #[test]
    fn what_is_no_key_for_encryption_is_refused_by_name() -> Outcome {
        let refused = |jwk: Value| EncryptionKey::from_jwk(&jwk.to_string()).err();
        let ec = |name: &str, value: Value| {
            let mut jwk = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
            jwk[name] = value;
            jwk
        };
        assert_eq!(refused(ec("use", json!("enc"))), None);
        for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
            let secret = if name == "oth" { json!([{"r": "AQ"}]) } else { json!("AQ") };
            assert_eq!(refused(ec(name, secret)), Some(BadEncryptionKey::Private), "{name}");
        }
        assert_eq!(EncryptionKey::from_jwk("").err(), Some(BadEncryptionKey::NotJwk));
        assert_eq!(refused(json!({"keys": []})), Some(BadEncryptionKey::NotJwk));
        assert_eq!(refused(ec("kty", json!("OKP"))), Some(BadEncryptionKey::Type));
        assert_eq!(refused(ec("crv", json!("P-384"))), Some(BadEncryptionKey::Type));
        assert_eq!(refused(ec("use", json!("sig"))), Some(BadEncryptionKey::Use));
        assert_eq!(refused(ec("key_ops", json!(["verify"]))), Some(BadEncryptionKey::Use));
        let algorithm = Some(BadEncryptionKey::Algorithm(KeyManagement::EcdhEsA256Kw));
        assert_eq!(refused(ec("alg", json!("ECDH-ES"))), algorithm);
        assert_eq!(refused(ec("kid", json!(""))), Some(BadEncryptionKey::KeyId));
        assert_eq!(refused(ec("kid", json!("k".repeat(257)))), Some(BadEncryptionKey::KeyId));
        assert_eq!(refused(ec("y", json!(X))), Some(BadEncryptionKey::Unusable), "a point off the curve");

        let rsa = |bits: usize, alg: &str| {
            let n = URL_SAFE_NO_PAD.encode(vec![0xff; bits / 8]);
            json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": alg})
        };
        assert_eq!(refused(rsa(4096, "RSA-OAEP-256")), None);
        assert_eq!(refused(rsa(2040, "RSA-OAEP-256")), Some(BadEncryptionKey::Size(2040)));
        assert_eq!(refused(rsa(4104, "RSA-OAEP-256")), Some(BadEncryptionKey::Size(4104)));
        let algorithm = Some(BadEncryptionKey::Algorithm(KeyManagement::RsaOaep256));
        assert_eq!(refused(rsa(2048, "RSA-OAEP")), algorithm);
        Ok(())
    }

    #[test]
    fn a_verifier_checks_what_is_inside() -> Outcome {
        let now = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::days(20_000);
        let issuer = NewKey::generate(Algorithm::Es256, 2048, &SystemRandomness)?.key;
        let claims = Claims {
            iss: "https://issuer.example".to_owned(),
            sub: Uuid::nil(),
            aud: vec!["orders".to_owned()],
            exp: now.timestamp() + 60,
            iat: now.timestamp(),
            nbf: now.timestamp(),
            jti: "1".to_owned(),
            client_id: "shop".to_owned(),
            scope: String::new(),
            user: None,
            service: None,
            act: None,
            via: Vec::new(),
            cnf: None,
        };
        let expected = Expected {
            issuer: claims.iss.clone(),
            audience: Some("orders".to_owned()),
            leeway: TimeDelta::zero(),
        };
        let signed = issuer.sign_access_token(&claims)?;
        let (ours, key) = pair(&generate_ec("P-256")?)?;
        let (old, old_key) = pair(&generate_ec("P-256")?)?;
        let encrypted = key.encrypt(&signed)?;
        let verifier = || PublicKey::from_jwk(issuer.jwk()).map(|key| Verifier::new(vec![key]));
        let check = |verifier: &Verifier, token: &str| verifier.check(token, &expected, now);

        let without = verifier()?;
        assert_eq!(check(&without, &signed)?, claims);
        let no_key = Refusal::Invalid("encrypted, and there is no key to decrypt it with");
        assert_eq!(check(&without, &encrypted), Err(no_key));

        let one = verifier()?.with_decryption_keys(vec![ours.clone()]);
        assert_eq!(check(&one, &encrypted)?, claims);
        assert_eq!(check(&one, &signed)?, claims);
        let renamed = EncryptionKey { kid: "elsewhere".to_owned(), ..key.clone() };
        assert_eq!(check(&one, &renamed.encrypt(&signed)?)?, claims, "the only key needs no name");

        let two = verifier()?.with_decryption_keys(vec![old, ours.clone()]).require_encryption();
        assert_eq!(check(&two, &encrypted)?, claims);
        assert_eq!(check(&two, &old_key.encrypt(&signed)?)?, claims);
        assert_eq!(check(&two, &signed), Err(Refusal::Invalid("not encrypted")));
        let other = Refusal::Invalid("encrypted to another key");
        assert_eq!(check(&two, &renamed.encrypt(&signed)?), Err(other));
        let renamed_too = verifier()?.with_decryption_keys(vec![ours.clone().with_kid("elsewhere"), ours]);
        assert_eq!(check(&renamed_too, &renamed.encrypt(&signed)?)?, claims);

        // Encryption vouches for nothing, and is not nested twice.
        let (unsigned, _) = signed.rsplit_once('.').ok_or("no signature")?;
        assert!(check(&one, &key.encrypt(&format!("{unsigned}.AA"))?).is_err());
        assert_eq!(check(&one, &key.encrypt(&encrypted)?), Err(Refusal::Malformed));
        Ok(())
    }
}
