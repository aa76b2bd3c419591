//! The claims of the tokens that Tessera issues.

use std::fmt;

use chrono::{DateTime, Utc};
use jsonwebtoken::jwk::Jwk;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};
use uuid::Uuid;

/// The `typ` of an access token (RFC 9068 section 2.1).
pub const ACCESS_TOKEN_TYPE: &str = "at+jwt";
/// The `typ` of an endorsement.
pub const ENDORSEMENT_TYPE: &str = "session-key+jwt";
/// The audience of Tessera's own API.
pub const OWN_AUDIENCE: &str = "tessera";
/// The role that administers a tenant.
pub const ADMIN_ROLE: &str = "admin";
/// The scope of a token that is good for changing the password and nothing else.
pub const PASSWORD_CHANGE_SCOPE: &str = "tessera:change_password";
/// The scopes that put what is known of a person into a token.
pub const PERSON_SCOPES: [&str; 2] = ["email", "profile"];
/// No access token lives longer, in seconds: the bound that retired keys and trust-log rows rely on.
pub const MAX_ACCESS_TTL_SECONDS: i64 = 3600;
/// No verifier of Tessera's tokens makes more allowance for clocks that differ, in seconds: a revocation is told for as
/// long as one may accept the token.
pub const MAX_LEEWAY_SECONDS: i64 = 300;

/// The claims of an access token (RFC 9068).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FlatClaims")]
pub struct Claims {
    /// Issuer.
    pub iss: String,
    /// Subject: the user's id.
    pub sub: Uuid,
    /// Audiences.
    pub aud: Vec<String>,
    /// End, seconds since 1970.
    pub exp: i64,
    /// Issue, seconds since 1970.
    pub iat: i64,
    /// Beginning, seconds since 1970.
    pub nbf: i64,
    /// The token's own id.
    pub jti: String,
    /// The client that it was issued to.
    pub client_id: String,
    /// Scopes, separated by spaces.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// What only a user's token says.
    #[serde(flatten)]
    pub user: Option<UserClaims>,
    /// What only a service's own token says.
    #[serde(flatten)]
    pub service: Option<ServiceClaims>,
    /// Who acts for the subject (RFC 8693 section 4.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
    /// The services that stand in for the subject and are not to be seen in `act`, the oldest first: it ends with each of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub via: Vec<Actor>,
    /// What its holder proves beside, where it is no mere bearer token (RFC 7800).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cnf: Option<Box<Confirmation>>,
}

/// What the holder of a token must show that it has. A token that names several is good with all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// A key, by its thumbprint (RFC 9449 section 6.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jkt: Option<String>,
    /// A certificate, by the SHA-256 of its DER in base64url (RFC 8705 section 3.1).
    #[serde(rename = "x5t#S256", default, skip_serializing_if = "Option::is_none")]
    pub x5t_s256: Option<String>,
}

impl Confirmation {
    /// That of a key and a certificate with these thumbprints, or of what there is of them.
    pub fn of(jkt: Option<&str>, x5t_s256: Option<&str>) -> Option<Box<Self>> {
        let cnf = Self { jkt: jkt.map(str::to_owned), x5t_s256: x5t_s256.map(str::to_owned) };
        (cnf != Self::default()).then(|| Box::new(cnf))
    }
}

/// A service that acts for the subject of a token, and whom it acts on behalf of in turn: the newest is outermost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The service account.
    pub sub: Uuid,
    /// Its token version: a token ends with each of those that act in it.
    pub ver: i64,
    /// Who acted before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Actor>>,
}

impl Actor {
    /// It and those before it, the newest first.
    pub fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |actor| actor.act.as_deref())
    }
}

/// The claims that belong to a service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServiceClaims {
    /// The account's token version.
    pub ver: i64,
    /// Tenant.
    pub tenant_id: Uuid,
}

/// The claims that belong to a user's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UserClaims {
    /// Session.
    pub sid: Uuid,
    /// Generation of the refresh chain.
    #[serde(rename = "gen")]
    pub generation: i64,
    /// The user's token version.
    pub ver: i64,
    /// Tenant.
    pub tenant_id: Uuid,
    /// Device type.
    pub device_type: String,
    /// When the person authenticated, seconds since 1970.
    pub auth_time: i64,
    /// How the person authenticated (RFC 8176).
    pub amr: Vec<String>,
    /// Roles.
    pub roles: Vec<String>,
    /// With the scope `email`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// With the scope `profile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
}

/// The claims as they stand in a token, side by side. Read so, and not with serde's `flatten`, which copies each claim
/// before it knows where it belongs, and which takes a user's token with one bad claim for a token of nobody.
#[derive(Deserialize)]
struct FlatClaims {
    iss: String,
    sub: Uuid,
    #[serde(deserialize_with = "one_or_many")]
    aud: Vec<String>,
    exp: i64,
    iat: i64,
    nbf: i64,
    jti: String,
    client_id: String,
    #[serde(default)]
    scope: String,
    sid: Option<Uuid>,
    #[serde(rename = "gen")]
    generation: Option<i64>,
    ver: Option<i64>,
    tenant_id: Option<Uuid>,
    device_type: Option<String>,
    auth_time: Option<i64>,
    amr: Option<Vec<String>>,
    #[serde(default)]
    roles: Vec<String>,
    email: Option<String>,
    preferred_username: Option<String>,
    act: Option<Box<Actor>>,
    #[serde(default)]
    via: Vec<Actor>,
    cnf: Option<Box<Confirmation>>,
}

