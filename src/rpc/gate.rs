//! What every call passes: it gets its request id and its origin, the policy decides whether it may go
//! on, and it is counted and logged.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use http::{Extensions, HeaderMap, HeaderValue, Method, header};
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tracing::Instrument;

use super::{
    peer::{self, Peer},
    policy::{self, Open, Who},
    services::Services,
    status,
};
use crate::{
    app::{App, CallLabels, Caller, Error, MethodLabel, Proved, ServiceCaller},
    domain::{audit::Origin, proxy},
    verifier::{self, Denial, KeyProof, ProofFor, Scheme, Shown, not_begun},
};

/// Where the request's id is read and written.
const REQUEST_ID: &str = "x-request-id";
/// The longest `user-agent` that is kept, in characters.
const MAX_USER_AGENT: usize = 256;

/// A call that has no answer by then is given up, as where its message never comes. Streams go on.
const PATIENCE: Duration = Duration::from_secs(60);

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// Lets a gRPC call pass to its service, or answers for it.
pub(super) async fn pass(app: Arc<App>, services: Arc<Services>, mut request: Request) -> Response {
    let started = Instant::now();
    let origin = origin(&app, &request);
    let request_id = origin.request_id.clone();
    let Some((method, who)) = policy::row(request.uri().path()) else {
        return unknown_method(request.headers());
    };
    let is_quiet = policy::is_asked_all_the_time(method);
    // For what is logged on the way; the line of the call itself says it all once more.
    let span = if is_quiet {
        tracing::debug_span!("call", request_id, method, address = origin.address)
    } else {
        tracing::info_span!("call", request_id, method, address = origin.address)
    };
    let mut call = Call {
        app: &app,
        method,
        started,
        is_quiet,
        request_id: &request_id,
        address: origin.address.clone(),
        code: Code::Cancelled,
    };
    let answer = async {
        let head = Head {
            method: request.method(),
            path: method,
            headers: request.headers(),
            extensions: request.extensions(),
        };
        let admitted = admit(&app, who, head).await;
        match admitted {
            Ok(Admitted { caller, proof, next_nonce }) => {
                if let Known::User(caller) = &caller {
                    app.note_seen(caller, &origin);
                }
                let extensions = request.extensions_mut();
                extensions.insert(origin);
                if let Some(proof) = proof {
                    extensions.insert(proof);
                }
                match caller {
                    Known::Nobody => None,
                    Known::User(caller) => extensions.insert(caller).map(drop),
                    Known::Service(caller) => extensions.insert(caller).map(drop),
                };
                let response = match timeout(PATIENCE, services.call(request)).await {
                    Ok(Ok(response)) => readable(response),
                    Err(_) => status::too_slow().into_http(),
                };
                with_nonce(response, next_nonce)
            }
            Err(error) => {
                let mut refusal = Status::from(error).into_http();
                not_begun::refused(request.headers(), refusal.headers_mut());
                refusal
            }
        }
    };
    let response = answer.instrument(span).await;
    call.code = code(&response);
    drop(call);
    with_request_id(response, &request_id)
}

/// A call that is counted and logged when it ends, also by its client going away.
struct Call<'a> {
    app: &'a App,
    method: &'static str,
    started: Instant,
    is_quiet: bool,
    request_id: &'a str,
    address: String,
    code: Code,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Self { app, method, request_id, .. } = *self;
        let code = code_name(self.code);
        let took = self.started.elapsed();
        app.metrics.calls.get_or_create(&CallLabels { method, code }).inc();
        app.metrics.latencies.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
        let (micros, address) = (took.as_micros(), &self.address);
        // Outside of the call's span: its fields would be written, read and written again.
        if self.is_quiet && self.code == Code::Ok {
            tracing::debug!(parent: None, code, micros, request_id, method, address, "answered");
        } else {
            tracing::info!(parent: None, code, micros, request_id, method, address, "answered");
        }
    }
}

/// The answer to a method that is not there.
pub(super) fn unknown_method(headers: &HeaderMap) -> Response {
    let id = request_id(headers).unwrap_or_else(new_request_id);
    with_request_id(status::unimplemented().into_http(), &id)
}

/// Who calls.
enum Known {
    /// It is not asked.
    Nobody,
    User(Caller),
    Service(ServiceCaller),
}

/// A request without its body, which may not be shared between threads.
#[derive(Clone, Copy)]
struct Head<'r> {
    method: &'r Method,
    path: &'static str,
    headers: &'r HeaderMap,
    extensions: &'r Extensions,
}

/// Who may go on, and what it has shown.
struct Admitted {
    caller: Known,
    /// The proof of a key, where one counts; used already unless the method gives out tokens.
    proof: Option<Arc<KeyProof>>,
    /// What its next proof is to carry.
    next_nonce: Option<String>,
}

