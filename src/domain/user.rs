//! Users: the people who can sign in.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{InvalidField, claims::Profile, text};

/// A person who can sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The id; the claim `sub`.
    pub id: Uuid,
    /// The tenant that it belongs to.
    pub tenant_id: Uuid,
    /// The name to sign in with, in its one form.
    pub username: String,
    /// The e-mail address.
    pub email: Option<String>,
    /// The name to show.
    pub display_name: String,
    /// The roles.
    pub roles: Vec<String>,
    /// When it was barred from signing in, if it is.
    pub disable_time: Option<DateTime<Utc>>,
    /// The password must be changed before anything else.
    pub password_change_required: bool,
    /// Raised when every token issued so far ends; the claim `ver`.
    pub token_version: i64,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// When it was last changed.
    pub update_time: DateTime<Utc>,
}

impl User {
    /// What the tokens of a session say that asked for these audiences and scopes.
    pub fn profile(&self, aud: Vec<String>, scope: String) -> Profile {
        let asked = |name| scope.split(' ').any(|scope| scope == name);
        Profile {
            email: self.email.clone().filter(|_| asked("email")),
            preferred_username: Some(self.username.clone()).filter(|_| asked("profile")),
            aud,
            scope,
            roles: self.roles.clone(),
            ver: self.token_version,
            amr: vec!["pwd".to_owned()],
            password_change_required: self.password_change_required,
        }
    }
}

/// Checks a user name and brings it into the one form that is stored and compared: Unicode's compatibility
/// form (NFKC) in lower case.
pub fn parse_username(field: &'static str, text: &str) -> Result<String, InvalidField> {
    let name = text::one_form(&text::one_form(text).to_lowercase());
    let length = name.chars().count();
    if !(1..=128).contains(&length) {
        return Err(InvalidField::new(field, "is not 1 to 128 characters long"));
    }
    if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(InvalidField::new(field, "has a space or a control character"));
    }
    Ok(name)
}
