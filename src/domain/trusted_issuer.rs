//! Other issuers whose tokens are believed.

use std::{collections::BTreeMap, net::IpAddr};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{InvalidField, algorithm::Algorithm, text};

/// How many there can be.
pub const MOST: i64 = 100;
/// The longest set of keys that is registered as a text, in bytes.
const LONGEST_JWKS: usize = 64 * 1024;
/// The longest URL.
const LONGEST_URL: usize = 1024;
/// The name of the claim that says who a token is about.
const SUBJECT: &str = "sub";
/// What a foreign claim can become.
const OWN_NAMES: [&str; 6] = [SUBJECT, "email", "preferred_username", "roles", "tenant", "scope"];

/// An issuer whose tokens are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedIssuer {
    /// Its id.
    pub id: Uuid,
    /// The claim `iss` of its tokens, one of a kind.
    pub issuer: String,
    /// The name to show.
    pub display_name: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Audiences of which a token must carry one.
    pub audiences: Vec<String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// What its claims are called here.
    pub claim_mapping: ClaimMapping,
    /// When it was registered.
    pub create_time: DateTime<Utc>,
    /// When it was changed last.
    pub update_time: DateTime<Utc>,
}

/// Where an issuer's keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A JWK set that was registered.
    Json(String),
    /// The address of a JWK set.
    Url(String),
}

impl KeySource {
    /// A JWK set as it was given; whether it has a key of use is for the verifier to say.
    pub fn json(field: &'static str, json: &str) -> Result<Self, InvalidField> {
        if json.len() > LONGEST_JWKS {
            return Err(InvalidField::new(field, "is longer than 64 KiB"));
        }
        Ok(Self::Json(json.to_owned()))
    }

    /// The address of a JWK set: https, or http where nobody is on the way.
    pub fn url(field: &'static str, text: &str) -> Result<Self, InvalidField> {
        let refuse = |problem: &str| Err(InvalidField::new(field, problem));
        let Some(url) = text.parse::<http::Uri>().ok().filter(|_| text.len() <= LONGEST_URL) else {
            return refuse("is not a URL of at most 1024 characters");
        };
        let host = url.host().unwrap_or_default();
        if host.is_empty()
            || text.contains('#')
            || url.authority().is_some_and(|it| it.as_str().contains('@'))
        {
            return refuse("has no host, or a user or a fragment");
        }
        match url.scheme_str() {
            Some("https") => Ok(Self::Url(text.to_owned())),
            Some("http") if is_loopback(host) => Ok(Self::Url(text.to_owned())),
            _ => refuse("is not an https URL; http is for loopback addresses alone"),
        }
    }
}

/// An address, since a name could lead anywhere.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback())
}

/// Whether this can be an issuer: a URL, or a SPIFFE trust domain, whose tokens need not say `iss`.
pub fn is_issuer(text: &str) -> bool {
    let is_domain_char =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    let domain = text.strip_prefix("spiffe://");
    domain.is_some_and(|domain| !domain.is_empty() && domain.bytes().all(is_domain_char))
        || text::is_issuer(text)
}

/// Checks an issuer's URL.
pub fn parse_issuer(field: &'static str, issuer: &str) -> Result<String, InvalidField> {
    if issuer.len() <= LONGEST_URL && is_issuer(issuer) {
        Ok(issuer.to_owned())
    } else {
        let problem = "is neither an http or https URL without a query and a fragment nor a trust domain as \
                       `spiffe://shop.example`, of at most 1024 characters";
        Err(InvalidField::new(field, problem))
    }
}

/// Checks which audiences are accepted.
pub fn parse_audiences(field: &'static str, audiences: &[String]) -> Result<Vec<String>, InvalidField> {
    let audiences = text::audience(field, audiences)?;
    if audiences.is_empty() { Err(InvalidField::new(field, "is empty")) } else { Ok(audiences) }
}

/// Checks which algorithms are accepted: none named means all.
pub fn parse_algorithms(field: &'static str, names: &[String]) -> Result<Vec<Algorithm>, InvalidField> {
    let mut algorithms = Vec::new();
    for name in names {
        let algorithm = name.parse();
        let algorithm =
            algorithm.map_err(|error| InvalidField::new(field, format!("has one that is {error}")))?;
        if !algorithms.contains(&algorithm) {
            algorithms.push(algorithm);
        }
    }
    Ok(if algorithms.is_empty() { Algorithm::ALL.to_vec() } else { algorithms })
}

/// What foreign claims are called here: our name, then the claim's name or the dotted path to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMapping(BTreeMap<String, String>);

