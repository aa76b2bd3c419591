//! Refresh: safe to repeat, fatal to steal.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use tessera::proto::{
    Device, GetSessionRequest, ListEventsRequest, ListSessionsRequest, LogoutRequest, RefreshRequest,
    SessionState, Tokens,
};
use tonic::{Code, Status};

use crate::support::{
    Home, Kind, Outcome, Server, authorized, invalid_token, refusal, revoked, stories, timed_stories,
};

stories! {
    a_refresh_gives_the_next_tokens,
    fifty_refreshes_at_once_give_one_successor,
    refreshes_of_many_sessions_at_once_each_take_one_step,
    a_retry_gets_the_same_successor,
    a_token_two_steps_back_is_reuse_even_within_grace,
    without_grace_every_repetition_is_reuse,
    reuse_by_many_at_once_ends_the_session_once,
    a_forged_refresh_token_is_refused_and_harms_nobody,
    another_device_is_refused_and_recorded,
    a_refresh_races_a_logout,
}
timed_stories! { a_spent_token_after_grace_ends_the_session }

async fn refresh(server: &Server, refresh_token: &str) -> Result<Tokens, Status> {
    let request = RefreshRequest { refresh_token: refresh_token.to_owned(), device: None };
    Ok(server.auth().refresh(request).await?.into_inner().tokens.unwrap_or_default())
}

async fn refused(server: &Server, refresh_token: &str) -> (Code, String) {
    let request = RefreshRequest { refresh_token: refresh_token.to_owned(), device: None };
    refusal(server.auth().refresh(request).await)
}

fn reused() -> (Code, String) {
    (Code::Unauthenticated, "TOKEN_REUSED".to_owned())
}

async fn is_accepted(server: &Server, access_token: &str) -> bool {
    server.session().list_sessions(authorized(access_token, ListSessionsRequest::default())).await.is_ok()
}

async fn a_refresh_gives_the_next_tokens(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let mut token = anna.refresh_token.clone();
    for generation in 1..=3 {
        let tokens = refresh(&server, &token).await?;
        assert_ne!(tokens.refresh_token, token);
        assert!(is_accepted(&server, &tokens.access_token).await);
        let get = authorized(&tokens.access_token, GetSessionRequest { session_id: anna.session_id.clone() });
        let session = server.session().get_session(get).await?.into_inner().session.ok_or("no session")?;
        assert_eq!(session.generation, generation);
        token = tokens.refresh_token;
    }
    assert!(is_accepted(&server, &anna.access_token).await, "the first access token lives until it expires");
    server.stop().await
}

async fn fifty_refreshes_at_once_give_one_successor(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let all = join_all((0..50).map(|_| refresh(&server, &anna.refresh_token))).await;
    let successors: HashSet<String> =
        all.into_iter().map(|tokens| Ok(tokens?.refresh_token)).collect::<Result<_, Status>>()?;
    assert_eq!(successors.len(), 1);
    for successor in successors {
        let tokens = refresh(&server, &successor).await?;
        assert!(is_accepted(&server, &tokens.access_token).await);
    }
    server.stop().await
}

/// The database takes them together, and what becomes of one is nothing to the others.
async fn refreshes_of_many_sessions_at_once_each_take_one_step(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nper_user = 100\n").await?;
    server.anna().await?;
    let mut people = Vec::new();
    for number in 0..60 {
        people.push(server.sign_in("anna", &format!("d{number}")).await?);
    }
    let (ended, others) = people.split_first().ok_or("nobody")?;
    let logout = authorized(&ended.access_token, LogoutRequest {});
    server.auth().logout(logout).await?;
    let twice = others.iter().chain(others).map(|person| refresh(&server, &person.refresh_token));
    let (refused_one, all) = tokio::join!(refused(&server, &ended.refresh_token), join_all(twice));
    assert_eq!(refused_one, revoked());
    let all = all.into_iter().collect::<Result<Vec<Tokens>, _>>()?;
    let (once, again) = all.split_at(others.len());
    for ((person, tokens), same) in others.iter().zip(once).zip(again) {
        assert_eq!(tokens.session_id, person.session_id);
        assert_eq!(tokens.refresh_token, same.refresh_token, "one step for both");
        assert_ne!(tokens.refresh_token, person.refresh_token);
        let request = GetSessionRequest { session_id: person.session_id.clone() };
        let get = authorized(&tokens.access_token, request);
        let session = server.session().get_session(get).await?.into_inner().session.ok_or("no session")?;
        assert_eq!(session.generation, 1);
    }
    server.stop().await
}

async fn a_retry_gets_the_same_successor(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let first = refresh(&server, &anna.refresh_token).await?;
    let retry = refresh(&server, &anna.refresh_token).await?;
    assert_eq!(first.refresh_token, retry.refresh_token);
    assert_eq!(first.refresh_expire_time, retry.refresh_expire_time);
    assert!(is_accepted(&server, &retry.access_token).await);
    refresh(&server, &first.refresh_token).await?;
    assert_eq!(refused(&server, &anna.refresh_token).await, reused(), "its successor is used");
    server.stop().await
}

async fn a_token_two_steps_back_is_reuse_even_within_grace(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let first = refresh(&server, &anna.refresh_token).await?;
    let second = refresh(&server, &first.refresh_token).await?;
    assert_eq!(refused(&server, &anna.refresh_token).await, reused());
    assert_eq!(refused(&server, &second.refresh_token).await, revoked());
    assert!(!is_accepted(&server, &second.access_token).await);
    server.stop().await
}

