//! Why a service has no token.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::verifier::signed_in::{DOMAIN, reason};

/// Why a service has no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The issuer refuses, with this reason of its error table: `INVALID_CREDENTIALS`, `INSUFFICIENT_SCOPE`,
    /// `ACCOUNT_DISABLED`. It stays so until somebody changes something.
    #[error("the issuer refuses: {0}")]
    Refused(String),
    /// The token of the one to act for is not good (any more), with this reason: `TOKEN_EXPIRED`, `TOKEN_REVOKED`.
    #[error("the token of whom to act for is refused: {0}")]
    SubjectRefused(String),
    /// What the service proves itself with can't be used. Its file is read again with the next attempt.
    #[error("can't use the credential: {0}")]
    Credential(String),
    /// The issuer is away or overloaded. Passes.
    #[error("the issuer can't be asked: {0}")]
    Unavailable(Code),
    /// The program is stopping, or the issuer answered with nothing.
    #[error("interrupted")]
    Interrupted,
}

impl IdentityError {
    /// Whether it may go by itself, so that it is worth to try again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Interrupted)
    }

    /// Whether the issuer has said no, and not merely nothing.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::SubjectRefused(_))
    }

    /// What came of a request for a token.
    pub(super) fn of(status: &Status) -> Self {
        match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::NotFound
            | Code::FailedPrecondition
            | Code::Unimplemented => {
                Self::Refused(reason(status).unwrap_or_else(|| status.code().description().to_owned()))
            }
            code => Self::Unavailable(code),
        }
    }

    /// What came of an exchange whose caller was let in: what is said of a token is said of the one to act for.
    pub(super) fn of_exchange(status: &Status) -> Self {
        match reason(status) {
            Some(reason) if reason.starts_with("TOKEN_") => Self::SubjectRefused(reason),
            _ => Self::of(status),
        }
    }
}

impl From<IdentityError> for Status {
    /// What a call ends with that had no token to send. That the service itself is not let in is none of its caller's
    /// business, who could do nothing about it.
    fn from(error: IdentityError) -> Self {
        let told = error.to_string();
        let (code, reason) = match error {
            IdentityError::SubjectRefused(reason) => (Code::Unauthenticated, reason),
            IdentityError::Refused(reason) if reason == "INSUFFICIENT_SCOPE" => {
                (Code::PermissionDenied, reason)
            }
            IdentityError::Refused(_) | IdentityError::Credential(_) => {
                return Self::new(Code::Internal, "this service can't authenticate");
            }
            IdentityError::Unavailable(_) | IdentityError::Interrupted => {
                return Self::new(Code::Unavailable, told);
            }
        };
        Self::with_error_details(code, told, ErrorDetails::with_error_info(reason, DOMAIN, []))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: Code, reason: &str) -> Status {
        Status::with_error_details(code, "", ErrorDetails::with_error_info(reason, DOMAIN, []))
    }

    #[test]
    fn what_stays_is_told_from_what_passes() {
        let refused = |reason: &str| IdentityError::Refused(reason.to_owned());
        let wrong = IdentityError::of(&told(Code::Unauthenticated, "INVALID_CREDENTIALS"));
        assert_eq!(wrong, refused("INVALID_CREDENTIALS"));
        assert!(!wrong.is_passing() && wrong.is_refusal());
        let away = IdentityError::of(&told(Code::Unavailable, "STORE_UNAVAILABLE"));
        assert!(away.is_passing() && !away.is_refusal());
        assert!(IdentityError::of(&Status::resource_exhausted("")).is_passing());
        assert!(!IdentityError::Credential(String::new()).is_passing());
        // Somebody between us and the issuer.
        let proxy = IdentityError::of(&Status::permission_denied("go away"));
        assert_eq!(proxy, refused(Code::PermissionDenied.description()));
    }

    #[test]
    fn a_caller_is_told_what_concerns_it() {
        let ended = IdentityError::of_exchange(&told(Code::Unauthenticated, "TOKEN_REVOKED"));
        assert_eq!(ended, IdentityError::SubjectRefused("TOKEN_REVOKED".to_owned()));
        let status = Status::from(ended);
        assert_eq!(
            (status.code(), reason(&status)),
            (Code::Unauthenticated, Some("TOKEN_REVOKED".to_owned()))
        );
        let more = IdentityError::of_exchange(&told(Code::PermissionDenied, "INSUFFICIENT_SCOPE"));
        assert_eq!(Status::from(more).code(), Code::PermissionDenied);
        let own = Status::from(IdentityError::Refused("INVALID_CREDENTIALS".to_owned()));
        assert_eq!((own.code(), reason(&own)), (Code::Internal, None));
        assert!(!own.message().contains("INVALID"));
    }
}
