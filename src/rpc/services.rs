//! Leads each call to the service of its method. The contract's are called by their names and not through a router, which would
//! copy and box what it holds for each call; health and reflection are asked seldom, and are behind one.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use http::{HeaderMap, Request, Response};
use tonic::{
    body::Body,
    codegen::Service,
    server::NamedService,
    service::{Routes, RoutesBuilder},
};
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::{Builder, Error};

use super::{audiences, audit, auth, gate, keys, service_accounts, session, tenants, users};
use crate::{
    app::App,
    proto::{
        DESCRIPTOR_SET, audiences_server::AudiencesServer, audit_server::AuditServer,
        auth_server::AuthServer, keys_server::KeysServer, service_accounts_server::ServiceAccountsServer,
        session_server::SessionServer, tenants_server::TenantsServer, users_server::UsersServer,
    },
};

/// The largest request message, in bytes. No field of the contract comes near it.
const MAX_REQUEST: usize = 64 * 1024;

/// An answer on its way.
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// Every gRPC service.
pub(super) struct Services {
    audiences: AudiencesServer<audiences::Service>,
    audit: AuditServer<audit::Service>,
    auth: AuthServer<auth::Service>,
    keys: KeysServer<keys::Service>,
    service_accounts: ServiceAccountsServer<service_accounts::Service>,
    session: SessionServer<session::Service>,
    tenants: TenantsServer<tenants::Service>,
    users: UsersServer<users::Service>,
    others: Routes,
}

impl Services {
    pub(super) fn new(
        app: &Arc<App>,
        health: HealthServer<impl Health>,
        with_reflection: bool,
    ) -> Result<Self, Error> {
        let mut others = Routes::builder();
        others.add_service(health);
        if with_reflection {
            describe(&mut others)?;
        }
        let app = || app.clone();
        Ok(Self {
            audiences: AudiencesServer::new(audiences::Service(app())).max_decoding_message_size(MAX_REQUEST),
            audit: AuditServer::new(audit::Service(app())).max_decoding_message_size(MAX_REQUEST),
            auth: AuthServer::new(auth::Service(app())).max_decoding_message_size(MAX_REQUEST),
            keys: KeysServer::new(keys::Service(app())).max_decoding_message_size(MAX_REQUEST),
            service_accounts: ServiceAccountsServer::new(service_accounts::Service(app()))
                .max_decoding_message_size(MAX_REQUEST),
            session: SessionServer::new(session::Service(app())).max_decoding_message_size(MAX_REQUEST),
            tenants: TenantsServer::new(tenants::Service(app())).max_decoding_message_size(MAX_REQUEST),
            users: UsersServer::new(users::Service(app())).max_decoding_message_size(MAX_REQUEST),
            others: others.routes().into_axum_router().fallback(nowhere).into(),
        })
    }

    /// Hands a call to its service.
    pub(super) fn call(&self, request: Request<Body>) -> Answer {
        match service_of(request.uri().path()) {
            AudiencesServer::<audiences::Service>::NAME => self.audiences.clone().call(request),
            AuditServer::<audit::Service>::NAME => self.audit.clone().call(request),
            AuthServer::<auth::Service>::NAME => self.auth.clone().call(request),
            KeysServer::<keys::Service>::NAME => self.keys.clone().call(request),
            ServiceAccountsServer::<service_accounts::Service>::NAME => {
                self.service_accounts.clone().call(request)
            }
            SessionServer::<session::Service>::NAME => self.session.clone().call(request),
            TenantsServer::<tenants::Service>::NAME => self.tenants.clone().call(request),
            UsersServer::<users::Service>::NAME => self.users.clone().call(request),
            _ => Box::pin(self.others.clone().call(request)),
        }
    }
}

/// The full name of the service in a method's path.
fn service_of(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

/// Reflection, in both versions that clients ask for.
fn describe(services: &mut RoutesBuilder) -> Result<(), Error> {
    let describe = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // What errors carry, so that grpcurl can show it.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    services.add_service(describe().build_v1()?).add_service(describe().build_v1alpha()?);
    Ok(())
}

/// The answer where reflection is turned off.
async fn nowhere(headers: HeaderMap) -> Response<axum::body::Body> {
    gate::unknown_method(&headers).map(axum::body::Body::new)
}