impl FlatClaims {
    fn service(&self) -> Option<ServiceClaims> {
        match (self.sid, self.ver, self.tenant_id) {
            (None, Some(ver), Some(tenant_id)) => Some(ServiceClaims { ver, tenant_id }),
            _ => None,
        }
    }

    fn take_user(&mut self) -> Result<Option<UserClaims>, &'static str> {
        let Some(sid) = self.sid else { return Ok(None) };
        Ok(Some(UserClaims {
            sid,
            generation: self.generation.ok_or("no gen")?,
            ver: self.ver.ok_or("no ver")?,
            tenant_id: self.tenant_id.ok_or("no tenant_id")?,
            device_type: self.device_type.take().ok_or("no device_type")?,
            auth_time: self.auth_time.ok_or("no auth_time")?,
            amr: self.amr.take().ok_or("no amr")?,
            roles: std::mem::take(&mut self.roles),
            email: self.email.take(),
            preferred_username: self.preferred_username.take(),
        }))
    }
}

impl TryFrom<FlatClaims> for Claims {
    type Error = &'static str;

    fn try_from(mut flat: FlatClaims) -> Result<Self, &'static str> {
        let (user, service) = (flat.take_user()?, flat.service());
        let FlatClaims { iss, sub, aud, exp, iat, nbf, jti, client_id, scope, act, via, cnf, .. } = flat;
        Ok(Self { iss, sub, aud, exp, iat, nbf, jti, client_id, scope, user, service, act, via, cnf })
    }
}

impl Claims {
    /// The scopes one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.split_ascii_whitespace()
    }

    /// Carries this scope.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes().any(|have| have == scope)
    }

    /// Is meant for this audience.
    pub fn is_for(&self, audience: &str) -> bool {
        self.aud.iter().any(|have| have == audience)
    }

    /// The token version of whom it is about, and the tenant; no token is without, but those of older releases.
    pub fn standing(&self) -> Option<(i64, Uuid)> {
        let of_user = self.user.as_ref().map(|user| (user.ver, user.tenant_id));
        of_user.or_else(|| self.service.as_ref().map(|service| (service.ver, service.tenant_id)))
    }

    /// The services that act for the subject, the newest first.
    pub fn actors(&self) -> impl Iterator<Item = &Actor> {
        self.act.iter().flat_map(|act| act.chain())
    }

    /// Every service that has had the token made out of another one: it ends with each of them.
    pub fn hands(&self) -> impl Iterator<Item = &Actor> {
        self.actors().chain(&self.via)
    }

    /// When the token ends.
    pub fn expire_time(&self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.exp, 0)
    }
}

/// What every token of a session says beside its own times and ids: fixed at login, rewritten when the
/// user changes, and handed back by the refresh statement so that a refresh reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Audiences.
    pub aud: Vec<String>,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// Roles.
    pub roles: Vec<String>,
    /// The user's token version.
    pub ver: i64,
    /// How the person authenticated.
    pub amr: Vec<String>,
    /// With the scope `email`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// With the scope `profile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_username: Option<String>,
    /// The password must be changed before anything else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub password_change_required: bool,
}

impl Profile {
    /// What a token may say now: while the password must be changed, it is good for that and nothing else.
    pub fn effective(self) -> Self {
        if !self.password_change_required {
            return self;
        }
        Self {
            aud: vec![OWN_AUDIENCE.to_owned()],
            scope: PASSWORD_CHANGE_SCOPE.to_owned(),
            roles: Vec::new(),
            email: None,
            preferred_username: None,
            ..self
        }
    }
}

/// The claims of an endorsement: an issuer key vouches for a session's key (RFC 7800).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endorsement {
    /// Issuer.
    pub iss: String,
    /// The session that the key was made for.
    pub sid: Uuid,
    /// The session's user.
    pub sub: Uuid,
    /// End, seconds since 1970.
    pub exp: i64,
    /// The session's public key.
    pub cnf: KeyConfirmation,
}

/// RFC 7800 section 3.2.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyConfirmation {
    /// The public key.
    pub jwk: Jwk,
}

/// RFC 7519 section 4.1.3: one audience may stand without its array.
pub fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    deserializer.deserialize_any(Audiences)
}

/// Reads either form at once. An untagged enum would copy what it reads first.
struct Audiences;

impl<'de> Visitor<'de> for Audiences {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an audience or an array of them")
    }

    fn visit_str<E>(self, one: &str) -> Result<Self::Value, E> {
        Ok(vec![one.to_owned()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, many: A) -> Result<Self::Value, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(many))
    }
}
