//! `tessera.v1.Tenants`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, parse, tenant_sessions};
use crate::{
    app::{
        App, suspend_tenant,
        tenants::{self, Which},
    },
    domain::{
        InvalidField,
        tenant::{self, TenantSigning},
        text,
    },
    proto::{self, tenants_server::Tenants},
};

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Tenants for Service {
    async fn create_tenant(
        &self,
        request: Request<proto::CreateTenantRequest>,
    ) -> Result<Response<proto::CreateTenantResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let name = tenant::parse_name("name", &message.name)?;
        let display_name = text::shown("display_name", &message.display_name, 128)?;
        let tenant = tenants::create(&self.0, &caller, name, display_name, &origin).await?;
        Ok(Response::new(proto::CreateTenantResponse { tenant: Some(convert::tenant(tenant)) }))
    }

    async fn get_tenant(
        &self,
        request: Request<proto::GetTenantRequest>,
    ) -> Result<Response<proto::GetTenantResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let tenant = tenants::get(&self.0, &caller, &which(message)?).await?;
        Ok(Response::new(proto::GetTenantResponse { tenant: Some(convert::tenant(tenant)) }))
    }

    async fn update_tenant(
        &self,
        request: Request<proto::UpdateTenantRequest>,
    ) -> Result<Response<proto::UpdateTenantResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("tenant_id", &message.tenant_id)?;
        let display_name = message.display_name.as_deref();
        let changes = tenants::Changes {
            display_name: display_name.map(|name| text::shown("display_name", name, 128)).transpose()?,
            signing: message.signing.as_ref().map(signing).transpose()?,
            sessions: message.session_policy.as_ref().map(tenant_sessions::parse).transpose()?,
        };
        let tenant = tenants::update(&self.0, &caller, id, changes, &origin).await?;
        Ok(Response::new(proto::UpdateTenantResponse { tenant: Some(convert::tenant(tenant)) }))
    }

    async fn list_tenants(
        &self,
        request: Request<proto::ListTenantsRequest>,
    ) -> Result<Response<proto::ListTenantsResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = tenants::list(&self.0, &caller, page).await?;
        Ok(Response::new(proto::ListTenantsResponse {
            tenants: found.items.into_iter().map(convert::tenant).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn suspend_tenant(
        &self,
        request: Request<proto::SuspendTenantRequest>,
    ) -> Result<Response<proto::SuspendTenantResponse>, Status> {
        let (caller, origin, message) = parse::open_root(request)?;
        let id = parse::id("tenant_id", &message.tenant_id)?;
        let tenant = suspend_tenant::suspend(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::SuspendTenantResponse { tenant: Some(convert::tenant(tenant)) }))
    }

    async fn resume_tenant(
        &self,
        request: Request<proto::ResumeTenantRequest>,
    ) -> Result<Response<proto::ResumeTenantResponse>, Status> {
        let (caller, origin, message) = parse::open_root(request)?;
        let id = parse::id("tenant_id", &message.tenant_id)?;
        let tenant = suspend_tenant::resume(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::ResumeTenantResponse { tenant: Some(convert::tenant(tenant)) }))
    }
}

fn signing(told: &proto::TenantSigning) -> Result<TenantSigning, InvalidField> {
    Ok(TenantSigning {
        algorithm: parse::maybe_algorithm("signing.algorithm", &told.algorithm)?,
        session_algorithm: parse::maybe_algorithm("signing.session_algorithm", &told.session_algorithm)?,
    })
}

fn which(message: proto::GetTenantRequest) -> Result<Which, InvalidField> {
    match (message.tenant_id.is_empty(), message.name.is_empty()) {
        (false, true) => Ok(Which::Id(parse::id("tenant_id", &message.tenant_id)?)),
        (true, false) => Ok(Which::Name(message.name)),
        _ => Err(InvalidField::new("tenant_id", "or `name` is to be given, and not both")),
    }
}
