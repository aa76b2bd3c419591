//! A service of somebody's own behind a guard: health, and over plain HTTP a greeting, on one port.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
};

use axum::{Router, extract::Request, routing::any};
use tessera::verifier::{ClaimsOf, ClientCertificate, Guard, GuardInterceptor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::{InterceptorLayer, Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server as TonicServer, ServerTlsConfig},
};
use tonic_health::pb::health_client::HealthClient;

use super::{FENCE, PASSWORD, Server, login_as};

/// A running one.
pub struct Guarded {
    /// Where it is reached.
    pub address: SocketAddr,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Guarded {
    /// Serves behind this guard.
    pub async fn start(guard: Guard) -> Result<Self, Box<dyn Error>> {
        let (_, health) = tonic_health::server::health_reporter();
        let greet = |request: Request| async move {
            request.claims().map_or_else(|| "hello".to_owned(), |claims| format!("hello {}", claims.sub))
        };
        let router = Router::new().route("/greet", any(greet)).route("/public", any(greet));
        Self::serve(guard, Routes::from(router).add_service(health)).await
    }

    /// Serves health over TLS behind this guard, which is told what certificates its callers show.
    pub async fn start_with_tls(guard: Guard, tls: ServerTlsConfig) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (_, health) = tonic_health::server::health_reporter();
        let serving = TonicServer::builder()
            .tls_config(tls)?
            .layer(InterceptorLayer::new(with_certificate))
            .layer(guard)
            .add_service(health)
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { address, task: tokio::spawn(serving) })
    }

    /// Serves these routes behind this guard.
    pub async fn serve(guard: Guard, routes: Routes) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let serving = TonicServer::builder()
            .accept_http1(true)
            .layer(guard)
            .add_routes(routes)
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { address, task: tokio::spawn(serving) })
    }

    /// Serves health alone, behind this interceptor.
    pub async fn start_intercepted(interceptor: GuardInterceptor) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (_, health) = tonic_health::server::health_reporter();
        let serving = TonicServer::builder()
            .add_service(InterceptedService::new(health, interceptor))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Ok(Self { address, task: tokio::spawn(serving) })
    }

    /// A connection to it.
    pub fn channel(&self) -> Result<Channel, Box<dyn Error>> {
        Ok(Endpoint::from_shared(format!("http://{}", self.address))?.connect_lazy())
    }

    /// Its gRPC service.
    pub fn health(&self) -> Result<HealthClient<Channel>, Box<dyn Error>> {
        Ok(HealthClient::new(self.channel()?))
    }

    /// Gets a page over HTTP/1.1: status line, headers and body.
    pub async fn get(&self, path: &str, authorization: &[&str]) -> Result<String, Box<dyn Error>> {
        let headers: Vec<_> = authorization.iter().map(|value| format!("authorization: {value}")).collect();
        self.get_with(path, &headers).await
    }

    /// The same with these headers.
    pub async fn get_with(&self, path: &str, headers: &[String]) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(self.address).await?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        timeout(FENCE, stream.read_to_string(&mut page)).await??;
        Ok(page)
    }
}

/// As the documentation of `ClientCertificate` has it.
fn with_certificate(mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
    if let Some(certificate) = request.peer_certs().and_then(|chain| ClientCertificate::of_chain(&chain)) {
        request.extensions_mut().insert(certificate);
    }
    Ok(request)
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Signs in for these audiences with these scopes, and gives the access token.
pub async fn audience_token(
    server: &Server,
    username: &str,
    audience: &[&str],
    scope: &[&str],
) -> Result<String, Box<dyn Error>> {
    let mut login = login_as(username, PASSWORD, "web");
    login.audience = audience.iter().map(|text| (*text).to_owned()).collect();
    login.scope = scope.iter().map(|text| (*text).to_owned()).collect();
    let reply = server.auth().login(login).await?.into_inner();
    Ok(reply.tokens.ok_or("no tokens")?.access_token)
}
