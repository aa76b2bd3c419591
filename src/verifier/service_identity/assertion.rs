//! What a service signs to say who it is (RFC 7523).

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::private_key::{BadPrivateKey, PrivateKey};

/// How long one is good: it is sent at once, and clocks may differ.
const LIFE: TimeDelta = TimeDelta::seconds(60);
/// What it is (draft-ietf-oauth-rfc7523bis section 4).
const TYPE: &str = "client-authentication+jwt";

#[derive(Serialize)]
struct Header<'a> {
    typ: &'static str,
    alg: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    kid: &'a str,
}

/// No `iat`: all it could do is to have a clock that is ahead refused.
#[derive(Serialize)]
struct Asserted<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: i64,
    jti: String,
}

/// An assertion for one request.
pub(super) fn sign(
    key: &PrivateKey,
    client_id: &str,
    issuer: &str,
    now: DateTime<Utc>,
) -> Result<String, BadPrivateKey> {
    let header = Header { typ: TYPE, alg: key.algorithm().as_str(), kid: key.kid() };
    let claims = Asserted {
        iss: client_id,
        sub: client_id,
        aud: issuer,
        exp: (now + LIFE).timestamp(),
        jti: new_id()?,
    };
    let message = format!("{}.{}", encoded(&header)?, encoded(&claims)?);
    let signature = key.sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn encoded(part: &impl Serialize) -> Result<String, BadPrivateKey> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).map_err(|_| BadPrivateKey::Sign)?))
}

/// From the system and not from a generator of the process: a copy of it would say the same, and that is refused.
fn new_id() -> Result<String, BadPrivateKey> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_| BadPrivateKey::Sign)?;
    Ok(URL_SAFE_NO_PAD.encode(id))
}
