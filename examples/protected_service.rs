//! A tonic service of one's own that only lets signed-in callers in. It checks their tokens by itself, and hears from
//! a running `tessera serve` when somebody logs out.
//!
//!     cargo run --example protected_service [ISSUER] [LISTEN]
//!
//! ISSUER is where Tessera is, `http://127.0.0.1:50051` unless told; LISTEN is `127.0.0.1:50061` unless told.
//! `examples/signed_in_client.rs` calls it.

use std::{env, error::Error, net::SocketAddr, time::Duration};

use tessera::verifier::{ClaimsOf, ConnectedVerifier, Guard, OnStale, Requirement, Verifier};
use tonic::{Request, Response, Status, transport::Server};

use hello::{
    ForgetAllRequest, ForgetAllResponse, GreetRequest, GreetResponse,
    hello_server::{Hello, HelloServer},
};

mod hello {
    tonic::include_proto!("hello.v1");
}

struct MyHello;

#[tonic::async_trait]
impl Hello for MyHello {
    async fn greet(&self, request: Request<GreetRequest>) -> Result<Response<GreetResponse>, Status> {
        let claims = request.claims().ok_or(Status::unauthenticated("the guard is not there"))?;
        let device = claims.user.as_ref().map_or("no device", |user| user.device_type.as_str());
        let greeting = format!("hello {} from {device}", claims.sub);
        println!("{greeting}");
        Ok(Response::new(GreetResponse { greeting }))
    }

    async fn forget_all(&self, _: Request<ForgetAllRequest>) -> Result<Response<ForgetAllResponse>, Status> {
        Ok(Response::new(ForgetAllResponse {}))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter("warn").init();
    let mut arguments = env::args().skip(1);
    let issuer = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let listen: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:50061").parse()?;

    let verifier = Verifier::connect(issuer)
        .issuer("http://127.0.0.1:50051") // the setting tokens.issuer, exactly
        .audience("orders") // this service's own name
        .on_stale(OnStale::FailClosed)
        .start()
        .await?;
    tokio::spawn(tell(verifier.clone()));

    let guard =
        Guard::new(verifier).require("/hello.v1.Hello/ForgetAll", Requirement::good_token().roles(["admin"]));
    println!("greets on {listen}");
    Server::builder().layer(guard).add_service(HelloServer::new(MyHello)).serve(listen).await?;
    Ok(())
}

/// What a service would export to its metrics.
async fn tell(verifier: ConnectedVerifier) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let figures = verifier.figures();
        println!(
            "heard the issuer {:?} ago, {} revocations",
            figures.staleness.unwrap_or_default(),
            figures.revocations
        );
    }
}
