//! A server that is killed in the middle of whatever it does, and comes back.

use std::time::Instant;

use tessera::proto::auth_client::AuthClient;
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tonic::transport::Channel;

use crate::support::{FENCE, Home, Outcome, PASSWORD, Person, login_as, process_stories, refresh_with};

process_stories! { whatever_was_answered_survives_a_kill }

/// Cheap hashes, room for many sessions, and time enough to start again within the grace.
const BUSY: &str = r#"
    [passwords]
    argon2_memory_kib = 64
    argon2_time = 1
    [sessions]
    per_user = 1000000
    refresh_grace = "1h"
"#;
/// Callers of each kind at the same time.
const CALLERS: usize = 50;
const PEOPLE: usize = 10;

#[derive(Clone, Copy, PartialEq)]
enum Answered {
    Login,
    Refresh,
}

/// Signs in from one new device after another until the server is gone; gives every session that was answered.
async fn keep_signing_in(
    mut auth: AuthClient<Channel>,
    caller: usize,
    tell: mpsc::UnboundedSender<Answered>,
) -> Vec<Person> {
    let username = format!("person-{}", caller % PEOPLE);
    let mut answered = Vec::new();
    loop {
        let device = format!("d{caller}-{}", answered.len());
        match auth.login(login_as(&username, PASSWORD, &device)).await {
            Ok(reply) => answered.push(reply.into_inner().into()),
            Err(_) => return answered,
        }
        let _ = tell.send(Answered::Login);
    }
}

/// Refreshes one session until the server is gone; gives the last tokens that were answered.
async fn keep_refreshing(
    mut auth: AuthClient<Channel>,
    mut person: Person,
    tell: mpsc::UnboundedSender<Answered>,
) -> Vec<Person> {
    while let Ok(reply) = auth.refresh(refresh_with(&person.refresh_token)).await {
        let tokens = reply.into_inner().tokens.unwrap_or_default();
        person.access_token = tokens.access_token;
        person.refresh_token = tokens.refresh_token;
        let _ = tell.send(Answered::Refresh);
    }
    vec![person]
}

async fn whatever_was_answered_survives_a_kill(home: Home) -> Outcome {
    let server = home.start_with(BUSY).await?;
    let admin = server.admin().await?;
    for person in 0..PEOPLE {
        server.make_user(&admin, &format!("person-{person}")).await?;
    }
    let early = server.sign_in("person-0", "early").await?;
    let (tell, mut answers) = mpsc::unbounded_channel();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let username = format!("person-{}", caller % PEOPLE);
        let person = server.sign_in(&username, &format!("r{caller}")).await?;
        let auth = AuthClient::new(server.new_channel().await?);
        callers.spawn(keep_refreshing(auth, person, tell.clone()));
        let auth = AuthClient::new(server.new_channel().await?);
        callers.spawn(keep_signing_in(auth, caller, tell.clone()));
    }
    drop(tell);
    let (mut logins, mut refreshes) = (0, 0);
    while logins < CALLERS || refreshes < CALLERS {
        match timeout(FENCE, answers.recv()).await?.ok_or("the server went away")? {
            Answered::Login => logins += 1,
            Answered::Refresh => refreshes += 1,
        }
    }
    server.kill().await?;
    let mut answered = vec![admin, early];
    while let Some(people) = callers.join_next().await {
        answered.extend(people?);
    }

    let begun = Instant::now();
    let server = home.start_with(BUSY).await?;
    println!("back in {:?} with {} sessions that were answered", begun.elapsed(), answered.len());
    assert!(answered.len() > 2 * CALLERS);
    for half in [
        "sessions AS s WHERE NOT EXISTS (SELECT 1 FROM session_keys AS k WHERE k.kid = s.kid AND k.session_id = s.id)",
        "session_keys AS k WHERE NOT EXISTS (SELECT 1 FROM sessions AS s WHERE k.kid = s.kid AND k.session_id = s.id)",
    ] {
        let count = format!("SELECT CAST(COUNT(*) AS TEXT) AS first FROM {half}");
        assert_eq!(home.query(&count).await?, ["0"], "half-made: {half}");
    }
    for person in &answered {
        assert!(server.is_active(&person.access_token, false).await?, "{person:?}");
        assert!(server.is_active(&person.access_token, true).await?, "{person:?}");
        let reply = server.auth().refresh(refresh_with(&person.refresh_token)).await?;
        let tokens = reply.into_inner().tokens.ok_or("no tokens")?;
        assert_eq!(tokens.session_id, person.session_id);
        assert!(server.is_active(&tokens.access_token, true).await?);
    }
    let sign_in = server.sign_in("person-0", "late").await?;
    assert!(server.is_active(&sign_in.access_token, true).await?);
    server.stop().await
}
