//! What the four services have in common: each checks by itself who calls it, and all of them would in programs of
//! their own.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use tessera::verifier::{ConnectedVerifier, Guard, Requirement, Verifier, credentials};
use tokio::net::TcpListener;
use tonic::{
    Request, Status,
    service::Routes,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use crate::Outcome;

/// A running service.
pub struct Running {
    /// Its name, which is also the audience of the tokens that it takes.
    pub name: &'static str,
    /// What checks these.
    pub verifier: ConnectedVerifier,
    /// How it is reached.
    pub channel: Channel,
}

/// Serves these routes to callers whose token is for this service and is enough for the one method; nobody reaches any
/// other.
pub async fn serve(
    name: &'static str,
    issuer: &str,
    (method, requirement): (&str, Requirement),
    routes: Routes,
) -> Outcome<Running> {
    let verifier = Verifier::connect(issuer.to_owned()).issuer(issuer).audience(name).start().await?;
    let guard = Guard::new(verifier.clone()).others(Requirement::nobody()).require(method, requirement);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(Server::builder().layer(guard).add_routes(routes).serve_with_incoming(incoming));
    Ok(Running { name, verifier, channel: Endpoint::from_shared(url)?.connect_lazy() })
}

/// The token that a service was called with, to act with it.
pub fn token_of<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(credentials(request.metadata().as_ref())?.1.to_owned())
}

/// Remembers what each service was called with, for this example to show. A real one keeps no token.
#[derive(Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Calls {
    /// Remembers a call.
    pub fn note(&self, service: &'static str, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((service, token.to_owned()));
    }

    /// Those so far, in their order.
    pub fn all(&self) -> Vec<(&'static str, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
