//! Why a call is not let in.

use std::time::Duration;

use crate::verifier::{NotTaken, Refusal};

/// Why a token, or a call, is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The call carries no token. Said by the guard alone.
    #[error("no token")]
    Missing,
    /// The token is not good.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The proof of the key carries no nonce, or one that is not good any more. Said by the guard alone.
    #[error("the proof of the key needs a nonce")]
    UseNonce {
        /// The one that it is to carry.
        nonce: String,
    },
    /// The token is good and not enough: what it lacks. Said by the guard alone.
    #[error("the token lacks a scope or a role")]
    Insufficient {
        /// The scopes that the method requires, separated by spaces.
        scope: String,
    },
    /// Too many unknown keys were asked for, or too many proofs of keys came at once; the token may be good. Worth another
    /// try.
    #[error("too many tokens with unknown keys, or too many proofs of keys")]
    Busy,
    /// Contact with the issuer was lost for too long, since so long; `None` if there never was any. Worth another try.
    #[error("the issuer has not been heard of for too long")]
    Stale(Option<Duration>),
    /// The issuer had to be asked and gave no answer. Worth another try.
    #[error("the issuer can't be asked")]
    Unreachable,
}

impl From<NotTaken> for Denial {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Again => Refusal::BadProof("it was used before").into(),
            NotTaken::Full => Self::Busy,
        }
    }
}

impl Denial {
    /// A word that programs read.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "TOKEN_MISSING",
            Self::Refused(Refusal::Malformed) => "TOKEN_MALFORMED",
            Self::Refused(Refusal::Invalid(_) | Refusal::UnknownKey | Refusal::NotHolder) => "TOKEN_INVALID",
            Self::Refused(Refusal::BadProof(_)) => "INVALID_DPOP_PROOF",
            Self::Refused(Refusal::Expired) => "TOKEN_EXPIRED",
            Self::Refused(Refusal::Revoked) => "TOKEN_REVOKED",
            Self::UseNonce { .. } => "USE_DPOP_NONCE",
            Self::Insufficient { .. } => "INSUFFICIENT_SCOPE",
            Self::Busy => "OVERLOADED",
            Self::Stale(_) | Self::Unreachable => "ISSUER_UNAVAILABLE",
        }
    }

    /// Whether the same call may be let in in a moment.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Busy | Self::Stale(_) | Self::Unreachable)
    }
}
