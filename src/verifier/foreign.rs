//! Tokens of other issuers, checked as ours are: the same parts, the same keys, the same header rules.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{PublicKey, Refusal, claims::claims, header::Parts};
use crate::domain::{algorithm::Algorithm, claims::ACCESS_TOKEN_TYPE};

/// The `typ` of a token whose issuer gives it no kind of its own.
const PLAIN_TYPE: &str = "JWT";
/// What a JWT-SVID may say instead (JWT-SVID section 2.3).
const SVID_TYPE: &str = "JOSE";
/// What a SPIFFE ID begins with: the trust domain follows.
const SPIFFE: &str = "spiffe://";

/// Another issuer and what its tokens must be.
#[derive(Debug, Clone)]
pub struct ForeignIssuer {
    /// The claim `iss`, exactly.
    pub issuer: String,
    /// Audiences of which a token must carry one.
    pub audiences: Vec<String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
}

/// What must be there for a token to be believed, of which types.
#[derive(Deserialize)]
struct Registered {
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
}

impl Registered {
    fn check_times(&self, now: DateTime<Utc>, leeway: TimeDelta) -> Result<(), Refusal> {
        if seconds(self.exp) <= (now - leeway).timestamp() {
            return Err(Refusal::Expired);
        }
        let latest = (now + leeway).timestamp();
        if [self.nbf, self.iat].into_iter().flatten().any(|time| seconds(time) > latest) {
            return Err(Refusal::Invalid("not valid yet"));
        }
        Ok(())
    }
}

/// RFC 7519 section 2: a NumericDate may have a fraction, which is cut off.
fn seconds(time: f64) -> i64 {
    time as i64
}

/// RFC 7519 section 4.1.3.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn is_one_of(&self, accepted: &[String]) -> bool {
        match self {
            Self::One(one) => accepted.contains(one),
            Self::Many(many) => many.iter().any(|audience| accepted.contains(audience)),
        }
    }

    fn is_only(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => matches!(&**many, [only] if only == audience),
        }
    }
}

impl ForeignIssuer {
    /// Who a token says to be from. Nothing is checked yet: good for finding the issuer that it is checked with.
    pub fn claimed_by(token: &str) -> Result<String, Refusal> {
        issuer(&Parts::split(token)?)
    }

    /// Checks signature, then claims, with these keys of the issuer. Gives the claims as they are, with `iss` where the token leaves that to its subject.
    pub fn check(
        &self,
        token: &str,
        keys: &[PublicKey],
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<Map<String, Value>, Refusal> {
        let parts = Parts::split(token)?;
        let mut known = [PLAIN_TYPE, ACCESS_TOKEN_TYPE, SVID_TYPE].into_iter();
        if parts.has_type() && !known.any(|known| parts.require_type(known).is_ok()) {
            return Err(Refusal::Invalid("another type of token"));
        }
        let algorithm = parts.algorithm().filter(|algorithm| self.algorithms.contains(algorithm));
        let algorithm = algorithm.ok_or(Refusal::Invalid("an algorithm that is not accepted"))?;
        require_signature(&parts, keys, algorithm)?;
        if issuer(&parts)? != self.issuer {
            return Err(Refusal::Invalid("another issuer"));
        }
        self.check_claims(&claims(&parts)?, now, leeway)?;
        let mut claims: Map<String, Value> = claims(&parts)?;
        claims.entry("iss").or_insert_with(|| self.issuer.as_str().into());
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if self.issuer.starts_with(SPIFFE) && trust_domain(subject).as_ref() != Some(&self.issuer) {
            return Err(Refusal::Invalid("a subject of another trust domain"));
        }
        Ok(claims)
    }

    fn check_claims(
        &self,
        claims: &Registered,
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<(), Refusal> {
        if !claims.aud.is_one_of(&self.audiences) {
            return Err(Refusal::Invalid("another audience"));
        }
        claims.check_times(now, leeway)
    }
}

/// Who a token says to be from. A JWT-SVID may say it with the trust domain of its subject alone.
fn issuer(parts: &Parts<'_>) -> Result<String, Refusal> {
    #[derive(Deserialize)]
    struct From {
        iss: Option<String>,
        #[serde(default)]
        sub: Value,
    }
    let From { iss, sub } = claims(parts)?;
    iss.or_else(|| trust_domain(sub.as_str()?)).ok_or(Refusal::Invalid("no issuer"))
}

/// That of a SPIFFE ID, as one itself.
fn trust_domain(id: &str) -> Option<String> {
    let domain = id.strip_prefix(SPIFFE)?.split('/').next()?;
    Some(format!("{SPIFFE}{domain}"))
}

/// The `typ` of an assertion that says what it is (draft-ietf-oauth-rfc7523bis section 4).
const ASSERTION_TYPE: &str = "client-authentication+jwt";
/// How far ahead of now an assertion may end: it must be remembered until then.
const LONGEST_ASSERTION: TimeDelta = TimeDelta::minutes(10);
/// The longest id of one, in bytes.
const LONGEST_JTI: usize = 256;

/// What a client must say to authenticate with a key of its own (RFC 7523 section 3).
#[derive(Debug, Clone)]
pub struct ClientAssertion<'a> {
    /// Who it says to be: `iss` and `sub`.
    pub client_id: &'a str,
    /// Whom it says it to: `aud`, alone, as RFC 7523 bis has it. One that several would take could be passed on.
    pub issuer: &'a str,
}

/// An assertion that is good once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Once {
    /// Its id.
    pub jti: String,
    /// When it ends, without leeway.
    pub expire_time: DateTime<Utc>,
}

