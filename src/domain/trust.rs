//! What the trust log says.

use uuid::Uuid;

/// A revocation: something that was accepted and no longer is. Taking one in twice, or two in another
/// order, leads to the same state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// A session ended, and each of its tokens with it.
    Session(Uuid),
    /// Every token of the user with a lower token version ended.
    UserVersion {
        /// The user.
        user_id: Uuid,
        /// The lowest version that is still accepted.
        version: i64,
    },
}

/// An entry of the trust log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustChange {
    /// Something is no longer accepted.
    Revoked(Revocation),
    /// An issuer key moved along in its life: the keys are to be read anew.
    IssuerKey(String),
}
