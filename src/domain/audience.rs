//! Audiences: services that tokens are for and that want them made in a way of their own.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{InvalidField, claims::OWN_AUDIENCE, service_account::Grant, text};

/// The most audiences that can be registered: every server holds them all in memory.
pub const MOST: usize = 1000;
/// The longest time that a new secret can wait before it signs.
pub const LONGEST_WAIT: TimeDelta = TimeDelta::days(30);

/// A service that tokens are for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audience {
    /// Its id.
    pub id: Uuid,
    /// What stands in the claim `aud`, one of a kind.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// How tokens for it alone are signed.
    pub signing: Signing,
    /// The public key that tokens for it alone are encrypted to, a JWK.
    pub encryption_jwk: Option<String>,
    /// The scopes that it has; none where it has not said.
    pub scopes: Vec<String>,
    /// How tokens for it may be got.
    pub ways: Ways,
    /// How long a token for it lives at most, where that is less than elsewhere.
    pub token_ttl: Option<TimeDelta>,
    /// When it was registered.
    pub create_time: DateTime<Utc>,
    /// When it was changed.
    pub update_time: DateTime<Utc>,
}

/// How the tokens for an audience are signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signing {
    /// As all tokens are.
    #[default]
    PublicKey,
    /// With a secret that Tessera and the audience share.
    Hs256,
}

impl Signing {
    /// The word in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PublicKey => "PUBLIC_KEY",
            Self::Hs256 => "HS256",
        }
    }
}

/// A way to get tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A person signs in, and goes on.
    Login,
    /// A service account gets one.
    Service(Grant),
}

impl Way {
    /// The word in the contract and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Service(grant) => grant.as_str(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        if word == Self::Login.as_str() { Some(Self::Login) } else { Grant::of_word(word).map(Self::Service) }
    }
}

/// The ways in which tokens for an audience may be got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ways {
    /// Each.
    #[default]
    All,
    /// These. None may be left, where all are of a newer release.
    Only(Vec<Way>),
}

impl Ways {
    /// Reads what an admin gives, without repetition; none means all.
    pub fn parse(field: &'static str, words: &[String]) -> Result<Self, InvalidField> {
        let mut ways = Vec::new();
        for word in words {
            let way = Way::of_word(word).ok_or_else(|| {
                let problem =
                    "an item is none of `login`, `client_credentials`, `token_exchange`, `impersonation`";
                InvalidField::new(field, problem)
            })?;
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        Ok(if ways.is_empty() { Self::All } else { Self::Only(ways) })
    }

    /// Reads what is stored. A word that this release does not know allows nothing here.
    pub fn of_text(text: &str) -> Self {
        let mut words = text.split_ascii_whitespace().peekable();
        match words.peek() {
            None => Self::All,
            Some(_) => Self::Only(words.filter_map(Way::of_word).collect()),
        }
    }

    /// The words; none for all.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        let ways: &[Way] = match self {
            Self::All => &[],
            Self::Only(ways) => ways,
        };
        ways.iter().map(|way| way.as_str())
    }

    /// Whether this is one of them.
    pub fn allow(&self, way: Way) -> bool {
        match self {
            Self::All => true,
            Self::Only(ways) => ways.contains(&way),
        }
    }
}

/// A secret of an audience, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its id.
    pub kid: String,
    /// When it was made, from which on what it signs is accepted.
    pub create_time: DateTime<Utc>,
    /// When it begins to sign. No two of an audience begin at once.
    pub activate_time: DateTime<Utc>,
}

/// What can't be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotNow {
    /// One secret is being exchanged for another.
    #[error("the audience's secret is being exchanged already; the next exchange can begin at {0}")]
    Exchanging(DateTime<Utc>),
    /// No more are held in memory.
    #[error("there are {MOST} audiences, and no more can be registered")]
    Full,
}

/// Checks the name of a new audience. Tessera's own API is none that anybody else can register.
pub fn parse_name(field: &'static str, name: &str) -> Result<String, InvalidField> {
    if name == OWN_AUDIENCE {
        return Err(InvalidField::new(field, format!("`{OWN_AUDIENCE}` is Tessera's own")));
    }
    text::audience(field, &[name.to_owned()])?;
    Ok(name.to_owned())
}

/// The secret that signs now: of those whose time has come, the newest. The first one signs even where this
/// server's clock is a little behind of the one that made it.
pub fn signing(secrets: &[Secret], now: DateTime<Utc>) -> Option<&Secret> {
    let begun = secrets.iter().filter(|secret| secret.activate_time <= now);
    let first = || secrets.iter().min_by_key(|secret| secret.activate_time);
    begun.max_by_key(|secret| secret.activate_time).or_else(first)
}

