//! The trust log: whatever was revoked is revoked everywhere, also when something goes wrong with the log.

use tessera::proto::{LogoutRequest, PrepareKeyRequest, auth_client::AuthClient};
use tokio::net::TcpStream;

use crate::support::{Home, Kind, Outcome, PASSWORD, Person, authorized, eventually, login_as, refresh_with};

/// Looks into the log as good as always.
const QUICK: &str = "[database]\npoll_interval = \"10ms\"\n";
/// Never looks into the log by itself.
const NEVER: &str = "[database]\npoll_interval = \"1h\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_undo_its_logout() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(NEVER).await?;
    let anna = server.anna().await?;
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT * FROM sessions FOR UPDATE").await?;
    let mut auth = server.auth();
    let request = authorized(&anna.access_token, LogoutRequest {});
    let logout = tokio::spawn(async move { auth.logout(request).await });
    are_waiting(&home, 1).await?;
    logout.abort();
    // On the same connection, so that the server has heard of the leaving before it answers.
    assert!(server.is_active(&anna.access_token, false).await?);
    holder.batch_execute("COMMIT").await?;
    // This server never looks into the log by itself.
    eventually("it is revoked", async || Ok(!server.is_active(&anna.access_token, false).await?)).await?;
    drop(holder);
    connection.await??;
    server.stop().await
}

/// Waits until so many of the database's connections wait for a row that another one holds.
async fn are_waiting(home: &Home, connections: usize) -> Outcome {
    let waiting = "SELECT CAST(count(*) AS TEXT) AS first FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while home.query(waiting).await? != [connections.to_string()] {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_refreshed_while_a_login_finds_it_expired_is_revoked() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(&format!("{NEVER}[sessions]\nidle_ttl = \"10m\"\n")).await?;
    let anna = server.anna().await?;
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT * FROM sessions FOR UPDATE").await?;
    home.clock.advance(599);
    let mut auth = server.auth();
    let refresh = tokio::spawn(async move { auth.refresh(refresh_with(&anna.refresh_token)).await });
    are_waiting(&home, 1).await?;
    home.clock.advance(1);
    let mut auth = server.auth();
    let login = tokio::spawn(async move { auth.login(login_as("anna", PASSWORD, "web")).await });
    are_waiting(&home, 2).await?;
    holder.batch_execute("COMMIT").await?;
    let tokens = refresh.await??.into_inner().tokens.ok_or("no tokens")?;
    login.await??;
    assert!(!server.is_active(&tokens.access_token, false).await?);
    drop(holder);
    connection.await??;
    server.stop().await
}

