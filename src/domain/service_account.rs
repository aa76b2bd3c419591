//! Service accounts: programs that can authenticate, what they may ask tokens for, and what they prove themselves with.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{
    InvalidField,
    certificate::Named,
    claims::{Claims, OWN_AUDIENCE},
    text,
    trusted_issuer::{self, KeySource},
};

/// The most service accounts of a tenant.
pub const MOST: i64 = 10_000;
/// The most credentials of one that are good at once.
pub const MOST_CREDENTIALS: usize = 16;
/// The other name of the grant `token_exchange` (RFC 8693 section 2.1).
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// What a leaked client secret is recognised by.
pub const SECRET_PREFIX: &str = "tcs_";

/// A program that can authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The id; the claims `sub` and `client_id`.
    pub id: Uuid,
    /// The tenant that it belongs to.
    pub tenant_id: Uuid,
    /// The name, one of a kind in its tenant.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// What it may ask for.
    pub allowed: Allowed,
    /// Audiences that it is: what is for them is for it. None where that has not been said: then its name is one.
    pub own_audiences: Vec<String>,
    /// How long its tokens live, where not as the settings say.
    pub token_ttl: Option<TimeDelta>,
    /// Raised when every token issued so far ends; the claim `ver`.
    pub token_version: i64,
    /// When it was barred, if it is.
    pub disable_time: Option<DateTime<Utc>>,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// When it was last changed.
    pub update_time: DateTime<Utc>,
}

impl ServiceAccount {
    /// Whether a token is for it, or was issued to it.
    pub fn owns(&self, token: &Claims) -> bool {
        let is_for_it = match &*self.own_audiences {
            // Nobody else is Tessera's own API.
            [] => self.name != OWN_AUDIENCE && token.is_for(&self.name),
            own => own.iter().any(|own| token.is_for(own)),
        };
        is_for_it || Uuid::try_parse(&token.client_id).is_ok_and(|client_id| client_id == self.id)
    }
}

/// What a service account may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Audiences.
    pub audiences: Vec<String>,
    /// Scopes.
    pub scopes: Vec<String>,
    /// How it may get tokens.
    pub grants: Vec<Grant>,
}

impl Allowed {
    /// Whether these leave out something that those have.
    pub fn is_less_than(&self, former: &Self) -> bool {
        fn lacks<T: PartialEq>(some: &[T], former: &[T]) -> bool {
            former.iter().any(|item| !some.contains(item))
        }
        lacks(&self.audiences, &former.audiences)
            || lacks(&self.scopes, &former.scopes)
            || lacks(&self.grants, &former.grants)
    }

    /// Whether all of this may be asked for in this way.
    pub fn allows(&self, grant: Grant, audiences: &[String], scopes: &[&str]) -> bool {
        self.grants.contains(&grant)
            && audiences.iter().all(|audience| self.audiences.contains(audience))
            && scopes.iter().all(|scope| self.scopes.iter().any(|allowed| allowed == scope))
    }
}

/// How a service account gets tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// For itself (RFC 6749 section 4.4).
    ClientCredentials,
    /// In exchange for another token, acting for its subject (RFC 8693).
    TokenExchange,
    /// The same, with nothing in the token that says who acts.
    Impersonation,
}

impl Grant {
    const ALL: [Self; 3] = [Self::ClientCredentials, Self::TokenExchange, Self::Impersonation];

    /// The word in the contract and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::TokenExchange => "token_exchange",
            Self::Impersonation => "impersonation",
        }
    }

    /// The grant of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|grant| grant.as_str() == word)
    }

    /// Reads grants, without repetition.
    pub fn parse_all(field: &'static str, words: &[String]) -> Result<Vec<Self>, InvalidField> {
        let mut grants = Vec::new();
        for word in words {
            let word = if word == TOKEN_EXCHANGE { Self::TokenExchange.as_str() } else { word };
            let grant = Self::of_word(word).ok_or_else(|| {
                InvalidField::new(
                    field,
                    "an item is none of `client_credentials`, `token_exchange`, `impersonation`",
                )
            })?;
            if !grants.contains(&grant) {
                grants.push(grant);
            }
        }
        Ok(grants)
    }
}

/// What a service account proves itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The id.
    pub id: Uuid,
    /// Whose it is.
    pub service_account_id: Uuid,
    /// What it is.
    pub proof: Proof,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// When it ends by itself.
    pub expire_time: Option<DateTime<Utc>>,
}

impl Credential {
    /// Whether it is accepted.
    pub fn is_good(&self, now: DateTime<Utc>) -> bool {
        self.expire_time.is_none_or(|time| now < time)
    }
}

/// The kinds of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A secret that both sides know, here by its digest.
    ClientSecret([u8; 32]),
    /// A key whose owner signs assertions (RFC 7523): where its public half comes from.
    PrivateKeyJwt(KeySource),
    /// Tokens of a trusted issuer.
    Federated(Federated),
    /// A certificate (RFC 8705).
    Mtls(Named),
}

/// Which tokens of a trusted issuer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Federated {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
    /// Further claims and their values.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
}

impl Federated {
    /// The most claims.
    const MOST: usize = 16;
    /// The longest text of one, in bytes.
    const LONGEST: usize = 1024;

