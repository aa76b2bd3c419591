//! gRPC in, gRPC out: a file for each service of the contract, which parses, calls a verb and converts.
//! [`policy`] says who may call what and [`gate`] enforces it; `status` alone builds a `Status`.
//!
//! Must not enter: decisions about users and sessions, SQL, cryptography.

mod audiences;
mod audit;
mod auth;
mod convert;
pub mod gate;
mod keys;
mod parse;
pub mod peer;
pub mod policy;
mod service_accounts;
mod session;
mod status;
mod stream;
mod tenant_sessions;
mod tenants;
mod trusted_issuers;
mod users;

use std::sync::Arc;

use tonic::service::Routes;
use tonic_health::pb::health_server::{Health, HealthServer};

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

/// The service whose calls need signatures.
pub const AUTH: &str = "tessera.v1.Auth";

/// The services of the contract by their full names.
pub const SERVICES: [&str; 8] = [
    "tessera.v1.Audiences",
    "tessera.v1.Audit",
    AUTH,
    "tessera.v1.Keys",
    "tessera.v1.ServiceAccounts",
    "tessera.v1.Session",
    "tessera.v1.Tenants",
    "tessera.v1.Users",
];

/// Every gRPC service on one router, behind the gate.
pub fn router(
    app: &Arc<App>,
    health: HealthServer<impl Health>,
    with_reflection: bool,
) -> Result<axum::Router, tonic_reflection::server::Error> {
    let app = || app.clone();
    let mut routes = Routes::builder();
    routes
        .add_service(health)
        .add_service(AudiencesServer::new(audiences::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(AuditServer::new(audit::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(AuthServer::new(auth::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(KeysServer::new(keys::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(
            ServiceAccountsServer::new(service_accounts::Service(app()))
                .max_decoding_message_size(MAX_REQUEST),
        )
        .add_service(SessionServer::new(session::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(TenantsServer::new(tenants::Service(app())).max_decoding_message_size(MAX_REQUEST))
        .add_service(UsersServer::new(users::Service(app())).max_decoding_message_size(MAX_REQUEST));
    if with_reflection {
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                // What errors carry, so that grpcurl can show it.
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        };
        routes.add_service(describe().build_v1()?).add_service(describe().build_v1alpha()?);
    }
    let router = routes.routes().into_axum_router();
    Ok(router.layer(axum::middleware::from_fn_with_state(app(), gate::pass)))
}
