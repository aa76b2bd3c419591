//! Makes the tokens of a session.

use chrono::{DateTime, SubsecRound, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::{App, Error, session_makers::SessionMaker};
use crate::domain::{
    claims::{ACCESS_TOKEN_TYPE, Claims, Confirmation, Profile, ServiceClaims, UserClaims},
    service_account::ServiceAccount,
};

/// The claim `client_id` of tokens that Tessera's own API hands to people (RFC 9068 section 2.2).
const OWN_CLIENT: &str = "tessera";

/// What a login or a refresh hands out.
#[derive(Debug)]
pub struct IssuedTokens {
    /// The JWT.
    pub access_token: SecretString,
    /// When it ends.
    pub access_expire_time: DateTime<Utc>,
    /// The next refresh token.
    pub refresh_token: SecretString,
    /// When it ends unless its session does before.
    pub refresh_expire_time: DateTime<Utc>,
    /// The scopes of the access token.
    pub scope: String,
    /// The session of both.
    pub session_id: Uuid,
    /// The access token is good with proofs of a key only.
    pub is_bound_to_key: bool,
}

/// What a service is given.
#[derive(Debug)]
pub struct ServiceToken {
    /// The JWT.
    pub access_token: SecretString,
    /// When it ends.
    pub expire_time: DateTime<Utc>,
    /// Its scopes.
    pub scope: String,
    /// It is good with proofs of a key only.
    pub is_bound_to_key: bool,
}

/// Where the session's chain stands.
pub(super) struct Position {
    pub generation: i64,
    pub idle_expire_time: DateTime<Utc>,
}

impl App {
    /// Makes the tokens of this position. The refresh token is a function of session and generation; the
    /// access token lives no longer than the session would without another refresh.
    pub(super) fn issue(
        &self,
        maker: &SessionMaker,
        profile: Profile,
        position: &Position,
        now: DateTime<Utc>,
    ) -> Result<IssuedTokens, Error> {
        let scope = self.registry().scope_left(&profile.aud, profile.scope);
        let profile = Profile { scope, ..profile }.effective();
        let end = (now + self.settings.access_ttl).min(position.idle_expire_time);
        let expire_time = self.registry().end_of_token(&profile.aud, end, now).trunc_subsecs(0);
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            sub: maker.user_id,
            aud: profile.aud,
            exp: expire_time.timestamp(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            jti: self.rng.random_id()?.to_string(),
            client_id: OWN_CLIENT.to_owned(),
            scope: profile.scope.clone(),
            user: Some(UserClaims {
                sid: maker.session_id,
                generation: position.generation,
                ver: profile.ver,
                tenant_id: maker.tenant_id,
                device_type: maker.device.kind.clone(),
                auth_time: maker.auth_time.timestamp(),
                amr: profile.amr,
                roles: profile.roles,
                email: profile.email,
                preferred_username: profile.preferred_username,
            }),
            service: None,
            act: None,
            via: Vec::new(),
            cnf: Confirmation::of(maker.dpop_jkt.as_deref(), None),
        };
        let access_token = self.make_access_token(&claims, now, || self.sign(maker, &claims, now))?;
        let refresh_token = maker.tag.token(maker.session_id, position.generation)?.to_text();
        Ok(IssuedTokens {
            access_token: access_token.into(),
            access_expire_time: expire_time,
            refresh_token: refresh_token.into(),
            refresh_expire_time: position.idle_expire_time,
            scope: profile.scope,
            session_id: maker.session_id,
            is_bound_to_key: maker.dpop_jkt.is_some(),
        })
    }

    /// Makes a token for an account, which may ask for what it asks for; `cnf` is what it will have to show with it, which it has
    /// until `until` at most.
    pub(super) fn issue_to_service(
        &self,
        account: &ServiceAccount,
        audience: Vec<String>,
        scope: String,
        cnf: Option<Box<Confirmation>>,
        until: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<ServiceToken, Error> {
        let end = now + account.token_ttl.unwrap_or(self.settings.service_ttl);
        let end = until.map_or(end, |until| end.min(until));
        let expire_time = self.registry().end_of_token(&audience, end, now).trunc_subsecs(0);
        let claims = Claims {
            iss: self.settings.issuer.clone(),
            sub: account.id,
            aud: audience,
            exp: expire_time.timestamp(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            jti: self.rng.random_id()?.to_string(),
            client_id: account.id.to_string(),
            scope,
            user: None,
            service: Some(ServiceClaims { ver: account.token_version, tenant_id: account.tenant_id }),
            act: None,
            via: Vec::new(),
            cnf,
        };
        self.sign_for_service(account, claims, now)
    }

    /// Signs what was granted to an account.
    pub(super) fn sign_for_service(
        &self,
        account: &ServiceAccount,
        claims: Claims,
        now: DateTime<Utc>,
    ) -> Result<ServiceToken, Error> {
        let sign = || self.sign_as_issuer(account.tenant_id, &claims, now);
        let access_token = self.make_access_token(&claims, now, sign)?;
        let expire_time = DateTime::from_timestamp(claims.exp, 0).unwrap_or(now);
        let is_bound_to_key = claims.cnf.is_some_and(|cnf| cnf.jkt.is_some());
        Ok(ServiceToken {
            access_token: access_token.into(),
            expire_time,
            scope: claims.scope,
            is_bound_to_key,
        })
    }

    /// Signs, in its own way where the token's one audience has one, and encrypts where that has a key for it.
    fn make_access_token(
        &self,
        claims: &Claims,
        now: DateTime<Utc>,
        sign: impl FnOnce() -> Result<String, Error>,
    ) -> Result<String, Error> {
        let registry = self.registry();
        let Some(keys) = registry.only_audience(&claims.aud) else {
            return sign();
        };
        let signed = match keys.signer(now)? {
            Some(secret) => secret.sign_jwt(ACCESS_TOKEN_TYPE, claims)?,
            None => sign()?,
        };
        Ok(match keys.encryption()? {
            Some(key) => key.encrypt(&signed)?,
            None => signed,
        })
    }

    /// Signs with the session's own key, or with the issuer's where the session has none or it is so configured.
    fn sign(&self, maker: &SessionMaker, claims: &Claims, now: DateTime<Utc>) -> Result<String, Error> {
        let signing = &self.settings.signing;
        let Some(key) = maker.key.as_ref().filter(|_| !signing.by_issuer_key) else {
            return self.sign_as_issuer(maker.tenant_id, claims, now);
        };
        if !signing.endorse_in_header {
            return Ok(key.sign_access_token(claims)?);
        }
        Ok(key.sign_under(&self.endorsement(maker, key, now)?.header, claims)?)
    }

    fn sign_as_issuer(&self, tenant_id: Uuid, claims: &Claims, now: DateTime<Utc>) -> Result<String, Error> {
        Ok(self.signer(tenant_id, now)?.sign_access_token(claims)?)
    }
}
