//! One proof, checked against the call that it came with (RFC 9449 section 4.3).

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, TimeDelta, Utc};
use http::{HeaderMap, Uri};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::{Map, Value};

use super::{Origin, Refusal};
use crate::{
    domain::algorithm::Algorithm,
    verifier::{
        PublicKey,
        header::{Pieces, is_type},
    },
};

/// The header that a proof comes in.
const HEADER: &str = "dpop";
/// The `typ` of a proof.
pub(super) const PROOF_TYPE: &str = "dpop+jwt";
/// The longest proof that is looked at, in bytes.
const LONGEST: usize = 8 * 1024;
/// The longest `jti`, in bytes.
const LONGEST_JTI: usize = 128;
/// How old a proof may be, where the clocks agree.
const WINDOW: TimeDelta = TimeDelta::seconds(60);

/// What a proof must have been made for.
#[derive(Debug, Clone, Copy)]
pub struct ProofFor<'a> {
    /// The HTTP method, which for gRPC is `POST`: the claim `htm`.
    pub method: &'a str,
    /// The path, which for gRPC is the full method as `/tessera.v1.Auth/Login`: of the claim `htu`.
    pub path: &'a str,
    /// The access token that comes along, where one does: the claim `ath`.
    pub token: Option<&'a str>,
}

/// A proof that fits the call that it came with. Whether it came with an earlier one too says
/// [`KeyProofs::take`](super::KeyProofs::take).
#[derive(Debug)]
pub struct KeyProof {
    key: String,
    nonce: Option<String>,
    id: [u8; 16],
    end: i64,
    is_taken: AtomicBool,
}

/// Parameters that nothing here looks at, as `kid`, decide nothing.
#[derive(Deserialize)]
struct Header {
    typ: Option<String>,
    alg: String,
    jwk: Map<String, Value>,
    // Refused for the reasons that hold for tokens.
    crit: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: f64,
    ath: Option<String>,
    nonce: Option<String>,
}

const fn bad<T>(why: &'static str) -> Result<T, Refusal> {
    Err(Refusal::BadProof(why))
}

impl KeyProof {
    /// The proof among these headers, if there is one.
    ///
    /// # Errors
    /// If there are two, of which an intermediary and we might each believe another.
    pub fn in_headers(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return bad("there are two");
        }
        value.to_str().map(Some).or(bad("it is no JWS"))
    }

    /// Checks the signature, then the claims.
    pub(super) fn check(
        proof: &str,
        made_for: &ProofFor<'_>,
        origins: &[Origin],
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<Self, Refusal> {
        let pieces = Pieces::of(proof, LONGEST).or(bad("it is no JWS of at most 8 KiB"))?;
        let key = key_of(&pieces)?;
        if !key.verifies(pieces.signed.as_bytes(), pieces.signature) {
            return bad("bad signature");
        }
        let payload = URL_SAFE_NO_PAD.decode(pieces.payload).or(bad("it is no JWS"))?;
        let claims: Claims = json(&payload, "claims are missing or of the wrong type")?;
        claims.check(made_for, origins)?;
        let end = claims.end(now, leeway)?;
        let id = id_of(key.kid(), &claims.jti);
        let key = key.kid().to_owned();
        Ok(Self { key, nonce: claims.nonce, id, end, is_taken: AtomicBool::default() })
    }

    /// The thumbprint (RFC 7638) of the key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What it carries of what a server gave out for that.
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// Differs for each key and each id that the key's holder gave a proof.
    pub(super) fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The last second of its life, since 1970.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// Whether its call has used it.
    pub(super) fn is_taken(&self) -> bool {
        self.is_taken.load(Ordering::Relaxed)
    }

    pub(super) fn set_taken(&self) {
        self.is_taken.store(true, Ordering::Relaxed);
    }
}

/// The claim `ath`.
pub(super) fn token_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))
}

fn json<T: DeserializeOwned>(text: &[u8], why: &'static str) -> Result<T, Refusal> {
    serde_json::from_slice(text).or(bad(why))
}

/// The key that the proof names in its header, which has to be public and for one algorithm.
fn key_of(pieces: &Pieces<'_>) -> Result<PublicKey, Refusal> {
    let Header { typ, alg, jwk, crit, jku, x5u, x5c } = json(&pieces.header, "its header holds no `jwk`")?;
    if !is_type(typ.as_deref(), PROOF_TYPE) {
        return bad("its `typ` is not dpop+jwt");
    }
    if [crit, jku, x5u, x5c].iter().any(Option::is_some) {
        return bad("a header parameter that is not accepted");
    }
    let algorithm: Algorithm = alg.parse().or(bad("an algorithm that is not accepted"))?;
    PublicKey::of_holder(jwk, algorithm).or(bad("its `jwk` is no public key for its `alg`"))
}

