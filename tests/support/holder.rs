//! Whoever holds a key, and shows it with each call (DPoP, RFC 9449).

use std::error::Error;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tessera::{
    clock::{Clock, SystemClock},
    domain::algorithm::Algorithm,
};
use tonic::{Request, metadata::MetadataValue};

use super::{Home, Key, Kind, authorized};

/// A key that proofs are made with.
pub struct Holder {
    /// The key.
    pub key: Key,
}

impl Holder {
    /// With a new key.
    pub fn new(algorithm: Algorithm) -> Result<Self, Box<dyn Error>> {
        Ok(Self { key: Key::generate(algorithm)? })
    }

    /// The key's thumbprint.
    pub fn jkt(&self) -> &str {
        self.key.kid()
    }

    /// The header of a good proof.
    pub fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": self.key.algorithm().as_str(), "jwk": self.key.jwk()})
    }

    /// A proof for a call of this method, beside this token where there is one.
    pub fn proof(
        &self,
        path: &str,
        now: DateTime<Utc>,
        token: Option<&str>,
    ) -> Result<String, Box<dyn Error>> {
        self.proof_with(path, now, token, json!({}))
    }

    /// The same with these claims.
    pub fn proof_with(
        &self,
        path: &str,
        now: DateTime<Utc>,
        token: Option<&str>,
        more: Value,
    ) -> Result<String, Box<dyn Error>> {
        let mut claims = proof_claims(path, now, token);
        let more = more.as_object().cloned().unwrap_or_default();
        claims.as_object_mut().ok_or("no object")?.extend(more);
        self.key.sign(&self.header(), &claims)
    }
}

/// The claims of a good proof.
pub fn proof_claims(path: &str, now: DateTime<Utc>, token: Option<&str>) -> Value {
    let mut claims = json!({
        "jti": fastrand::u128(..).to_string(),
        "htm": "POST",
        "htu": path,
        "iat": now.timestamp(),
    });
    if let Some(token) = token {
        claims["ath"] = json!(URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())));
    }
    claims
}

/// A request with proofs.
pub fn with_proofs<T>(proofs: &[&str], mut request: Request<T>) -> Request<T> {
    for proof in proofs {
        let value = MetadataValue::try_from(*proof).expect("a proof is ASCII");
        request.metadata_mut().append("dpop", value);
    }
    request
}

/// A request with a token that is bound to a key, and a proof of that.
pub fn proved<T>(token: &str, proof: &str, message: T) -> Request<T> {
    with_proofs(&[proof], bound(token, message))
}

/// The same without the proof.
pub fn bound<T>(token: &str, message: T) -> Request<T> {
    let mut request = authorized(token, message);
    let value = MetadataValue::try_from(format!("DPoP {token}")).expect("a token is ASCII");
    request.metadata_mut().insert("authorization", value);
    request
}

impl Home {
    /// What time it is for a server that lives here.
    pub fn now(&self) -> DateTime<Utc> {
        match self.kind {
            Kind::Binary | Kind::BinarySqlite => SystemClock.now(),
            Kind::Sqlite | Kind::Postgres => self.clock.now(),
        }
    }
}
