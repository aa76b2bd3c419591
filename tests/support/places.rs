//! Calls that come from elsewhere: the test is a proxy that the server trusts.

use tessera::proto::{
    AuditEvent, Device, GetSessionRequest, ListEventsRequest, LoginRequest, RefreshRequest, SessionInfo,
    Tenant, TenantSessions, Tokens, UpdateTenantRequest,
};
use tonic::{Request, Response, Status, metadata::MetadataValue};

use super::{Person, Server, authorized};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Settings of a server that takes the tests' word for where they are.
pub const BEHIND_A_PROXY: &str = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n";

/// A request that comes from this address.
pub fn at<T>(address: &str, message: impl Into<Request<T>>) -> Request<T> {
    let mut request = message.into();
    let value = MetadataValue::try_from(address).expect("an address is ASCII");
    request.metadata_mut().insert("x-forwarded-for", value);
    request
}

/// A request from this address to refresh, where the client may tell its device.
pub fn refresh_at(address: &str, refresh_token: &str, device: Option<Device>) -> Request<RefreshRequest> {
    at(address, Request::new(RefreshRequest { refresh_token: refresh_token.to_owned(), device }))
}

impl Server {
    /// Signs somebody in at this address.
    pub async fn sign_in_at(&self, address: &str, login: LoginRequest) -> Result<Person> {
        Ok(self.auth().login(at(address, Request::new(login))).await?.into_inner().into())
    }

    /// Refreshes at this address, and tells no device.
    pub async fn refresh_at(
        &self,
        address: &str,
        refresh_token: &str,
    ) -> std::result::Result<Tokens, Status> {
        let reply = self.auth().refresh(refresh_at(address, refresh_token, None)).await?;
        Ok(reply.into_inner().tokens.unwrap_or_default())
    }

    /// Changes what sessions of a tenant keep to.
    pub async fn set_session_policy(
        &self,
        admin: &Person,
        tenant_id: &str,
        policy: TenantSessions,
    ) -> std::result::Result<Tenant, Status> {
        let request = UpdateTenantRequest {
            tenant_id: tenant_id.to_owned(),
            session_policy: Some(policy),
            ..UpdateTenantRequest::default()
        };
        let reply = self.tenants().update_tenant(authorized(&admin.access_token, request)).await;
        Ok(reply.map(Response::into_inner)?.tenant.unwrap_or_default())
    }

    /// A session as an admin sees it.
    pub async fn session_of(&self, admin: &Person, session_id: &str) -> Result<SessionInfo> {
        let request = GetSessionRequest { session_id: session_id.to_owned() };
        let reply = self.session().get_session(authorized(&admin.access_token, request)).await?;
        Ok(reply.into_inner().session.ok_or("no session")?)
    }

    /// The events of the tenant `default` with this action, the newest first.
    pub async fn events(&self, admin: &Person, action: &str) -> Result<Vec<AuditEvent>> {
        let request = ListEventsRequest { action: action.to_owned(), ..ListEventsRequest::default() };
        let reply = self.audit().list_events(authorized(&admin.access_token, request)).await?;
        Ok(reply.into_inner().events)
    }
}