/// PostgreSQL tells whoever has told, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_reads_its_own_revocation_once() -> Outcome {
    const LOGOUTS: usize = 20;
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(NEVER).await?;
    server.anna().await?;
    server.stop().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    home.query(&format!("ALTER DATABASE {name} SET log_min_duration_statement = 0")).await?;

    let server = home.start_with(NEVER).await?;
    let before = home.database_log()?.len();
    let times = |what: &str| -> Result<usize, Box<dyn std::error::Error>> {
        let log = home.database_log()?.split_off(before);
        // Each is logged when it is parsed and bound, too.
        Ok(log
            .iter()
            .filter(|line| !line.contains(" parse ") && !line.contains(" bind ") && line.contains(what))
            .count())
    };
    for logout in 1..=LOGOUTS {
        let anna: Person = server.auth().login(login_as("anna", PASSWORD, "web")).await?.into_inner().into();
        server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
        eventually("others are told", async || Ok(times("NOTIFY tessera_trust")? >= logout)).await?;
    }
    let reads = times("LEFT OUTER JOIN \"trust_log\"")?;
    // And the session that the first login took the place of, and twice when it began.
    assert!((1..=LOGOUTS + 3).contains(&reads), "{reads}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_goes_back_is_read_anew() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(QUICK).await?, home.start_with(QUICK).await?);
    let admin = here.admin().await?;
    for name in ["lost-0", "lost-1", "lost-2", "anna"] {
        here.make_user(&admin, name).await?;
    }
    for name in ["lost-0", "lost-1", "lost-2"] {
        let lost = here.sign_in(name, "web").await?;
        here.auth().logout(authorized(&lost.access_token, LogoutRequest {})).await?;
        eventually("it is revoked there too", async || {
            Ok(!there.is_active(&lost.access_token, false).await?)
        })
        .await?;
    }
    // As after a failover to a standby that had not yet got the last commits.
    home.query("DELETE FROM trust_log; UPDATE trust_head SET revision = 0").await?;
    let anna = here.sign_in("anna", "web").await?;
    assert!(there.is_active(&anna.access_token, false).await?);
    here.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("it is revoked there too", async || Ok(!there.is_active(&anna.access_token, false).await?))
        .await?;
    there.stop().await?;
    here.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_newer_release_is_passed_over() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(QUICK).await?, home.start_with(QUICK).await?);
    let anna = here.anna().await?;
    home.query(
        "BEGIN; UPDATE trust_head SET revision = revision + 1; \
         INSERT INTO trust_log (revision, kind, subject, create_time, expire_time) \
         SELECT revision, 'from_the_future', gen_random_uuid(), now(), '2100-01-01' FROM trust_head; COMMIT",
    )
    .await?;
    here.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("it is revoked there too", async || Ok(!there.is_active(&anna.access_token, false).await?))
        .await?;
    there.stop().await?;
    let again = home.start_with(NEVER).await?;
    assert!(!again.is_active(&anna.access_token, false).await?, "and it starts");
    again.stop().await?;
    here.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_release_passed_over_is_told_by_a_newer_one() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let older = home.start_with(QUICK).await?;
    let anna = older.anna().await?;
    let mut watching = older.watch().await?;
    let passed_over = "01a21566-9292-7859-85ad-bd0ac417a539";
    home.query(&format!(
        "BEGIN; UPDATE trust_head SET revision = revision + 1; \
         INSERT INTO trust_log (revision, kind, subject, create_time, expire_time) \
         SELECT revision, 'from_the_future', '{passed_over}', now(), '2100-01-01' FROM trust_head; COMMIT",
    ))
    .await?;
    older.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    watching.until(|watching| watching.knows(&anna.session_id)).await?;
    let place = watching.place.clone();
    drop(watching);
    older.stop().await?;
    // As good as a release that knows the kind.
    home.query("UPDATE trust_log SET kind = 'session' WHERE kind = 'from_the_future'").await?;
    let newer = home.start_with(QUICK).await?;
    let mut resumed = newer.watch_from(place).await?;
    resumed.until(|resumed| resumed.knows(passed_over)).await?;
    assert!(!resumed.place.1.is_empty(), "it passed over nothing");
    drop(resumed);
    newer.stop().await
}

/// The keys that it reads meanwhile are as new as can be, and say nothing of what was revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_not_read_the_log_says_how_old_what_it_tells_is() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with(QUICK).await?;
    let admin = server.admin().await?;
    let age = async || {
        let metrics = server.get("/metrics").await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix("tessera_trust_age_seconds "));
        Ok::<f64, Box<dyn std::error::Error>>(line.ok_or("no such metric")?.parse()?)
    };
    home.query(
        "UPDATE trust_head SET revision = revision + 1;
         INSERT INTO trust_log (revision, kind, subject, create_time, expire_time)
         SELECT revision, 'session', '00000000-0000-0000-0000-000000000000', '2026-01-01', 'infinity' FROM trust_head",
    )
    .await?;
    eventually("it grows old", async || Ok(age().await? > 1.0)).await?;
    let prepare = authorized(&admin.access_token, PrepareKeyRequest::default());
    server.keys().prepare_key(prepare).await?;
    assert!(age().await? > 1.0);
    home.query("UPDATE trust_log SET expire_time = '2100-01-01' WHERE expire_time = 'infinity'").await?;
    eventually("it is new again", async || Ok(age().await? < 1.0)).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_while_a_server_drains_is_heard_elsewhere() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let (here, there) = (home.start_with(NEVER).await?, home.start_with(NEVER).await?);
    let anna = here.anna().await?;
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    holder.batch_execute("BEGIN; SELECT * FROM sessions FOR UPDATE").await?;
    let mut auth = AuthClient::new(here.new_channel().await?);
    let request = authorized(&anna.access_token, LogoutRequest {});
    let logout = tokio::spawn(async move { auth.logout(request).await });
    let waiting = "SELECT CAST(count(*) AS TEXT) AS first FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while home.query(waiting).await? != ["1"] {
        tokio::task::yield_now().await;
    }
    let address = here.address;
    let (stopped, released) = tokio::join!(here.stop(), async {
        eventually("it takes no more calls", async || Ok(TcpStream::connect(address).await.is_err())).await?;
        holder.batch_execute("COMMIT").await?;
        logout.await??;
        Outcome::Ok(())
    });
    released?;
    stopped?;
    // It never looks into the log by itself.
    eventually("it is revoked", async || Ok(!there.is_active(&anna.access_token, false).await?)).await?;
    drop(holder);
    connection.await??;
    there.stop().await
}