#[derive(Deserialize)]
struct Asserted {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    #[serde(default)]
    nbf: Option<f64>,
    #[serde(default)]
    iat: Option<f64>,
    jti: String,
}

impl ClientAssertion<'_> {
    /// Who an assertion says to be from. Nothing is checked yet.
    pub fn claimed_by(assertion: &str) -> Result<String, Refusal> {
        ForeignIssuer::claimed_by(assertion)
    }

    /// Checks signature, then claims, with these keys of the client.
    pub fn check(
        &self,
        assertion: &str,
        keys: &[PublicKey],
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<Once, Refusal> {
        let parts = Parts::split(assertion)?;
        if parts.has_type() {
            parts.require_type(PLAIN_TYPE).or_else(|_| parts.require_type(ASSERTION_TYPE))?;
        }
        let algorithm = parts.algorithm().ok_or(Refusal::Invalid("an algorithm that is not accepted"))?;
        require_signature(&parts, keys, algorithm)?;
        // Not with serde's `flatten`, which reads no fractions where numbers are of any precision.
        let Asserted { iss, sub, aud, exp, nbf, iat, jti } = claims(&parts)?;
        let registered = Registered { aud, exp, nbf, iat };
        if iss != self.client_id || sub != self.client_id {
            return Err(Refusal::Invalid("of another client"));
        }
        registered.check_times(now, leeway)?;
        if !registered.aud.is_only(self.issuer) {
            return Err(Refusal::Invalid("another audience, or several"));
        }
        if !(1..=LONGEST_JTI).contains(&jti.len()) {
            return Err(Refusal::Invalid("no id, or one that is too long"));
        }
        let expire_time = DateTime::from_timestamp(seconds(registered.exp), 0);
        let expire_time = expire_time.filter(|time| *time <= now + LONGEST_ASSERTION + leeway);
        let expire_time = expire_time.ok_or(Refusal::Invalid("good for too long"))?;
        Ok(Once { jti, expire_time })
    }
}

fn require_signature(parts: &Parts<'_>, keys: &[PublicKey], algorithm: Algorithm) -> Result<(), Refusal> {
    let kid = parts.maybe_kid();
    let checked = parts.require_signature(find(keys, kid, algorithm)?);
    // Where none is named, it may be one that came after these.
    checked.map_err(|refusal| if kid.is_none_or(str::is_empty) { Refusal::UnknownKey } else { refusal })
}

/// The key that a token names; where it names none (RFC 7515 section 4.1.4), the only one of its algorithm.
fn find<'k>(
    keys: &'k [PublicKey],
    kid: Option<&str>,
    algorithm: Algorithm,
) -> Result<&'k PublicKey, Refusal> {
    if let Some(kid) = kid.filter(|kid| !kid.is_empty()) {
        let named = || keys.iter().filter(|key| key.kid() == kid);
        // A set may hold one key once for each algorithm. Any other key of this name refuses the signature.
        let fitting = named().find(|key| key.algorithm() == algorithm);
        return fitting.or_else(|| named().next()).ok_or(Refusal::UnknownKey);
    }
    let mut fitting = keys.iter().filter(|key| key.algorithm() == algorithm);
    match (fitting.next(), fitting.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => Err(Refusal::UnknownKey),
        _ => Err(Refusal::Invalid("no key id, and more than one key of its algorithm")),
    }
}
