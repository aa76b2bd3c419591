//! A refresh that comes from another device, and what a setting makes of it.

use tessera::proto::{Device, EventOutcome};
use tonic::Code;

use crate::support::{BEHIND_A_PROXY, Home, Outcome, Server, refresh_at, refusal, revoked, stories};

stories! {
    another_device_is_ignored_where_it_may_be,
    another_device_is_recorded_where_it_must,
    another_device_ends_the_session_where_it_must,
    reuse_from_another_device_ends_the_session,
}

const HERE: &str = "127.0.0.1";
const ACTION: &str = "refresh_device";

fn settings(reaction: &str) -> String {
    format!("{BEHIND_A_PROXY}[sessions]\non_device_change = \"{reaction}\"\n")
}

async fn refresh_on(server: &Server, kind: &str, refresh_token: &str) -> Result<String, tonic::Status> {
    let device = Device { r#type: kind.to_owned(), ..Device::default() };
    let reply = server.auth().refresh(refresh_at(HERE, refresh_token, Some(device))).await?;
    Ok(reply.into_inner().tokens.unwrap_or_default().refresh_token)
}

async fn refused_on(server: &Server, kind: &str, refresh_token: &str) -> (Code, String) {
    let device = Device { r#type: kind.to_owned(), ..Device::default() };
    refusal(server.auth().refresh(refresh_at(HERE, refresh_token, Some(device))).await)
}

async fn another_device_is_ignored_where_it_may_be(home: Home) -> Outcome {
    let server = home.start_with(&settings("ignore")).await?;
    let (anna, admin) = (server.anna().await?, server.admin().await?);
    let next = refresh_on(&server, "mobile", &anna.refresh_token).await?;
    refresh_on(&server, "web", &next).await?;
    assert!(server.events(&admin, ACTION).await?.is_empty());
    assert_eq!(server.session_of(&admin, &anna.session_id).await?.device.unwrap_or_default().r#type, "web");
    server.stop().await
}

async fn another_device_is_recorded_where_it_must(home: Home) -> Outcome {
    let server = home.start_with(&settings("record")).await?;
    let (anna, admin) = (server.anna().await?, server.admin().await?);
    let next = refresh_on(&server, "mobile", &anna.refresh_token).await?;
    let retry = refresh_on(&server, "mobile", &anna.refresh_token).await?;
    assert_eq!(next, retry);
    let events = server.events(&admin, ACTION).await?;
    assert_eq!(events.len(), 1, "once for each step");
    assert_eq!((events[0].outcome(), &events[0].target_id), (EventOutcome::Success, &anna.session_id));
    let last = refresh_on(&server, "mobile", &next).await?;
    assert_eq!(server.events(&admin, ACTION).await?.len(), 2);
    refresh_on(&server, "web", &last).await?;
    assert_eq!(server.events(&admin, ACTION).await?.len(), 2);
    server.stop().await
}

async fn another_device_ends_the_session_where_it_must(home: Home) -> Outcome {
    let server = home.start_with(&settings("revoke")).await?;
    let (anna, admin) = (server.anna().await?, server.admin().await?);
    let next = refresh_on(&server, "web", &anna.refresh_token).await?;
    for kind in ["mobile", "mobile", "web"] {
        assert_eq!(refused_on(&server, kind, &next).await, revoked());
    }
    assert!(!server.is_active(&anna.access_token, false).await?, "its tokens end at once");
    assert_eq!(server.session_of(&admin, &anna.session_id).await?.end_reason, "device_changed");
    let events = server.events(&admin, ACTION).await?;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].reason, "TOKEN_REVOKED");
    server.stop().await
}

async fn reuse_from_another_device_ends_the_session(home: Home) -> Outcome {
    let server = home.start_with(BEHIND_A_PROXY).await?;
    let (anna, admin) = (server.anna().await?, server.admin().await?);
    let next = refresh_on(&server, "web", &anna.refresh_token).await?;
    assert_eq!(refused_on(&server, "mobile", &anna.refresh_token).await.1, "REAUTHENTICATION_REQUIRED");
    let last = refresh_on(&server, "web", &next).await?;
    assert_eq!(refused_on(&server, "mobile", &anna.refresh_token).await.1, "TOKEN_REUSED");
    assert_eq!(refused_on(&server, "mobile", &last).await, revoked());
    assert_eq!(server.session_of(&admin, &anna.session_id).await?.end_reason, "reuse");
    server.stop().await
}
