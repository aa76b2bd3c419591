//! Reads what several requests have in common.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use secrecy::SecretString;
use tonic::Request;
use uuid::Uuid;

use crate::{
    app::{Caller, Error, Page, ServiceCaller, login::Wishes},
    domain::{
        InvalidField,
        algorithm::{Algorithm, UnknownAlgorithm},
        audit::Origin,
        claims::MAX_ACCESS_TTL_SECONDS,
        device, text,
    },
    proto,
    verifier::KeyProof,
};

const DEFAULT_PAGE: u16 = 50;
const MAX_PAGE: u16 = 500;

/// Where a call came from, and its message.
pub(super) fn open<T>(request: Request<T>) -> (Origin, T) {
    let origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
    (origin, request.into_inner())
}

/// The key that whoever calls has shown.
pub(super) fn key_proof<T>(request: &Request<T>) -> Option<Arc<KeyProof>> {
    request.extensions().get().cloned()
}

/// Who calls, where it came from, and its message. The gate lets nobody pass without being known.
pub(super) fn open_known<T>(request: Request<T>) -> Result<(Caller, Origin, T), Error> {
    let caller = request.extensions().get::<Caller>().cloned().ok_or(Error::TokenMissing)?;
    let (origin, message) = open(request);
    Ok((caller, origin, message))
}

/// The same where a service calls.
pub(super) fn open_service<T>(request: Request<T>) -> Result<(ServiceCaller, Origin, T), Error> {
    let caller = request.extensions().get::<ServiceCaller>().cloned().ok_or(Error::TokenMissing)?;
    let (origin, message) = open(request);
    Ok((caller, origin, message))
}

/// The same where a service may call, and others too.
pub(super) fn open_maybe_service<T>(request: Request<T>) -> (Option<ServiceCaller>, Origin, T) {
    let caller = request.extensions().get::<ServiceCaller>().cloned();
    let (origin, message) = open(request);
    (caller, origin, message)
}

/// The same for who administers every tenant: nobody else is told what is wrong with its message.
pub(super) fn open_root<T>(request: Request<T>) -> Result<(Caller, Origin, T), Error> {
    let opened = open_known(request)?;
    opened.0.require_root()?;
    Ok(opened)
}

pub(super) fn id(field: &'static str, text: &str) -> Result<Uuid, InvalidField> {
    Uuid::try_parse(text).map_err(|_| InvalidField::new(field, "is not an id"))
}

/// An id that may be left out.
pub(super) fn maybe_id(field: &'static str, text: &str) -> Result<Option<Uuid>, InvalidField> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// A signature algorithm that may be left out.
pub(super) fn maybe_algorithm(field: &'static str, name: &str) -> Result<Option<Algorithm>, InvalidField> {
    if name.is_empty() {
        return Ok(None);
    }
    let algorithm =
        name.parse().map_err(|error: UnknownAlgorithm| InvalidField::new(field, format!("is {error}")))?;
    Ok(Some(algorithm))
}

/// A duration from zero up to `longest`.
pub(super) fn duration(
    field: &'static str,
    told: prost_types::Duration,
    longest: TimeDelta,
) -> Result<TimeDelta, InvalidField> {
    let nanos = u32::try_from(told.nanos).ok();
    let duration = nanos.and_then(|nanos| TimeDelta::new(told.seconds, nanos));
    duration
        .filter(|duration| (TimeDelta::zero()..=longest).contains(duration))
        .ok_or_else(|| InvalidField::new(field, format!("is not between 0 and {} s", longest.num_seconds())))
}

/// How long tokens live. None where it is 0: then it is as elsewhere.
pub(super) fn token_ttl(told: prost_types::Duration) -> Result<Option<TimeDelta>, InvalidField> {
    let ttl = duration("token_ttl", told, TimeDelta::seconds(MAX_ACCESS_TTL_SECONDS))?;
    if ttl.subsec_nanos() != 0 {
        return Err(InvalidField::new("token_ttl", "is not a number of whole seconds"));
    }
    Ok(Some(ttl).filter(|ttl| !ttl.is_zero()))
}

/// A password in the one form that is hashed. Not logged, not repeated in an error.
pub(super) fn password(field: &'static str, text: &str) -> Result<SecretString, InvalidField> {
    if text.is_empty() {
        return Err(InvalidField::new(field, "is empty"));
    }
    Ok(text::one_form(text).into())
}

pub(super) fn device(device: &proto::Device) -> Result<device::Device, InvalidField> {
    device::Device::parse(&device.r#type, &device.id, &device.name)
}

pub(super) fn wishes(
    told: Option<&proto::Device>,
    audience: &[String],
    scope: &[String],
    key: Option<Arc<KeyProof>>,
) -> Result<Wishes, InvalidField> {
    Ok(Wishes {
        device: told.map_or_else(|| device::Device::parse("", "", ""), device)?.with_kind(),
        audience: text::audience("audience", audience)?,
        scope: text::scope("scope", scope)?,
        key,
    })
}

pub(super) fn page(size: i32, token: &str) -> Result<Page, InvalidField> {
    let size = match size {
        0 => DEFAULT_PAGE,
        _ => {
            let size = u32::try_from(size).map_err(|_| InvalidField::new("page_size", "is negative"))?;
            u16::try_from(size).unwrap_or(MAX_PAGE).min(MAX_PAGE)
        }
    };
    let after = if token.is_empty() { None } else { Some(page_token(token)?) };
    Ok(Page { size, after })
}

fn page_token(token: &str) -> Result<Uuid, InvalidField> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    id.ok_or_else(|| InvalidField::new("page_token", "is not one that was handed out"))
}

/// What to ask the next page with.
pub(super) fn next_page_token(next: Option<Uuid>) -> String {
    next.map(|id| URL_SAFE_NO_PAD.encode(id)).unwrap_or_default()
}
