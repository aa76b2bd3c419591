//! The bare server: tonic, a message in, a message out, and nothing else. Its answer is as long as the caller says.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::Ipv4Addr,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::Service,
    server::{Grpc, NamedService, UnaryService},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::{
    Bench, Outcome,
    load::{Caller, Sample, load, over},
    process::SERVES,
};

const PATH: &str = "/bench.Echo/Answer";
/// What a payload has beside its filling: two fields and their lengths.
const FRAME: usize = 7;

#[derive(Clone, PartialEq, Message)]
struct Payload {
    /// How long the answer is to be.
    #[prost(uint32, tag = "1")]
    wanted: u32,
    #[prost(bytes = "bytes", tag = "2")]
    filling: Bytes,
}

impl Payload {
    fn new(wanted: u32, length: usize) -> Self {
        Self { wanted, filling: vec![b'e'; length.saturating_sub(FRAME)].into() }
    }
}

/// Serves until it is killed.
pub async fn serve() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    eprintln!("{SERVES}http://{}, the bare one", listener.local_addr()?);
    // As the service sets it; the builder's own setting is not used with an incoming stream.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Ok(Server::builder().add_service(Echo).serve_with_incoming(incoming).await?)
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = Grpc::new(ProstCodec::<Payload, Payload>::default());
        Box::pin(async move { Ok(grpc.unary(Answer, request).await) })
    }
}

struct Answer;

impl UnaryService<Payload> for Answer {
    type Response = Payload;
    type Future = Ready<Result<Response<Payload>, Status>>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        let wanted = request.into_inner().wanted;
        ready(Ok(Response::new(Payload::new(0, wanted as usize))))
    }
}

struct EchoCaller {
    grpc: tonic::client::Grpc<Channel>,
    message: Payload,
}

impl Caller for EchoCaller {
    async fn call(&mut self) -> Result<(), Status> {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (request, path) = (Request::new(self.message.clone()), PathAndQuery::from_static(PATH));
        let codec = ProstCodec::<Payload, Payload>::default();
        self.grpc.unary(request, path, codec).await.map(|_| ())
    }
}

/// Callers of the bare server, and how long their messages are.
pub struct EchoLoad(Vec<EchoCaller>);

impl EchoLoad {
    /// Messages as long as these, from as many callers as any other case has.
    pub async fn new(
        bench: &Bench,
        in_flight: usize,
        request: &impl Message,
        answer: &impl Message,
    ) -> Outcome<Self> {
        let message = Payload::new(u32::try_from(answer.encoded_len())?, request.encoded_len());
        let caller =
            |channel, _| EchoCaller { grpc: tonic::client::Grpc::new(channel), message: message.clone() };
        Ok(Self(over(&bench.echo, in_flight, caller).await?))
    }

    /// One turn.
    pub async fn run(&mut self, bench: &Bench) -> Outcome<Sample> {
        load(&bench.echo, &mut self.0, bench.pace.slice).await
    }
}
