//! What people reach: it knows who they are by their own token, and calls on in their name.

use tessera::verifier::{Requirement, ServiceIdentity};
use tonic::{Request, Response, Status, service::Routes, transport::Channel};

use crate::{
    Outcome,
    mesh::{
        BuyRequest, BuyResponse, PlaceRequest,
        gateway_server::{Gateway, GatewayServer},
        orders_client::OrdersClient,
    },
    service::{Calls, Running, serve, token_of},
};

pub struct Service {
    pub identity: ServiceIdentity,
    pub orders: Channel,
    pub calls: Calls,
}

#[tonic::async_trait]
impl Gateway for Service {
    async fn buy(&self, request: Request<BuyRequest>) -> Result<Response<BuyResponse>, Status> {
        let token = token_of(&request)?;
        self.calls.note("gateway", &token);
        let BuyRequest { article } = request.into_inner();
        let orders = self.identity.acting_for(
            &token,
            &["orders"],
            &["orders:place", "payments:charge", "ledger:record"],
        );
        let mut orders = OrdersClient::new(orders.attach(self.orders.clone()));
        let placed = orders.place(PlaceRequest { article: article.clone() }).await?.into_inner();
        Ok(Response::new(BuyResponse { receipt: format!("{article}, entry {}", placed.entry) }))
    }
}

pub async fn start(service: Service, issuer: &str) -> Outcome<Running> {
    let requirement = Requirement::scopes(["orders:place"]);
    serve("gateway", issuer, ("/mesh.v1.Gateway/Buy", requirement), Routes::new(GatewayServer::new(service)))
        .await
}
