//! Why there is no token.

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The `domain` of Tessera's `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tessera";

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The issuer refuses: wrong password, disabled account, suspended tenant. Tried again, but rarely.
    #[error("the issuer refuses: {0}")]
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

    /// What came of a login.
    pub(super) fn of_login(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition => Self::Refused(reason(status).unwrap_or_default()),
            code => Self::Unavailable(code),
        }
    }

    /// What came of a refresh. A session is over where Tessera says so of its token; everything else may pass, also what
    /// somebody says who stands between, and the session is still there then.
    pub(super) fn of_refresh(status: &Status) -> Self {
        match reason(status) {
            Some(reason) if reason.starts_with("TOKEN_") || reason == "REAUTHENTICATION_REQUIRED" => {
                Self::SessionEnded(reason)
            }
            _ => Self::of_login(status),
        }
    }
}

/// The reason that Tessera gives in a status.
pub(super) fn reason(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    details.error_info().filter(|info| info.domain == DOMAIN).map(|info| info.reason.clone())
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
