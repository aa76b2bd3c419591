//! The books. It calls nobody, and so has no account: to check who calls, it needs none.

use std::sync::{Mutex, PoisonError};

use tessera::verifier::{ClaimsOf, Requirement};
use tonic::{Request, Response, Status, service::Routes};
use uuid::Uuid;

use crate::{
    Outcome,
    mesh::{
        RecordRequest, RecordResponse,
        ledger_server::{Ledger, LedgerServer},
    },
    service::{Calls, Running, serve, token_of},
};

#[derive(Default)]
pub struct Service {
    pub calls: Calls,
    /// Who owes how much.
    pub entries: Mutex<Vec<(Uuid, i64)>>,
}

#[tonic::async_trait]
impl Ledger for Service {
    async fn record(&self, request: Request<RecordRequest>) -> Result<Response<RecordResponse>, Status> {
        self.calls.note("ledger", &token_of(&request)?);
        let claims = request.claims().ok_or(Status::internal("the guard is not there"))?;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push((claims.sub, request.get_ref().cents));
        Ok(Response::new(RecordResponse { entry: i64::try_from(entries.len()).unwrap_or(i64::MAX) }))
    }
}

/// Lets in only what `payments`, by its `client_id`, calls with, whomever it acts for: people could ask for a token for this
/// audience themselves.
pub async fn start(service: Service, issuer: &str, payments: &str) -> Outcome<Running> {
    let requirement = Requirement::scopes(["ledger:record"]).any_client([payments]);
    serve("ledger", issuer, ("/mesh.v1.Ledger/Record", requirement), Routes::new(LedgerServer::new(service)))
        .await
}