async fn without_grace_every_repetition_is_reuse(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nrefresh_grace = \"0s\"\n").await?;
    let anna = server.anna().await?;
    let next = refresh(&server, &anna.refresh_token).await?;
    assert_eq!(refused(&server, &anna.refresh_token).await, reused());
    assert!(!is_accepted(&server, &next.access_token).await);
    server.stop().await
}

async fn reuse_by_many_at_once_ends_the_session_once(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nrefresh_grace = \"0s\"\n").await?;
    let anna = server.anna().await?;
    refresh(&server, &anna.refresh_token).await?;
    let all = join_all((0..20).map(|_| refused(&server, &anna.refresh_token))).await;
    assert!(all.iter().all(|refusal| *refusal == reused() || *refusal == revoked()), "{all:?}");
    assert!(all.contains(&reused()));
    let events = "SELECT CAST(count(*) AS TEXT) AS first FROM audit_events WHERE action = 'refresh_reuse'";
    assert_eq!(home.query(events).await?, ["1"]);
    server.stop().await
}

async fn a_spent_token_after_grace_ends_the_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let next = refresh(&server, &anna.refresh_token).await?;
    home.clock.advance(9);
    assert_eq!(refresh(&server, &anna.refresh_token).await?.refresh_token, next.refresh_token);
    home.clock.advance(1);
    assert_eq!(refused(&server, &anna.refresh_token).await, reused());
    assert_eq!(refused(&server, &next.refresh_token).await, revoked());
    assert!(!is_accepted(&server, &next.access_token).await);

    let get = GetSessionRequest { session_id: anna.session_id.clone() };
    let session = server.session().get_session(authorized(&admin.access_token, get)).await?.into_inner();
    let session = session.session.ok_or("no session")?;
    assert_eq!((session.state(), session.end_reason.as_str()), (SessionState::Ended, "reuse"));
    let asked = ListEventsRequest { action: "refresh_reuse".to_owned(), ..Default::default() };
    let events =
        server.audit().list_events(authorized(&admin.access_token, asked)).await?.into_inner().events;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].target_id.as_str(), events[0].reason.as_str()),
        (anna.session_id.as_str(), "TOKEN_REUSED")
    );
    server.stop().await
}

/// The token's bytes with one of them changed.
fn forged(token: &str, index: usize) -> Result<String, Box<dyn std::error::Error>> {
    let mut bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix("trt_").ok_or("no prefix")?)?;
    bytes[index] ^= 1;
    Ok(format!("trt_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

async fn a_forged_refresh_token_is_refused_and_harms_nobody(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    refresh(&server, &anna.refresh_token).await?;
    let invalid = invalid_token();
    // The session's id, the generation, the tag.
    for index in [5, 24, 30, 56] {
        assert_eq!(refused(&server, &forged(&anna.refresh_token, index)?).await, invalid, "byte {index}");
    }
    let malformed = (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned());
    for token in ["", "trt_", "nonsense", &anna.access_token, &forged(&anna.refresh_token, 0)?] {
        assert_eq!(refused(&server, token).await, malformed, "{token:.20}");
    }
    assert!(is_accepted(&server, &anna.access_token).await);
    server.stop().await
}

async fn another_device_is_refused_and_recorded(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let device =
        |kind: &str, id: &str| Device { r#type: kind.to_owned(), id: id.to_owned(), name: String::new() };
    let request = |device| RefreshRequest { refresh_token: anna.refresh_token.clone(), device: Some(device) };
    let answer = server.auth().refresh(request(device("mobile", ""))).await;
    assert_eq!(refusal(answer), (Code::Unauthenticated, "REAUTHENTICATION_REQUIRED".to_owned()));
    let again = server.auth().refresh(request(device("mobile", ""))).await;
    assert_eq!(refusal(again).1, "REAUTHENTICATION_REQUIRED", "and nobody fills the trail with it");
    let recorded = "SELECT CAST(count(*) AS TEXT) AS first FROM audit_events WHERE action = 'refresh_device'";
    assert_eq!(home.query(recorded).await?, ["1"]);
    assert!(
        server.auth().refresh(request(device("", "laptop"))).await.is_ok(),
        "what is left out can't contradict"
    );
    server.stop().await
}

async fn a_refresh_races_a_logout(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    for round in 0..10 {
        let name = format!("racer-{round}");
        server.make_user(&admin, &name).await?;
        let racer = server.sign_in(&name, "web").await?;
        let mut auth = server.auth();
        let (logout, refreshed) = tokio::join!(
            auth.logout(authorized(&racer.access_token, LogoutRequest {})),
            refresh(&server, &racer.refresh_token)
        );
        logout?;
        if let Ok(tokens) = refreshed {
            assert!(!is_accepted(&server, &tokens.access_token).await, "a token that came after the logout");
            assert_eq!(refused(&server, &tokens.refresh_token).await, revoked());
        }
    }
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_database_makes_no_retry_a_theft() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start().await?;
    let anna = server.anna().await?;
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT * FROM sessions FOR UPDATE").await?;
    let both =
        async { tokio::join!(refresh(&server, &anna.refresh_token), refresh(&server, &anna.refresh_token)) };
    let released = async {
        let waiting = "SELECT CAST(count(*) AS TEXT) AS first FROM pg_stat_activity \
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while home.query(waiting).await? != ["2"] {
            tokio::task::yield_now().await;
        }
        home.clock.advance(60);
        holder.batch_execute("COMMIT").await?;
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    let ((first, second), released) = tokio::join!(both, released);
    released?;
    assert_eq!(first?.refresh_token, second?.refresh_token);
    drop(holder);
    connection.await??;
    server.stop().await
}
