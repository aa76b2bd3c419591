//! What an audience says of tokens for it: how they are got, and how long they live.

use std::{error::Error, fs, path::Path};

use prost_types::Duration;
use tessera::proto::{
    Audience, CreateAudienceRequest, CreateServiceAccountRequest, ExchangeTokenRequest,
    IssueServiceTokenRequest, SignUpRequest, Tokens, UpdateAudienceRequest, WordSet,
};
use tonic::{Code, Status};

use super::{Hands, login_for, refused, tokens_for};
use crate::support::{
    Home, Outcome, PASSWORD, Registrar, Server, authorized, denied, device, eventually, orders, parts_of,
    refresh_with, refusal, stories, timed_stories, words,
};

stories! {
    rules_are_kept_shown_and_checked,
    nobody_signs_in_for_an_audience_that_lets_nobody,
    a_session_goes_on_once_its_audience_lets_it,
    services_get_tokens_as_an_audience_lets_them,
    a_grant_of_a_newer_release_allows_nothing_here,
    rows_of_the_release_before_allow_everything,
    other_replicas_follow,
}
timed_stories! {
    a_token_lives_no_longer_than_each_audience_allows,
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

fn set(list: &[&str]) -> Option<WordSet> {
    Some(WordSet { words: words(list) })
}

fn update(audience: &Audience) -> UpdateAudienceRequest {
    UpdateAudienceRequest { audience_id: audience.audience_id.clone(), ..Default::default() }
}

impl Hands<'_> {
    /// An audience with these grants and this life of its tokens, 0 for none of its own.
    async fn create_with(&self, name: &str, grants: &[&str], ttl: i64) -> Result<Audience, Box<dyn Error>> {
        let request = CreateAudienceRequest {
            name: name.to_owned(),
            allowed_grants: words(grants),
            token_ttl: seconds(ttl),
            ..Default::default()
        };
        Ok(self.try_create(request).await?.into_inner().audience.ok_or("no audience")?)
    }

    async fn allow(&self, audience: &Audience, grants: &[&str]) -> Outcome {
        self.try_update(UpdateAudienceRequest { allowed_grants: set(grants), ..update(audience) }).await?;
        Ok(())
    }
}

async fn refresh(server: &Server, tokens: &Tokens) -> Result<Tokens, Status> {
    let reply = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?.into_inner();
    Ok(reply.tokens.unwrap_or_default())
}

async fn rules_are_kept_shown_and_checked(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    let plain = hands.create_with("plain", &[], 0).await?;
    assert_eq!((plain.allowed_grants.len(), plain.token_ttl), (0, None));
    let made = hands.create_with("orders", &["login", "token_exchange", "login"], 60).await?;
    assert_eq!(
        (&made.allowed_grants[..], made.token_ttl),
        (&words(&["login", "token_exchange"])[..], seconds(60))
    );
    assert_eq!(hands.get("orders").await?, made);

    // What is not given stays.
    let named = UpdateAudienceRequest { display_name: Some("Orders".to_owned()), ..update(&made) };
    hands.try_update(named).await?;
    let shown = hands.get("orders").await?;
    assert_eq!((&shown.allowed_grants, shown.token_ttl), (&made.allowed_grants, made.token_ttl));
    let freed = UpdateAudienceRequest { allowed_grants: set(&[]), token_ttl: seconds(0), ..update(&made) };
    hands.try_update(freed).await?;
    let shown = hands.get("orders").await?;
    assert_eq!((shown.allowed_grants.len(), shown.token_ttl), (0, None));

    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    let new = || CreateAudienceRequest { name: "new".to_owned(), ..Default::default() };
    for grant in ["password", "", "Login", "refresh"] {
        let request = CreateAudienceRequest { allowed_grants: words(&["login", grant]), ..new() };
        assert_eq!(refusal(hands.try_create(request).await), invalid, "{grant}");
        let request = UpdateAudienceRequest { allowed_grants: set(&[grant]), ..update(&made) };
        assert_eq!(refusal(hands.try_update(request).await), invalid, "{grant}");
    }
    for token_ttl in [seconds(-1), seconds(3601), Some(Duration { seconds: 1, nanos: 1 })] {
        let request = CreateAudienceRequest { token_ttl, ..new() };
        assert_eq!(refusal(hands.try_create(request).await), invalid, "{token_ttl:?}");
        let request = UpdateAudienceRequest { token_ttl, ..update(&made) };
        assert_eq!(refusal(hands.try_update(request).await), invalid, "{token_ttl:?}");
    }
    server.stop().await
}

