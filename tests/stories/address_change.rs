//! A refresh that comes from another network, and what a setting makes of it.

use tessera::proto::{EventOutcome, ListEventsRequest, SessionState};
use tonic::Code;

use crate::support::{
    BEHIND_A_PROXY, Home, Outcome, PASSWORD, Person, Server, authorized, login_as, refresh_at, refusal,
    revoked, stories,
};

stories! {
    another_network_is_recorded_by_default,
    another_network_is_ignored_where_it_may_be,
    another_network_must_sign_in_again_where_it_must,
    another_network_ends_the_session_where_it_must,
    a_retry_from_another_network_is_no_way_around,
    reuse_from_another_network_ends_the_session_whatever_the_setting,
    networks_are_as_large_as_the_settings_say,
    an_older_release_may_have_moved_a_session,
}

const HOME: &str = "192.0.2.1";
const ALSO_HOME: &str = "192.0.2.99";
const ELSEWHERE: &str = "198.51.100.7";
const ACTION: &str = "refresh_address";

fn settings(reaction: &str) -> String {
    format!("{BEHIND_A_PROXY}[sessions]\non_address_change = \"{reaction}\"\n")
}

fn reauthenticate() -> (Code, String) {
    (Code::Unauthenticated, "REAUTHENTICATION_REQUIRED".to_owned())
}

async fn refused_at(server: &Server, address: &str, refresh_token: &str) -> (Code, String) {
    refusal(server.auth().refresh(refresh_at(address, refresh_token, None)).await)
}

/// An admin, and Anna at home.
async fn people(server: &Server) -> Result<(Person, Person), Box<dyn std::error::Error>> {
    let admin = server.admin().await?;
    server.make_user(&admin, "anna").await?;
    Ok((admin, server.sign_in_at(HOME, login_as("anna", PASSWORD, "web")).await?))
}

async fn another_network_is_recorded_by_default(home: Home) -> Outcome {
    let server = home.start_with(BEHIND_A_PROXY).await?;
    let (admin, anna) = people(&server).await?;
    let tokens = server.refresh_at(ALSO_HOME, &anna.refresh_token).await?;
    assert!(server.events(&admin, ACTION).await?.is_empty(), "it is the same network");

    let tokens = server.refresh_at(ELSEWHERE, &tokens.refresh_token).await?;
    let events = server.events(&admin, ACTION).await?;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].target_name.as_str(), events[0].address.as_str()), (ALSO_HOME, ELSEWHERE));
    assert_eq!((events[0].outcome(), events[0].reason.as_str()), (EventOutcome::Success, ""));
    assert_eq!((&events[0].target_type[..], &events[0].target_id), ("session", &anna.session_id));
    let session = server.session_of(&admin, &anna.session_id).await?;
    assert_eq!((session.first_address.as_str(), session.last_address.as_str()), (HOME, ELSEWHERE));
    assert_eq!(session.generation, 2);

    let tokens = server.refresh_at(ELSEWHERE, &tokens.refresh_token).await?;
    assert_eq!(server.events(&admin, ACTION).await?.len(), 1, "it has moved");
    server.refresh_at(HOME, &tokens.refresh_token).await?;
    assert_eq!(server.events(&admin, ACTION).await?.len(), 2, "and back");
    server.stop().await
}

async fn another_network_is_ignored_where_it_may_be(home: Home) -> Outcome {
    let server = home.start_with(&settings("ignore")).await?;
    let (admin, anna) = people(&server).await?;
    let tokens = server.refresh_at(ELSEWHERE, &anna.refresh_token).await?;
    server.refresh_at("2001:db8::1", &tokens.refresh_token).await?;
    assert!(server.events(&admin, ACTION).await?.is_empty());
    assert_eq!(server.session_of(&admin, &anna.session_id).await?.last_address, "2001:db8::1");
    server.stop().await
}

async fn another_network_must_sign_in_again_where_it_must(home: Home) -> Outcome {
    let server = home.start_with(&settings("reauthenticate")).await?;
    let (admin, anna) = people(&server).await?;
    for address in [ELSEWHERE, "203.0.113.9", ELSEWHERE] {
        assert_eq!(refused_at(&server, address, &anna.refresh_token).await, reauthenticate(), "{address}");
    }
    let events = server.events(&admin, ACTION).await?;
    assert_eq!(events.len(), 1, "and nobody fills the trail with it");
    assert_eq!((events[0].target_name.as_str(), events[0].address.as_str()), (HOME, ELSEWHERE));
    assert_eq!(
        (events[0].outcome(), events[0].reason.as_str()),
        (EventOutcome::Failure, "REAUTHENTICATION_REQUIRED")
    );

    let tokens = server.refresh_at(ALSO_HOME, &anna.refresh_token).await?;
    assert_eq!(refused_at(&server, ELSEWHERE, &tokens.refresh_token).await, reauthenticate());
    assert_eq!(server.events(&admin, ACTION).await?.len(), 2, "it lives on, and is watched on");
    let there = server.sign_in_at(ELSEWHERE, login_as("anna", PASSWORD, "web")).await?;
    server.refresh_at(ELSEWHERE, &there.refresh_token).await?;
    server.stop().await
}

