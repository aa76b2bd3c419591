//! A client that keeps itself signed in, with a key.

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{ListSessionsRequest, session_client::SessionClient},
    verifier::{
        Guard, HolderKey, Login, Requirement, SignIn, TokenError, TokenSource, TokenSourceBuilder, Verifier,
    },
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::sign_in;
use crate::support::{
    Guarded, Holder, Home, Intermediary, Outcome, PASSWORD, Server, eventually, parts_of, timed_stories,
};

timed_stories! {
    it_shows_its_key_wherever_it_calls,
    it_goes_on_with_a_session_of_its_key_alone,
    it_takes_no_token_that_is_not_bound,
}

fn anna(home: &Home, server: &Server) -> TokenSourceBuilder {
    anna_at(home, server.url())
}

fn anna_at(home: &Home, url: String) -> TokenSourceBuilder {
    let login = Login {
        username: "anna".to_owned(),
        password: PASSWORD.into(),
        device_type: "robot".to_owned(),
        audience: vec!["orders".to_owned(), "tessera".to_owned()],
        ..Login::default()
    };
    TokenSource::sign_in(url, SignIn::Password(login)).clock(home.clock.clone())
}

async fn it_shows_its_key_wherever_it_calls(home: Home) -> Outcome {
    let settings = "[tokens]\ndpop_nonce = \"required\"\ndpop_origins = [\"http://auth.example\"]\n";
    for settings in ["", "[tokens]\ndpop_nonce = \"required\"\n", settings] {
        let server = home.start_with(settings).await?;
        if settings.is_empty() {
            server.anna().await?;
        }
        let key = HolderKey::generate()?;
        let source = anna(&home, &server).bound_to_key(key.clone()).build()?;
        if settings.contains("auth.example") {
            // It knows the server by another name.
            assert!(matches!(source.token().await, Err(TokenError::Refused(_))));
            server.stop().await?;
            continue;
        }
        let token = source.token().await?;
        assert!(token.is_bound_to_key());
        assert_eq!(parts_of(token.expose())?.1["cnf"], json!({"jkt": key.thumbprint()}));
        let mut sessions = SessionClient::new(source.attach(server.new_channel().await?));
        for _ in 0..3 {
            sessions.list_sessions(ListSessionsRequest::default()).await?;
        }

        let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
        let verifier = verifier.clock(home.clock.clone()).start().await?;
        let guard = Guard::new(verifier).others(Requirement::good_token().bound_to_key());
        let service = Guarded::start(guard).await?;
        let mut health = HealthClient::new(source.attach(service.channel()?));
        health.check(HealthCheckRequest::default()).await?;
        health.check(HealthCheckRequest::default()).await?;

        // Later, the nonce has changed and the token is due.
        home.clock.advance(880);
        sessions.list_sessions(ListSessionsRequest::default()).await?;
        eventually("it is renewed", async || {
            let (_, claims) = parts_of(source.token().await?.expose())?;
            assert_eq!(claims["cnf"]["jkt"], key.thumbprint());
            Ok(claims["gen"] == 1)
        })
        .await?;
        home.clock.advance(120);
        sessions.list_sessions(ListSessionsRequest::default()).await?;
        server.stop().await?;
    }
    Ok(())
}

async fn it_goes_on_with_a_session_of_its_key_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let begun = sign_in(&home, &server, &holder).await?.tokens.ok_or("no tokens")?;
    let going_on = || {
        let token = SignIn::RefreshToken(begun.refresh_token.clone().into());
        TokenSource::sign_in(server.url(), token).clock(home.clock.clone())
    };
    let over = Some(TokenError::SessionEnded("TOKEN_INVALID".to_owned()));
    assert_eq!(going_on().build()?.token().await.err(), over);
    assert_eq!(going_on().bound_to_key(HolderKey::generate()?).build()?.token().await.err(), over);
    let key = HolderKey::from_pkcs8(holder.key.pkcs8())?;
    assert_eq!(key.thumbprint(), holder.jkt());
    assert!(going_on().bound_to_key(key).build()?.token().await?.is_bound_to_key());
    server.stop().await
}

async fn it_takes_no_token_that_is_not_bound(home: Home) -> Outcome {
    let server = home.start().await?;
    let begun = server.anna().await?;
    let unbound = Some(TokenError::Refused("its tokens are not bound to the key".to_owned()));
    // The issuer sees no key, as one of before doesn't.
    let between = Intermediary::without("dpop", server.channel()).await?;
    let source = anna_at(&home, between.url()).bound_to_key(HolderKey::generate()?).build()?;
    assert_eq!(source.token().await.err(), unbound);
    let mut health = HealthClient::new(source.attach(server.new_channel().await?));
    let status = health.check(HealthCheckRequest::default()).await.expect_err("there is none to send");
    assert!(status.message().contains("not bound to the key"), "{status:?}");
    assert!(
        !anna_at(&home, between.url()).build()?.token().await?.is_bound_to_key(),
        "all else gets through"
    );

    // A session that began without a key goes on without one, whoever refreshes it.
    let sign_in = SignIn::RefreshToken(begun.refresh_token.into());
    let source = TokenSource::sign_in(server.url(), sign_in).clock(home.clock.clone());
    let source = source.bound_to_key(HolderKey::generate()?).build()?;
    assert_eq!(source.token().await.err(), unbound);
    server.stop().await
}