async fn nobody_signs_in_for_an_audience_that_lets_nobody(home: Home) -> Outcome {
    let server = home.start_with("[accounts]\nsignup = \"open\"\n").await?;
    let hands = Hands::of(&server).await?;
    let anna = server.anna().await?;
    hands.create_with("ledger", &["client_credentials"], 0).await?;
    hands.create_with("shop", &["login"], 0).await?;
    tokens_for(&server, "one", &["shop"]).await?;
    for audience in [&["ledger"][..], &["ledger", "shop"], &["tessera", "ledger"]] {
        let refused = server.auth().login(login_for("two", audience)).await;
        assert_eq!(refusal(refused), denied(), "{audience:?}");
    }
    let sign_up = SignUpRequest {
        username: "bert".to_owned(),
        password: PASSWORD.to_owned(),
        device: device("web"),
        audience: words(&["ledger"]),
        ..Default::default()
    };
    assert_eq!(refusal(server.auth().sign_up(sign_up).await), denied());
    assert!(home.query("SELECT username AS first FROM users WHERE username = 'bert'").await?.is_empty());

    let events = server.events(&server.admin().await?, "login").await?;
    let told: Vec<_> = events.iter().filter(|event| event.reason == "INSUFFICIENT_SCOPE").collect();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|event| event.actor_id == anna.user_id), "the password was right");
    server.stop().await
}

async fn a_session_goes_on_once_its_audience_lets_it(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let ledger = hands.create_with("ledger", &[], 0).await?;
    let tokens = tokens_for(&server, "one", &["ledger", "shop"]).await?;
    let other = tokens_for(&server, "two", &["shop"]).await?;
    hands.allow(&ledger, &["token_exchange"]).await?;
    assert!(server.is_active(&tokens.access_token, true).await?, "what was given lives on");
    assert_eq!(refusal(server.auth().refresh(refresh_with(&tokens.refresh_token)).await), denied());
    refresh(&server, &other).await?;
    server.stop().await?;

    // Read from the database it is the same.
    let server = home.start().await?;
    assert_eq!(refusal(server.auth().refresh(refresh_with(&tokens.refresh_token)).await), denied());
    let hands = Hands::of(&server).await?;
    hands.allow(&ledger, &["token_exchange", "login"]).await?;
    let next = refresh(&server, &tokens).await?;
    assert_eq!(parts_of(&next.access_token)?.1["gen"], 1, "nothing was spent");
    server.stop().await
}

/// A service that may get tokens for `ledger` in every way, and its own.
async fn calling(registrar: &Registrar<'_>) -> Result<(IssueServiceTokenRequest, String), Box<dyn Error>> {
    let request = CreateServiceAccountRequest {
        allowed_grants: words(&["client_credentials", "token_exchange", "impersonation"]),
        ..orders()
    };
    let (_, asks) = registrar.service(request).await?;
    let token = registrar.server.service_token(asks.clone()).await?.access_token;
    Ok((IssueServiceTokenRequest { audience: words(&["ledger"]), ..asks }, token))
}

/// With the service's own token as the actor's, or nobody's.
fn exchanging(subject: &str, actor: &str) -> ExchangeTokenRequest {
    ExchangeTokenRequest {
        subject_token: subject.to_owned(),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        actor_token: actor.to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

async fn services_get_tokens_as_an_audience_lets_them(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let hands = Hands::of(&server).await?;
    let anna = server.anna().await?.access_token;
    let (asks, own) = calling(&registrar).await?;
    let ledger = hands.create_with("ledger", &[], 0).await?;
    for grants in [
        &[] as &[&str],
        &["login"],
        &["client_credentials"],
        &["token_exchange", "login"],
        &["impersonation"],
    ] {
        hands.allow(&ledger, grants).await?;
        let exchange = async |actor: &str| {
            let request = authorized(&own, exchanging(&anna, actor));
            server.auth().exchange_token(request).await.map(drop)
        };
        let got = [
            ("client_credentials", server.issue(asks.clone()).await.map(drop)),
            ("token_exchange", exchange(&own).await),
            ("impersonation", exchange("").await),
        ];
        for (grant, got) in got {
            let is_allowed = grants.is_empty() || grants.contains(&grant);
            match got {
                Ok(()) => assert!(is_allowed, "{grant} where {grants:?} are allowed"),
                Err(status) => {
                    assert!(!is_allowed, "no {grant} where {grants:?} are allowed");
                    assert_eq!(refusal::<()>(Err(status)), denied());
                }
            }
        }
    }
    server.stop().await
}

async fn a_grant_of_a_newer_release_allows_nothing_here(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let ledger = Hands::of(&server).await?.create_with("ledger", &["login"], 0).await?;
    server.stop().await?;
    home.query("UPDATE audiences SET allowed_grants = 'device_code', token_ttl = 7200").await?;

    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    assert_eq!(refusal(server.auth().login(login_for("one", &["ledger"])).await), denied());
    home.query("UPDATE audiences SET token_ttl = 60").await?;
    let named = UpdateAudienceRequest { display_name: Some("The ledger".to_owned()), ..update(&ledger) };
    hands.try_update(named).await?;
    assert_eq!(home.query("SELECT allowed_grants AS first FROM audiences").await?, ["device_code"]);
    hands.allow(&ledger, &["login"]).await?;
    tokens_for(&server, "one", &["ledger"]).await?;
    server.stop().await
}

/// As after an upgrade: the step of the schema is taken with rows that are there.
async fn rows_of_the_release_before_allow_everything(home: Home) -> Outcome {
    const STEP: &str = "2026-11-26-000005_audience_rules";
    let server = home.start().await?;
    server.anna().await?;
    let (hands, registrar) = (Hands::of(&server).await?, Registrar::of(&server).await?);
    hands.create_with("ledger", &["impersonation"], 60).await?;
    let (asks, _) = calling(&registrar).await?;
    server.stop().await?;
    let database = if home.database_url().is_some() { "postgres" } else { "sqlite" };
    let down = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database).join(STEP);
    for statement in fs::read_to_string(down.join("down.sql"))?.split_inclusive(";\n") {
        home.query(statement).await?;
    }
    home.query("DELETE FROM __diesel_schema_migrations WHERE version = '20261126000005'").await?;

    let server = home.start().await?;
    let ledger = Hands::of(&server).await?.get("ledger").await?;
    assert_eq!((ledger.allowed_grants.len(), ledger.token_ttl), (0, None));
    let tokens = tokens_for(&server, "one", &["ledger"]).await?;
    assert_eq!(life_of(&tokens)?, 900);
    assert_eq!(life_of(&server.service_token(asks.clone()).await?)?, 300);
    // And nothing is said of what the account is: it hands on whatever it is handed.
    let own = IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks };
    let own = server.service_token(own).await?.access_token;
    let request = authorized(&own, exchanging(&tokens.access_token, &own));
    server.auth().exchange_token(request).await?;
    server.stop().await
}

