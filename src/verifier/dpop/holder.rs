//! The other side: a key of one's own, and the proofs that are made with it.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    ProofFor,
    proof::{PROOF_TYPE, token_hash},
};
use crate::{domain::algorithm::Algorithm, verifier::PublicKey};

/// What can't be made or used as a key of one's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key on P-256 can be made of that")]
pub struct BadHolderKey;

/// A key of one's own, on P-256, that tokens can be bound to (RFC 9449). Cheap to clone; its private half is never shown.
#[derive(Clone)]
pub struct HolderKey(Arc<Inner>);

struct Inner {
    pair: EcdsaKeyPair,
    /// The header of every proof, in base64url.
    header: String,
    thumbprint: String,
}

impl HolderKey {
    /// A new one, which is gone with the program.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn generate() -> Result<Self, BadHolderKey> {
        Self::of(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| BadHolderKey)?)
    }

    /// Reads one (PKCS#8 in DER): for what must outlive the program.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, BadHolderKey> {
        Self::of(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).map_err(|_| BadHolderKey)?)
    }

    fn of(pair: EcdsaKeyPair) -> Result<Self, BadHolderKey> {
        // A point as SEC 1 writes it without compression (section 2.3.3).
        let point = pair.public_key().as_ref();
        let (x, y) = point.strip_prefix(&[4]).filter(|xy| xy.len() == 64).ok_or(BadHolderKey)?.split_at(32);
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        let header = json!({"typ": PROOF_TYPE, "alg": Algorithm::Es256, "jwk": jwk});
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        let Value::Object(jwk) = jwk else { return Err(BadHolderKey) };
        let key = PublicKey::of_holder(jwk, Algorithm::Es256).map_err(|_| BadHolderKey)?;
        Ok(Self(Arc::new(Inner { pair, header, thumbprint: key.kid().to_owned() })))
    }

    /// The thumbprint (RFC 7638) of its public half: the claim `cnf.jkt` of tokens that are bound to it.
    pub fn thumbprint(&self) -> &str {
        &self.0.thumbprint
    }

    /// A proof for one call, to be sent in the header `dpop`. The path may be a whole URL; the nonce is what the service told
    /// last in `dpop-nonce`.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn prove(
        &self,
        made_for: &ProofFor<'_>,
        nonce: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<String, BadHolderKey> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| BadHolderKey)?;
        let mut claims = json!({
            "jti": URL_SAFE_NO_PAD.encode(id),
            "htm": made_for.method,
            "htu": made_for.path,
            "iat": now.timestamp(),
        });
        if let Some(token) = made_for.token {
            claims["ath"] = token_hash(token).into();
        }
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        let mut proof = format!("{}.{}", self.0.header, URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.0.pair.sign(&random, proof.as_bytes()).map_err(|_| BadHolderKey)?;
        proof.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut proof);
        Ok(proof)
    }
}

impl fmt::Debug for HolderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HolderKey").field(&self.0.thumbprint).finish()
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::verifier::{KeyProofs, NotTaken, Refusal};

    #[test]
    fn what_it_proves_is_taken_once() -> Result<(), Box<dyn std::error::Error>> {
        let (key, proofs, now) = (HolderKey::generate()?, KeyProofs::default(), DateTime::UNIX_EPOCH);
        let call = ProofFor { method: "POST", path: "/a.B/Get", token: Some("token") };
        let at = ProofFor { path: "https://a.example/a.B/Get", ..call };
        for made_for in [call, at] {
            let proof =
                proofs.check(&key.prove(&made_for, Some("n"), now)?, &call, now, TimeDelta::zero())?;
            assert_eq!((proof.key(), proof.nonce()), (key.thumbprint(), Some("n")));
            proofs.take(&proof, now)?;
            proofs.take(&proof, now)?;
        }
        let text = key.prove(&call, None, now)?;
        let check = || proofs.check(&text, &call, now, TimeDelta::zero());
        proofs.take(&check()?, now)?;
        let again = check()?;
        for _ in 0..2 {
            assert_eq!(proofs.take(&again, now), Err(NotTaken::Again), "it came with two calls");
        }
        let other = ProofFor { token: Some("another"), ..call };
        let refused = proofs.check(&text, &other, now, TimeDelta::zero());
        assert!(matches!(refused, Err(Refusal::BadProof(_))));
        assert!(HolderKey::from_pkcs8(b"none").is_err());
        Ok(())
    }
}
