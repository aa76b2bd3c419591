//! Verifiers that are connected: what ends at the issuer ends at each of them, and they live on while it is away.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{DisableUserRequest, ListKeysRequest, LogoutRequest, RevokeKeyRequest},
    verifier::{ConnectBuilder, ConnectedVerifier, Denial, OnStale, Refusal, Standing, StartError, Verifier},
};

use crate::support::{
    Forge, Home, Kind, Outcome, Server, ShiftedClock, audience_token, authorized, eventually, parts_of,
    process_stories, signal, stories, story, timed_stories,
};

stories! {
    what_ends_at_the_issuer_ends_at_a_verifier,
    keys_come_and_go,
}
timed_stories! {
    a_token_ends_by_the_verifiers_own_clock,
    a_logout_is_known_for_as_long_as_its_token_would_be_accepted,
}
process_stories! {
    an_issuer_that_is_away_is_waited_for,
    a_verifier_starts_from_its_file,
}
story!(an_issuer_that_hangs_is_noticed, sqlite: BinarySqlite);
story!(where_the_feed_is_refused_the_issuer_is_asked, sqlite: Sqlite, postgres: Postgres);

const ORDERS: &str = "orders";
const BOTH: [&str; 2] = ["orders", "tessera"];
const REVOKED: Denial = Denial::Refused(Refusal::Revoked);

/// With the server's clock, where that is the test's.
fn connect(home: &Home, server: &Server) -> ConnectBuilder {
    let clock: Arc<dyn Clock> = match home.kind {
        Kind::Sqlite | Kind::Postgres => home.clock.clone(),
        Kind::Binary | Kind::BinarySqlite => Arc::new(SystemClock),
    };
    Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience(ORDERS).clock(clock)
}

async fn heard(verifier: &ConnectedVerifier) -> Outcome {
    verifier.standing().wait_for(|now| *now == Standing::Connected).await?;
    Ok(())
}

async fn lost(verifier: &ConnectedVerifier) -> Outcome {
    verifier.standing().wait_for(|now| *now == Standing::Disconnected).await?;
    Ok(())
}

async fn what_ends_at_the_issuer_ends_at_a_verifier(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let verifier = connect(&home, &server).start().await?;
    let small = connect(&home, &server).token_cache(0).start().await?;

    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    for _ in 0..2 {
        assert_eq!(verifier.check(&token).await?.sub.to_string(), anna.user_id);
        assert_eq!(small.check(&token).await?.sub.to_string(), anna.user_id);
    }
    assert_eq!(verifier.figures().remembered_token_hits, 1);
    assert_eq!((small.figures().remembered_tokens, small.figures().remembered_token_hits), (0, 0));
    let foreign = audience_token(&server, "anna", &["billing"], &[]).await?;
    assert_eq!(verifier.check(&foreign).await, Err(Denial::Refused(Refusal::Invalid("another audience"))));

    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    assert!(verifier.check(&token).await.is_ok());
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    for verifier in [&verifier, &small] {
        eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
    }

    let token = audience_token(&server, "anna", &[ORDERS], &[]).await?;
    assert!(verifier.check(&token).await.is_ok());
    let disable = DisableUserRequest { user_id: anna.user_id };
    server.users().disable_user(authorized(&admin.access_token, disable)).await?;
    eventually("the disabling is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;

    let figures = verifier.figures();
    assert!(figures.is_connected && figures.revision >= 2 && figures.revocations >= 2, "{figures:?}");
    assert_eq!((figures.key_lookups, figures.tokens_asked, figures.disconnects), (0, 0, 0), "{figures:?}");
    assert!(verifier.staleness().is_some_and(|age| age < Duration::from_secs(10)));

    let late = connect(&home, &server).start().await?;
    assert_eq!(late.check(&token).await, Err(REVOKED), "who comes late is told of it too");
    assert_eq!(late.revision(), verifier.revision());
    server.stop().await
}

async fn keys_come_and_go(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let admin = server.admin().await?;
    let verifier = connect(&home, &server).start().await?;
    let old = audience_token(&server, "anna", &[ORDERS], &[]).await?;
    assert!(verifier.check(&old).await.is_ok());

    let keys = server.keys().list_keys(authorized(&admin.access_token, ListKeysRequest {})).await?;
    let kid = keys.into_inner().keys.first().ok_or("no key")?.kid.clone();
    server.keys().revoke_key(authorized(&admin.access_token, RevokeKeyRequest { kid })).await?;
    // It was remembered as good; what vouched for it is gone.
    eventually("what the key signed is refused", async || Ok(verifier.check(&old).await.is_err())).await?;
    let new = audience_token(&server, "anna", &[ORDERS], &[]).await?;
    eventually("the next key is known", async || Ok(verifier.check(&new).await.is_ok())).await?;
    server.stop().await
}

async fn a_token_ends_by_the_verifiers_own_clock(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &[ORDERS], &[]).await?;
    // Turning the clock is not to make it stale.
    let verifier = connect(&home, &server).max_staleness(Duration::from_secs(3600)).start().await?;
    home.clock.advance(929);
    assert!(verifier.check(&token).await.is_ok(), "within the leeway");
    home.clock.advance(1);
    assert_eq!(verifier.check(&token).await, Err(Denial::Refused(Refusal::Expired)), "though remembered");
    server.stop().await
}

