//! Charges whoever the order is from, and has it written down.

use tessera::verifier::{Requirement, ServiceIdentity};
use tonic::{Request, Response, Status, service::Routes, transport::Channel};

use crate::{
    Outcome,
    mesh::{
        ChargeRequest, ChargeResponse, RecordRequest,
        ledger_client::LedgerClient,
        payments_server::{Payments, PaymentsServer},
    },
    service::{Calls, Running, serve, token_of},
};

pub struct Service {
    pub identity: ServiceIdentity,
    pub ledger: Channel,
    pub calls: Calls,
}

#[tonic::async_trait]
impl Payments for Service {
    async fn charge(&self, request: Request<ChargeRequest>) -> Result<Response<ChargeResponse>, Status> {
        let token = token_of(&request)?;
        self.calls.note("payments", &token);
        let ChargeRequest { cents } = request.into_inner();
        let ledger = self.identity.acting_for(&token, &["ledger"], &["ledger:record"]);
        let mut ledger = LedgerClient::new(ledger.attach(self.ledger.clone()));
        let recorded = ledger.record(RecordRequest { cents }).await?.into_inner();
        Ok(Response::new(ChargeResponse { entry: recorded.entry }))
    }
}

/// Lets in only what `orders`, by its `client_id`, calls with, whomever it acts for: people could ask for a token for this
/// audience themselves.
pub async fn start(service: Service, issuer: &str, orders: &str) -> Outcome<Running> {
    let requirement = Requirement::scopes(["payments:charge"]).any_client([orders]);
    serve(
        "payments",
        issuer,
        ("/mesh.v1.Payments/Charge", requirement),
        Routes::new(PaymentsServer::new(service)),
    )
    .await
}
