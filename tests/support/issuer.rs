//! An issuer without a server: starts sessions as a login does, by the thousand.

use std::{error::Error, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::jwk::Jwk;
use tessera::{
    crypto::{
        random::{OrderedIds, Randomness, SystemRandomness},
        signing::{NewKey, SigningKey},
    },
    domain::{
        algorithm::Algorithm,
        claims::{ACCESS_TOKEN_TYPE, Claims, ENDORSEMENT_TYPE, Endorsement, KeyConfirmation, UserClaims},
    },
    verifier::Expected,
};

const ISSUER: &str = "https://auth.example.com";
const AUDIENCE: &str = "orders";

/// Holds one key, with which it vouches for each session's own.
pub struct Issuer {
    key: SigningKey,
    ids: OrderedIds,
    rng: Arc<dyn Randomness>,
}

impl Issuer {
    /// One with a new key.
    pub fn new() -> Result<Self, Box<dyn Error>> {
        let rng: Arc<dyn Randomness> = Arc::new(SystemRandomness);
        let NewKey { key, .. } = NewKey::generate(Algorithm::Es256, 2048, &*rng)?;
        Ok(Self { key, ids: OrderedIds::new(rng.clone()), rng })
    }

    /// The public half of its key.
    pub fn jwk(&self) -> &Jwk {
        self.key.jwk()
    }

    /// What its tokens must be.
    pub fn expected() -> Expected {
        let (issuer, audience) = (ISSUER.to_owned(), Some(AUDIENCE.to_owned()));
        Expected { issuer, audience, leeway: TimeDelta::seconds(30) }
    }

    /// The first token of a new session of a new user: signed with a key of its own, endorsed in the header.
    pub fn new_session(&self, now: DateTime<Utc>) -> Result<String, Box<dyn Error>> {
        Ok(self.tokens_of_new_session(now, 1)?.pop().ok_or("no token")?)
    }

    /// So many tokens of a new session.
    pub fn tokens_of_new_session(
        &self,
        now: DateTime<Utc>,
        count: usize,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        let NewKey { key, .. } = NewKey::generate(Algorithm::Es256, 2048, &*self.rng)?;
        let (user, session) = (self.ids.next(now)?, self.user_claims(now)?);
        let endorsement = Endorsement {
            iss: ISSUER.to_owned(),
            sid: session.sid,
            sub: user,
            exp: (now + TimeDelta::hours(1)).timestamp(),
            cnf: KeyConfirmation { jwk: key.jwk().clone() },
        };
        let mut claims = Claims {
            iss: ISSUER.to_owned(),
            sub: user,
            aud: vec![AUDIENCE.to_owned()],
            exp: (now + TimeDelta::minutes(15)).timestamp(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            jti: String::new(),
            client_id: "tessera".to_owned(),
            scope: String::new(),
            user: Some(session),
            service: None,
            act: None,
            via: Vec::new(),
            cnf: None,
        };
        let endorsement = self.key.sign_jwt(ENDORSEMENT_TYPE, None, &endorsement)?;
        let mut tokens = Vec::with_capacity(count);
        for _ in 0..count {
            claims.jti = self.rng.random_id()?.to_string();
            tokens.push(key.sign_jwt(ACCESS_TOKEN_TYPE, Some(&endorsement), &claims)?);
        }
        Ok(tokens)
    }

    fn user_claims(&self, now: DateTime<Utc>) -> Result<UserClaims, Box<dyn Error>> {
        Ok(UserClaims {
            sid: self.ids.next(now)?,
            generation: 0,
            ver: 0,
            tenant_id: self.ids.next(now)?,
            device_type: "web".to_owned(),
            auth_time: now.timestamp(),
            amr: vec!["pwd".to_owned()],
            roles: Vec::new(),
            email: None,
            preferred_username: None,
        })
    }
}
