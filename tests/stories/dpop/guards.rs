//! Nonces that a guarded service demands by itself (RFC 9449 section 9): any replica's is good at each, and clients take
//! them up.

use std::{error::Error, time::Duration};

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    verifier::{
        ConnectedVerifier, Guard, HolderKey, KeyProofs, Login, NonceKey, SignIn, TokenSource, Verifier,
    },
};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_client::HealthClient};

use super::LOGIN;
use crate::support::{
    Guarded, Holder, Home, Outcome, PASSWORD, Server, login_as, proved, refusal, timed_stories, with_proofs,
    words,
};

timed_stories! {
    a_guard_tells_its_nonce_and_demands_it,
    a_client_takes_up_what_a_guard_tells,
}

const CHECK: &str = "/grpc.health.v1.Health/Check";

async fn connect(home: &Home, server: &Server) -> Result<ConnectedVerifier, Box<dyn Error>> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    let long = Duration::from_secs(100_000);
    Ok(verifier.clock(home.clock.clone()).max_staleness(long).start().await?)
}

/// A replica of a service whose replicas share this secret.
async fn replica(verifier: &ConnectedVerifier, secret: u8) -> Result<Guarded, Box<dyn Error>> {
    let proofs = KeyProofs::default().with_nonces(NonceKey::derive(&[secret; 32])?);
    Guarded::start(Guard::new(verifier.clone()).key_proofs(proofs)).await
}

fn nonce_in(metadata: &MetadataMap) -> Option<String> {
    Some(metadata.get("dpop-nonce")?.to_str().ok()?.to_owned())
}

async fn a_guard_tells_its_nonce_and_demands_it(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let mut login = login_as("anna", PASSWORD, "mobile");
    login.audience = words(&["orders"]);
    let login = with_proofs(&[&holder.proof(LOGIN, home.now(), None)?], Request::new(login));
    let tokens = server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?;
    let token = tokens.access_token.as_str();
    let verifier = connect(&home, &server).await?;
    let (service, other) = (replica(&verifier, 1).await?, replica(&verifier, 1).await?);
    let stranger = replica(&verifier, 2).await?;
    let call = async |service: &Guarded, nonce: Option<&str>| {
        let carrying = nonce.map_or(json!({}), |nonce| json!({"nonce": nonce}));
        let proof = holder.proof_with(CHECK, home.now(), Some(token), carrying).expect("a proof");
        let mut health = service.health().expect("a client");
        health.check(proved(token, &proof, HealthCheckRequest::default())).await
    };
    let use_nonce = (Code::Unauthenticated, "USE_DPOP_NONCE".to_owned());
    let told = |answer: Result<Response<HealthCheckResponse>, Status>| match answer {
        Ok(answer) => nonce_in(answer.metadata()),
        Err(status) => nonce_in(status.metadata()),
    };
    assert_eq!(refusal(call(&service, None).await), use_nonce);
    assert_eq!(refusal(call(&service, Some("made-up")).await), use_nonce);
    let nonce = told(call(&service, None).await).ok_or("none is told")?;
    for service in [&service, &other] {
        assert_eq!(told(Ok(call(service, Some(&nonce)).await?)), None, "it is the current one");
    }
    assert_eq!(refusal(call(&stranger, Some(&nonce)).await), use_nonce);
    home.clock.advance(60);
    let next = told(Ok(call(&service, Some(&nonce)).await?)).ok_or("the next one is told")?;
    home.clock.advance(60);
    assert_eq!(refusal(call(&service, Some(&nonce)).await), use_nonce);
    call(&service, Some(&next)).await?;

    // And over HTTP.
    let proof = holder.proof_with("/greet", home.now(), Some(token), json!({"htm": "GET"}))?;
    let headers = [format!("authorization: DPoP {token}"), format!("dpop: {proof}")];
    let page = service.get_with("/greet", &headers).await?;
    assert!(page.starts_with("HTTP/1.1 401") && page.contains("dpop-nonce: "), "{page}");
    assert!(page.contains("www-authenticate: DPoP error=\"use_dpop_nonce\""), "{page}");
    server.stop().await
}

async fn a_client_takes_up_what_a_guard_tells(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let login = Login {
        username: "anna".to_owned(),
        password: PASSWORD.into(),
        device_type: "robot".to_owned(),
        audience: words(&["orders"]),
        ..Login::default()
    };
    let source = TokenSource::sign_in(server.url(), SignIn::Password(login)).clock(home.clock.clone());
    let source = source.bound_to_key(HolderKey::generate()?).build()?;
    let verifier = connect(&home, &server).await?;
    let (one, other) = (replica(&verifier, 1).await?, replica(&verifier, 2).await?);
    let token = source.token().await?;
    let mut clients = Vec::new();
    for service in [&one, &other] {
        clients.push(HealthClient::new(source.attach(service.channel()?)));
    }
    for _ in 0..4 {
        for health in &mut clients {
            health.check(HealthCheckRequest::default()).await?;
        }
        home.clock.advance(70);
    }
    assert_eq!(source.token().await?, token, "it was good all the time");
    server.stop().await
}
