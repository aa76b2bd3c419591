//! What a call is refused with: a code and a reason of the error table.

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// The reason of a refusal.
pub fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// The code and the reason of a call that must be refused.
pub fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.expect_err("it was to be refused");
    let info = status.get_error_details();
    let info = info.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "tessera");
    (status.code(), info.reason.clone())
}

/// A credential that is not good, for whatever reason.
pub fn wrong() -> (Code, String) {
    (Code::Unauthenticated, "INVALID_CREDENTIALS".to_owned())
}

/// A token that is not good here.
pub fn invalid_token() -> (Code, String) {
    (Code::Unauthenticated, "TOKEN_INVALID".to_owned())
}

/// A token that was ended.
pub fn revoked() -> (Code, String) {
    (Code::Unauthenticated, "TOKEN_REVOKED".to_owned())
}

/// What whoever asks may not have or do.
pub fn denied() -> (Code, String) {
    (Code::PermissionDenied, "INSUFFICIENT_SCOPE".to_owned())
}

/// A field that makes no sense.
pub fn invalid() -> (Code, String) {
    (Code::InvalidArgument, "INVALID_FIELD".to_owned())
}

/// What is not there.
pub fn not_found() -> (Code, String) {
    (Code::NotFound, "NOT_FOUND".to_owned())
}
