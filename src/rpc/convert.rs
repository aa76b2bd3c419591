//! Writes what several replies have in common.

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use prost_types::Timestamp;
use secrecy::ExposeSecret;

use super::tenant_sessions;
use crate::{
    app::{
        IssuedTokens, ServiceToken,
        audiences::{AudienceInfo, NewSecret, SecretInfo},
        issuer_keys::KeyInfo,
    },
    domain::{
        self,
        algorithm::Algorithm,
        audience::Signing,
        claims::{Actor, Claims},
        device::Device,
        issuer_key::Life,
        session::{Session, State},
        tenant::TenantSigning,
    },
    proto,
};

pub(super) fn timestamp(time: DateTime<Utc>) -> Option<Timestamp> {
    // Below a second, so it fits.
    let nanos = time.timestamp_subsec_nanos().try_into().unwrap_or_default();
    Some(Timestamp { seconds: time.timestamp(), nanos })
}

fn seconds(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

pub(super) fn tokens(tokens: &IssuedTokens) -> proto::Tokens {
    proto::Tokens {
        access_token: tokens.access_token.expose_secret().to_owned(),
        access_expire_time: timestamp(tokens.access_expire_time),
        refresh_token: tokens.refresh_token.expose_secret().to_owned(),
        refresh_expire_time: timestamp(tokens.refresh_expire_time),
        token_type: token_type(tokens.is_bound_to_key),
        scope: tokens.scope.clone(),
        session_id: tokens.session_id.to_string(),
    }
}

/// A token without a session has no refresh token.
pub(super) fn service_token(token: ServiceToken) -> proto::Tokens {
    proto::Tokens {
        access_token: token.access_token.expose_secret().to_owned(),
        access_expire_time: timestamp(token.expire_time),
        token_type: token_type(token.is_bound_to_key),
        scope: token.scope,
        ..proto::Tokens::default()
    }
}

/// How an access token is sent (RFC 9449 section 5).
fn token_type(is_bound_to_key: bool) -> String {
    if is_bound_to_key { "DPoP" } else { "Bearer" }.to_owned()
}

fn device(device: Device) -> proto::Device {
    proto::Device { r#type: device.kind, id: device.id, name: device.name }
}

pub(super) const fn state(state: State) -> proto::SessionState {
    match state {
        State::Active => proto::SessionState::Active,
        State::Ended => proto::SessionState::Ended,
        State::Expired => proto::SessionState::Expired,
    }
}

pub(super) fn session(session: Session, now: DateTime<Utc>) -> proto::SessionInfo {
    let state = state(session.state(now));
    let (last_seen_time, last_address) = session.last_seen();
    let (last_seen_time, last_address) = (timestamp(last_seen_time), last_address.to_owned());
    proto::SessionInfo {
        session_id: session.id.to_string(),
        user_id: session.user_id.to_string(),
        device: Some(device(session.device)),
        state: state.into(),
        create_time: timestamp(session.create_time),
        last_seen_time,
        idle_expire_time: timestamp(session.idle_expire_time),
        expire_time: timestamp(session.expire_time),
        kid: session.kid,
        generation: session.generation,
        end_time: session.end.and_then(|end| timestamp(end.time)),
        end_reason: session.end.map(|end| end.reason.as_str().to_owned()).unwrap_or_default(),
        first_address: session.first_address,
        last_address,
        user_agent: session.user_agent,
        dpop_jkt: session.dpop_jkt.unwrap_or_default(),
    }
}

pub(super) fn user(user: domain::user::User) -> proto::User {
    let state = match user.disable_time {
        None => proto::UserState::Active,
        Some(_) => proto::UserState::Disabled,
    };
    proto::User {
        user_id: user.id.to_string(),
        tenant_id: user.tenant_id.to_string(),
        username: user.username,
        email: user.email.unwrap_or_default(),
        display_name: user.display_name,
        roles: user.roles,
        state: state.into(),
        password_change_required: user.password_change_required,
        create_time: timestamp(user.create_time),
        update_time: timestamp(user.update_time),
    }
}

pub(super) fn claims(claims: Claims) -> proto::Claims {
    let scope = claims.scopes().map(str::to_owned).collect();
    let mut told = proto::Claims {
        iss: claims.iss,
        sub: claims.sub.to_string(),
        aud: claims.aud,
        expire_time: seconds(claims.exp),
        issue_time: seconds(claims.iat),
        not_before_time: seconds(claims.nbf),
        jti: claims.jti,
        client_id: claims.client_id,
        scope,
        ..proto::Claims::default()
    };
    if let Some(user) = claims.user {
        told.sid = user.sid.to_string();
        told.r#gen = user.generation;
        told.ver = user.ver;
        told.tenant_id = user.tenant_id.to_string();
        told.device_type = user.device_type;
        told.auth_time = seconds(user.auth_time);
        told.amr = user.amr;
        told.roles = user.roles;
        told.email = user.email.unwrap_or_default();
        told.preferred_username = user.preferred_username.unwrap_or_default();
    }
    told.act = claims.act.map(|act| actor(*act));
    told.via = claims.via.into_iter().map(actor).collect();
    told.cnf = claims.cnf.map(|cnf| proto::Confirmation {
        jkt: cnf.jkt.unwrap_or_default(),
        x5t_s256: cnf.x5t_s256.unwrap_or_default(),
    });
    if let Some(service) = claims.service {
        told.ver = service.ver;
        told.tenant_id = service.tenant_id.to_string();
    }
    told
}

fn actor(actor: Actor) -> proto::Actor {
    let act = actor.act.map(|act| Box::new(self::actor(*act)));
    proto::Actor { sub: actor.sub.to_string(), ver: actor.ver, act }
}

pub(super) fn jwk(jwk: &Jwk) -> proto::JsonWebKey {
    let mut key = proto::JsonWebKey {
        kid: jwk.common.key_id.clone().unwrap_or_default(),
        alg: jwk.common.key_algorithm.map(|algorithm| algorithm.to_string()).unwrap_or_default(),
        r#use: "sig".to_owned(),
        ..proto::JsonWebKey::default()
    };
    match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(ec) => {
            key.kty = "EC".to_owned();
            key.crv = curve(&ec.curve).to_owned();
            key.x.clone_from(&ec.x);
            key.y.clone_from(&ec.y);
        }
        AlgorithmParameters::OctetKeyPair(okp) => {
            key.kty = "OKP".to_owned();
            key.crv = curve(&okp.curve).to_owned();
            key.x.clone_from(&okp.x);
        }
        AlgorithmParameters::RSA(rsa) => {
            key.kty = "RSA".to_owned();
            key.n.clone_from(&rsa.n);
            key.e.clone_from(&rsa.e);
        }
        // Tessera makes no others; a symmetric one would not be told.
        _ => {}
    }
    key
}

const fn curve(curve: &EllipticCurve) -> &'static str {
    match curve {
        EllipticCurve::P256 => "P-256",
        EllipticCurve::P384 => "P-384",
        EllipticCurve::Ed25519 => "Ed25519",
        _ => "",
    }
}

