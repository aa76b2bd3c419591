//! Reads JWK sets of other issuers, which hold more than Tessera takes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, CommonParameters, Jwk, ThumbprintHash};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::PublicKey;
use crate::domain::algorithm::Algorithm;

/// Members that only private and symmetric keys have (RFC 7518 sections 6.2.2, 6.3.2 and 6.4.1, RFC 8037).
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// What the `use` of a key for signatures is: in any JWK set (RFC 7517 section 4.2), and in SPIFFE's (Trust Domain and Bundle,
/// section 4.2.2).
const FOR_SIGNATURES: [&str; 2] = ["sig", "jwt-svid"];
/// Shorter RSA keys are refused (RFC 7518 section 3.3).
const LEAST_RSA_BITS: usize = 2048;

/// Why a foreign JWK set is not taken. Never repeats what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    /// Not a JWK set.
    #[error("is not a JWK set")]
    Json,
    /// Somebody gave away what must stay secret.
    #[error("holds a private or symmetric key, which must never leave its owner")]
    Secret,
    /// An RSA key that is too short.
    #[error("holds an RSA key of less than 2048 bits")]
    ShortRsa,
    /// Nothing in it is of use.
    #[error("holds no key that can be used")]
    NoKey,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Map<String, Value>>,
}

impl PublicKey {
    /// Reads another issuer's JWK set. Each key keeps the id that the set gives it, none being the empty one. Keys
    /// that are not for signatures, or for none of these algorithms, are passed over (RFC 7517 section 5).
    pub fn from_foreign_jwks(json: &[u8], accepted: &[Algorithm]) -> Result<Vec<Self>, BadKeySet> {
        let set: KeySet = serde_json::from_slice(json).map_err(|_| BadKeySet::Json)?;
        let mut keys = Vec::new();
        for jwk in &set.keys {
            refuse_secret(jwk)?;
            let Some((algorithm, parameters)) = usable(jwk) else { continue };
            refuse_short(&parameters)?;
            if accepted.contains(&algorithm) {
                let kid = member(jwk, "kid").unwrap_or_default().to_owned();
                let jwk = Jwk { common: CommonParameters::default(), algorithm: parameters };
                keys.extend(Self::with_kid(kid, algorithm, &jwk));
            }
        }
        if keys.is_empty() { Err(BadKeySet::NoKey) } else { Ok(keys) }
    }

    /// Reads the key that somebody shows beside what it signed with it, for the algorithm that it names there. The key's id
    /// is its thumbprint (RFC 7638).
    pub(super) fn of_holder(mut jwk: Map<String, Value>, algorithm: Algorithm) -> Result<Self, BadKeySet> {
        refuse_secret(&jwk)?;
        jwk.entry("alg").or_insert_with(|| algorithm.as_str().into());
        let (own, parameters) = usable(&jwk).ok_or(BadKeySet::NoKey)?;
        if own != algorithm {
            return Err(BadKeySet::NoKey);
        }
        refuse_short(&parameters)?;
        let jwk = Jwk { common: CommonParameters::default(), algorithm: parameters };
        let thumbprint = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| BadKeySet::NoKey)?;
        Self::with_kid(thumbprint, algorithm, &jwk).map_err(|_| BadKeySet::NoKey)
    }
}

fn refuse_secret(jwk: &Map<String, Value>) -> Result<(), BadKeySet> {
    let is_secret = member(jwk, "kty") == Some("oct") || SECRET.iter().any(|name| jwk.contains_key(*name));
    if is_secret { Err(BadKeySet::Secret) } else { Ok(()) }
}

fn refuse_short(parameters: &AlgorithmParameters) -> Result<(), BadKeySet> {
    match parameters {
        AlgorithmParameters::RSA(rsa) if bits(&rsa.n).is_some_and(|bits| bits < LEAST_RSA_BITS) => {
            Err(BadKeySet::ShortRsa)
        }
        _ => Ok(()),
    }
}

fn member<'j>(jwk: &'j Map<String, Value>, name: &str) -> Option<&'j str> {
    jwk.get(name).and_then(Value::as_str)
}

