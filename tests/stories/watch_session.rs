//! `Session.WatchSession`: a client hears of the end of its own session.

use tessera::proto::{
    LogoutAllRequest, LogoutRequest, SessionState, UpdateUserRequest, WatchSessionRequest,
    WatchSessionResponse,
};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

use crate::support::{
    FENCE, Home, Kind, Outcome, Person, Server, authorized, eventually, reason, refresh_with, refusal,
    stories, timed_stories,
};

stories! {
    a_client_hears_that_its_session_has_ended_and_why,
    a_session_that_has_ended_is_not_watched,
    a_raised_version_alone_ends_no_session,
    a_server_that_stops_says_so,
    one_session_does_not_take_the_places_of_others,
}
timed_stories! { a_session_that_expires_has_ended_too }

async fn watch(server: &Server, person: &Person) -> Result<Streaming<WatchSessionResponse>, Status> {
    let request = authorized(&person.access_token, WatchSessionRequest {});
    Ok(server.session().watch_session(request).await?.into_inner())
}

async fn hear(
    stream: &mut Streaming<WatchSessionResponse>,
) -> Result<Option<(SessionState, String)>, Box<dyn std::error::Error>> {
    let message = timeout(FENCE, stream.message()).await??;
    Ok(message.map(|message| (message.state(), message.end_reason)))
}

fn said(state: SessionState, reason: &str) -> Option<(SessionState, String)> {
    Some((state, reason.to_owned()))
}

async fn a_client_hears_that_its_session_has_ended_and_why(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let mut streams = [watch(&server, &anna).await?, watch(&server, &phone).await?];
    for stream in &mut streams {
        assert_eq!(hear(stream).await?, said(SessionState::Active, ""));
    }
    let [web, mobile] = &mut streams;
    server.sign_in("anna", "web").await?;
    assert_eq!(hear(web).await?, said(SessionState::Ended, "replaced"));
    assert_eq!(hear(web).await?, None);

    server.auth().logout_all(authorized(&phone.access_token, LogoutAllRequest {})).await?;
    assert_eq!(hear(mobile).await?, said(SessionState::Ended, "logout_all"));
    assert_eq!(hear(mobile).await?, None);
    server.stop().await
}

async fn a_session_that_has_ended_is_not_watched(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    let refused = watch(&server, &anna).await.err().ok_or("it was to be refused")?;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "TOKEN_REVOKED"));
    server.stop().await
}

async fn a_raised_version_alone_ends_no_session(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    server.make_user_in(&root, "", "berta", &["clerk"]).await?;
    let berta = server.sign_in("berta", "web").await?;
    let mut stream = watch(&server, &berta).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Active, ""));
    let request = UpdateUserRequest {
        user_id: berta.user_id.clone(),
        roles: Some(tessera::proto::RoleSet { roles: Vec::new() }),
        ..UpdateUserRequest::default()
    };
    server.users().update_user(authorized(&root.access_token, request)).await?;
    assert!(!server.is_active(&berta.access_token, false).await?);
    let tokens = server.auth().refresh(refresh_with(&berta.refresh_token)).await?.into_inner().tokens;
    let token = tokens.ok_or("no tokens")?.access_token;
    server.auth().logout(authorized(&token, LogoutRequest {})).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Ended, "logout"), "and nothing before it");
    server.stop().await
}

async fn a_session_that_expires_has_ended_too(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nidle_ttl = \"1h\"\n").await?;
    let anna = server.anna().await?;
    let mut stream = watch(&server, &anna).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Active, ""));
    home.clock.advance(50 * 60);
    server.auth().refresh(refresh_with(&anna.refresh_token)).await?;
    // Past the end that it had when it began to be watched.
    home.clock.advance(50 * 60);
    assert!(timeout(std::time::Duration::from_millis(1500), stream.message()).await.is_err());
    home.clock.advance(60 * 60);
    assert_eq!(hear(&mut stream).await?, said(SessionState::Expired, ""));
    server.stop().await
}

async fn a_server_that_stops_says_so(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let mut stream = watch(&server, &anna).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Active, ""));
    let (stopped, told) = tokio::join!(server.stop(), timeout(FENCE, stream.message()));
    stopped?;
    let told = told?.err().ok_or("it ended without a word")?;
    assert_eq!((told.code(), reason(&told).as_str()), (Code::Unavailable, "STOPPING"));
    Ok(())
}

async fn one_session_does_not_take_the_places_of_others(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let phone = server.sign_in("anna", "mobile").await?;
    let mut streams = Vec::new();
    for _ in 0..8 {
        streams.push(watch(&server, &anna).await?);
    }
    let refused = watch(&server, &anna).await.err().ok_or("it was to be refused")?;
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
    streams.push(watch(&server, &phone).await?);
    drop(streams);
    eventually("there is a place again", async || Ok(watch(&server, &anna).await.is_ok())).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_on_another_replica_is_heard() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start().await?, home.start().await?);
    let anna = here.anna().await?;
    let mut stream = watch(&there, &anna).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Active, ""));
    here.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    assert_eq!(hear(&mut stream).await?, said(SessionState::Ended, "logout"));
    eventually("it is refused there", async || {
        Ok(refusal(there.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await).1
            == "TOKEN_REVOKED")
    })
    .await?;
    there.stop().await?;
    here.stop().await
}