pub(super) fn count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub(super) fn tenant(tenant: domain::tenant::Tenant) -> proto::Tenant {
    proto::Tenant {
        tenant_id: tenant.id.to_string(),
        name: tenant.name,
        display_name: tenant.display_name,
        suspend_time: tenant.suspend_time.and_then(timestamp),
        create_time: timestamp(tenant.create_time),
        signing: tenant_signing(tenant.signing),
        session_policy: tenant_sessions::told(tenant.sessions),
    }
}

fn tenant_signing(signing: TenantSigning) -> Option<proto::TenantSigning> {
    let name = |algorithm: Option<Algorithm>| algorithm.map(|a| a.as_str().to_owned()).unwrap_or_default();
    (signing != TenantSigning::default()).then(|| proto::TenantSigning {
        algorithm: name(signing.algorithm),
        session_algorithm: name(signing.session_algorithm),
    })
}

pub(super) fn audience(info: AudienceInfo) -> proto::Audience {
    let AudienceInfo { audience, secrets } = info;
    let signing = match audience.signing {
        Signing::PublicKey => proto::AudienceSigning::PublicKey,
        Signing::Hs256 => proto::AudienceSigning::Hs256,
    };
    proto::Audience {
        audience_id: audience.id.to_string(),
        name: audience.name,
        display_name: audience.display_name,
        signing: signing.into(),
        secrets: secrets.into_iter().map(secret).collect(),
        encryption_jwk: audience.encryption_jwk.unwrap_or_default(),
        scopes: audience.scopes,
        allowed_grants: audience.ways.words().map(str::to_owned).collect(),
        token_ttl: audience
            .token_ttl
            .map(|ttl| prost_types::Duration { seconds: ttl.num_seconds(), nanos: 0 }),
        create_time: timestamp(audience.create_time),
        update_time: timestamp(audience.update_time),
    }
}

fn secret(info: SecretInfo) -> proto::AudienceSecret {
    proto::AudienceSecret {
        kid: info.secret.kid,
        create_time: timestamp(info.secret.create_time),
        activate_time: timestamp(info.secret.activate_time),
        expire_time: info.expire_time.and_then(timestamp),
    }
}

pub(super) fn new_secret(secret: &NewSecret) -> proto::NewAudienceSecret {
    proto::NewAudienceSecret {
        kid: secret.kid.clone(),
        secret: secret.text.expose_secret().to_owned(),
        secret_jwk: secret.jwk.expose_secret().to_owned(),
        activate_time: timestamp(secret.activate_time),
    }
}

pub(super) fn issuer_key(info: KeyInfo) -> proto::IssuerKey {
    let KeyInfo { key, ready_time, forget_time } = info;
    let mut told = proto::IssuerKey {
        kid: key.kid,
        algorithm: key.algorithm.as_str().to_owned(),
        create_time: timestamp(key.create_time),
        ready_time: timestamp(ready_time),
        forget_time: forget_time.and_then(timestamp),
        ..proto::IssuerKey::default()
    };
    match key.life {
        Life::Prepared => told.set_state(proto::KeyState::Prepared),
        Life::Active { since, until } => {
            told.set_state(proto::KeyState::Active);
            told.activate_time = timestamp(since);
            told.expire_time = until.and_then(timestamp);
        }
        Life::Retired { since } => {
            told.set_state(proto::KeyState::Retired);
            told.retire_time = timestamp(since);
        }
        Life::Revoked { since } => {
            told.set_state(proto::KeyState::Revoked);
            told.revoke_time = timestamp(since);
        }
    }
    told
}

pub(super) fn event(event: domain::audit::Event) -> proto::AuditEvent {
    let outcome = match event.refusal {
        None => proto::EventOutcome::Success,
        Some(_) => proto::EventOutcome::Failure,
    };
    proto::AuditEvent {
        event_id: event.id.to_string(),
        tenant_id: event.tenant_id.to_string(),
        create_time: timestamp(event.create_time),
        action: event.action,
        outcome: outcome.into(),
        reason: event.refusal.unwrap_or_default(),
        actor_id: event.actor_id.map(|id| id.to_string()).unwrap_or_default(),
        target_type: event.target_type,
        target_id: event.target_id.map(|id| id.to_string()).unwrap_or_default(),
        target_name: event.target_name.unwrap_or_default(),
        address: event.origin.address,
        user_agent: event.origin.user_agent,
        request_id: event.origin.request_id,
    }
}
