//! A call that is refused is made once more where its method was not begun, and only there: nobody pays twice.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::Request, response::Response, routing::any};
use http::HeaderMap;
use tessera::{
    proto::{ListSessionsRequest, RevokeSessionRequest, session_client::SessionClient},
    verifier::{
        AccessToken, ConnectedVerifier, Guard, GuardInterceptor, Login, Requirement, SignIn, TokenSource,
        Verifier,
    },
};
use tonic::{Code, Status, metadata::MetadataMap, service::Routes, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    Guarded, Home, Outcome, PASSWORD, Person, Server, authorized, eventually, parts_of, timed_stories,
};

timed_stories! {
    what_a_method_answers_is_the_answer,
    what_never_reached_a_method_is_sent_again,
}

/// A client of two services.
fn anna(home: &Home, server: &Server) -> Result<TokenSource, Box<dyn std::error::Error>> {
    let login = Login {
        username: "anna".to_owned(),
        password: PASSWORD.into(),
        device_type: "robot".to_owned(),
        audience: vec!["orders".to_owned(), "tessera".to_owned()],
        ..Login::default()
    };
    let source = TokenSource::sign_in(server.url(), SignIn::Password(login));
    Ok(source.clock(home.clock.clone()).build()?)
}

async fn verifier(home: &Home, server: &Server) -> Result<ConnectedVerifier, Box<dyn std::error::Error>> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    Ok(verifier.clock(home.clock.clone()).start().await?)
}

/// What a method does that asks another service, and passes its headers and its answer on.
async fn pass_on(mut health: HealthClient<Channel>, headers: HeaderMap) -> Status {
    let mut onward = tonic::Request::new(HealthCheckRequest::default());
    *onward.metadata_mut() = MetadataMap::from_headers(headers);
    onward.metadata_mut().remove("authorization");
    health.check(onward).await.expect_err("it has no token for that")
}

async fn what_a_method_answers_is_the_answer(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let source = anna(&home, &server)?;
    let guard = Guard::new(verifier(&home, &server).await?);
    let other = Guarded::start(guard.clone()).await?;
    for passes_on in [false, true] {
        let done = Arc::new(AtomicUsize::new(0));
        let method = {
            let (done, health) = (done.clone(), other.health()?);
            move |request: Request| async move {
                done.fetch_add(1, Ordering::Relaxed);
                let status = if passes_on {
                    pass_on(health, request.headers().clone()).await
                } else {
                    Status::unauthenticated("not you")
                };
                let response: Response = status.into_http();
                response
            }
        };
        let router = Router::new().route("/grpc.health.v1.Health/Check", any(method));
        let service = Guarded::serve(guard.clone(), Routes::from(router)).await?;
        let mut health = HealthClient::new(source.attach(service.channel()?));
        let token = source.token().await?;
        let status = health.check(HealthCheckRequest::default()).await.expect_err("it is refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert_eq!(done.load(Ordering::Relaxed), 1, "passes on: {passes_on}");
        eventually("the next call has another token", async || Ok(source.token().await? != token)).await?;
    }
    server.stop().await
}

/// Ends the session that the source is in.
async fn end_session(server: &Server, admin: &Person, token: &AccessToken) -> Outcome {
    let session_id = parts_of(token.expose())?.1["sid"].as_str().ok_or("no sid")?.to_owned();
    let request = RevokeSessionRequest { session_id };
    server.session().revoke_session(authorized(&admin.access_token, request)).await?;
    Ok(())
}

async fn what_never_reached_a_method_is_sent_again(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let admin = server.admin().await?;
    let source = anna(&home, &server)?;
    let mut sessions = SessionClient::new(source.attach(server.channel()));
    sessions.list_sessions(ListSessionsRequest::default()).await?;
    end_session(&server, &admin, &source.token().await?).await?;
    sessions.list_sessions(ListSessionsRequest::default()).await?;

    let verifier = verifier(&home, &server).await?;
    let interceptor = GuardInterceptor::new(verifier.clone(), Requirement::good_token());
    let service = Guarded::start_intercepted(interceptor).await?;
    let mut health = HealthClient::new(source.attach(service.channel()?));
    let token = source.token().await?;
    end_session(&server, &admin, &token).await?;
    eventually("the service knows", async || Ok(verifier.check(token.expose()).await.is_err())).await?;
    health.check(HealthCheckRequest::default()).await?;
    server.stop().await
}