async fn another_network_ends_the_session_where_it_must(home: Home) -> Outcome {
    let server = home.start_with(&settings("revoke")).await?;
    let (admin, anna) = people(&server).await?;
    let tokens = server.refresh_at(ALSO_HOME, &anna.refresh_token).await?;
    for address in [ELSEWHERE, ELSEWHERE, HOME] {
        assert_eq!(refused_at(&server, address, &tokens.refresh_token).await, revoked(), "{address}");
    }
    assert!(!server.is_active(&tokens.access_token, false).await?, "its tokens end at once");
    let session = server.session_of(&admin, &anna.session_id).await?;
    assert_eq!((session.state(), session.end_reason.as_str()), (SessionState::Ended, "address_changed"));
    let events = server.events(&admin, ACTION).await?;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].target_name.as_str(), events[0].address.as_str()), (ALSO_HOME, ELSEWHERE));
    assert_eq!(events[0].reason, "TOKEN_REVOKED");
    let log = "SELECT CAST(count(*) AS TEXT) AS first FROM trust_log WHERE kind = 'session'";
    assert_eq!(home.query(log).await?, ["1"]);
    server.stop().await
}

async fn a_retry_from_another_network_is_no_way_around(home: Home) -> Outcome {
    let mut server = home.start_with(&settings("ignore")).await?;
    let (admin, _) = people(&server).await?;
    for reaction in ["ignore", "record", "reauthenticate", "revoke"] {
        server.stop().await?;
        server = home.start_with(&settings(reaction)).await?;
        let anna = server.sign_in_at(HOME, login_as("anna", PASSWORD, reaction)).await?;
        let next = server.refresh_at(HOME, &anna.refresh_token).await?.refresh_token;
        match reaction {
            "reauthenticate" => {
                assert_eq!(refused_at(&server, ELSEWHERE, &anna.refresh_token).await, reauthenticate());
                let retry = server.refresh_at(HOME, &anna.refresh_token).await?;
                assert_eq!(retry.refresh_token, next, "the client at home is not harmed");
            }
            "revoke" => {
                assert_eq!(refused_at(&server, ELSEWHERE, &anna.refresh_token).await, revoked());
                assert_eq!(refused_at(&server, HOME, &next).await, revoked());
            }
            _ => {
                for _ in 0..2 {
                    let retry = server.refresh_at(ELSEWHERE, &anna.refresh_token).await?;
                    assert_eq!(retry.refresh_token, next, "{reaction}");
                }
            }
        }
        let recorded = server.events(&admin, ACTION).await?;
        let of_session = recorded.iter().filter(|event| event.target_id == anna.session_id).count();
        assert_eq!(of_session, usize::from(reaction != "ignore"), "{reaction}");
    }
    server.stop().await
}

async fn reuse_from_another_network_ends_the_session_whatever_the_setting(home: Home) -> Outcome {
    let mut server = home.start_with(BEHIND_A_PROXY).await?;
    let (admin, _) = people(&server).await?;
    for reaction in ["ignore", "record", "reauthenticate", "revoke"] {
        server.stop().await?;
        server = home.start_with(&settings(reaction)).await?;
        let anna = server.sign_in_at(HOME, login_as("anna", PASSWORD, reaction)).await?;
        let next = server.refresh_at(HOME, &anna.refresh_token).await?;
        let last = server.refresh_at(HOME, &next.refresh_token).await?;
        let reused = (Code::Unauthenticated, "TOKEN_REUSED".to_owned());
        assert_eq!(refused_at(&server, ELSEWHERE, &anna.refresh_token).await, reused, "{reaction}");
        assert_eq!(refused_at(&server, HOME, &last.refresh_token).await, revoked(), "{reaction}");
        let session = server.session_of(&admin, &anna.session_id).await?;
        assert_eq!(session.end_reason, "reuse", "{reaction}");
        let asked = ListEventsRequest { action: "refresh_reuse".to_owned(), ..Default::default() };
        let told = server.audit().list_events(authorized(&admin.access_token, asked)).await?.into_inner();
        let event = told.events.first().ok_or("the trail says nothing")?;
        assert_eq!((event.address.as_str(), event.target_name.as_str()), (ELSEWHERE, HOME), "{reaction}");
    }
    server.stop().await
}

async fn networks_are_as_large_as_the_settings_say(home: Home) -> Outcome {
    let wide = format!("{}address_prefix_v4 = 16\naddress_prefix_v6 = 32\n", settings("reauthenticate"));
    let server = home.start_with(&wide).await?;
    let (admin, anna) = people(&server).await?;
    let tokens = server.refresh_at("192.0.77.1", &anna.refresh_token).await?;
    assert_eq!(refused_at(&server, "192.1.2.1", &tokens.refresh_token).await, reauthenticate());
    let other = server.sign_in_at("2001:db8:1::1", login_as("anna", PASSWORD, "tablet")).await?;
    let sixth = server.refresh_at("2001:db8:2::1", &other.refresh_token).await?;
    assert_eq!(refused_at(&server, "2001:db9::1", &sixth.refresh_token).await, reauthenticate());
    server.stop().await?;

    let server = home.start_with(&settings("reauthenticate")).await?;
    assert_eq!(refused_at(&server, "192.0.2.1", &tokens.refresh_token).await, reauthenticate());
    server.refresh_at("192.0.77.9", &tokens.refresh_token).await?;
    assert_eq!(server.session_of(&admin, &anna.session_id).await?.generation, 2);
    server.stop().await
}

async fn an_older_release_may_have_moved_a_session(home: Home) -> Outcome {
    let server = home.start_with(&settings("revoke")).await?;
    let (admin, anna) = people(&server).await?;
    // It begins sessions without a network, and moves others without telling where to.
    home.query("UPDATE sessions SET last_network = ''").await?;
    let tokens = server.refresh_at(ELSEWHERE, &anna.refresh_token).await?;
    home.query("UPDATE sessions SET last_address = '203.0.113.9'").await?;
    let tokens = server.refresh_at("203.0.113.8", &tokens.refresh_token).await?;
    assert!(server.events(&admin, ACTION).await?.is_empty());
    assert_eq!(refused_at(&server, ELSEWHERE, &tokens.refresh_token).await, revoked());
    server.stop().await
}
