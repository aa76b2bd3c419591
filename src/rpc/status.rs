//! Errors as gRPC statuses, by the table of the contract: the only place that builds a `Status`.

use std::time::Duration;

use tonic::{
    Code, Status,
    metadata::{Ascii, MetadataValue},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{app::Error, domain::InvalidField};

/// The metadata that tells what the next proof of a key is to carry (RFC 9449 section 8).
pub(super) const DPOP_NONCE: &str = "dpop-nonce";
/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tessera";
/// When to try again where too much was asked, and where the database is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// When to try again what was done too often.
const MUCH_LATER: Duration = Duration::from_secs(60);

impl From<Error> for Status {
    /// What the client reads is written here; what the log says is the error's own text.
    fn from(error: Error) -> Self {
        let code = code(&error);
        let reason = error.reason();
        let mut details = ErrorDetails::new();
        details.set_error_info(reason, DOMAIN, []);
        match &error {
            Error::Invalid(InvalidField { field, problem }) => {
                details.add_bad_request_violation(*field, problem)
            }
            Error::Overloaded
            | Error::NoSpareKey
            | Error::TooManyWatchers
            | Error::TooManyKeyProofs
            | Error::Stopping
            | Error::CannotSign(_)
            | Error::StoreUnavailable(_) => details.set_retry_info(Some(RETRY_AFTER)),
            Error::RateLimited => details.set_retry_info(Some(MUCH_LATER)),
            _ => &mut details,
        };
        if matches!(error, Error::Stopping) {
            tracing::debug!(reason, "ended");
        } else if matches!(code, Code::Internal | Code::Unavailable) {
            tracing::error!(reason, %error, "failed");
        } else {
            tracing::warn!(reason, %error, "refused");
        }
        let nonce = nonce(&error);
        let mut status = Self::with_error_details(code, told(error), details);
        if let Some(nonce) = nonce {
            status.metadata_mut().insert(DPOP_NONCE, nonce);
        }
        status
    }
}

/// What the next proof is to carry, where that was lacking.
fn nonce(error: &Error) -> Option<MetadataValue<Ascii>> {
    let Error::UseNonce(nonce) = error else { return None };
    nonce.parse().ok()
}

impl From<InvalidField> for Status {
    fn from(invalid: InvalidField) -> Self {
        Error::from(invalid).into()
    }
}

/// What the client reads.
fn told(error: Error) -> String {
    match error {
        Error::TokenInvalid(_) => "the token is not valid here".to_owned(),
        Error::CannotSign(_) => "nothing can be signed for now; try again".to_owned(),
        Error::StoreUnavailable(_) => "the database is away; try again".to_owned(),
        Error::Sealed(_) | Error::Internal(_) => "internal error".to_owned(),
        error => error.to_string(),
    }
}

const fn code(error: &Error) -> Code {
    match error {
        Error::Invalid(_) | Error::TokenMalformed => Code::InvalidArgument,
        Error::TokenMissing
        | Error::TokenInvalid(_)
        | Error::TokenExpired
        | Error::TokenRevoked
        | Error::InvalidKeyProof(_)
        | Error::UseNonce(_)
        | Error::TokenReused
        | Error::ReauthenticationRequired
        | Error::InvalidCredentials => Code::Unauthenticated,
        Error::AccountDisabled
        | Error::PasswordChangeRequired
        | Error::TenantSuspended
        | Error::SignupClosed
        | Error::InsufficientScope => Code::PermissionDenied,
        Error::NotFound(_) => Code::NotFound,
        Error::AlreadyExists(_) => Code::AlreadyExists,
        Error::Conflict => Code::Aborted,
        Error::Overloaded
        | Error::NoSpareKey
        | Error::TooManyWatchers
        | Error::TooManyKeyProofs
        | Error::RateLimited => Code::ResourceExhausted,
        Error::OutOfOrder(_) | Error::NotNow(_) => Code::FailedPrecondition,
        Error::CannotSign(_) | Error::StoreUnavailable(_) | Error::Stopping => Code::Unavailable,
        Error::Sealed(_) | Error::Internal(_) => Code::Internal,
    }
}

/// The answer to a path that is no method.
pub(super) fn unimplemented() -> Status {
    let details = ErrorDetails::with_error_info("UNIMPLEMENTED", DOMAIN, []);
    Status::with_error_details(Code::Unimplemented, "there is no such method", details)
}

/// The answer to a call that took too long.
pub(super) fn too_slow() -> Status {
    let mut details = ErrorDetails::with_error_info("DEADLINE_EXCEEDED", DOMAIN, []);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::DeadlineExceeded, "the call took too long", details)
}

/// tonic answers a request that it can't read before any of our code sees it, with codes that blame the
/// server. This is the row of the contract for it; `None` where the status is not of this kind.
pub(super) fn of_unreadable(status: &Status) -> Option<Status> {
    let is_ours = !status.details().is_empty();
    match status.code() {
        Code::OutOfRange if !is_ours => Some(InvalidField::new("request", "is larger than 64 KiB").into()),
        Code::Internal if !is_ours => {
            Some(InvalidField::new("request", "is not a message of this method").into())
        }
        _ => None,
    }
}
