//! Who calls, and whom and what it reaches.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::{
        claims::{ADMIN_ROLE, Claims, PASSWORD_CHANGE_SCOPE},
        tenant::{self, Tenant},
        user::User,
    },
    models::{tenants, users},
    verifier::TrustState,
};

/// A signed-in user, as its token says.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The user.
    pub user_id: Uuid,
    /// The user's tenant.
    pub tenant_id: Uuid,
    /// The session of the token.
    pub session_id: Uuid,
    /// When the token was made, in microseconds since 1970.
    pub issue_time_micros: i64,
    /// Administers its tenant.
    pub is_admin: bool,
    /// Must change its password before anything else.
    pub must_change_password: bool,
    /// Administers every tenant.
    is_root: bool,
}

impl Caller {
    pub(super) fn new(claims: Claims, default_tenant_id: Uuid) -> Result<Self, Error> {
        let must_change_password = claims.has_scope(PASSWORD_CHANGE_SCOPE);
        if claims.act.is_some() {
            return Err(Error::TokenInvalid("is a service's that acts for a user"));
        }
        let user = claims.user.ok_or(Error::TokenInvalid("belongs to no session"))?;
        let is_admin = user.roles.iter().any(|role| role == ADMIN_ROLE);
        Ok(Self {
            user_id: claims.sub,
            tenant_id: user.tenant_id,
            session_id: user.sid,
            issue_time_micros: claims.iat.saturating_mul(1_000_000),
            is_admin,
            must_change_password,
            is_root: is_admin && user.tenant_id == default_tenant_id,
        })
    }

    /// Whether it administers this tenant.
    pub(super) fn administers(&self, tenant_id: Uuid) -> bool {
        self.is_root || (self.is_admin && self.tenant_id == tenant_id)
    }

    /// Whether it may see and end what belongs to this user of this tenant.
    pub(super) fn reaches(&self, user_id: Uuid, tenant_id: Uuid) -> bool {
        self.user_id == user_id || self.administers(tenant_id)
    }

    /// Refuses all but the admins of the tenant `default`.
    pub fn require_root(&self) -> Result<(), Error> {
        if self.is_root { Ok(()) } else { Err(Error::InsufficientScope) }
    }
}

/// A service, as its token says.
#[derive(Debug, Clone)]
pub struct ServiceCaller {
    /// The service account.
    pub account_id: Uuid,
    /// Its tenant.
    pub tenant_id: Uuid,
    /// What its token says.
    claims: Arc<Claims>,
    /// When the certificate ends that it has shown, if it has.
    certificate_end: Option<DateTime<Utc>>,
}

impl ServiceCaller {
    /// One that acts for nobody else; `None` where the token is not a service's own.
    pub(super) fn new(claims: Claims, certificate_end: Option<DateTime<Utc>>) -> Option<Self> {
        let service = claims.service.as_ref().filter(|_| claims.act.is_none())?;
        let (account_id, tenant_id) = (claims.sub, service.tenant_id);
        Some(Self { account_id, tenant_id, claims: Arc::new(claims), certificate_end })
    }

    /// The thumbprint of the certificate that its token is bound to, and which it has shown.
    pub(super) fn certificate(&self) -> Option<&str> {
        self.claims.cnf.as_ref()?.x5t_s256.as_deref()
    }

    /// When that one ends.
    pub(super) fn certificate_end(&self) -> Option<DateTime<Utc>> {
        self.certificate().and(self.certificate_end)
    }

    /// Whether its token was ended since it called. That its time has passed is no matter.
    pub(super) fn is_revoked(&self, trust: &TrustState) -> bool {
        trust.is_revoked(&self.claims)
    }
}

/// The tenant of this name, or the caller's own where the name is empty. One that the caller does not
/// administer is as good as not there; one of which something makes no sense is there without that.
pub(super) async fn administered_tenant(app: &App, caller: &Caller, name: &str) -> Result<Tenant, Error> {
    if !name.is_empty() && tenant::parse_name("tenant", name).is_err() {
        return Err(Error::NotFound("tenant"));
    }
    let own = caller.tenant_id;
    let tenant = app.store.read(async move |conn| match name {
        "" => tenants::look_up(conn, own).await,
        name => tenants::look_up_by_name(conn, name).await,
    });
    let tenant = tenant.await?.map(tenants::Found::readable);
    tenant.filter(|tenant| caller.administers(tenant.id)).ok_or(Error::NotFound("tenant"))
}

/// The user of this id, who is the caller or one whom it administers.
pub(super) async fn reachable_user(app: &App, caller: &Caller, id: Uuid) -> Result<User, Error> {
    let user = app.store.read(async move |conn| users::find(conn, id).await).await?;
    user.filter(|user| caller.reaches(user.id, user.tenant_id)).ok_or(Error::NotFound("user"))
}
