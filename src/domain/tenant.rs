//! Tenants: the spaces that users belong to.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{InvalidField, algorithm::Algorithm, session_rules::TenantSessions, trust::Standing};

/// The tenant that is there from the beginning. Its admins administer every tenant.
pub const DEFAULT_TENANT: &str = "default";

/// A space that users belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id.
    pub id: Uuid,
    /// Its name, one of a kind.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// When it was made.
    pub create_time: DateTime<Utc>,
    /// How its tokens are signed.
    pub signing: TenantSigning,
    /// What its sessions keep to.
    pub sessions: TenantSessions,
    /// Since when it is suspended.
    pub suspend_time: Option<DateTime<Utc>>,
    /// How often it was suspended or resumed.
    pub standing: i64,
}

impl Tenant {
    /// Nothing of it is accepted.
    pub fn is_suspended(&self) -> bool {
        self.suspend_time.is_some()
    }

    /// The same as verifiers hear it.
    pub fn standing(&self) -> Standing {
        Standing { is_suspended: self.is_suspended(), version: self.standing }
    }
}

/// What a tenant has instead of the configured algorithms; `None` follows the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantSigning {
    /// Of the issuer key.
    pub algorithm: Option<Algorithm>,
    /// Of the keys of new sessions.
    pub session_algorithm: Option<Algorithm>,
}

/// Checks the name of a new tenant: a DNS label, so that it can stand in a URL.
pub fn parse_name(field: &'static str, name: &str) -> Result<String, InvalidField> {
    let is_label_char = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(is_label_char)
        && !name.starts_with('-')
        && !name.ends_with('-');
    if fits {
        Ok(name.to_owned())
    } else {
        Err(InvalidField::new(field, "is not 1 to 63 of lower-case letters, digits and inner '-'"))
    }
}

/// The name that an empty one stands for.
pub fn or_default(name: &str) -> &str {
    if name.is_empty() { DEFAULT_TENANT } else { name }
}