/// The key's one algorithm (RFC 8725 section 3.1) and its parameters, where it is for signatures that we check.
fn usable(jwk: &Map<String, Value>) -> Option<(Algorithm, AlgorithmParameters)> {
    let is_for_signatures =
        jwk.get("use").is_none_or(|purpose| FOR_SIGNATURES.iter().any(|own| purpose == own));
    let operations = jwk.get("key_ops").map(|all| all.as_array().map(Vec::as_slice).unwrap_or_default());
    let may_verify = operations.is_none_or(|all| all.iter().any(|operation| operation == "verify"));
    if !is_for_signatures || !may_verify {
        return None;
    }
    let by_type: &[Algorithm] = match (member(jwk, "kty")?, member(jwk, "crv")) {
        ("EC", Some("P-256")) => &[Algorithm::Es256],
        ("EC", Some("P-384")) => &[Algorithm::Es384],
        ("OKP", Some("Ed25519")) => &[Algorithm::EdDsa],
        ("RSA", _) => &[Algorithm::Rs256, Algorithm::Ps256],
        _ => return None,
    };
    let algorithm = match jwk.get("alg") {
        None => *by_type.first()?,
        Some(told) => *by_type.iter().find(|algorithm| told == algorithm.as_str())?,
    };
    // Without what is of no use here and might not be read.
    let bare = ["kty", "crv", "x", "y", "n", "e"].iter();
    let bare: Map<_, _> =
        bare.filter_map(|name| Some(((*name).to_owned(), jwk.get(*name)?.clone()))).collect();
    Some((algorithm, serde_json::from_value(Value::Object(bare)).ok()?))
}

/// How long a number is, written as base64url of its big-endian bytes.
fn bits(number: &str) -> Option<usize> {
    let bytes = URL_SAFE_NO_PAD.decode(number).ok()?;
    let first = bytes.iter().position(|byte| *byte != 0)?;
    Some((bytes.len() - first) * 8 - bytes[first].leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EC: &str = r#""kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;

    fn read(keys: &str) -> Result<Vec<(String, Algorithm)>, BadKeySet> {
        let set = format!(r#"{{"keys":[{keys}]}}"#);
        let keys = PublicKey::from_foreign_jwks(set.as_bytes(), &Algorithm::ALL)?;
        Ok(keys.iter().map(|key| (key.kid().to_owned(), key.algorithm())).collect())
    }

    #[test]
    fn a_key_keeps_its_id_and_has_one_algorithm() {
        assert_eq!(read(&format!(r#"{{{EC},"kid":"a"}}"#)), Ok(vec![("a".to_owned(), Algorithm::Es256)]));
        let svid = format!(r#"{{{EC},"use":"x509-svid","x5c":["?"]}},{{{EC},"use":"jwt-svid","kid":"a"}}"#);
        assert_eq!(read(&svid), Ok(vec![("a".to_owned(), Algorithm::Es256)]));
        let rsa = |more: &str| format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"{more}}}"#, "x".repeat(341) + "w");
        assert_eq!(read(&rsa("")), Ok(vec![(String::new(), Algorithm::Rs256)]));
        assert_eq!(read(&rsa(r#","alg":"PS256""#)), Ok(vec![(String::new(), Algorithm::Ps256)]));
    }

    #[test]
    fn what_is_of_no_use_is_passed_over() {
        for more in [
            r#","use":"enc""#,
            r#","alg":"ES384""#,
            r#","alg":"ECDH-ES""#,
            r#","alg":"HS256""#,
            r#","key_ops":["encrypt"]"#,
        ] {
            assert_eq!(read(&format!("{{{EC}{more}}}")), Err(BadKeySet::NoKey), "{more}");
            let beside = format!(r#"{{{EC}{more}}},{{{EC},"kid":"a","use":"sig","x5c":["?"]}}"#);
            assert_eq!(read(&beside), Ok(vec![("a".to_owned(), Algorithm::Es256)]), "{more}");
        }
        assert_eq!(read(r#"{"kty":"EC","crv":"P-256"}"#), Err(BadKeySet::NoKey));
        assert_eq!(read(r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#), Err(BadKeySet::NoKey));
        assert_eq!(read(""), Err(BadKeySet::NoKey));
    }

    #[test]
    fn secrets_and_short_keys_are_refused_wherever_they_stand() {
        for secret in [format!(r#"{{{EC},"d":"AAAA"}}"#), r#"{"kty":"oct","k":"AAAA"}"#.to_owned()] {
            assert_eq!(read(&format!("{{{EC}}},{secret}")), Err(BadKeySet::Secret));
        }
        let short = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, "x".repeat(170) + "w");
        assert_eq!(read(&format!("{{{EC}}},{short}")), Err(BadKeySet::ShortRsa));
        for json in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":["a"]}"#] {
            assert_eq!(
                PublicKey::from_foreign_jwks(json.as_bytes(), &Algorithm::ALL).err(),
                Some(BadKeySet::Json)
            );
        }
    }
}
