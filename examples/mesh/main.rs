//! A shop in four services that call each other: gateway → orders → payments → ledger. Each proves itself to Tessera,
//! acts for the person who called, and lets in only whom it should.
//!
//!     cargo run --example mesh
//!
//! It brings all it needs, a server of Tessera's too, shows what happens and ends with 0, or with 1 where something is
//! not as it should be. With `RUST_LOG=info` it tells what everybody does.

use std::{error::Error, time::Duration};

use tessera::{proto::LogoutRequest, verifier::ConnectedVerifier};
use tokio::time::timeout;
use tonic::Status;
use tracing_subscriber::EnvFilter;

use mesh::{
    BuyRequest, ChargeRequest, PlaceRequest, RecordRequest, gateway_client::GatewayClient,
    ledger_client::LedgerClient, orders_client::OrdersClient, payments_client::PaymentsClient,
};
use service::{Calls, Running};
use setup::{Shop, Tessera, authorized};

mod gateway;
mod ledger;
mod orders;
mod payments;
mod service;
mod setup;
mod show;

mod mesh {
    tonic::include_proto!("mesh.v1");
}

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// A fence and no measure: they hear of a logout within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Outcome {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let tessera = Tessera::start().await?;
    let shop = setup::shop(&tessera).await?;
    let mesh = Mesh::start(&tessera, &shop).await?;
    mesh.buy(&shop).await?;
    mesh.go_astray(&tessera, &shop).await?;
    mesh.log_out(&tessera, &shop).await?;
    tessera.stop().await
}

/// All four services.
struct Mesh {
    gateway: Running,
    orders: Running,
    payments: Running,
    ledger: Running,
    calls: Calls,
}

impl Mesh {
    /// Starts them, the last one first.
    async fn start(tessera: &Tessera, shop: &Shop) -> Outcome<Self> {
        let (calls, issuer) = (Calls::default(), &tessera.url);
        let service = ledger::Service { calls: calls.clone(), ..Default::default() };
        let ledger = ledger::start(service, issuer, &shop.payments.client_id).await?;
        let (identity, next) = (shop.payments.identity.clone(), ledger.channel.clone());
        let service = payments::Service { identity, ledger: next, calls: calls.clone() };
        let payments = payments::start(service, issuer, &shop.orders.client_id).await?;
        let (identity, next) = (shop.orders.identity.clone(), payments.channel.clone());
        let service = orders::Service { identity, payments: next, calls: calls.clone() };
        let orders = orders::start(service, issuer, &shop.gateway.client_id).await?;
        let (identity, next) = (shop.gateway.identity.clone(), orders.channel.clone());
        let service = gateway::Service { identity, orders: next, calls: calls.clone() };
        let gateway = gateway::start(service, issuer).await?;
        Ok(Self { gateway, orders, payments, ledger, calls })
    }

    /// One order, through all of them.
    async fn buy(&self, shop: &Shop) -> Outcome {
        println!("anna buys a pot of tea:");
        let receipt = self.call("gateway", &shop.anna).await?;
        for (service, token) in self.calls.all() {
            show::token(service, &token, &shop.names)?;
        }
        println!("  and her receipt says: {receipt}");
        Ok(())
    }