async fn a_logout_is_known_for_as_long_as_its_token_would_be_accepted(home: Home) -> Outcome {
    let settings = "[tokens]\naccess_ttl = \"1h\"\nleeway = 0\n[database]\npoll_interval = \"10ms\"\n";
    let server = home.start_with(settings).await?;
    server.anna().await?;
    let leeway = |seconds| connect(&home, &server).leeway(Duration::from_secs(seconds));
    assert!(matches!(leeway(301).start().await, Err(StartError::Leeway)));
    let verifiers = [connect(&home, &server).start().await?, leeway(300).start().await?];
    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    for verifier in &verifiers {
        eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
    }
    for (seconds, verifiers) in [(3610, &verifiers[..]), (289, &verifiers[1..])] {
        home.clock.advance(seconds);
        for verifier in verifiers {
            let age = async || Ok(verifier.staleness().is_some_and(|age| age < Duration::from_secs(60)));
            eventually("the issuer is heard, and what has died forgotten", age).await?;
            assert_eq!(verifier.check(&token).await, Err(REVOKED));
        }
        assert!(
            connect(&home, &server)
                .leeway(Duration::from_secs(300))
                .start()
                .await?
                .check(&token)
                .await
                .is_err()
        );
    }
    home.clock.advance(1);
    assert_eq!(verifiers[1].check(&token).await, Err(Denial::Refused(Refusal::Expired)));
    server.stop().await
}

async fn an_issuer_that_is_away_is_waited_for(home: Home) -> Outcome {
    let server = home.start().await?;
    let address = server.address;
    server.anna().await?;
    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    let clock = Arc::new(ShiftedClock::default());
    let start =
        async |on_stale| connect(&home, &server).on_stale(on_stale).clock(clock.clone()).start().await;
    let closed = start(OnStale::FailClosed).await?;
    let open = start(OnStale::FailOpen).await?;
    let asking = start(OnStale::AskIssuer).await?;
    let all = [&closed, &open, &asking];

    server.kill().await?;
    for verifier in all {
        lost(verifier).await?;
        assert!(verifier.check(&token).await.is_ok(), "within max_staleness it goes on");
    }
    clock.shift(31);
    assert!(matches!(closed.check(&token).await, Err(Denial::Stale(Some(age))) if age.as_secs() >= 31));
    assert!(open.check(&token).await.is_ok());
    assert_eq!(asking.check(&token).await, Err(Denial::Unreachable));
    assert!(matches!(closed.check("garbage").await, Err(Denial::Stale(_))), "whatever it is");
    assert_eq!(open.check("garbage").await, Err(Denial::Refused(Refusal::Malformed)));
    assert_eq!(asking.check("garbage").await, Err(Denial::Refused(Refusal::Malformed)));
    assert_eq!(closed.figures().stale_refusals, 2);

    let server = home.start_again_at(address).await?;
    for verifier in all {
        heard(verifier).await?;
        assert!(verifier.check(&token).await.is_ok(), "without a restart");
    }
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    for verifier in all {
        eventually("the logout is heard", async || Ok(verifier.check(&token).await == Err(REVOKED))).await?;
        assert!(verifier.figures().disconnects >= 1);
    }
    server.stop().await
}

