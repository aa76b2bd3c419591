//! What services prove themselves with: secrets that are exchanged, end and are wrong, and what that costs.

use tessera::{
    clock::Clock,
    proto::{
        ClientSecret, CreateCredentialRequest, CreateServiceAccountRequest, EventOutcome,
        IssueServiceTokenRequest, create_credential_request::Kind,
    },
};

use crate::support::{
    Home, Kind as HomeKind, Outcome, Registrar, asks, denied, eventually, invalid, not_found, orders,
    refusal, stories, timed_stories, words, wrong,
};

stories! {
    a_wrong_credential_is_one_answer_and_stands_in_the_trail,
    another_replica_hears_of_a_revoked_credential,
}
timed_stories! {
    credentials_are_exchanged_without_a_gap,
    a_credential_ends_in_its_time,
}

async fn a_wrong_credential_is_one_answer_and_stands_in_the_trail(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let admin = server.admin().await?;
    let account = registrar.create(orders()).await?;
    let other =
        registrar.create(CreateServiceAccountRequest { name: "other".to_owned(), ..orders() }).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let (others, _) = registrar.secret(&other).await?;
    let nobody = uuid::Uuid::from_u128(7).to_string();
    let cut = &secret[..secret.len() - 1];
    for (client_id, client_secret) in [
        (account.client_id.as_str(), others.as_str()),
        (&account.client_id, "tcs_"),
        (&account.client_id, cut),
        (&account.client_id, &"x".repeat(10_000)),
        (&other.client_id, &secret),
        (&nobody, &secret),
        ("", &secret),
        ("orders", &secret),
    ] {
        assert_eq!(refusal(server.issue(asks(client_id, client_secret)).await), wrong(), "{client_id}");
    }
    assert_eq!(refusal(server.issue(asks(&account.client_id, "")).await), invalid());
    server.service_token(asks(&account.client_id, &secret)).await?;

    let events = server.events(&admin, "issue_service_token").await?;
    assert_eq!(events.len(), 5, "those that name an account: {events:#?}");
    for event in &events {
        assert_eq!((event.outcome(), event.reason.as_str()), (EventOutcome::Failure, "INVALID_CREDENTIALS"));
        assert_eq!(event.actor_id, "", "nobody is known to have acted");
        assert_eq!(event.target_type, "service_account");
    }
    assert_eq!(events.iter().filter(|event| event.target_name == "orders").count(), 4);
    let asked = IssueServiceTokenRequest { scope: words(&["admin"]), ..asks(&account.client_id, &secret) };
    assert_eq!(refusal(server.issue(asked).await), denied());
    let events = server.events(&admin, "issue_service_token").await?;
    let newest = events.first().ok_or("no event")?;
    assert_eq!(
        (newest.actor_id.as_str(), newest.reason.as_str()),
        (account.client_id.as_str(), "INSUFFICIENT_SCOPE")
    );
    server.stop().await
}

async fn credentials_are_exchanged_without_a_gap(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (old, old_id) = registrar.secret(&account).await?;
    server.service_token(asks(&account.client_id, &old)).await?;
    let (new, _) = registrar.secret(&account).await?;
    let token = server.service_token(asks(&account.client_id, &old)).await?.access_token;
    server.service_token(asks(&account.client_id, &new)).await?;
    registrar.revoke(&account.service_account_id, &old_id).await?;
    assert_eq!(refusal(server.issue(asks(&account.client_id, &old)).await), wrong());
    server.service_token(asks(&account.client_id, &new)).await?;
    assert!(server.is_active(&token, false).await?, "what was given lives on until it ends");
    let gone = registrar.revoke(&account.service_account_id, &old_id).await;
    assert_eq!(refusal(gone.map(tonic::Response::new)), not_found());
    home.clock.advance(331);
    assert!(!server.is_active(&token, false).await?);
    server.stop().await
}

async fn a_credential_ends_in_its_time(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let seconds = (home.clock.now() + chrono::TimeDelta::seconds(600)).timestamp();
    let request = CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        kind: Some(Kind::ClientSecret(ClientSecret {})),
    };
    let secret = registrar.try_credential(request).await?.into_inner().client_secret;
    home.clock.advance(599);
    server.service_token(asks(&account.client_id, &secret)).await?;
    home.clock.advance(2);
    assert_eq!(refusal(server.issue(asks(&account.client_id, &secret)).await), wrong());
    server.stop().await
}

async fn another_replica_hears_of_a_revoked_credential(home: Home) -> Outcome {
    let server = home.start().await?;
    let Some(other) = home.another("").await? else { return server.stop().await };
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, id) = registrar.secret(&account).await?;
    other.service_token(asks(&account.client_id, &secret)).await?;
    registrar.revoke(&account.service_account_id, &id).await?;
    eventually("it is refused there", async || {
        Ok(other.issue(asks(&account.client_id, &secret)).await.is_err())
    })
    .await?;
    other.stop().await?;
    server.stop().await
}

/// A client id is no secret.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_fills_the_trail_with_wrong_secrets() -> Outcome {
    let home = Home::new(HomeKind::Sqlite).await?;
    let server = home.start().await?;
    let account = Registrar::of(&server).await?.create(orders()).await?;
    for _ in 0..150 {
        assert_eq!(refusal(server.issue(asks(&account.client_id, "tcs_wrong")).await), wrong());
    }
    let told = "SELECT count(*) || '' AS first FROM audit_events WHERE action = 'issue_service_token'";
    let told: u32 = home.query(told).await?.first().ok_or("no count")?.parse()?;
    assert!((100..=110).contains(&told), "{told}");
    let counted = server.metric("tessera_service_tokens_total{outcome=\"INVALID_CREDENTIALS\"}").await?;
    assert_eq!(counted, 150);
    server.stop().await
}

/// Warm, a token is signed and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_costs_the_database_nothing() -> Outcome {
    let home = Home::new(HomeKind::Postgres).await?;
    let quiet = "[database]\nlisten_notify = false\npoll_interval = \"1h\"\n";
    let server = home.start_with(quiet).await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    server.stop().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    home.query(&format!("ALTER DATABASE {name} SET log_min_duration_statement = 0")).await?;

    let server = home.start_with(quiet).await?;
    server.service_token(asks(&account.client_id, &secret)).await?;
    let before = home.database_log()?.len();
    for _ in 0..50 {
        server.service_token(asks(&account.client_id, &secret)).await?;
    }
    let log = home.database_log()?.split_off(before);
    assert!(!log.iter().any(|line| line.contains("service_")), "{log:#?}");
    server.stop().await
}