/// Who calls, where the method wants to know, and the key that it shows.
async fn admit(app: &App, who: Who, head: Head<'_>) -> Result<Admitted, Error> {
    let binds_tokens = policy::binds_tokens(head.path);
    let is_open = match who {
        Who::Anyone => true,
        Who::ServiceOrOpen(what) => is_open(app, what) && !head.headers.contains_key(header::AUTHORIZATION),
        Who::Service | Who::SignedIn | Who::User | Who::Admin => false,
    };
    if is_open {
        let proved = if binds_tokens { prove(app, head, None)? } else { None };
        return Ok(Admitted::new(Known::Nobody, proved));
    }
    let (scheme, token) = credentials(head.headers)?;
    let certificate = peer::certificate(app, head.extensions, head.headers);
    let certificate_end = certificate.as_ref().map(|certificate| certificate.expire_time);
    let certificate = certificate.map(|certificate| certificate.thumbprint.clone());
    let mut shown = Shown { certificate, ..Shown::default() };
    let proved = match scheme {
        Scheme::Dpop => {
            let proved = prove(app, head, Some(token))?;
            let proved = proved.ok_or(Error::InvalidKeyProof("there is none"))?;
            shown.key = Some(proved.proof.key().to_owned());
            Some(proved)
        }
        Scheme::Bearer if binds_tokens => prove(app, head, Some(token))?,
        Scheme::Bearer => None,
    };
    let caller = authenticate(app, who, token, &shown, certificate_end).await?;
    // Nobody who may not call fills the memory of those that were used. What gives out tokens uses it by itself, and tells the
    // trail where it was used before.
    if let Some(proved) = proved.as_ref().filter(|_| !binds_tokens) {
        app.take_key_proof(&proved.proof)?;
    }
    Ok(Admitted::new(caller, proved))
}

impl Admitted {
    fn new(caller: Known, proved: Option<Proved>) -> Self {
        let (proof, next_nonce) = proved.map(|proved| (proved.proof, proved.next_nonce)).unzip();
        Self { caller, proof: proof.map(Arc::new), next_nonce: next_nonce.flatten() }
    }
}

async fn authenticate(
    app: &App,
    who: Who,
    token: &str,
    shown: &Shown,
    certificate_end: Option<DateTime<Utc>>,
) -> Result<Known, Error> {
    if matches!(who, Who::Service | Who::ServiceOrOpen(_)) {
        return match app.calling_service(token, shown, certificate_end).await? {
            Some(service) => Ok(Known::Service(service)),
            // People's clients send their token with every call.
            None if matches!(who, Who::ServiceOrOpen(what) if is_open(app, what)) => Ok(Known::Nobody),
            None => Err(Error::TokenInvalid("is not a service's own")),
        };
    }
    let caller = app.authenticate(token, shown).await?;
    if caller.must_change_password && who != Who::SignedIn {
        return Err(Error::PasswordChangeRequired);
    }
    if who == Who::Admin && !caller.is_admin {
        return Err(Error::InsufficientScope);
    }
    Ok(Known::User(caller))
}

/// The proof of a key that comes with a call, checked against it.
fn prove(app: &App, head: Head<'_>, token: Option<&str>) -> Result<Option<Proved>, Error> {
    let Some(proof) = KeyProof::in_headers(head.headers)? else { return Ok(None) };
    let made_for = ProofFor { method: head.method.as_str(), path: head.path, token };
    app.check_key_proof(proof, &made_for).map(Some)
}

fn credentials(headers: &HeaderMap) -> Result<(Scheme, &str), Error> {
    verifier::credentials(headers).map_err(|denial| match denial {
        Denial::Missing => Error::TokenMissing,
        _ => Error::TokenMalformed,
    })
}

/// Whether it is left open to anyone.
fn is_open(app: &App, what: Open) -> bool {
    !match what {
        Open::Introspection => app.settings.is_introspection_for_services,
        Open::Watch => app.settings.is_watch_for_services,
    }
}

fn origin(app: &App, request: &Request) -> Origin {
    let address =
        request.extensions().get::<Peer>().map(|peer| client(app, peer.address.ip(), request.headers()));
    let user_agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    // A header that is text is ASCII.
    let user_agent = user_agent.and_then(|text| text.get(..text.len().min(MAX_USER_AGENT)));
    Origin {
        address: address.unwrap_or_default(),
        user_agent: user_agent.unwrap_or_default().to_owned(),
        request_id: request_id(request.headers()).unwrap_or_else(new_request_id),
    }
}

/// Where a call came from: the peer, or whom it stands for where it is a proxy that is trusted. An IPv4 address that
/// came in through an IPv6 socket is written as the IPv4 address that it is.
fn client(app: &App, peer: IpAddr, headers: &HeaderMap) -> String {
    // What can't be read is as good as garbage.
    let lines = |name| headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default()).collect();
    let told = || proxy::Told { x_forwarded_for: lines("x-forwarded-for"), forwarded: lines("forwarded") };
    app.settings.trusted_proxies.client(peer, told).to_string()
}

/// The id that the caller gave, if it is one that can be written into a log line.
fn request_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let is_id_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    ((1..=128).contains(&id.len()) && id.bytes().all(is_id_char)).then(|| id.to_owned())
}

/// An id for a call that came without one. Nobody has to be unable to guess it.
fn new_request_id() -> String {
    uuid::Builder::from_random_bytes(fastrand::u128(..).to_be_bytes()).into_uuid().to_string()
}

fn with_request_id(mut response: Response, id: &str) -> Response {
    if let Ok(mut id) = HeaderValue::from_str(id) {
        // It comes once: in HPACK's table it would only push others out (RFC 7541 section 7.1.3).
        id.set_sensitive(true);
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Tells what the next proof of a key is to carry.
fn with_nonce(mut response: Response, nonce: Option<String>) -> Response {
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::try_from(nonce).ok()) {
        response.headers_mut().insert(status::DPOP_NONCE, nonce);
    }
    response
}

/// Answers a request that tonic could not read by the contract's table.
fn readable(response: Response) -> Response {
    let status = Status::from_header_map(response.headers());
    match status.as_ref().and_then(status::of_unreadable) {
        Some(status) => status.into_http(),
        None => response,
    }
}

/// An error stands in the headers; success comes with the trailers.
fn code(response: &Response) -> Code {
    let header = response.headers().get("grpc-status");
    header.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
