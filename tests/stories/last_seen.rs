//! When and where a session was last seen, without a refresh.

use std::time::Duration;

use futures_util::future::try_join_all;
use tessera::proto::{ListSessionsRequest, LogoutRequest, SessionInfo};
use tokio::time::timeout;
use tonic::Request;

use crate::support::{
    BEHIND_A_PROXY, Home, Kind, Outcome, PASSWORD, Person, Server, at, authorized, eventually, login_as,
    timed_stories,
};

timed_stories! {
    a_call_shows_that_a_session_is_alive,
    a_call_of_many_a_minute_is_noted,
    a_call_moves_no_session_to_another_network,
    what_has_ended_is_seen_no_more,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HOME: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.7";

/// A server that trusts its proxy, and Anna at home.
async fn start(home: &Home, more: &str) -> Result<(Server, Person)> {
    let server = home.start_with(&format!("{BEHIND_A_PROXY}{more}")).await?;
    let admin = server.admin().await?;
    server.make_user(&admin, "anna").await?;
    let anna = server.sign_in_at(HOME, login_as("anna", PASSWORD, "web")).await?;
    Ok((server, anna))
}

fn list(person: &Person, address: &str) -> Request<ListSessionsRequest> {
    at(address, authorized(&person.access_token, ListSessionsRequest::default()))
}

/// Calls the API at this address, and gives the caller's session as it is shown.
async fn call(server: &Server, person: &Person, address: &str) -> Result<SessionInfo> {
    let sessions = server.session().list_sessions(list(person, address)).await?.into_inner().sessions;
    let own = sessions.into_iter().find(|session| session.session_id == person.session_id);
    Ok(own.ok_or("no session")?)
}

/// Seconds from its login until it was seen.
fn seen_after(session: &SessionInfo) -> Option<i64> {
    Some(session.last_seen_time?.seconds - session.create_time?.seconds)
}

/// Waits until the database holds so many sessions that were seen.
async fn seen_sessions(home: &Home, count: u32) -> Outcome {
    let seen = "SELECT CAST(count(*) AS TEXT) AS first FROM sessions WHERE last_seen_time IS NOT NULL";
    eventually("it is noted", async || Ok(home.query(seen).await? == [count.to_string()])).await
}

async fn a_call_shows_that_a_session_is_alive(home: Home) -> Outcome {
    let (server, anna) = start(&home, "").await?;
    home.clock.advance(61);
    let session = call(&server, &anna, ELSEWHERE).await?;
    assert_eq!(session.generation, 0);
    eventually("the call is noted", async || {
        let session = call(&server, &anna, ELSEWHERE).await?;
        Ok(seen_after(&session) == Some(61) && session.last_address == ELSEWHERE)
    })
    .await?;
    assert_eq!(session.first_address, HOME);

    home.clock.advance(10);
    let tokens = server.refresh_at(HOME, &anna.refresh_token).await?;
    let anna = Person { access_token: tokens.access_token, ..anna };
    let session = call(&server, &anna, ELSEWHERE).await?;
    assert_eq!(
        (seen_after(&session), session.last_address.as_str()),
        (Some(71), HOME),
        "a refresh counts too"
    );
    server.stop().await
}

async fn a_call_of_many_a_minute_is_noted(home: Home) -> Outcome {
    let (server, anna) = start(&home, "").await?;
    home.clock.advance(59);
    call(&server, &anna, ELSEWHERE).await?;
    home.clock.advance(2);
    try_join_all((0..20).map(|_| call(&server, &anna, ELSEWHERE))).await?;
    seen_sessions(&home, 1).await?;
    home.clock.advance(59);
    call(&server, &anna, HOME).await?;
    let session = call(&server, &anna, HOME).await?;
    assert_eq!((seen_after(&session), session.last_address.as_str()), (Some(61), ELSEWHERE));
    home.clock.advance(1);
    eventually("a minute later it is noted again", async || {
        let session = call(&server, &anna, HOME).await?;
        Ok(seen_after(&session) == Some(121) && session.last_address == HOME)
    })
    .await?;
    server.stop().await
}

async fn a_call_moves_no_session_to_another_network(home: Home) -> Outcome {
    let (server, anna) = start(&home, "[sessions]\non_address_change = \"reauthenticate\"\n").await?;
    home.clock.advance(61);
    call(&server, &anna, ELSEWHERE).await?;
    seen_sessions(&home, 1).await?;
    assert!(server.refresh_at(ELSEWHERE, &anna.refresh_token).await.is_err(), "whoever stole both tokens");
    server.refresh_at(HOME, &anna.refresh_token).await?;
    server.stop().await
}

async fn what_has_ended_is_seen_no_more(home: Home) -> Outcome {
    let (server, anna) = start(&home, "").await?;
    let other = server.sign_in_at(HOME, login_as("anna", PASSWORD, "mobile")).await?;
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    home.clock.advance(61);
    assert!(call(&server, &anna, ELSEWHERE).await.is_err());
    // As a replica would that has not heard of the end.
    home.query(
        "UPDATE sessions SET end_time = create_time, end_reason = 'logout' WHERE device_type = 'mobile'",
    )
    .await?;
    server.session().list_sessions(list(&other, ELSEWHERE)).await?;
    let third = server.sign_in_at(HOME, login_as("anna", PASSWORD, "tablet")).await?;
    home.clock.advance(61);
    call(&server, &third, HOME).await?;
    seen_sessions(&home, 1).await?;
    let whose = "SELECT device_type AS first FROM sessions WHERE last_seen_time IS NOT NULL";
    assert_eq!(home.query(whose).await?, ["tablet"]);
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_no_note_and_there_is_one_of_a_session() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (server, anna) = start(&home, "").await?;
    home.clock.advance(61);
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT * FROM sessions FOR UPDATE").await?;
    let calls = try_join_all((0..20).map(|_| call(&server, &anna, ELSEWHERE)));
    timeout(Duration::from_secs(4), calls).await??;
    let waiting = "SELECT CAST(count(*) AS TEXT) AS first FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("it waits", async || Ok(home.query(waiting).await? == ["1"])).await?;
    eventually("it gives up", async || Ok(home.query(waiting).await? == ["0"])).await?;
    call(&server, &anna, ELSEWHERE).await?;
    holder.batch_execute("COMMIT").await?;
    drop(holder);
    connection.await??;
    home.clock.advance(60);
    call(&server, &anna, ELSEWHERE).await?;
    seen_sessions(&home, 1).await?;
    server.stop().await
}
