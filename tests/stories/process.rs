//! The process: how it begins on an empty machine, shares a database and stops.

use std::{
    collections::BTreeSet,
    error::Error,
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use tessera::proto::{ChangePasswordRequest, GetJwksRequest, LogoutRequest, auth_client::AuthClient};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::support::{
    ADMIN_PASSWORD, FENCE, Home, Kind, Outcome, Person, Server, authorized, eventually, login_as,
    process_stories, refresh_with, refusal, run, signal,
};

process_stories! {
    an_empty_machine_gets_an_admin_whose_password_is_shown_once_and_must_change,
    a_given_admin_password_is_kept_and_not_shown,
    an_admin_password_is_the_same_however_it_is_typed,
    the_most_talkative_log_tells_no_secret,
    a_bad_admin_password_is_refused_and_a_better_one_taken_then,
    without_its_key_encryption_key_it_refuses_to_start_and_changes_nothing,
    told_to_terminate_it_finishes_what_it_began,
    interrupted_it_finishes_what_it_began,
    what_takes_longer_than_the_drain_timeout_is_cut_off,
}

/// `tessera serve` on a free port, for the rest on an empty machine: there is no admin password.
fn serve(home: &Home) -> Command {
    let mut command = home.binary();
    command.args(["serve", "--listen", "127.0.0.1:0"]);
    command
}

/// The generated password in what a server said.
fn shown_password(said: &str) -> Option<&str> {
    let is_password = |line: &&str| line.len() == 24 && line.bytes().all(|byte| byte.is_ascii_alphanumeric());
    said.lines().map(str::trim).find(is_password)
}

fn change(current: &str, new: &str) -> ChangePasswordRequest {
    ChangePasswordRequest {
        current_password: current.to_owned(),
        new_password: new.to_owned(),
        end_all_sessions: false,
    }
}

async fn an_empty_machine_gets_an_admin_whose_password_is_shown_once_and_must_change(home: Home) -> Outcome {
    let begun = Instant::now();
    let server = Server::of_binary(serve(&home)).await?;
    let took = begun.elapsed();
    println!("from nothing to SERVING in {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");

    let mode = |path: &std::path::Path| -> std::io::Result<u32> {
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o7777)
    };
    let data = home.dir().join("data");
    assert_eq!(mode(&data)?, 0o700);
    let mut made = BTreeSet::new();
    for entry in std::fs::read_dir(&data)? {
        let path = entry?.path();
        assert_eq!(mode(&path)?, 0o600, "{}", path.display());
        made.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    assert!(made.contains("kek"), "{made:?}");
    assert_eq!(made.contains("tessera.db"), home.kind == Kind::BinarySqlite, "{made:?}");

    let said = server.said();
    let password = shown_password(&said).ok_or("no password was shown")?;
    assert_eq!(said.matches(password).count(), 1, "{said}");
    let reply = server.auth().login(login_as("admin", password, "cli")).await?.into_inner();
    assert!(reply.password_change_required);
    let admin = Person::from(reply);
    assert_eq!(
        server
            .make_user(&admin, "anna")
            .await
            .map_err(|error| error.to_string().contains("password must be changed")),
        Err(true)
    );
    server.stop().await?;

    let server = Server::of_binary(serve(&home)).await?;
    let said = server.said();
    assert!(shown_password(&said).is_none() && !said.contains("first admin"), "{said}");
    let request = authorized(&admin.access_token, change(password, ADMIN_PASSWORD));
    server.auth().change_password(request).await?;
    let login = login_as("admin", ADMIN_PASSWORD, "cli");
    let reply = server.auth().login(login).await?.into_inner();
    assert!(!reply.password_change_required);
    server.make_user(&reply.into(), "anna").await?;
    server.stop().await
}

async fn a_given_admin_password_is_kept_and_not_shown(home: Home) -> Outcome {
    let server = home.start().await?;
    let said = server.said();
    assert!(!said.contains(ADMIN_PASSWORD) && shown_password(&said).is_none(), "{said}");
    let login = login_as("admin", ADMIN_PASSWORD, "cli");
    let reply = server.auth().login(login).await?.into_inner();
    assert!(!reply.password_change_required);
    server.stop().await?;

    // It is for the first start alone.
    let mut command = serve(&home);
    command.env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", "quite another one");
    let server = Server::of_binary(command).await?;
    server.admin().await?;
    server.stop().await
}

async fn an_admin_password_is_the_same_however_it_is_typed(home: Home) -> Outcome {
    let mut command = serve(&home);
    command.env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", "Zu\u{308}rich\u{b2} lang genug");
    let server = Server::of_binary(command).await?;
    for typed in ["Zu\u{308}rich\u{b2} lang genug", "Z\u{fc}rich2 lang genug"] {
        server.auth().login(login_as("admin", typed, "web")).await?;
    }
    server.stop().await
}

async fn the_most_talkative_log_tells_no_secret(home: Home) -> Outcome {
    let mut command = serve(&home);
    command
        .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD)
        .env("TESSERA_LOG__FILTER", "trace,h2=info,hyper=info");
    let server = Server::of_binary(command).await?;
    let admin = server.admin().await?;
    server.auth().refresh(refresh_with(&admin.refresh_token)).await?;
    signal(server.pid().ok_or("no process")?, "TERM")?;
    let said = server.ended().await?.stderr;
    assert!(said.contains("answered"), "{said}");
    // The beginning of a PHC string, as text and as a list of bytes.
    for secret in [
        "$argon2id$",
        "36, 97, 114, 103, 111, 110, 50, 105, 100",
        ADMIN_PASSWORD,
        &admin.refresh_token,
        &admin.access_token,
    ] {
        assert!(!said.contains(secret), "{secret:.20}");
    }
    Ok(())
}