    /// What must not be.
    async fn go_astray(&self, tessera: &Tessera, shop: &Shop) -> Outcome {
        let (handed, orders) = (self.handed_to("orders")?, &shop.orders.identity);
        println!("\norders wants to write to ledger itself, past payments, for anna and then for itself:");
        let answer = orders.exchange(&handed, &["ledger"], &["ledger:record"]).await;
        show::refusal("Tessera", answer.map_err(Status::from), "INSUFFICIENT_SCOPE")?;
        let answer = orders.token(&["ledger"], &[]).await;
        show::refusal("Tessera", answer.map_err(Status::from), "INSUFFICIENT_SCOPE")?;
        println!("It tries with the token that it has for payments:");
        let own = orders.exchange(&handed, &["payments"], &["payments:charge", "ledger:record"]).await?;
        show::refusal("ledger", self.call("ledger", own.expose()).await, "TOKEN_INVALID")?;
        println!("Somebody takes the token that orders was called with to ledger:");
        show::refusal("ledger", self.call("ledger", &handed).await, "TOKEN_INVALID")?;
        println!("anna asks for a token for ledger, and writes to it past all others:");
        let (hers, _) = tessera.log_in(setup::TENANT, "anna", "cli", &["ledger"], &["ledger:record"]).await?;
        show::refusal("ledger", self.call("ledger", &hers).await, "INSUFFICIENT_SCOPE")
    }

    /// All that was made of her token ends with it, wherever it is.
    async fn log_out(&self, tessera: &Tessera, shop: &Shop) -> Outcome {
        let calls = self.calls.all();
        tessera.auth().logout(authorized(&shop.anna, LogoutRequest {})?).await?;
        println!("\nanna logs out, and each service is called with the same token once more:");
        for (service, token) in &calls {
            let hears = hears_of(&self.running(service)?.verifier, token);
            timeout(PATIENCE, hears).await.map_err(|_| format!("{service} does not hear of it"))?;
            show::refusal(service, self.call(service, token).await, "TOKEN_REVOKED")?;
        }
        println!("No service gets another token to act for her:");
        for (name, account, next) in [
            ("gateway", &shop.gateway, "orders"),
            ("orders", &shop.orders, "payments"),
            ("payments", &shop.payments, "ledger"),
        ] {
            // Not one that it has already: with no scope.
            let answer = account.identity.exchange(&self.handed_to(name)?, &[next], &[]).await;
            let who = format!("{name} asks, and Tessera");
            show::refusal(&who, answer.map_err(Status::from), "TOKEN_REVOKED")?;
        }
        Ok(())
    }

    /// Calls a service with a token.
    async fn call(&self, service: &str, token: &str) -> Result<String, Status> {
        let channel =
            self.running(service).map_err(|error| Status::not_found(error.to_string()))?.channel.clone();
        let entry = |entry: i64| format!("entry {entry}");
        match service {
            "gateway" => {
                let request = with(token, BuyRequest { article: "a pot of tea".to_owned() })?;
                Ok(GatewayClient::new(channel).buy(request).await?.into_inner().receipt)
            }
            "orders" => {
                let request = with(token, PlaceRequest { article: "a pot of tea".to_owned() })?;
                Ok(entry(OrdersClient::new(channel).place(request).await?.into_inner().entry))
            }
            "payments" => {
                let request = with(token, ChargeRequest { cents: 1 })?;
                Ok(entry(PaymentsClient::new(channel).charge(request).await?.into_inner().entry))
            }
            _ => {
                let request = with(token, RecordRequest { cents: 1 })?;
                Ok(entry(LedgerClient::new(channel).record(request).await?.into_inner().entry))
            }
        }
    }

    fn running(&self, name: &str) -> Outcome<&Running> {
        let all = [&self.gateway, &self.orders, &self.payments, &self.ledger];
        Ok(all.into_iter().find(|running| running.name == name).ok_or("no such service")?)
    }

    /// The token that a service was called with.
    fn handed_to(&self, service: &str) -> Outcome<String> {
        let call = self.calls.all().into_iter().find(|call| call.0 == service);
        Ok(call.ok_or("it was not called")?.1)
    }
}

fn with<T>(token: &str, message: T) -> Result<tonic::Request<T>, Status> {
    authorized(token, message).map_err(|error| Status::internal(error.to_string()))
}

/// Waits until a verifier has heard that a token is not good any more.
async fn hears_of(verifier: &ConnectedVerifier, token: &str) {
    let mut revisions = verifier.revisions();
    while verifier.check(token).await.is_ok() && revisions.changed().await.is_ok() {}
}
