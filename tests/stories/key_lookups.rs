//! Tokens that nobody vouches for in the header: the issuer is asked for their keys once, and not too often.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use tessera::{
    proto::ListSessionsRequest,
    verifier::{ConnectedVerifier, Denial, Refusal, Verifier},
};

use crate::support::{
    Home, Outcome, Server, audience_token, authorized, eventually, parts_of, signal, stories, story,
    timed_stories, unsigned,
};

stories! { a_token_that_nobody_vouches_for_outlives_the_setting }
timed_stories! {
    an_unknown_key_is_asked_for_once,
    made_up_keys_cost_the_issuer_next_to_nothing,
}
story!(who_waits_for_an_issuer_that_hangs_is_told_so, sqlite: BinarySqlite);

const BARE: &str = "[signing]\nendorse_in_header = false\n";
const UNKNOWN: Denial = Denial::Refused(Refusal::UnknownKey);

async fn connect(
    home: &Home,
    server: &Server,
    lookups: u32,
) -> Result<ConnectedVerifier, Box<dyn std::error::Error>> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    Ok(verifier.lookups_per_second(lookups).clock(home.clock.clone()).start().await?)
}

async fn asked(server: &Server) -> Result<u64, Box<dyn std::error::Error>> {
    server.metric("tessera_grpc_calls_total{method=\"/tessera.v1.Keys/GetJwk\"").await
}

/// The token with another key id, a character at its end to tell it from others, and a signature of nobody's.
fn made_up(token: &str, number: usize) -> Result<String, Box<dyn std::error::Error>> {
    let (mut header, claims) = parts_of(token)?;
    header["kid"] = json!(format!("{number:0>43}"));
    Ok(format!("{}AAAA", unsigned(&header, &claims)))
}

async fn an_unknown_key_is_asked_for_once(home: Home) -> Outcome {
    let server = home.start_with(BARE).await?;
    let anna = server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let verifier = connect(&home, &server, 10).await?;
    assert_eq!(verifier.try_check(&token), None, "it can't be told without asking");
    for checked in join_all((0..50).map(|_| verifier.check(&token))).await {
        assert_eq!(checked?.sub.to_string(), anna.user_id);
    }
    assert_eq!(asked(&server).await?, 1);
    assert!(verifier.try_check(&token).is_some_and(|checked| checked.is_ok()), "now it is known");

    let made_up = made_up(&token, 1)?;
    for checked in join_all((0..50).map(|_| verifier.check(&made_up))).await {
        assert_eq!(checked, Err(UNKNOWN));
    }
    assert_eq!(asked(&server).await?, 2);
    server.stop().await
}

async fn made_up_keys_cost_the_issuer_next_to_nothing(home: Home) -> Outcome {
    let server = home.start_with(BARE).await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let verifier = connect(&home, &server, 2).await?;
    let before = verifier.figures();

    // Nothing that is wrong with these could be set right by a key.
    let (header, claims) = parts_of(&token)?;
    let with = |name: &str, value: serde_json::Value| {
        let (mut header, mut claims) = (header.clone(), claims.clone());
        let part = if header.get(name).is_some() { &mut header } else { &mut claims };
        part[name] = value;
        format!("{}AAAA", unsigned(&header, &claims))
    };
    let exp = claims["exp"].as_i64().ok_or("no exp")?;
    for token in [
        with("kid", json!("short")),
        with("kid", json!("!".repeat(43))),
        with("typ", json!("JWT")),
        with("iss", json!("http://other")),
        with("aud", json!(["billing"])),
        with("exp", json!(exp - 3600)),
        with("sub", json!("nobody")),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ] {
        assert!(matches!(verifier.check(&token).await, Err(Denial::Refused(_))), "{token:.80}");
    }
    assert_eq!(asked(&server).await?, 0);

    let started = Instant::now();
    let flood: Vec<String> = (0..5000).map(|number| made_up(&token, number)).collect::<Result<_, _>>()?;
    let checked = join_all(flood.iter().map(|token| verifier.check(token))).await;
    let asked = asked(&server).await?;
    let most = 2 + 2 * (started.elapsed().as_secs() + 1);
    assert!((2..=most).contains(&asked), "{asked} of at most {most}");
    assert!(checked.iter().all(|checked| matches!(checked, Err(UNKNOWN | Denial::Busy))));
    let figures = verifier.figures();
    assert_eq!(figures.key_lookups, asked);
    assert_eq!(figures.key_lookups_spared + asked, 5000);
    assert_eq!(
        figures.remembered_lookups as u64, asked,
        "who was refused for too many is told nothing of its key"
    );
    assert_eq!(figures.remembered_keys, before.remembered_keys);
    assert_eq!(figures.remembered_tokens, before.remembered_tokens);
    server.stop().await
}

async fn a_token_that_nobody_vouches_for_outlives_the_setting(home: Home) -> Outcome {
    let server = home.start_with(BARE).await?;
    let anna = server.anna().await?;
    assert!(parts_of(&anna.access_token)?.0.get("skc").is_none());
    server.stop().await?;
    let server = home.start().await?;
    let list = authorized(&anna.access_token, ListSessionsRequest::default());
    assert_eq!(server.session().list_sessions(list).await?.into_inner().sessions.len(), 1);
    assert!(server.is_active(&anna.access_token, true).await?);
    let made_up = made_up(&anna.access_token, 1)?;
    assert!(!server.is_active(&made_up, false).await?);
    server.stop().await
}

async fn who_waits_for_an_issuer_that_hangs_is_told_so(home: Home) -> Outcome {
    let server = home.start_with(BARE).await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    let verifier = verifier.start().await?;
    signal(server.pid().ok_or("no process")?, "STOP")?;
    let started = Instant::now();
    for checked in join_all((0..20).map(|_| verifier.check(&token))).await {
        assert_eq!(checked, Err(Denial::Unreachable));
    }
    let took = started.elapsed();
    assert!(took < Duration::from_secs(8), "one after another: {took:?}");
    signal(server.pid().ok_or("no process")?, "CONT")?;
    eventually("it is asked again", async || Ok(verifier.check(&token).await.is_ok())).await?;
    server.stop().await
}
