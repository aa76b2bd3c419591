//! Replicas that clean at the same time, while people sign in, refresh and log out.

use std::error::Error;

use futures_util::future::try_join_all;
use tessera::proto::LogoutRequest;
use uuid::Uuid;

use crate::support::{
    Home, Outcome, PASSWORD, Person, Server, authorized, eventually, login_as, refresh_with, timed_stories,
};

timed_stories! { many_clean_at_once_and_nobody_notices }

/// Room for many sessions on one type of device.
const ROOMY: &str = r#"
    [tokens]
    leeway = "0s"
    [sessions]
    keep_ended = "1h"
    idle_ttl = "30m"
    per_device_type = 10000
    per_user = 10000
    [database]
    cleanup_interval = "10ms"
    poll_interval = "10ms"
"#;
/// The same for who sets the scene.
const LAZY: &str = r#"cleanup_interval = "1d""#;
/// More than a few batches.
const OLD: usize = 1600;
const CALLERS: usize = 8;

fn literal(home: &Home, id: Uuid) -> String {
    if home.database_url().is_some() {
        format!("CAST('{id}' AS uuid)")
    } else {
        format!("x'{}'", id.simple())
    }
}

/// Adds copies of a session and of its key.
async fn multiply(home: &Home, session_id: &str, salt: u128) -> Outcome {
    let id = literal(home, session_id.parse()?);
    let copies: Vec<String> = (1..=OLD)
        .map(|number| {
            // Of before everything else.
            let copy = Uuid::from_u128(salt << 64 | number as u128);
            format!("({}, '{copy}', {number})", literal(home, copy))
        })
        .collect();
    let copies = copies.join(",");
    const SAME: &str = "tenant_id, user_id, device_type, device_id, device_name, salt, profile, generation, \
                        create_time, refresh_time, idle_expire_time, expire_time, end_time, end_reason, \
                        first_address, last_address, user_agent";
    home.query(&format!(
        "INSERT INTO sessions (id, kid, slot, {SAME}) SELECT copy.column1, copy.column2, copy.column3, {SAME} \
         FROM sessions, (VALUES {copies}) AS copy WHERE id = {id}"
    ))
    .await?;
    home.query(&format!(
        "INSERT INTO session_keys (session_id, kid, algorithm, public_jwk, sealed_private_key) \
         SELECT copy.column1, copy.column2, algorithm, public_jwk, sealed_private_key \
         FROM session_keys, (VALUES {copies}) AS copy WHERE session_id = {id}"
    ))
    .await?;
    Ok(())
}

async fn count(home: &Home, of: &str) -> Result<usize, Box<dyn Error>> {
    let counted = home.query(&format!("SELECT CAST(count(*) AS TEXT) AS first FROM {of}")).await?;
    Ok(counted.first().ok_or("no count")?.parse()?)
}

/// Signs in, refreshes and logs out, again and again; the last session stays.
async fn come_and_go(server: &Server, username: &str) -> Result<Person, Box<dyn Error>> {
    let mut round = 0;
    loop {
        let mut auth = server.auth();
        let login = login_as(username, PASSWORD, "web");
        let mut person: Person = auth.login(login).await?.into_inner().into();
        let tokens = auth.refresh(refresh_with(&person.refresh_token)).await?.into_inner().tokens;
        let tokens = tokens.ok_or("no tokens")?;
        assert!(server.is_active(&tokens.access_token, true).await?);
        round += 1;
        if round == 10 {
            (person.access_token, person.refresh_token) = (tokens.access_token, tokens.refresh_token);
            return Ok(person);
        }
        auth.logout(authorized(&tokens.access_token, LogoutRequest {})).await?;
    }
}

async fn many_clean_at_once_and_nobody_notices(home: Home) -> Outcome {
    let scene = home.start_with(&ROOMY.replace(r#"cleanup_interval = "10ms""#, LAZY)).await?;
    let admin = scene.admin().await?;
    for number in 0..CALLERS {
        scene.make_user(&admin, &format!("caller-{number}")).await?;
    }
    for name in ["gone", "asleep"] {
        scene.make_user(&admin, name).await?;
    }
    let gone = scene.sign_in("gone", "web").await?;
    let asleep = scene.sign_in("asleep", "web").await?;
    scene.auth().logout(authorized(&gone.access_token, LogoutRequest {})).await?;
    scene.stop().await?;
    multiply(&home, &gone.session_id, 1).await?;
    multiply(&home, &asleep.session_id, 2).await?;
    home.clock.advance(2 * 60 * 60);

    let mut servers = vec![home.start_with(ROOMY).await?];
    servers.extend(home.another(ROOMY).await?);
    let callers = (0..CALLERS).map(|number| {
        let server = &servers[number % servers.len()];
        async move { come_and_go(server, &format!("caller-{number}")).await }
    });
    // Ends what has expired on this device, in another order than it is removed.
    let awake = servers[0].sign_in("asleep", "web");
    let (people, awake) = tokio::join!(try_join_all(callers), awake);
    let mut people = people?;
    people.push(awake?);

    let halves =
        "session_keys k FULL JOIN sessions s ON s.id = k.session_id WHERE s.id IS NULL OR k.kid IS NULL";
    // Those that the login ended are kept from then on.
    let left = CALLERS * 10 + 1;
    eventually("what is over is removed", async || {
        assert_eq!(count(&home, halves).await?, 0);
        Ok(count(&home, "sessions WHERE end_reason IS NULL OR end_reason <> 'expired'").await? <= left)
    })
    .await?;
    for person in &people {
        servers[0].auth().refresh(refresh_with(&person.refresh_token)).await?;
    }
    home.clock.advance(91 * 60);
    eventually("the rest is removed", async || Ok(count(&home, "sessions").await? == 0)).await?;
    assert_eq!(count(&home, "session_keys").await?, 0);

    let mut removed = 0;
    for server in &servers {
        removed += server.metric("tessera_cleaned_rows_total{table=\"sessions\"}").await?;
        assert_eq!(server.metric("tessera_cleanup_failures_total").await?, 0);
    }
    // The admin's, and those of the two who were multiplied.
    assert_eq!(usize::try_from(removed)?, 2 * OLD + 3 + left, "each is removed once");
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}
