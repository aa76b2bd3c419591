//! Whatever goes wrong with clocks, replicas and keys, a verifier errs by refusing.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tessera::{
    proto::{ListKeysRequest, LogoutRequest, RevokeKeyRequest},
    verifier::{ConnectBuilder, ConnectedVerifier, Denial, Refusal, Standing, Verifier},
};

use crate::support::{
    Forge, Home, Outcome, Person, Proxy, Server, ShiftedClock, audience_token, authorized, eventually,
    parts_of, signal, stories, story, timed_stories,
};

stories! {
    what_a_withdrawn_key_vouched_for_is_refused_without_asking,
}
timed_stories! {
    a_session_that_is_not_whole_is_no_service,
}
story!(a_replica_that_is_behind_takes_nothing_away, postgres: Postgres);
story!(a_clock_that_was_ahead_brings_nothing_back, sqlite: BinarySqlite);
story!(a_file_from_the_future_is_not_fresh, sqlite: BinarySqlite);

const BOTH: [&str; 2] = ["orders", "tessera"];
const REVOKED: Denial = Denial::Refused(Refusal::Revoked);

fn connect(url: String) -> ConnectBuilder {
    Verifier::connect(url).issuer("http://127.0.0.1:50051").audience("orders")
}

async fn heard(verifier: &ConnectedVerifier) -> Outcome {
    verifier.standing().wait_for(|now| *now == Standing::Connected).await?;
    Ok(())
}

/// Withdraws the only issuer key.
async fn withdraw_key(server: &Server, admin: &Person) -> Outcome {
    let keys = server.keys().list_keys(authorized(&admin.access_token, ListKeysRequest {})).await?;
    let kid = keys.into_inner().keys.first().ok_or("no key")?.kid.clone();
    server.keys().revoke_key(authorized(&admin.access_token, RevokeKeyRequest { kid })).await?;
    Ok(())
}

async fn a_replica_that_is_behind_takes_nothing_away(home: Home) -> Outcome {
    let here = home.start().await?;
    here.anna().await?;
    let admin = here.admin().await?;
    let never = "[database]\nlisten_notify = false\npoll_interval = \"1h\"\n";
    let behind = home.another(never).await?.ok_or("no other replica")?;
    let proxy = Proxy::to_address(here.address).await?;
    let path = home.dir().join("verifier.json");
    let builder = || {
        let verifier = connect(proxy.url()).clock(home.clock.clone()).state_file(&path);
        verifier.max_staleness(Duration::from_secs(3600)).start()
    };
    let verifier = builder().await?;
    let ended = audience_token(&here, "anna", &BOTH, &[]).await?;
    here.auth().logout(authorized(&ended, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&ended).await == Err(REVOKED))).await?;
    let withdrawn = audience_token(&here, "anna", &["orders"], &[]).await?;
    assert!(verifier.check(&withdrawn).await.is_ok());
    withdraw_key(&here, &admin).await?;
    eventually("so is the withdrawal", async || Ok(verifier.check(&withdrawn).await.is_err())).await?;
    let good = audience_token(&here, "anna", &["orders"], &[]).await?;
    assert!(verifier.check(&good).await.is_ok());

    proxy.lead_to(behind.address);
    proxy.cut();
    verifier.standing().wait_for(|now| *now == Standing::Disconnected).await?;
    proxy.mend();
    heard(&verifier).await?;
    let is_as_before = async |verifier: &ConnectedVerifier| -> Outcome {
        assert!(verifier.check(&ended).await.is_err(), "the session is still over");
        assert!(verifier.check(&withdrawn).await.is_err(), "the key is still withdrawn");
        assert!(verifier.check(&good).await.is_ok(), "and the new one known");
        Ok(())
    };
    is_as_before(&verifier).await?;

    // Also for one that starts from what was written down.
    let known = format!("\"known\":{},", verifier.revision());
    let written = async || Ok(std::fs::read_to_string(&path)?.contains(&known));
    eventually("it is in the file", written).await?;
    drop(verifier);
    let again = builder().await?;
    heard(&again).await?;
    is_as_before(&again).await?;
    behind.stop().await?;
    here.stop().await
}

async fn a_clock_that_was_ahead_brings_nothing_back(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    let clock = Arc::new(ShiftedClock::default());
    let verifier = connect(server.url()).clock(clock.clone()).start().await?;
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
    clock.shift(7200);
    let is_fresh = async || Ok(verifier.staleness().is_some_and(|age| age < Duration::from_secs(60)));
    eventually("the issuer is heard since", is_fresh).await?;
    clock.shift(0);
    assert_eq!(verifier.check(&token).await, Err(REVOKED));
    server.stop().await
}

async fn a_file_from_the_future_is_not_fresh(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let path = home.dir().join("verifier.json");
    let clock = Arc::new(ShiftedClock::default());
    let builder = || {
        let verifier = connect(server.url()).clock(clock.clone()).state_file(&path);
        verifier.first_contact(Duration::from_millis(300))
    };
    clock.shift(3600);
    let first = builder().start().await?;
    eventually("there is a file", async || Ok(path.exists())).await?;
    drop(first);
    signal(server.pid().ok_or("no process")?, "STOP")?;
    clock.shift(0);
    let verifier = builder().start().await?;
    assert!(matches!(verifier.check(&token).await, Err(Denial::Stale(Some(_)))));
    signal(server.pid().ok_or("no process")?, "CONT")?;
    heard(&verifier).await?;
    assert!(verifier.check(&token).await.is_ok());
    server.stop().await
}

async fn what_a_withdrawn_key_vouched_for_is_refused_without_asking(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nper_device_type = 30\nper_user = 50\n").await?;
    server.anna().await?;
    let admin = server.admin().await?;
    let verifier = connect(server.url()).lookups_per_second(1);
    let verifier = match home.kind {
        crate::support::Kind::Binary => verifier,
        _ => verifier.clock(home.clock.clone()),
    };
    let verifier = verifier.start().await?;
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let token = audience_token(&server, "anna", &["orders"], &[]).await?;
        assert!(verifier.check(&token).await.is_ok());
        tokens.push(token);
    }
    assert_eq!(verifier.figures().remembered_tokens, 20);
    withdraw_key(&server, &admin).await?;
    eventually("it is heard", async || Ok(verifier.check(&tokens[0]).await.is_err())).await?;
    for token in &tokens {
        let checked = verifier.check(token).await;
        assert!(matches!(checked, Err(Denial::Refused(_))), "{checked:?}");
    }
    let figures = verifier.figures();
    assert_eq!((figures.key_lookups, figures.key_lookups_spared), (0, 0));
    assert_eq!(figures.remembered_tokens, 0, "what is of no use is forgotten");
    server.stop().await
}

async fn a_session_that_is_not_whole_is_no_service(home: Home) -> Outcome {
    let server = home.start_with("[signing]\nuser_tokens = \"issuer\"\n").await?;
    server.anna().await?;
    let verifier = connect(server.url()).clock(home.clock.clone()).start().await?;
    let token = audience_token(&server, "anna", &["orders"], &[]).await?;
    let (header, mut claims) = parts_of(&token)?;
    let key = Forge::of(&home)?.issuer_key(header["kid"].as_str().ok_or("no kid")?).await?;
    assert!(verifier.check(&key.sign(&header, &claims)?).await.is_ok());
    claims["gen"] = json!("7");
    let checked = verifier.check(&key.sign(&header, &claims)?).await;
    assert!(matches!(checked, Err(Denial::Refused(Refusal::Invalid(_)))), "{checked:?}");
    server.stop().await
}
