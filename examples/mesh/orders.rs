//! Knows what things cost, and has them paid.

use tessera::verifier::{Requirement, ServiceIdentity};
use tonic::{Request, Response, Status, service::Routes, transport::Channel};

use crate::{
    Outcome,
    mesh::{
        ChargeRequest, PlaceRequest, PlaceResponse,
        orders_server::{Orders, OrdersServer},
        payments_client::PaymentsClient,
    },
    service::{Calls, Running, serve, token_of},
};

/// What everything costs here.
const CENTS: i64 = 1250;

pub struct Service {
    pub identity: ServiceIdentity,
    pub payments: Channel,
    pub calls: Calls,
}

#[tonic::async_trait]
impl Orders for Service {
    async fn place(&self, request: Request<PlaceRequest>) -> Result<Response<PlaceResponse>, Status> {
        let token = token_of(&request)?;
        self.calls.note("orders", &token);
        let payments = self.identity.acting_for(&token, &["payments"], &["payments:charge", "ledger:record"]);
        let mut payments = PaymentsClient::new(payments.attach(self.payments.clone()));
        let charged = payments.charge(ChargeRequest { cents: CENTS }).await?.into_inner();
        Ok(Response::new(PlaceResponse { entry: charged.entry }))
    }
}

/// Lets in only what `gateway`, by its `client_id`, calls with, whomever it acts for: people could ask for a token for this
/// audience themselves.
pub async fn start(service: Service, issuer: &str, gateway: &str) -> Outcome<Running> {
    let requirement = Requirement::scopes(["orders:place"]).any_client([gateway]);
    serve("orders", issuer, ("/mesh.v1.Orders/Place", requirement), Routes::new(OrdersServer::new(service)))
        .await
}
