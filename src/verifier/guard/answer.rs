//! Denials as answers, by the error table of the contract.

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::{Scheme, credentials};
use crate::{
    domain::algorithm::Algorithm,
    verifier::{Denial, Refusal, attach::NONCE, not_begun},
};

/// The `domain` of every `google.rpc.ErrorInfo`.
const DOMAIN: &str = "tessera";
/// When to try again what may pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<&Denial> for Status {
    fn from(denial: &Denial) -> Self {
        let code = match denial {
            Denial::Refused(Refusal::Malformed) => Code::InvalidArgument,
            Denial::Missing | Denial::Refused(_) | Denial::UseNonce { .. } => Code::Unauthenticated,
            Denial::Insufficient { .. } => Code::PermissionDenied,
            Denial::Busy => Code::ResourceExhausted,
            Denial::Stale(_) | Denial::Unreachable => Code::Unavailable,
        };
        let mut details = ErrorDetails::with_error_info(denial.reason(), DOMAIN, []);
        if denial.is_passing() {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        let mut status = Self::with_error_details(code, told(denial), details);
        if let Denial::UseNonce { nonce } = denial {
            tell_nonce(nonce, status.metadata_mut().as_mut());
        }
        status
    }
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Self {
        Self::from(&denial)
    }
}

/// What the client reads. What is wrong with a token is for the log: it would help who makes one up.
fn told(denial: &Denial) -> String {
    match denial {
        Denial::Refused(Refusal::Invalid(_) | Refusal::UnknownKey | Refusal::NotHolder) => {
            "the token is not valid here".to_owned()
        }
        denial => denial.to_string(),
    }
}

/// The answer to a request that is not let in, in its own language.
pub(super) fn refuse<B, R: Default>(denial: &Denial, request: &http::Request<B>) -> http::Response<R> {
    let (reason, path) = (denial.reason(), request.uri().path());
    if denial.is_passing() {
        tracing::error!(reason, path, %denial, "refused");
    } else {
        tracing::warn!(reason, path, %denial, "refused");
    }
    if is_grpc(request) {
        let mut response = Status::from(denial).into_http();
        not_begun::refused(request.headers(), response.headers_mut());
        return response;
    }
    let mut response = http::Response::new(R::default());
    *response.status_mut() = http_status(denial);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Denial::UseNonce { nonce } = denial {
        tell_nonce(nonce, headers);
    }
    if denial.is_passing() {
        headers.insert(header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    } else {
        for challenge in challenges(denial, request.headers()) {
            if let Ok(challenge) = HeaderValue::from_str(&challenge) {
                headers.append(header::WWW_AUTHENTICATE, challenge);
            }
        }
    }
    response
}

/// Tells what the next proof of a key is to carry.
pub(super) fn tell_nonce(nonce: &str, headers: &mut HeaderMap) {
    if let Ok(nonce) = HeaderValue::from_str(nonce) {
        headers.insert(NONCE, nonce);
    }
}

/// Whether it is a gRPC call in all that makes one: to say so in a header alone would turn a 401 into a 200.
fn is_grpc<B>(request: &http::Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2
        && request.method() == Method::POST
        && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn http_status(denial: &Denial) -> StatusCode {
    match denial {
        Denial::Refused(Refusal::Malformed) => StatusCode::BAD_REQUEST,
        Denial::Missing | Denial::Refused(_) | Denial::UseNonce { .. } => StatusCode::UNAUTHORIZED,
        Denial::Insufficient { .. } => StatusCode::FORBIDDEN,
        Denial::Busy => StatusCode::TOO_MANY_REQUESTS,
        Denial::Stale(_) | Denial::Unreachable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Both ways to send a token, the one that was tried with what is wrong (RFC 6750 section 3, RFC 9449 section 7.1).
fn challenges(denial: &Denial, request: &HeaderMap) -> Vec<String> {
    let algorithms = Algorithm::ALL.map(Algorithm::as_str).join(" ");
    let dpop = |error: Option<String>| match error {
        Some(error) => format!("DPoP {error}, algs=\"{algorithms}\""),
        None => format!("DPoP algs=\"{algorithms}\""),
    };
    match (credentials(request), error(denial)) {
        (Ok((Scheme::Dpop, _)), error) => vec![dpop(error)],
        (_, Some(error)) => vec![format!("Bearer {error}"), dpop(None)],
        (_, None) => vec!["Bearer".to_owned(), dpop(None)],
    }
}

/// Who sent no token is told of no error.
fn error(denial: &Denial) -> Option<String> {
    let error = match denial {
        Denial::Missing => return None,
        Denial::Refused(Refusal::Malformed) => "invalid_request",
        Denial::Refused(Refusal::BadProof(_)) => "invalid_dpop_proof",
        Denial::UseNonce { .. } => "use_dpop_nonce",
        Denial::Insufficient { .. } => "insufficient_scope",
        _ => "invalid_token",
    };
    let scope = match denial {
        Denial::Insufficient { scope } if !scope.is_empty() => format!(", scope=\"{scope}\""),
        _ => String::new(),
    };
    // Quotes would end the text.
    let told = told(denial).replace('"', "'");
    Some(format!("error=\"{error}\", error_description=\"{told}\"{scope}"))
}