async fn a_verifier_starts_from_its_file(home: Home) -> Outcome {
    use std::os::unix::fs::PermissionsExt;

    let server = home.start().await?;
    server.anna().await?;
    let token = audience_token(&server, "anna", &BOTH, &[]).await?;
    let path = home.dir().join("verifier.json");
    let clock = Arc::new(ShiftedClock::default());
    let builder = || {
        let verifier = connect(&home, &server).clock(clock.clone()).state_file(&path);
        verifier.first_contact(Duration::from_millis(300))
    };
    let first = builder().start().await?;
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(first.check(&token).await == Err(REVOKED))).await?;
    let good = audience_token(&server, "anna", &[ORDERS], &[]).await?;
    let revision = first.revision();
    eventually("it is in the file", async || {
        let file = std::fs::read_to_string(&path).unwrap_or_default();
        Ok(file.contains(&format!("\"revision\":{revision},")))
    })
    .await?;
    drop(first);
    let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode));
    assert_eq!(std::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let whole = std::fs::read(&path)?;
    // Not the server itself, whose address is needed.
    signal(server.pid().ok_or("no process")?, "STOP")?;

    let from_file = builder().start().await?;
    assert!(from_file.check(&good).await.is_ok());
    assert_eq!(from_file.check(&token).await, Err(REVOKED));
    assert_eq!(from_file.revision(), revision);
    clock.shift(31);
    assert!(matches!(from_file.check(&good).await, Err(Denial::Stale(Some(_)))), "by the time in the file");
    let old = builder().start().await?;
    assert!(
        matches!(old.check(&good).await, Err(Denial::Stale(Some(_)))),
        "it starts, and knows how old it is"
    );
    clock.shift(0);

    let is_refused = async || matches!(builder().start().await, Err(StartError::IssuerAway(_)));
    mode(0o644)?;
    assert!(is_refused().await, "others could have written it");
    mode(0o600)?;
    for broken in [&whole[..whole.len() / 2], b"{}", b""] {
        std::fs::write(&path, broken)?;
        assert!(is_refused().await, "not whole");
    }
    std::fs::write(&path, &whole)?;
    assert!(matches!(builder().issuer("http://other").start().await, Err(StartError::IssuerAway(_))));
    let again = builder().start().await?;

    signal(server.pid().ok_or("no process")?, "CONT")?;
    for verifier in [&from_file, &old, &again] {
        heard(verifier).await?;
        assert!(verifier.check(&good).await.is_ok());
    }
    server.stop().await
}

async fn an_issuer_that_hangs_is_noticed(home: Home) -> Outcome {
    let server = home.start().await?;
    let verifier = connect(&home, &server).start().await?;
    signal(server.pid().ok_or("no process")?, "STOP")?;
    lost(&verifier).await?;
    assert!(verifier.staleness().is_some_and(|age| age > Duration::from_secs(5)));
    signal(server.pid().ok_or("no process")?, "CONT")?;
    heard(&verifier).await?;
    server.stop().await
}

async fn where_the_feed_is_refused_the_issuer_is_asked(home: Home) -> Outcome {
    let server = home.start_with("[server]\nmax_watchers = 1\n").await?;
    let anna = server.anna().await?;
    let _only = connect(&home, &server).start().await?;
    let start = async |on_stale| {
        let verifier = connect(&home, &server).on_stale(on_stale).first_contact(Duration::ZERO);
        verifier.start().await
    };
    let asking = start(OnStale::AskIssuer).await?;
    lost(&asking).await?;
    let token = audience_token(&server, "anna", &BOTH, &["a", "b"]).await?;
    let claims = asking.check(&token).await?;
    assert_eq!(serde_json::to_value(&claims)?, parts_of(&token)?.1, "as the token has them");
    assert_eq!(claims.sub.to_string(), anna.user_id);
    for on_stale in [OnStale::FailOpen, OnStale::FailClosed] {
        assert_eq!(start(on_stale).await?.check(&token).await, Err(Denial::Stale(None)), "it knows no key");
    }
    // Nothing but its signature is wrong: only the issuer can tell.
    let (header, mut claims) = parts_of(&token)?;
    claims["roles"] = json!(["admin"]);
    let kid = header["kid"].as_str().ok_or("no kid")?;
    let forged = Forge::of(&home)?.session_key(kid).await?.sign(&header, &claims)?;
    assert!(asking.check(&forged).await.is_ok(), "signed with the session's own key");
    let forged = format!("{}.{}", forged.rsplit_once('.').ok_or("no parts")?.0, "AAAA");
    assert!(matches!(asking.check(&forged).await, Err(Denial::Refused(Refusal::Invalid(_)))));
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    assert_eq!(asking.check(&token).await, Err(REVOKED));
    assert_eq!(asking.figures().tokens_asked, 4);
    server.stop().await
}
