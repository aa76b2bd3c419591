//! Why there is no token.

use tonic::{Code, Status};

use super::reason;

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The issuer refuses to sign in: wrong password, disabled account. Tried again, but rarely.
    #[error("the issuer refuses to sign in: {0}")]
    Refused(String),
    /// The session is over, and nobody is to sign in again. Final.
    #[error("the session is over: {0}")]
    SessionEnded(String),
    /// The issuer is away or overloaded. Tried again.
    #[error("the issuer can't be asked: {0}")]
    Unavailable(Code),
    /// The program is stopping, or the issuer answered with nothing.
    #[error("interrupted")]
    Interrupted,
}

impl TokenError {
    /// Whether it stays so.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::SessionEnded(_))
    }

    pub(super) fn of_login(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition => Self::Refused(reason(status)),
            code => Self::Unavailable(code),
        }
    }

    pub(super) fn of_refresh(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::NotFound => {
                Self::SessionEnded(reason(status))
            }
            code => Self::Unavailable(code),
        }
    }
}

impl From<TokenError> for Status {
    /// What a call ends with that had no token to send.
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::Refused(_) | TokenError::SessionEnded(_) => Code::Unauthenticated,
            TokenError::Unavailable(_) | TokenError::Interrupted => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
