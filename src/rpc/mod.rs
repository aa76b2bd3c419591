//! gRPC in, gRPC out: a file for each service of the contract, which parses, calls a verb and converts.
//! [`policy`] says who may call what and `gate` enforces it; `status` alone builds a `Status`.
//!
//! Must not enter: decisions about users and sessions, SQL, cryptography.

mod audiences;
mod audit;
mod auth;
mod convert;
mod gate;
mod keys;
mod parse;
pub mod peer;
pub mod policy;
mod service_accounts;
mod services;
mod session;
mod status;
mod stream;
mod tenant_sessions;
mod tenants;
mod trusted_issuers;
mod users;

use std::sync::Arc;

use http::{HeaderMap, Request, Response, header};
use tonic::body::Body;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::app::App;
use services::Services;

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

/// Every gRPC service, behind the gate. Cheap to clone.
#[derive(Clone)]
pub struct Rpc {
    app: Arc<App>,
    services: Arc<Services>,
}

impl Rpc {
    /// The contract's services and health, and reflection where it is wanted.
    pub fn new(
        app: &Arc<App>,
        health: HealthServer<impl Health>,
        with_reflection: bool,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let services = Arc::new(Services::new(app, health, with_reflection)?);
        Ok(Self { app: app.clone(), services })
    }

    /// Whether a request is gRPC, and not a browser's that has lost its way.
    pub fn takes(headers: &HeaderMap) -> bool {
        let content_type = headers.get(header::CONTENT_TYPE);
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
    }

    /// Answers a call.
    pub fn call(&self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send + use<> {
        gate::pass(self.app.clone(), self.services.clone(), request)
    }
}
