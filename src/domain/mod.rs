//! What tenants, users, sessions, tokens and their claims are: values and the transitions between them.
//!
//! Must not enter: tonic, diesel, tokio, a clock, a source of randomness. Instants and random bytes are
//! arguments.

pub mod algorithm;
#[cfg(feature = "server")]
pub mod audience;
#[cfg(feature = "server")]
pub mod audit;
#[cfg(feature = "server")]
pub mod certificate;
#[cfg(feature = "server")]
pub mod certificate_header;
pub mod claims;
#[cfg(feature = "server")]
pub mod device;
#[cfg(feature = "encryption")]
pub mod encryption;
#[cfg(feature = "server")]
pub mod issuer_key;
#[cfg(feature = "server")]
pub mod network;
#[cfg(feature = "server")]
pub mod password;
#[cfg(feature = "server")]
pub mod proxy;
#[cfg(feature = "server")]
pub mod refresh_token;
#[cfg(feature = "server")]
pub mod room;
#[cfg(feature = "server")]
pub mod service_account;
#[cfg(feature = "server")]
pub mod session;
#[cfg(feature = "server")]
pub mod session_rules;
#[cfg(feature = "server")]
pub mod tenant;
#[cfg(feature = "server")]
pub mod text;
pub mod trust;
#[cfg(feature = "server")]
pub mod trusted_issuer;
#[cfg(feature = "server")]
pub mod user;

/// What is wrong with one field of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InvalidField {
    /// The field, as the contract names it.
    pub field: &'static str,
    /// What is wrong with it, for the caller to read. Never repeats a secret value.
    pub problem: String,
}

impl InvalidField {
    /// Names the field and what is wrong with it.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }
}

/// Stored values that contradict each other; names the table and column, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}, column {column}: the stored value makes no sense")]
pub struct Inconsistent {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
}