fn id_of(key: &str, jti: &str) -> [u8; 16] {
    let mut context = Context::new(&SHA256);
    // Thumbprints are of one length.
    context.update(key.as_bytes());
    context.update(jti.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&context.finish().as_ref()[..16]);
    id
}

impl Claims {
    fn check(&self, made_for: &ProofFor<'_>, origins: &[Origin]) -> Result<(), Refusal> {
        if !(1..=LONGEST_JTI).contains(&self.jti.len()) {
            return bad("no `jti`, or one that is too long");
        }
        if self.htm != made_for.method {
            return bad("its `htm` is another method");
        }
        if !is_target(&self.htu, made_for.path, origins) {
            return bad("its `htu` is another target");
        }
        let Some(token) = made_for.token else { return Ok(()) };
        if self.ath.as_deref() == Some(&*token_hash(token)) {
            Ok(())
        } else {
            bad("its `ath` is not that of the token")
        }
    }

    /// The last second at which it is not too old.
    fn end(&self, now: DateTime<Utc>, leeway: TimeDelta) -> Result<i64, Refusal> {
        // A fraction is cut off.
        let issued = self.iat as i64;
        let end = issued.saturating_add((WINDOW + leeway).num_seconds());
        if issued > (now + leeway).timestamp() {
            return bad("its `iat` is in the future");
        }
        if end < now.timestamp() { bad("its `iat` is too long ago") } else { Ok(end) }
    }
}

/// Whether an `htu` names this path: as an absolute URI or by itself. Query and fragment do not count.
fn is_target(htu: &str, path: &str, origins: &[Origin]) -> bool {
    let target = htu.split(['?', '#']).next().unwrap_or_default();
    if target.starts_with('/') {
        return origins.is_empty() && target == path;
    }
    let Ok(uri) = target.parse::<Uri>() else { return false };
    let Some(origin) = Origin::of(&uri) else { return false };
    uri.path() == path && (origins.is_empty() || origins.contains(&origin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_wherever_it_is() {
        const PATH: &str = "/a.B/Get";
        let is = |htu: &str| is_target(htu, PATH, &[]);
        for htu in [
            "/a.B/Get",
            "/a.B/Get?x=1",
            "/a.B/Get#y",
            "https://h/a.B/Get",
            "HTTP://H:1/a.B/Get?x#y",
            "https://[::1]:443/a.B/Get",
        ] {
            assert!(is(htu), "{htu}");
        }
        for htu in [
            "",
            "a.B/Get",
            "//h/a.B/Get",
            "/a.B/Get/",
            "/a.B/get",
            "/a.B/%47et",
            "/x/../a.B/Get",
            "https://h/x/a.B/Get",
            "https:///a.B/Get",
            "ftp://h/a.B/Get",
            "https://u@h/a.B/Get",
            "https://h",
            "?/a.B/Get",
        ] {
            assert!(!is(htu), "{htu}");
        }
    }

    #[test]
    fn where_origins_are_named_one_of_them_counts() -> Result<(), super::super::BadOrigin> {
        let origins = ["https://h.example".parse()?, "http://10.0.0.1:8080".parse()?];
        let is = |htu: &str| is_target(htu, "/a", &origins);
        assert!(is("https://H.example:443/a") && is("http://10.0.0.1:8080/a?b"));
        assert!(!is("/a") && !is("http://h.example/a") && !is("https://h.example:8443/a"));
        for bad in ["", "h.example", "/a", "https://h.example/a", "https://h.example/?a", "ftp://h"] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
        Ok(())
    }

    #[test]
    fn it_lives_for_a_minute_and_what_clocks_may_differ() {
        let at = |seconds| DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds);
        let end = |iat: f64, now| {
            let claims = Claims {
                jti: String::new(),
                htm: String::new(),
                htu: String::new(),
                iat,
                ath: None,
                nonce: None,
            };
            claims.end(at(now), TimeDelta::seconds(30)).ok()
        };
        assert_eq!(end(1000.9, 1000), Some(1090));
        assert_eq!((end(1000.0, 1090), end(1000.0, 1091)), (Some(1090), None));
        assert_eq!((end(1030.0, 1000), end(1031.0, 1000)), (Some(1120), None));
        assert_eq!((end(f64::MAX, 1000), end(f64::MIN, 1000)), (None, None));
    }
}