async fn a_bad_admin_password_is_refused_and_a_better_one_taken_then(home: Home) -> Outcome {
    for (bad, why) in [("short", "8 characters"), ("password1", "tried first")] {
        let mut command = serve(&home);
        command.env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", bad);
        let ended = run(command).await?;
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stderr.contains("TESSERA_BOOTSTRAP_ADMIN_PASSWORD"), "{ended:?}");
        assert!(ended.stderr.contains(why), "{ended:?}");
    }
    let server = home.start().await?;
    server.admin().await?;
    server.stop().await
}

/// The identity of everything that is sealed in a database, and how much else there is.
async fn contents(home: &Home) -> Result<Vec<String>, Box<dyn Error>> {
    let mut contents = Vec::new();
    for sql in [
        "SELECT kid || state AS first FROM issuer_keys ORDER BY kid",
        "SELECT name AS first FROM server_secrets ORDER BY name",
        "SELECT kid AS first FROM session_keys ORDER BY kid",
        "SELECT username AS first FROM users ORDER BY username",
        "SELECT CAST(COUNT(*) AS TEXT) AS first FROM audit_events",
    ] {
        contents.extend(home.query(sql).await?);
    }
    Ok(contents)
}

async fn without_its_key_encryption_key_it_refuses_to_start_and_changes_nothing(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    server.stop().await?;
    let before = contents(&home).await?;

    let file = home.dir().join("data/kek");
    let kek = std::fs::read_to_string(&file)?;
    let (id, bytes) = kek.trim().split_once(':').ok_or("not id:base64")?;
    let zeros = format!("{}=", "A".repeat(43));
    let lost = None;
    let another = Some(format!("another:{zeros}"));
    let of_the_same_name = Some(format!("{id}:{zeros}"));
    for exchanged in [lost, another, of_the_same_name] {
        match &exchanged {
            None => std::fs::remove_file(&file)?,
            Some(text) => std::fs::write(&file, text)?,
        }
        let ended = run(serve(&home)).await?;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(&format!("key-encryption key `{id}`")), "{ended:?}");
        assert!(!ended.stderr.contains(bytes) && !ended.stderr.contains(&zeros), "{ended:?}");
        let there = std::fs::read_to_string(&file).ok();
        assert_eq!(there, exchanged, "the file is the operator's");
        assert_eq!(contents(&home).await?, before);
    }

    std::fs::write(&file, &kek)?;
    let server = home.start().await?;
    assert!(server.is_active(&admin.access_token, true).await?);
    server.auth().refresh(refresh_with(&admin.refresh_token)).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_sqlite_database_is_refused() -> Outcome {
    let home = Home::new(Kind::BinarySqlite).await?;
    let first = home.start().await?;
    let mut same_url = serve(&home);
    same_url.args(["--data-dir", "elsewhere", "--database-url", "sqlite://data/tessera.db"]);
    for command in [serve(&home), same_url] {
        let ended = run(command).await?;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains("data/tessera.db: another server uses this database"), "{ended:?}");
    }
    first.admin().await?;
    // The lock is the process's own: nothing that a killed one leaves is in the way.
    first.kill().await?;
    let next = home.start().await?;
    next.admin().await?;
    next.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_before_anything_is_made() -> Outcome {
    let home = Home::new(Kind::BinarySqlite).await?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let mut command = home.binary();
    command.args(["serve", "--listen", &address]);
    let ended = run(command).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(&format!("can't listen: {address}")), "{ended:?}");
    assert!(!home.dir().join("data").exists());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_start_at_once_and_share_a_folder_make_one_key_encryption_key() -> Outcome {
    for _ in 0..10 {
        let home = Home::new(Kind::Postgres).await?;
        let servers = try_join_all((0..4).map(|_| home.start())).await?;
        let made: Vec<_> = std::fs::read_dir(home.dir().join("data"))?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<Result<_, _>>()?;
        assert_eq!(made, ["kek"]);
        for server in servers {
            server.admin().await?;
            server.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_servers_that_start_at_once_on_an_empty_database_are_one_service() -> Outcome {
    let home = Home::new(Kind::Binary).await?;
    let kek = format!("shared:{}=", "A".repeat(43));
    let one = || {
        let mut command = serve(&home);
        command.env("TESSERA_SEALING__KEKS", &kek);
        Server::of_binary(command)
    };
    let (a, b, c) = tokio::try_join!(one(), one(), one())?;

    for table in ["tenants", "users", "server_secrets", "issuer_keys"] {
        let count = format!("SELECT CAST(COUNT(*) AS TEXT) AS first FROM {table}");
        assert_eq!(home.query(&count).await?, ["1"], "{table}");
    }
    let states = home.query("SELECT state AS first FROM issuer_keys").await?;
    assert_eq!(states, ["ACTIVE"]);
    let mut sets = BTreeSet::new();
    for server in [&a, &b, &c] {
        let reply = server.keys().get_jwks(GetJwksRequest::default()).await?;
        sets.insert(reply.into_inner().jwks_json);
    }
    assert_eq!(sets.len(), 1, "{sets:?}");

    let said = [a.said(), b.said(), c.said()];
    let shown: Vec<&str> = said.iter().filter_map(|said| shown_password(said)).collect();
    let [password] = shown[..] else {
        panic!("one admin has one password: {said:?}");
    };
    let login = login_as("admin", password, "cli");
    let first = Person::from(a.auth().login(login).await?.into_inner());
    let request = authorized(&first.access_token, change(password, ADMIN_PASSWORD));
    b.auth().change_password(request).await?;
    let admin = c.admin().await?;
    c.make_user(&admin, "anna").await?;

    let web = a.sign_in("anna", "web").await?;
    let phone = b.sign_in("anna", "mobile").await?;
    let tablet = c.sign_in("anna", "tablet").await?;
    for server in [&a, &b, &c] {
        for person in [&web, &phone, &tablet] {
            assert!(server.is_active(&person.access_token, false).await?);
            assert!(server.is_active(&person.access_token, true).await?);
        }
    }
    // A chain goes on wherever its holder asks.
    let mut token = web.refresh_token.clone();
    for server in [&b, &c, &a] {
        let reply = server.auth().refresh(refresh_with(&token)).await?.into_inner();
        token = reply.tokens.ok_or("no tokens")?.refresh_token;
    }

    a.auth().logout(authorized(&web.access_token, LogoutRequest {})).await?;
    assert!(!a.is_active(&web.access_token, false).await?, "at once where it happened");
    for other in [&b, &c] {
        assert!(!other.is_active(&web.access_token, true).await?, "strict: at once");
        let again = other.auth().refresh(refresh_with(&token)).await;
        assert_eq!(refusal(again), (Code::Unauthenticated, "TOKEN_REVOKED".to_owned()));
    }
    let begun = Instant::now();
    for other in [&b, &c] {
        eventually("the logout reaches the other servers", async || {
            Ok(!other.is_active(&web.access_token, false).await?)
        })
        .await?;
    }
    println!("the logout reached the others in {:?}", begun.elapsed());
    assert!(c.is_active(&phone.access_token, false).await?, "and no other session");
    for server in [a, b, c] {
        server.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_waits_for_anothers_migration_can_be_stopped() -> Outcome {
    let home = Home::new(Kind::Binary).await?;
    let url = home.database_url().ok_or("no PostgreSQL")?;
    let (other, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    other.simple_query("SELECT pg_advisory_lock(x'0074657373657261'::bigint)").await?;
    let mut command = serve(&home);
    let waiting = command.stderr(std::process::Stdio::piped()).spawn()?;
    eventually("it waits", async || {
        let waits = "SELECT pid::text AS first FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        Ok(!home.query(waits).await?.is_empty())
    })
    .await?;
    signal(waiting.id().ok_or("no process")?, "TERM")?;
    let output = timeout(FENCE, waiting.wait_with_output()).await??;
    assert!(output.status.success(), "{output:?}");
    drop(other);
    connection.await??;
    let server = home.start().await?;
    server.admin().await?;
    server.stop().await
}

/// A server on which one login takes about a second, and one hash is computed at a time.
async fn slow(home: &Home, drain_timeout: &str) -> Result<Server, Box<dyn Error>> {
    let mut command = serve(home);
    command
        .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD)
        .env("TESSERA_PASSWORDS__ARGON2_TIME", "40")
        .env("TESSERA_PASSWORDS__HASH_THREADS", "1")
        .env("TESSERA_SERVER__DRAIN_TIMEOUT", drain_timeout);
    Server::of_binary(command).await
}

/// Begins a login on a connection of its own and waits until its password is being hashed.
async fn begin_login(
    server: &Server,
) -> Result<tokio::task::JoinHandle<Result<Person, tonic::Status>>, Box<dyn Error>> {
    let mut auth = AuthClient::new(server.new_channel().await?);
    let login = tokio::spawn(async move {
        let reply = auth.login(login_as("admin", ADMIN_PASSWORD, "cli")).await?;
        Ok(Person::from(reply.into_inner()))
    });
    eventually("the login is under way", async || {
        Ok(server.get("/metrics").await?.contains("tessera_hash_threads_free 0"))
    })
    .await?;
    Ok(login)
}

async fn told_to_terminate_it_finishes_what_it_began(home: Home) -> Outcome {
    finishes_what_it_began(home, "TERM").await
}

async fn interrupted_it_finishes_what_it_began(home: Home) -> Outcome {
    finishes_what_it_began(home, "INT").await
}

async fn finishes_what_it_began(home: Home, name: &str) -> Outcome {
    // Whatever held up the drain would hold it up for an hour.
    let server = slow(&home, "1h").await?;
    let pid = server.pid().ok_or("no process")?;
    let mut watches = Vec::new();
    for service in ["", "tessera.v1.Auth"] {
        let service = service.to_owned();
        let watch = server.health().watch(HealthCheckRequest { service }).await?;
        let mut watch = watch.into_inner();
        let first = watch.message().await?.ok_or("the stream ended")?;
        assert_eq!(first.status(), ServingStatus::Serving);
        watches.push(watch);
    }
    let _idle = server.new_channel().await?;
    let _silent = TcpStream::connect(server.address).await?;
    let mut kept_open = TcpStream::connect(server.address).await?;
    kept_open.write_all(b"GET /nowhere HTTP/1.1\r\nhost: tessera\r\n\r\n").await?;
    let mut answer = [0; 12];
    kept_open.read_exact(&mut answer).await?;
    assert_eq!(&answer, b"HTTP/1.1 404");

    let login = begin_login(&server).await?;
    signal(pid, name)?;
    for watch in &mut watches {
        let next = timeout(FENCE, watch.message()).await??.ok_or("the stream ended")?;
        assert_eq!(next.status(), ServingStatus::NotServing);
    }
    let person = timeout(FENCE, login).await???;
    for watch in &mut watches {
        assert_eq!(timeout(FENCE, watch.message()).await??, None);
    }
    let ended = server.ended().await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("still in flight"), "{ended:?}");

    let server = home.start().await?;
    assert!(server.is_active(&person.access_token, true).await?);
    server.auth().refresh(refresh_with(&person.refresh_token)).await?;
    server.stop().await
}

async fn what_takes_longer_than_the_drain_timeout_is_cut_off(home: Home) -> Outcome {
    let server = slow(&home, "10ms").await?;
    let pid = server.pid().ok_or("no process")?;
    let login = begin_login(&server).await?;
    signal(pid, "TERM")?;
    assert!(timeout(FENCE, login).await??.is_err());
    let ended = server.ended().await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("still in flight"), "{ended:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_it_serves() -> Outcome {
    let home = Home::new(Kind::BinarySqlite).await?;
    let health = async |listen: String| {
        let mut command = home.binary();
        command.args(["health", "--listen", &listen]);
        run(command).await
    };
    let server = home.start().await?;
    let address = server.address.to_string();
    let ended = health(address.clone()).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.stop().await?;
    let ended = health(address).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!ended.stderr.is_empty(), "it says why");

    let mut command = home.binary();
    command.args(["serve", "--listen", "0.0.0.0:0", "--allow-plaintext"]);
    let server = Server::of_binary(command).await?;
    let ended = health(format!("0.0.0.0:{}", server.address.port())).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    server.stop().await
}
