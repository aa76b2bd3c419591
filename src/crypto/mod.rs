//! Secret bytes: randomness, password hashing, key generation, signing, sealing, refresh-token tags.
//! The primitives are aws-lc-rs's and argon2's; the `rsa` crate makes RSA keys and never signs; jose-rs encrypts
//! tokens.
//!
//! Must not enter: the database, tonic, configuration files.

mod argon;
pub mod client_secret;
pub mod digest;
pub mod encryption;
pub mod mac;
pub mod making;
pub mod passwords;
pub mod random;
pub mod refresh_tag;
pub mod sealing;
pub mod signing;

/// A cryptographic operation that can only fail when something is badly wrong, as the system's source of
/// randomness or a stored key. Says which operation, never with what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cryptography failed: {0}")]
pub struct CryptoError(pub &'static str);
