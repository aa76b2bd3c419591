//! The issuer's calls.

use std::{sync::atomic::Ordering, time::Duration};

use prost_types::Timestamp;
use tonic::{Code, transport::Channel};

use super::{Core, Denial};
use crate::{
    domain::claims::{Actor, Claims, Confirmation, ServiceClaims, UserClaims},
    proto::{
        self, GetJwkRequest, GetJwkResponse, VerifyTokenRequest, auth_client::AuthClient,
        keys_client::KeysClient,
    },
    verifier::{
        Refusal,
        call_token::Calls,
        channel::{in_time, patient},
        claims::check_claims,
    },
};

/// How long a caller is kept waiting for the issuer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

const GET_JWK: &str = "/tessera.v1.Keys/GetJwk";
const VERIFY_TOKEN: &str = "/tessera.v1.Auth/VerifyToken";

/// The issuer, as far as a check may need it.
pub(super) struct Issuer {
    keys: KeysClient<Channel>,
    auth: AuthClient<Channel>,
    /// Those to it, and to its feed.
    pub(super) calls: Calls,
}

impl Issuer {
    pub(super) fn new(channel: &Channel, calls: Calls) -> Self {
        let (keys, auth) = (KeysClient::new(channel.clone()), AuthClient::new(channel.clone()));
        Self { keys, auth, calls }
    }

    /// The key of this id, where there is one.
    pub(super) async fn key(&self, kid: &str) -> Result<Option<GetJwkResponse>, Denial> {
        let request = || patient(PATIENCE, GetJwkRequest { kid: kid.to_owned() });
        let call = self.calls.make(GET_JWK, request, |request| {
            let mut keys = self.keys.clone();
            async move { keys.get_jwk(request).await }
        });
        match in_time(PATIENCE, call).await {
            Ok(found) => Ok(Some(found.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => {
                tracing::warn!(kid, %status, "can't ask the issuer for a key");
                Err(Denial::Unreachable)
            }
        }
    }
}

impl Core {
    /// What the issuer says of a token. One that the keys known here don't check costs of the same budget as an
    /// unknown key: anybody can make one up.
    pub(super) async fn ask(&self, token: &str) -> Result<Claims, Denial> {
        let known = self.verifier.check_unbound(token, &self.expected, self.clock.now()).ok();
        if known.is_none() && !self.lookups.may_ask() {
            self.counters.spared.fetch_add(1, Ordering::Relaxed);
            return Err(Denial::Busy);
        }
        self.counters.asked.fetch_add(1, Ordering::Relaxed);
        // The issuer can't open what it encrypted for this audience.
        let token = self.verifier.signed(token)?;
        let request = VerifyTokenRequest {
            token: token.into_owned(),
            audience: self.expected.audience.clone().unwrap_or_default(),
            required_scopes: Vec::new(),
            strict: true,
        };
        let request = || patient(PATIENCE, request.clone());
        let call = self.issuer.calls.make(VERIFY_TOKEN, request, |request| {
            let mut auth = self.issuer.auth.clone();
            async move { auth.verify_token(request).await }
        });
        let answer = match in_time(PATIENCE, call).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::InvalidArgument => return Err(Refusal::Malformed.into()),
            Err(status) => {
                tracing::warn!(%status, "can't ask the issuer about a token");
                return Err(Denial::Unreachable);
            }
        };
        if !answer.active {
            return Err(refusal(&answer.reason).into());
        }
        let told = || answer.claims.and_then(claims_of).ok_or(Denial::Unreachable);
        let claims = known.map_or_else(told, Ok)?;
        check_claims(&claims, &self.expected, self.clock.now())?;
        Ok(claims)
    }
}

fn refusal(reason: &str) -> Refusal {
    match reason {
        "TOKEN_EXPIRED" => Refusal::Expired,
        "TOKEN_REVOKED" => Refusal::Revoked,
        _ => Refusal::Invalid("the issuer says so"),
    }
}

/// The claims as the token had them; `None` where the issuer told something else.
fn claims_of(told: proto::Claims) -> Option<Claims> {
    let seconds = |time: Option<Timestamp>| Some(time?.seconds);
    let text = |text: String| (!text.is_empty()).then_some(text);
    let tenant_id = match told.tenant_id.as_str() {
        "" => None,
        id => Some(id.parse().ok()?),
    };
    let user = if told.sid.is_empty() {
        None
    } else {
        Some(UserClaims {
            sid: told.sid.parse().ok()?,
            generation: told.r#gen,
            ver: told.ver,
            tenant_id: tenant_id?,
            device_type: told.device_type,
            auth_time: seconds(told.auth_time)?,
            amr: told.amr,
            roles: told.roles,
            email: text(told.email),
            preferred_username: text(told.preferred_username),
        })
    };
    let of_service = tenant_id.filter(|_| user.is_none());
    let service = of_service.map(|tenant_id| ServiceClaims { ver: told.ver, tenant_id });
    let act = match told.act {
        Some(act) => Some(actor_of(act)?),
        None => None,
    };
    Some(Claims {
        iss: told.iss,
        sub: told.sub.parse().ok()?,
        aud: told.aud,
        exp: seconds(told.expire_time)?,
        iat: seconds(told.issue_time)?,
        nbf: seconds(told.not_before_time)?,
        jti: told.jti,
        client_id: told.client_id,
        scope: told.scope.join(" "),
        user,
        service,
        act,
        via: told.via.into_iter().map(|service| Some(*actor_of(service)?)).collect::<Option<_>>()?,
        cnf: told.cnf.map(|cnf| Box::new(Confirmation { jkt: text(cnf.jkt), x5t_s256: text(cnf.x5t_s256) })),
    })
}

fn actor_of(told: proto::Actor) -> Option<Box<Actor>> {
    let act = match told.act {
        Some(act) => Some(actor_of(*act)?),
        None => None,
    };
    Some(Box::new(Actor { sub: told.sub.parse().ok()?, ver: told.ver, act }))
}