impl ClaimMapping {
    /// Checks both sides. Who a token is about is always mapped, from `sub` unless something else is named.
    pub fn parse<'t>(
        field: &'static str,
        pairs: impl IntoIterator<Item = (&'t String, &'t String)>,
    ) -> Result<Self, InvalidField> {
        let mut mapping = BTreeMap::from([(SUBJECT.to_owned(), SUBJECT.to_owned())]);
        for (own, foreign) in pairs {
            if !OWN_NAMES.contains(&own.as_str()) {
                let names = OWN_NAMES.join(", ");
                return Err(InvalidField::new(field, format!("maps to a name that is not one of {names}")));
            }
            let foreign = text::shown(field, foreign, 256)?;
            if foreign.is_empty() {
                return Err(InvalidField::new(field, "maps from a claim without a name"));
            }
            mapping.insert(own.clone(), foreign);
        }
        Ok(Self(mapping))
    }

    /// Our names and the foreign ones.
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    /// What claims say under our names: texts, and lists of words joined by spaces. Others are left out.
    pub fn apply(&self, claims: &Map<String, Value>) -> BTreeMap<String, String> {
        let values = self.0.iter().filter_map(|(own, foreign)| {
            let value = match find(claims, foreign)? {
                Value::String(text) => text.clone(),
                Value::Array(items) if own != SUBJECT => words(items)?,
                _ => return None,
            };
            (!value.is_empty()).then(|| (own.clone(), value))
        });
        values.collect()
    }

    /// Who the token is about, of what was mapped.
    pub fn subject(mapped: &BTreeMap<String, String>) -> Option<&str> {
        mapped.get(SUBJECT).map(String::as_str)
    }
}

/// A claim of this very name, which may have dots, or else the one that the path leads to; so may each name on the way.
pub(super) fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    let below = || {
        name.match_indices('.')
            .find_map(|(dot, _)| find(claims.get(&name[..dot])?.as_object()?, &name[dot + 1..]))
    };
    claims.get(name).or_else(below)
}

/// A list of texts as one. An item with a space in it would become two, so it is left out.
fn words(items: &[Value]) -> Option<String> {
    let items: Vec<&str> = items.iter().map(Value::as_str).collect::<Option<_>>()?;
    let whole = items.into_iter().filter(|item| !item.is_empty() && !item.contains(char::is_whitespace));
    Some(whole.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_come_over_https_or_from_this_machine() {
        for url in
            ["https://a.example/jwks?x=1", "http://127.0.0.1:80/", "http://[::1]:1/k", "https://10.0.0.1"]
        {
            assert_eq!(KeySource::url("u", url), Ok(KeySource::Url(url.to_owned())));
        }
        for url in [
            "",
            "a",
            "/a",
            "ftp://a.example/",
            "http://a.example/",
            "http://localhost/",
            "http://127.0.0.1.example/",
            "https://user@a.example/",
            "http://127.0.0.1@a.example/",
            "https://a.example/#f",
            "file:///etc/passwd",
        ] {
            assert!(KeySource::url("u", url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_issuer_is_a_url_without_query_and_fragment() {
        for issuer in ["https://a.example", "http://a.example/b/", "https://a.example:8443/realms/x"] {
            assert_eq!(parse_issuer("i", issuer), Ok(issuer.to_owned()));
        }
        for issuer in ["", "a.example", "https://a.example?b", "https://a.example#b", "ftp://a.example"] {
            assert!(parse_issuer("i", issuer).is_err(), "{issuer}");
        }
    }

    #[test]
    fn claims_are_mapped_by_name_and_by_path() -> Result<(), Box<dyn std::error::Error>> {
        let pairs = [
            ("sub", "oid"),
            ("roles", "realm_access.roles"),
            ("email", "https://a.example/email"),
            ("scope", "scp"),
            ("tenant", "tid.x"),
            ("preferred_username", "n"),
        ];
        let pairs: BTreeMap<_, _> = pairs.map(|(own, foreign)| (own.to_owned(), foreign.to_owned())).into();
        let mapping = ClaimMapping::parse("m", &pairs)?;
        let claims = json!({
            "oid": "o-1",
            "sub": "s",
            "realm_access": {"roles": ["a", "b", "c admin"]},
            "https://a.example/email": "a@b.example",
            "scp": ["x", 1],
            "tid": "no object",
            "n": 5,
        });
        let mapped = mapping.apply(claims.as_object().ok_or("no object")?);
        let wanted = [("sub", "o-1"), ("roles", "a b"), ("email", "a@b.example")];
        assert_eq!(mapped, wanted.map(|(own, value)| (own.to_owned(), value.to_owned())).into());
        assert_eq!(ClaimMapping::subject(&mapped), Some("o-1"));
        let several = json!({"oid": ["a", "b"]});
        assert!(mapping.apply(several.as_object().ok_or("no object")?).is_empty(), "nobody is two");
        for (own, foreign) in [("aud", "x"), ("sub", ""), ("sub", "a\nb")] {
            let pairs = BTreeMap::from([(own.to_owned(), foreign.to_owned())]);
            assert!(ClaimMapping::parse("m", &pairs).is_err(), "{own}");
        }
        Ok(())
    }
}
