//! A client that keeps itself signed in: once for all who ask, ahead of time, and again when the session is over.

use futures_util::future::join_all;
use tessera::{
    proto::{LogoutRequest, RevokeSessionRequest},
    verifier::{
        Guard, Login, OnSessionEnd, SignIn, TokenError, TokenSource, TokenSourceBuilder, Verifier, WithToken,
    },
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::{
    Guarded, Home, Outcome, PASSWORD, Person, Server, authorized, eventually, parts_of, timed_stories,
};

timed_stories! {
    one_signs_in_for_all,
    a_token_is_renewed_ahead_of_its_end,
    a_call_that_is_refused_is_made_once_more,
    who_is_told_to_gives_up,
    a_refresh_token_from_elsewhere_is_enough,
    a_wrong_password_is_not_tried_with_each_call,
}

fn anna(home: &Home, server: &Server) -> TokenSourceBuilder {
    anna_with(home, server, PASSWORD)
}

fn anna_with(home: &Home, server: &Server, password: &str) -> TokenSourceBuilder {
    let login = Login {
        username: "anna".to_owned(),
        password: password.into(),
        device_type: "robot".to_owned(),
        audience: vec!["orders".to_owned(), "tessera".to_owned()],
        ..Login::default()
    };
    TokenSource::sign_in(server.url(), SignIn::Password(login)).clock(home.clock.clone())
}

async fn logins(server: &Server) -> Result<u64, Box<dyn std::error::Error>> {
    server.metric("tessera_grpc_calls_total{method=\"/tessera.v1.Auth/Login\"").await
}

async fn refreshes(server: &Server) -> Result<u64, Box<dyn std::error::Error>> {
    server.metric("tessera_grpc_calls_total{method=\"/tessera.v1.Auth/Refresh\"").await
}

/// Ends the session that the source is in.
async fn end_session(server: &Server, admin: &Person, token: &str) -> Outcome {
    let (_, claims) = parts_of(token)?;
    let session_id = claims["sid"].as_str().ok_or("no sid")?.to_owned();
    let request = RevokeSessionRequest { session_id };
    server.session().revoke_session(authorized(&admin.access_token, request)).await?;
    Ok(())
}

async fn one_signs_in_for_all(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let before = logins(&server).await?;
    let source = anna(&home, &server).build()?;
    let first = source.token().await?;
    for token in join_all((0..50).map(|_| source.token())).await {
        assert_eq!(token?, first);
    }
    let other = anna(&home, &server).build()?;
    let mut tokens = join_all((0..50).map(|_| other.token())).await.into_iter();
    let one = tokens.next().ok_or("none")??;
    assert!(tokens.all(|token| token.is_ok_and(|token| token == one)));
    assert_eq!(logins(&server).await? - before, 2);
    assert!(server.is_active(one.expose(), true).await?);
    assert_eq!(format!("{one:?}"), "AccessToken(..)");
    server.stop().await
}

async fn a_token_is_renewed_ahead_of_its_end(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let source = anna(&home, &server).build()?;
    let first = source.token().await?;
    home.clock.advance(600);
    assert_eq!(source.token().await?, first, "it has life enough");
    home.clock.advance(180);
    for token in join_all((0..50).map(|_| source.token())).await {
        assert!(token.is_ok(), "nobody waits");
    }
    eventually("it is renewed", async || Ok(source.token().await? != first)).await?;
    assert_eq!(refreshes(&server).await?, 1);

    // Asleep for so long that it has passed: now they have to wait, for one.
    home.clock.advance(3000);
    for token in join_all((0..50).map(|_| source.token())).await {
        assert!(server.is_active(token?.expose(), true).await?);
    }
    assert_eq!(refreshes(&server).await?, 2);

    let waiting = source.clone();
    home.clock.advance(3000);
    let call = tokio::spawn(async move { waiting.token().await });
    tokio::task::yield_now().await;
    call.abort();
    assert!(server.is_active(source.token().await?.expose(), true).await?, "who goes away spoils nothing");
    server.stop().await
}

/// A service that wants a token, and a client of it that has one.
async fn service_of(
    home: &Home,
    server: &Server,
    source: &TokenSource,
) -> Result<(Guarded, HealthClient<WithToken<Channel>>), Box<dyn std::error::Error>> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    let verifier = verifier.clock(home.clock.clone()).start().await?;
    let service = Guarded::start(Guard::new(verifier)).await?;
    let client = HealthClient::new(source.attach(service.channel()?));
    Ok((service, client))
}

async fn a_call_that_is_refused_is_made_once_more(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let admin = server.admin().await?;
    let source = anna(&home, &server).build()?;
    let (service, mut health) = service_of(&home, &server, &source).await?;
    health.check(HealthCheckRequest::default()).await?;

    let token = source.token().await?;
    end_session(&server, &admin, token.expose()).await?;
    let bearer = format!("Bearer {}", token.expose());
    eventually("the service knows", async || {
        Ok(service.get("/greet", &[&bearer]).await?.starts_with("HTTP/1.1 401"))
    })
    .await?;
    let before = logins(&server).await?;
    let calls = join_all((0..20).map(|_| {
        let mut health = health.clone();
        async move { health.check(HealthCheckRequest::default()).await }
    }));
    for call in calls.await {
        call?;
    }
    assert_eq!(logins(&server).await? - before, 1, "one signs in again for all");
    assert_ne!(source.token().await?, token);
    server.stop().await
}

async fn who_is_told_to_gives_up(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let source = anna(&home, &server).on_session_end(OnSessionEnd::GiveUp).build()?;
    let (_service, mut health) = service_of(&home, &server, &source).await?;
    let token = source.token().await?;
    server.auth().logout(authorized(token.expose(), LogoutRequest {})).await?;
    let before = logins(&server).await?;
    eventually("it is over", async || Ok(health.check(HealthCheckRequest::default()).await.is_err())).await?;
    let over = TokenError::SessionEnded("TOKEN_REVOKED".to_owned());
    assert_eq!(source.token().await, Err(over.clone()));
    let status = health.check(HealthCheckRequest::default()).await.expect_err("it is over");
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, &*over.to_string()));
    assert_eq!(logins(&server).await?, before);
    server.stop().await
}

async fn a_refresh_token_from_elsewhere_is_enough(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let sign_in = SignIn::RefreshToken(anna.refresh_token.clone().into());
    let source = TokenSource::sign_in(server.url(), sign_in).clock(home.clock.clone()).build()?;
    assert!(server.is_active(source.token().await?.expose(), true).await?);
    server.auth().logout(authorized(source.token().await?.expose(), LogoutRequest {})).await?;
    home.clock.advance(3000);
    assert!(matches!(source.token().await, Err(TokenError::SessionEnded(_))), "there is no password");
    server.stop().await
}

async fn a_wrong_password_is_not_tried_with_each_call(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let before = logins(&server).await?;
    let source = anna_with(&home, &server, "not hers").build()?;
    let refused = Err(TokenError::Refused("INVALID_CREDENTIALS".to_owned()));
    for token in join_all((0..200).map(|_| source.token())).await {
        assert_eq!(token, refused);
    }
    assert!(logins(&server).await? - before < 20);
    let gone = TokenSource::sign_in("http://127.0.0.1:1", SignIn::RefreshToken("trt_x".into())).build()?;
    assert_eq!(gone.token().await, Err(TokenError::Unavailable(Code::Unavailable)));
    server.stop().await
}
