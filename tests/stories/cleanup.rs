//! What is over is removed after a while, and nothing else is.

use std::error::Error;

use tessera::proto::{GetJwkRequest, LogoutRequest, RefreshRequest, RevokeTokenRequest};
use tonic::Code;

use crate::support::{
    Home, Outcome, Person, Server, authorized, eventually, refresh_with, refusal, timed_stories,
};

timed_stories! {
    sessions_go_with_their_keys_once_they_were_over_for_long_enough,
    old_events_go_and_no_others_can,
    without_a_limit_every_event_stays,
    a_token_of_a_session_that_is_gone_is_none_to_revoke,
    a_pruned_log_is_followed_and_read,
    steady_load_takes_no_more_room_as_time_goes_by,
}

/// Looks for what is over all the time.
const TIDY: &str = r#"
    [database]
    cleanup_interval = "10ms"
    poll_interval = "10ms"
    [tokens]
    access_ttl = "5m"
    leeway = "0s"
    [sessions]
    keep_ended = "1h"
    idle_ttl = "30m"
    absolute_ttl = "4h"
"#;
const MINUTE: i64 = 60;

/// Waits for a round that began after the call.
async fn clean(server: &Server) -> Outcome {
    let rounds = async || server.metric("tessera_cleanup_rounds_total").await;
    let before = rounds().await?;
    eventually("it is cleaned", async || Ok(rounds().await? >= before + 2)).await?;
    assert_eq!(server.metric("tessera_cleanup_failures_total").await?, 0);
    Ok(())
}

async fn count(home: &Home, of: &str) -> Result<u64, Box<dyn Error>> {
    let counted = home.query(&format!("SELECT CAST(count(*) AS TEXT) AS first FROM {of}")).await?;
    Ok(counted.first().ok_or("no count")?.parse()?)
}

/// How many sessions and keys there are of a user.
async fn kept(home: &Home, username: &str) -> Result<(u64, u64), Box<dyn Error>> {
    let of_user = format!("user_id = (SELECT id FROM users WHERE username = '{username}')");
    let sessions = count(home, &format!("sessions WHERE {of_user}")).await?;
    let keys = format!("session_keys WHERE session_id IN (SELECT id FROM sessions WHERE {of_user})");
    Ok((sessions, count(home, &keys).await?))
}

async fn refused(server: &Server, person: &Person) -> (Code, String) {
    refusal(server.auth().refresh(refresh_with(&person.refresh_token)).await)
}

async fn go_on(server: &Server, person: &mut Person) -> Outcome {
    let request = RefreshRequest { refresh_token: person.refresh_token.clone(), device: None };
    let tokens = server.auth().refresh(request).await?.into_inner().tokens.ok_or("no tokens")?;
    (person.access_token, person.refresh_token) = (tokens.access_token, tokens.refresh_token);
    Ok(())
}

async fn sessions_go_with_their_keys_once_they_were_over_for_long_enough(home: Home) -> Outcome {
    let server = home.start_with(TIDY).await?;
    let admin = server.admin().await?;
    for name in ["ended", "idle", "live"] {
        server.make_user(&admin, name).await?;
    }
    let ended = server.sign_in("ended", "web").await?;
    let idle = server.sign_in("idle", "web").await?;
    let mut live = server.sign_in("live", "web").await?;
    let unauthenticated = |reason: &str| (Code::Unauthenticated, reason.to_owned());
    server.auth().logout(authorized(&ended.access_token, LogoutRequest {})).await?;
    for _ in 0..3 {
        home.clock.advance(20 * MINUTE - 1);
        go_on(&server, &mut live).await?;
    }
    clean(&server).await?;
    assert_eq!(kept(&home, "ended").await?, (1, 1), "it ended less than an hour ago");
    assert_eq!(refused(&server, &ended).await, unauthenticated("TOKEN_REVOKED"));

    home.clock.advance(3);
    clean(&server).await?;
    assert_eq!(kept(&home, "ended").await?, (0, 0));
    assert_eq!(refused(&server, &ended).await, unauthenticated("TOKEN_INVALID"));
    home.clock.advance(25 * MINUTE);
    go_on(&server, &mut live).await?;
    home.clock.advance(5 * MINUTE - 1);
    clean(&server).await?;
    assert_eq!(kept(&home, "idle").await?, (1, 1), "it expired less than an hour ago");
    assert_eq!(refused(&server, &idle).await, unauthenticated("TOKEN_EXPIRED"));

    home.clock.advance(1);
    clean(&server).await?;
    assert_eq!(kept(&home, "idle").await?, (0, 0));
    assert_eq!(refused(&server, &idle).await, unauthenticated("TOKEN_INVALID"));
    assert_eq!(kept(&home, "live").await?, (1, 1));
    go_on(&server, &mut live).await?;
    assert!(server.is_active(&live.access_token, true).await?);
    let kid = home.query("SELECT kid AS first FROM sessions").await?.first().ok_or("no session")?.clone();
    assert!(server.keys().get_jwk(GetJwkRequest { kid }).await.is_ok());
    for table in ["sessions", "session_keys"] {
        let cleaned = server.metric(&format!("tessera_cleaned_rows_total{{table=\"{table}\"}}")).await?;
        assert_eq!(cleaned, 3, "{table}: two of these, and the admin's");
    }
    server.stop().await
}

async fn a_token_of_a_session_that_is_gone_is_none_to_revoke(home: Home) -> Outcome {
    let server = home.start_with(TIDY).await?;
    let anna = server.anna().await?;
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    home.clock.advance(61 * MINUTE);
    clean(&server).await?;
    assert_eq!(kept(&home, "anna").await?, (0, 0));
    let again = server.sign_in("anna", "web").await?;
    let request = RevokeTokenRequest { token: anna.refresh_token, jti: String::new() };
    server.auth().revoke_token(authorized(&again.access_token, request)).await?;
    server.stop().await
}