/// When a secret is no longer accepted, where another one takes its place. `longest_life` is how long anything lives
/// that it signed.
pub fn expire_time(secret: &Secret, secrets: &[Secret], longest_life: TimeDelta) -> Option<DateTime<Utc>> {
    let successors =
        secrets.iter().map(|other| other.activate_time).filter(|time| *time > secret.activate_time);
    successors.min().map(|begins| begins + longest_life)
}

/// Whether what a secret signs is accepted.
pub fn is_alive(secret: &Secret, secrets: &[Secret], longest_life: TimeDelta, now: DateTime<Utc>) -> bool {
    expire_time(secret, secrets, longest_life).is_none_or(|time| now < time)
}

/// When a new secret beside these living ones begins to sign, asked to do so after `wait`.
pub fn next_activate_time(
    alive: &[Secret],
    wait: TimeDelta,
    longest_life: TimeDelta,
    now: DateTime<Utc>,
) -> Result<DateTime<Utc>, NotNow> {
    if alive.len() > 1 {
        let ends = alive.iter().filter_map(|secret| expire_time(secret, alive, longest_life)).min();
        return Err(NotNow::Exchanging(ends.unwrap_or(now)));
    }
    let after_the_other = alive.iter().map(|secret| secret.activate_time + TimeDelta::microseconds(1)).max();
    Ok((now + wait).max(after_the_other.unwrap_or(now)))
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    const LIFE: TimeDelta = TimeDelta::hours(1);

    fn at(minutes: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::minutes(minutes)
    }

    fn secret(kid: &str, create: i64, activate: i64) -> Secret {
        Secret { kid: kid.to_owned(), create_time: at(create), activate_time: at(activate) }
    }

    #[test]
    fn one_secret_signs_at_a_time_and_the_old_one_outlives_what_it_signed() {
        let (old, new) = (secret("old", 0, 0), secret("new", 100, 110));
        let both = [new.clone(), old.clone()];
        let signs = |minutes| signing(&both, at(minutes)).map(|secret| secret.kid.as_str());
        assert_eq!(
            (signs(-1), signs(0), signs(109), signs(110)),
            (Some("old"), Some("old"), Some("old"), Some("new"))
        );
        assert_eq!(expire_time(&old, &both, LIFE), Some(at(170)));
        assert_eq!(expire_time(&new, &both, LIFE), None);
        assert!(is_alive(&old, &both, LIFE, at(169)) && !is_alive(&old, &both, LIFE, at(170)));
        assert!(is_alive(&new, &both, LIFE, at(100_000)));
        assert_eq!(signing(&[], at(0)), None);
    }

    #[test]
    fn no_third_secret_is_made_while_two_are_alive() {
        let (old, new) = (secret("old", 0, 0), secret("new", 100, 110));
        let wait = TimeDelta::minutes(10);
        let next = |alive: &[Secret], wait, minutes| next_activate_time(alive, wait, LIFE, at(minutes));
        assert_eq!(next(from_ref(&old), wait, 100), Ok(at(110)));
        assert_eq!(next(&[old.clone(), new.clone()], wait, 120), Err(NotNow::Exchanging(at(170))));
        assert_eq!(next(from_ref(&new), TimeDelta::zero(), 170), Ok(at(170)));
        let at_once = next(from_ref(&old), TimeDelta::zero(), 0);
        assert_eq!(
            at_once,
            Ok(at(0) + TimeDelta::microseconds(1)),
            "later than the one before, by any clock"
        );
    }

    #[test]
    fn no_word_allows_all_and_an_unknown_one_nothing() {
        let all = Ways::of_text("");
        assert!(all == Ways::All && all.allow(Way::Login) && all.words().next().is_none());
        let some = Ways::of_text("login token_exchange");
        assert!(some.allow(Way::Login) && some.allow(Way::Service(Grant::TokenExchange)));
        assert!(!some.allow(Way::Service(Grant::Impersonation)));
        assert_eq!(some.words().collect::<Vec<_>>(), ["login", "token_exchange"]);
        assert!(!Ways::of_text("device_code").allow(Way::Login), "of a newer release");
        let parse =
            |words: &[&str]| Ways::parse("g", &words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>());
        assert_eq!(parse(&[]), Ok(Ways::All));
        assert_eq!(parse(&["login", "login"]), Ok(Ways::Only(vec![Way::Login])));
        assert!(parse(&["login", "password"]).is_err());
    }

    #[test]
    fn a_name_is_one_audience_and_not_our_own() {
        let parse = |name: &str| parse_name("name", name).is_ok();
        assert!(parse("orders") && parse("https://orders.example/api") && parse("Tessera"));
        assert!(!parse("") && !parse("tessera") && !parse("two words") && !parse(&"a".repeat(257)));
    }
}
