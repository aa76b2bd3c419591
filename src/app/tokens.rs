//! Makes the tokens of a session.

use chrono::{DateTime, SubsecRound, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::{App, Error, session_makers::SessionMaker};
use crate::domain::claims::{ACCESS_TOKEN_TYPE, Claims, Profile, UserClaims};

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
        let profile = profile.effective();
        let expire_time = (now + self.settings.access_ttl).min(position.idle_expire_time).trunc_subsecs(0);
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
        };
        let access_token = self.make_access_token(maker, &claims, now)?;
        let refresh_token = maker.tag.token(maker.session_id, position.generation)?.to_text();
        Ok(IssuedTokens {
            access_token: access_token.into(),
            access_expire_time: expire_time,
            refresh_token: refresh_token.into(),
            refresh_expire_time: position.idle_expire_time,
            scope: profile.scope,
            session_id: maker.session_id,
        })
    }

    /// Signs, and encrypts where the token's one audience has a key for that.
    fn make_access_token(
        &self,
        maker: &SessionMaker,
        claims: &Claims,
        now: DateTime<Utc>,
    ) -> Result<String, Error> {
        let registry = self.registry();
        let Some(keys) = registry.only_audience(&claims.aud) else {
            return self.sign(maker, claims, now);
        };
        let signed = match keys.signer(now)? {
            Some(secret) => secret.sign_jwt(ACCESS_TOKEN_TYPE, claims)?,
            None => self.sign(maker, claims, now)?,
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
            let signer = self.signer(maker.tenant_id, now)?;
            return Ok(signer.sign_jwt(ACCESS_TOKEN_TYPE, None, claims)?);
        };
        if !signing.endorse_in_header {
            return Ok(key.sign_jwt(ACCESS_TOKEN_TYPE, None, claims)?);
        }
        Ok(key.sign_under(&self.endorsement(maker, key, now)?.header, claims)?)
    }
}
