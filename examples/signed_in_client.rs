//! A client that keeps itself signed in, and calls `examples/protected_service.rs` every second.
//!
//!     PASSWORD=… cargo run --example signed_in_client USERNAME [ISSUER] [SERVICE]
//!
//! ISSUER is where Tessera is, `http://127.0.0.1:50051` unless told; SERVICE is `http://127.0.0.1:50061` unless told.
//! Log the session out and it signs in again; stop either server and it goes on once that is back.

use std::{env, error::Error, time::Duration};

use tessera::verifier::{Login, SignIn, TokenSource};
use tonic::transport::Endpoint;

use hello::{GreetRequest, hello_client::HelloClient};

mod hello {
    tonic::include_proto!("hello.v1");
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_env_filter("info").init();
    let mut arguments = env::args().skip(1);
    let username = arguments.next().ok_or("whose name? PASSWORD=… signed_in_client USERNAME")?;
    let issuer = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50051".to_owned());
    let service = arguments.next().unwrap_or_else(|| "http://127.0.0.1:50061".to_owned());

    let tokens = TokenSource::sign_in(
        issuer,
        SignIn::Password(Login {
            username,
            password: env::var("PASSWORD")?.into(),
            device_type: "greeter".to_owned(), // a session of its own, beside the person's
            audience: vec!["orders".to_owned()],
            ..Login::default()
        }),
    )
    .build()?;
    let channel = Endpoint::from_shared(service)?.connect_lazy();
    let mut hello = HelloClient::new(tokens.attach(channel));
    loop {
        match hello.greet(GreetRequest {}).await {
            Ok(reply) => println!("{}", reply.into_inner().greeting),
            Err(status) => println!("{:?}: {}", status.code(), status.message()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