async fn other_replicas_follow(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let Some(other) = home.another("[database]\npoll_interval = \"50ms\"\n").await? else {
        return server.stop().await;
    };
    let hands = Hands::of(&server).await?;
    let ledger = hands.create_with("ledger", &[], 60).await?;
    eventually("the other replica has the limit", async || {
        Ok(life_of(&tokens_for(&other, "two", &["ledger"]).await?)? == 60)
    })
    .await?;
    hands.allow(&ledger, &["client_credentials"]).await?;
    eventually("the other replica refuses", async || {
        Ok(other.auth().login(login_for("three", &["ledger"])).await.is_err())
    })
    .await?;
    other.stop().await?;
    server.stop().await
}

/// How long a token lives, in seconds. The reply says the same.
fn life_of(tokens: &Tokens) -> Result<i64, Box<dyn Error>> {
    let claims = parts_of(&tokens.access_token)?.1;
    let told = tokens.access_expire_time.as_ref().map(|time| time.seconds);
    assert_eq!(claims["exp"].as_i64(), told);
    let (exp, iat) = claims["exp"].as_i64().zip(claims["iat"].as_i64()).ok_or("no times")?;
    Ok(exp - iat)
}

async fn a_token_lives_no_longer_than_each_audience_allows(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let hands = Hands::of(&server).await?;
    server.anna().await?;
    let (asks, own) = calling(&registrar).await?;
    let shop = hands.create_with("shop", &[], 600).await?;
    let ledger = hands.create_with("ledger", &[], 60).await?;
    hands.create_with("slow", &[], 3600).await?;

    assert_eq!(life_of(&tokens_for(&server, "one", &["slow"]).await?)?, 900, "never longer than elsewhere");
    assert_eq!(life_of(&tokens_for(&server, "one", &["shop", "other"]).await?)?, 600);
    let both = tokens_for(&server, "two", &["shop", "ledger"]).await?;
    assert_eq!(life_of(&both)?, 60);
    assert_eq!(life_of(&server.service_token(asks.clone()).await?)?, 60);
    let whole = tokens_for(&server, "three", &["orders"]).await?;
    let exchange = async || {
        let request = authorized(&own, exchanging(&whole.access_token, &own));
        Ok::<_, Status>(server.auth().exchange_token(request).await?.into_inner().tokens.unwrap_or_default())
    };
    assert_eq!(life_of(&exchange().await?)?, 60);

    home.clock.advance(59 + 30);
    assert!(server.is_active(&both.access_token, true).await?);
    home.clock.advance(1);
    assert!(!server.is_active(&both.access_token, true).await?);
    let next = refresh(&server, &both).await?;
    assert_eq!(life_of(&next)?, 60, "its session goes on");

    // New ones follow at once, and those that exist end by themselves.
    let longer = UpdateAudienceRequest { token_ttl: seconds(0), ..update(&ledger) };
    hands.try_update(longer).await?;
    let next = refresh(&server, &next).await?;
    assert_eq!(life_of(&next)?, 600);
    assert_eq!(life_of(&server.service_token(asks.clone()).await?)?, 300);
    assert_eq!(life_of(&exchange().await?)?, 300);
    let shorter = UpdateAudienceRequest { token_ttl: seconds(1), ..update(&shop) };
    hands.try_update(shorter).await?;
    assert!(server.is_active(&next.access_token, true).await?);
    assert_eq!(life_of(&refresh(&server, &next).await?)?, 1);
    server.stop().await
}
