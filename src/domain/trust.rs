//! What the trust log says.

use uuid::Uuid;

/// A revocation: something that was accepted and no longer is, or is again. Taking one in twice, or two in another
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
    /// One token ended.
    Token {
        /// The claim `jti`.
        jti: Uuid,
        /// Whose it must be, by the claim `sub` or `tenant_id`; the nil id stands for anybody. So nobody ends a
        /// token of others by naming its id.
        owner_id: Uuid,
    },
    /// A tenant was suspended or resumed.
    Tenant {
        /// The tenant.
        tenant_id: Uuid,
        /// How it stands.
        standing: Standing,
    },
}

/// Whether what belongs to a tenant is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// It is not.
    pub is_suspended: bool,
    /// Greater with each change: the latest counts.
    pub version: i64,
}

/// An entry of the trust log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrustChange {
    /// Something is no longer accepted.
    Revoked(Revocation),
    /// An issuer key moved along in its life: the keys are to be read anew.
    IssuerKey(String),
}
