//! Who stands between a client and a server, and takes something away.

use std::{
    error::Error,
    future::poll_fn,
    net::{Ipv4Addr, SocketAddr},
};

use axum::{Router, extract::Request, http::StatusCode};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    body::Body,
    service::Routes,
    transport::{Channel, Server as TonicServer},
};
use tower_service::Service;

/// Passes gRPC on, as an old gateway does that knows only some headers.
pub struct Intermediary {
    address: SocketAddr,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Intermediary {
    /// Passes calls on to this server, without the header of this name.
    pub async fn without(header: &'static str, to: Channel) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let pass_on = move |request: Request| {
            let mut to = to.clone();
            async move {
                let (mut parts, body) = request.into_parts();
                parts.headers.remove(header);
                let gone = |_| StatusCode::BAD_GATEWAY;
                poll_fn(|cx| to.poll_ready(cx)).await.map_err(gone)?;
                to.call(Request::from_parts(parts, Body::new(body))).await.map_err(gone)
            }
        };
        let serving = TonicServer::builder()
            .add_routes(Routes::from(Router::new().fallback(pass_on)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { address, task: tokio::spawn(serving) })
    }

    /// Where it is reached, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Intermediary {
    fn drop(&mut self) {
        self.task.abort();
    }
}