    /// Reads what an admin gives.
    pub fn parse(
        field: &'static str,
        issuer: &str,
        subject: &str,
        claims: BTreeMap<String, String>,
    ) -> Result<Self, InvalidField> {
        let refuse = |problem: &str| Err(InvalidField::new(field, problem));
        if !trusted_issuer::is_issuer(issuer) || issuer.len() > Self::LONGEST {
            return refuse("has an `issuer` that is none");
        }
        let is_text =
            |text: &str| (1..=Self::LONGEST).contains(&text.len()) && !text.chars().any(char::is_control);
        if !is_text(subject) {
            return refuse("has a `subject` that is empty, too long or no text");
        }
        if claims.len() > Self::MOST || !claims.iter().all(|(name, value)| is_text(name) && is_text(value)) {
            return refuse("has more than 16 `claims`, or one that is empty, too long or no text");
        }
        Ok(Self { issuer: issuer.to_owned(), subject: subject.to_owned(), claims })
    }

    /// Whether a token with these claims, which its issuer has signed, is one of these.
    pub fn takes(&self, claims: &Map<String, Value>) -> bool {
        let is = |name: &str, wanted: &str| match trusted_issuer::find(claims, name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Bool(value)) => wanted.parse() == Ok(*value),
            Some(Value::Number(value)) => value.to_string() == wanted,
            _ => false,
        };
        // By their very names: a path would let a nested claim stand for them.
        let is_of = |name: &str, wanted: &str| claims.get(name).and_then(Value::as_str) == Some(wanted);
        is_of("iss", &self.issuer)
            && is_of("sub", &self.subject)
            && self.claims.iter().all(|(name, value)| is(name, value))
    }
}

/// Reads audiences that an account is. Nobody else is Tessera's own API.
pub fn parse_own_audiences(field: &'static str, names: &[String]) -> Result<Vec<String>, InvalidField> {
    let names = text::audiences(field, names)?;
    if names.iter().any(|name| name == OWN_AUDIENCE) {
        return Err(InvalidField::new(field, format!("`{OWN_AUDIENCE}` is Tessera's own")));
    }
    Ok(names)
}

/// Checks the name of a new service account.
pub fn parse_name(field: &'static str, name: &str) -> Result<String, InvalidField> {
    let is_name_char =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_name_char) {
        Ok(name.to_owned())
    } else {
        Err(InvalidField::new(field, "is not 1 to 64 of lower-case letters, digits, '-', '_' and '.'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn nothing_is_allowed_that_was_not_named() {
        let allowed = Allowed {
            audiences: words(&["orders", "ledger"]),
            scopes: words(&["read"]),
            grants: vec![Grant::ClientCredentials],
        };
        let asks = |audiences: &[&str], scopes: &[&str]| {
            allowed.allows(Grant::ClientCredentials, &words(audiences), scopes)
        };
        assert!(asks(&["orders"], &[]) && asks(&["ledger", "orders"], &["read"]));
        assert!(!asks(&["orders", "payments"], &[]) && !asks(&["order"], &[]) && !asks(&["Orders"], &[]));
        assert!(!asks(&["orders"], &["read", "write"]) && !asks(&["orders"], &["rea"]));
        assert!(!allowed.allows(Grant::TokenExchange, &words(&["orders"]), &[]));
    }

    #[test]
    fn only_what_is_taken_away_makes_less() {
        let former = Allowed {
            audiences: words(&["a", "b"]),
            scopes: words(&["s"]),
            grants: vec![Grant::ClientCredentials],
        };
        assert!(!former.is_less_than(&former));
        let more = Allowed { audiences: words(&["b", "c", "a"]), ..former.clone() };
        assert!(!more.is_less_than(&former) && former.is_less_than(&more));
        assert!(Allowed { scopes: Vec::new(), ..former.clone() }.is_less_than(&former));
        assert!(Allowed { grants: vec![Grant::TokenExchange], ..former.clone() }.is_less_than(&former));
    }

    #[test]
    fn a_workload_is_who_its_issuer_says_in_every_claim() -> Result<(), Box<dyn std::error::Error>> {
        let wanted = [("kubernetes.io.namespace", "shop"), ("environment", "prod"), ("attested", "true")];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let federated =
            Federated::parse("f", "https://k.example", "system:serviceaccount:shop:orders", wanted)?;
        let good = serde_json::json!({
            "iss": "https://k.example",
            "sub": "system:serviceaccount:shop:orders",
            "kubernetes.io": {"namespace": "shop"},
            "environment": "prod",
            "attested": true,
        });
        let takes = |claims: &Value| claims.as_object().is_some_and(|claims| federated.takes(claims));
        assert!(takes(&good));
        for (name, value) in [
            ("iss", "https://k.example/".into()),
            ("sub", "system:serviceaccount:shop:orders2".into()),
            ("environment", serde_json::json!(["prod"])),
            ("environment", Value::Null),
            ("attested", serde_json::json!(1)),
            ("kubernetes.io", serde_json::json!({"namespace": "bank"})),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(!takes(&bad), "{name}");
        }
        let parse =
            |issuer: &str, subject: &str| Federated::parse("f", issuer, subject, BTreeMap::new()).is_ok();
        assert!(
            !parse("k.example", "s")
                && !parse("https://k.example", "")
                && !parse("https://k.example", "a\nb")
        );
        Ok(())
    }

    #[test]
    fn names_and_grants_are_words_of_the_contract() {
        assert!(parse_name("n", "orders-2.eu_west").is_ok());
        for name in ["", "Orders", "a b", "a/b", &"a".repeat(65)] {
            assert!(parse_name("n", name).is_err(), "{name}");
        }
        let read = Grant::parse_all("g", &words(&["token_exchange", TOKEN_EXCHANGE, "client_credentials"]));
        assert_eq!(read, Ok(vec![Grant::TokenExchange, Grant::ClientCredentials]));
        assert!(Grant::parse_all("g", &words(&["password"])).is_err());
    }
}