async fn old_events_go_and_no_others_can(home: Home) -> Outcome {
    let server = home.start_with(&format!("{TIDY}[audit]\nkeep = \"2h\"\n")).await?;
    server.anna().await?;
    let at_first = count(&home, "audit_events").await?;
    home.clock.advance(60 * MINUTE);
    server.sign_in("anna", "web").await?;
    home.clock.advance(60 * MINUTE);
    clean(&server).await?;
    assert_eq!(count(&home, "audit_events").await?, at_first + 1, "none is older than two hours");
    home.clock.advance(1);
    clean(&server).await?;
    assert_eq!(count(&home, "audit_events").await?, 1);
    for statement in ["DELETE FROM audit_events", "UPDATE audit_events SET action = 'nothing'"] {
        let refused = home.query(statement).await.expect_err("it is append-only");
        assert!(format!("{refused:?}").contains("append-only"), "{refused:?}");
    }
    assert_eq!(server.metric("tessera_cleaned_rows_total{table=\"audit_events\"}").await?, at_first);
    server.stop().await
}

async fn without_a_limit_every_event_stays(home: Home) -> Outcome {
    let server = home.start_with(&format!("{TIDY}[audit]\nkeep = 0\n")).await?;
    server.anna().await?;
    let at_first = count(&home, "audit_events WHERE action = 'login'").await?;
    home.clock.advance(50 * 365 * 24 * 60 * MINUTE);
    clean(&server).await?;
    assert_eq!(count(&home, "sessions").await?, 0);
    assert_eq!(count(&home, "audit_events WHERE action = 'login'").await?, at_first);
    server.stop().await
}

/// Whether a replica has read the log to its end, as far as it is told outside.
async fn has_caught_up(home: &Home, server: &Server) -> Outcome {
    let head = home.query("SELECT CAST(revision AS TEXT) AS first FROM trust_head").await?;
    let head: u64 = head.first().ok_or("no head")?.parse()?;
    eventually("it has caught up", async || Ok(server.metric("tessera_trust_revision").await? == head)).await
}

async fn a_pruned_log_is_followed_and_read(home: Home) -> Outcome {
    let (here, there) = (home.start_with(TIDY).await?, home.another(TIDY).await?);
    let admin = here.admin().await?;
    for name in ["early-0", "early-1", "early-2", "late"] {
        here.make_user(&admin, name).await?;
    }
    for name in ["early-0", "early-1", "early-2"] {
        let early = here.sign_in(name, "web").await?;
        here.auth().logout(authorized(&early.access_token, LogoutRequest {})).await?;
    }
    assert!(count(&home, "trust_log").await? >= 3);
    home.clock.advance(71 * MINUTE);
    for server in [Some(&here), there.as_ref()].into_iter().flatten() {
        clean(server).await?;
        has_caught_up(&home, server).await?;
    }
    assert_eq!(count(&home, "trust_log").await?, 1, "the newest stays");

    let late = here.sign_in("late", "web").await?;
    here.auth().logout(authorized(&late.access_token, LogoutRequest {})).await?;
    clean(&here).await?;
    assert_eq!(count(&home, "trust_log").await?, 1, "and goes when there is a newer one");
    if let Some(there) = there {
        eventually("it is revoked there too", async || {
            Ok(!there.is_active(&late.access_token, false).await?)
        })
        .await?;
        there.stop().await?;
    }
    here.stop().await?;
    let again = home.start_with(TIDY).await?;
    assert!(!again.is_active(&late.access_token, false).await?, "one that starts later reads it");
    has_caught_up(&home, &again).await?;
    home.clock.advance(71 * MINUTE);
    clean(&again).await?;
    again.stop().await?;
    let again = home.start_with(TIDY).await?;
    has_caught_up(&home, &again).await?;
    again.stop().await
}

/// What takes room: rows, and revocations in memory.
async fn room(home: &Home, server: &Server) -> Result<[u64; 5], Box<dyn Error>> {
    clean(server).await?;
    has_caught_up(home, server).await?;
    Ok([
        count(home, "sessions").await?,
        count(home, "session_keys").await?,
        count(home, "trust_log").await?,
        count(home, "audit_events").await?,
        server.metric("tessera_cache_entries{cache=\"revocations\"}").await?,
    ])
}

async fn steady_load_takes_no_more_room_as_time_goes_by(home: Home) -> Outcome {
    const PEOPLE: usize = 6;
    let server = home.start_with(&format!("{TIDY}[audit]\nkeep = \"1h\"\n")).await?;
    let admin = server.admin().await?;
    for number in 0..PEOPLE {
        server.make_user(&admin, &format!("person-{number}")).await?;
    }
    let mut rooms = Vec::new();
    for step in 0..40 {
        for number in 0..PEOPLE {
            let mut person = server.sign_in(&format!("person-{number}"), "web").await?;
            go_on(&server, &mut person).await?;
            // A third logs out, a third is replaced by the next login, a third expires on a device of its own.
            match number % 3 {
                0 => drop(server.auth().logout(authorized(&person.access_token, LogoutRequest {})).await?),
                1 => {}
                _ => drop(server.sign_in(&format!("person-{number}"), &format!("device-{step}")).await?),
            }
        }
        home.clock.advance(5 * MINUTE);
        if step % 20 == 19 {
            rooms.push(room(&home, &server).await?);
        }
    }
    let [early, late] = rooms[..] else { return Err("not measured twice".into()) };
    assert!(early.iter().all(|room| *room > 10), "there was something to remove: {early:?}");
    assert!(late.iter().zip(early).all(|(late, early)| *late <= early), "{early:?} became {late:?}");
    server.stop().await
}
