//! The database as the service uses it: few statements, dead connections, none at all, too many logins.

use std::error::Error;

use futures_util::future::join_all;
use tessera::proto::{
    CreateAudienceRequest, GetJwksRequest, ListSessionsRequest, LoginRequest, RefreshRequest,
    VerifyTokenRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Person, Server, authorized, login_as, query_postgres, reason,
    refresh_with, stories, words,
};

stories! {
    a_login_flood_slows_only_logins,
    waiting_for_a_connection_is_fair,
    a_full_disk_is_told_as_what_passes,
}

async fn refresh(server: &Server, refresh_token: &str) -> Result<String, Status> {
    let request = RefreshRequest { refresh_token: refresh_token.to_owned(), device: None };
    Ok(server.auth().refresh(request).await?.into_inner().tokens.unwrap_or_default().refresh_token)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_is_one_statement_that_is_prepared_once() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with("[database]\nmax_connections = 1\npoll_interval = \"1h\"\n").await?;
    server.anna().await?;
    // Not even for what an audience has to say about it.
    let request = CreateAudienceRequest {
        name: "ledger".to_owned(),
        allowed_grants: words(&["login"]),
        token_ttl: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..Default::default()
    };
    let admin = server.admin().await?;
    server.audiences().create_audience(authorized(&admin.access_token, request)).await?;
    let login = LoginRequest { audience: words(&["ledger"]), ..login_as("anna", PASSWORD, "web") };
    let anna: Person = server.auth().login(login).await?.into_inner().into();
    server.stop().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    home.query(&format!("ALTER DATABASE {name} SET log_min_duration_statement = 0")).await?;

    let server = home
        .start_with("[database]\nmax_connections = 1\nlisten_notify = false\npoll_interval = \"1h\"\n")
        .await?;
    let mut token = refresh(&server, &anna.refresh_token).await?;
    let before = home.database_log()?.len();
    for _ in 0..50 {
        token = refresh(&server, &token).await?;
    }
    let log = home.database_log()?.split_off(before);
    let count = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count(" execute "), 50, "{log:#?}");
    assert!(
        count(" parse ") <= 1,
        "once for each of two connections, of which one was asked before: {log:#?}"
    );
    assert!(
        log.iter().filter(|line| line.contains(" execute ")).all(|line| line.contains("UPDATE \"sessions\""))
    );
    assert_eq!(count("statement:"), 0, "no BEGIN, no SELECT 1: {log:#?}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_somebody_holds_keep_no_other_waiting() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with("[sessions]\nper_user = 100\n").await?;
    server.anna().await?;
    let mut people = Vec::new();
    for number in 0..15 {
        people.push(server.sign_in("anna", &format!("d{number}")).await?);
    }
    // More than there are groups of steps at once.
    let (held, others) = people.split_at(5);
    let ids: Vec<String> = held.iter().map(|person| format!("'{}'", person.session_id)).collect();
    let url = home.database_url().ok_or("no database")?;
    let (holder, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let hold = format!("BEGIN; SELECT 1 FROM sessions WHERE id IN ({}) FOR UPDATE", ids.join(", "));
    holder.batch_execute(&hold).await?;
    let wait = join_all(held.iter().map(|person| refresh(&server, &person.refresh_token)));
    let go_on = async {
        for person in others.iter().chain(others) {
            refresh(&server, &person.refresh_token).await?;
        }
        holder.batch_execute("COMMIT").await?;
        Outcome::Ok(())
    };
    let (waited, went_on) = tokio::join!(wait, go_on);
    went_on?;
    // None waited so long that it was given up.
    assert_eq!(waited.into_iter().collect::<Result<Vec<_>, _>>()?.len(), held.len());
    drop(holder);
    connection.await??;
    server.stop().await
}

/// Cuts every connection of the service, as a restart of the database does, and waits until they are dead.
async fn cut(home: &Home) -> Outcome {
    let others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let cut = format!("SELECT CAST(pid AS TEXT) AS first, pg_terminate_backend(pid) {others}");
    let dying = home.query(&cut).await?.join(",");
    if dying.is_empty() {
        return Ok(());
    }
    let alive = format!("SELECT CAST(pid AS TEXT) AS first {others} AND pid IN ({dying})");
    while !home.query(&alive).await?.is_empty() {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_connections_are_survived() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start().await?;
    let anna = server.anna().await?;
    let mut token = anna.refresh_token.clone();
    for round in 0..10 {
        // Fills the pool, so that there are many to die.
        let list = || async {
            let request = authorized(&anna.access_token, ListSessionsRequest::default());
            server.session().list_sessions(request).await
        };
        for answer in join_all((0..20).map(|_| list())).await {
            answer?;
        }
        cut(&home).await?;
        let kind = format!("device-{round}");
        let (read, written, login) =
            tokio::join!(list(), refresh(&server, &token), server.sign_in("anna", &kind));
        read.map_err(|status| format!("round {round}: {status:?}"))?;
        token = written.map_err(|status| format!("round {round}: {status:?}"))?;
        login.map_err(|error| format!("round {round}: {error}"))?;
    }
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_database_tokens_still_verify_and_it_comes_back_by_itself() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start().await?;
    let anna = server.anna().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    let maintenance = home.database_url().ok_or("no database")?.replace(&name, "postgres");
    query_postgres(&maintenance, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await?;
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    query_postgres(&maintenance, &cut).await?;

    let request = refresh_with(&anna.refresh_token);
    let status = server.auth().refresh(request).await.expect_err("there is no database");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    assert!(status.get_error_details().retry_info().is_some());
    assert!(
        !status.message().contains("postgres"),
        "what is wrong inside is told to the log: {}",
        status.message()
    );
    let request = VerifyTokenRequest { token: anna.access_token.clone(), ..Default::default() };
    assert!(server.auth().verify_token(request).await?.into_inner().active);
    assert!(server.keys().get_jwks(GetJwksRequest::default()).await.is_ok());

    query_postgres(&maintenance, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await?;
    refresh(&server, &anna.refresh_token).await?;
    server.stop().await
}

async fn a_login_flood_slows_only_logins(home: Home) -> Outcome {
    let settings =
        "[passwords]\nhash_threads = 1\nhash_queue = 2\nargon2_memory_kib = 65536\nargon2_time = 3\n";
    let server = home.start_with(settings).await?;
    let anna = server.anna().await?;
    let flood = join_all((0..20).map(|_| {
        let mut auth = server.auth();
        async move { auth.login(login_as("anna", PASSWORD, "mobile")).await }
    }));
    let others = async {
        let mut token = anna.refresh_token.clone();
        for _ in 0..20 {
            token = refresh(&server, &token).await?;
            let request = VerifyTokenRequest { token: anna.access_token.clone(), ..Default::default() };
            assert!(server.auth().verify_token(request).await?.into_inner().active);
        }
        Ok::<_, Status>(())
    };
    let (logins, others) = tokio::join!(flood, others);
    others?;
    let (accepted, refused): (Vec<_>, Vec<_>) = logins.into_iter().partition(Result::is_ok);
    assert!(!accepted.is_empty() && !refused.is_empty(), "{} were refused", refused.len());
    for status in refused.into_iter().filter_map(Result::err) {
        assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
        assert!(status.get_error_details().retry_info().is_some());
    }
    server.stop().await
}

/// With one connection and many who want it, each gets it: none waits until it is told that there is none.
async fn waiting_for_a_connection_is_fair(home: Home) -> Outcome {
    let server = home.start_with("[database]\nmax_connections = 1\n").await?;
    let admin = server.admin().await?;
    let mut people: Vec<Person> = Vec::new();
    for number in 0..8 {
        let name = format!("person-{number}");
        server.make_user(&admin, &name).await?;
        people.push(server.sign_in(&name, "web").await?);
    }
    let all = people.iter().map(|person| async {
        let mut token = person.refresh_token.clone();
        for _ in 0..25 {
            token = refresh(&server, &token).await?;
        }
        Ok::<_, Box<dyn Error>>(())
    });
    for outcome in join_all(all).await {
        outcome?;
    }
    server.stop().await
}

fn away() -> (Code, String) {
    (Code::Unavailable, "STORE_UNAVAILABLE".to_owned())
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.expect_err("it was to be refused");
    (status.code(), reason(&status))
}

async fn a_full_disk_is_told_as_what_passes(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    // In the databases' own words.
    let (full, free) = if home.database_url().is_some() {
        let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             RAISE 'could not extend file \"base/5/16384\": No space left on device' USING ERRCODE = '53100'; \
             END $$; \
             CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON sessions EXECUTE FUNCTION full_disk()";
        (vec![full.to_owned()], vec!["DROP TRIGGER full_disk ON sessions".to_owned()])
    } else {
        let full = |what: &str| {
            let raise = "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
            format!("CREATE TRIGGER full_{what} BEFORE {what} ON sessions {raise}")
        };
        let free = |what: &str| format!("DROP TRIGGER full_{what}");
        let both = ["insert", "update"];
        (both.map(full).to_vec(), both.map(free).to_vec())
    };
    for statement in full {
        home.query(&statement).await?;
    }
    assert_eq!(refused(server.auth().login(login_as("anna", PASSWORD, "mobile")).await), away());
    assert_eq!(refused(refresh(&server, &anna.refresh_token).await), away());
    for statement in free {
        home.query(&statement).await?;
    }
    refresh(&server, &anna.refresh_token).await?;
    server.sign_in("anna", "mobile").await?;
    server.stop().await
}

/// As after a failover: the old connections lead to where nothing can be written any more, new ones elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_only_reads_is_not_kept() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start_with("[database]\nmax_connections = 1\npoll_interval = \"1h\"\n").await?;
    let anna = server.anna().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    let maintenance = home.database_url().ok_or("no database")?.replace(&name, "postgres");
    let read_only = async |how: &str| {
        let sql = format!("ALTER DATABASE {name} SET default_transaction_read_only = {how}");
        query_postgres(&maintenance, &sql).await
    };
    let read = async || {
        let request = authorized(&anna.access_token, ListSessionsRequest::default());
        server.session().list_sessions(request).await
    };
    read_only("on").await?;
    cut(&home).await?;
    assert_eq!(refused(refresh(&server, &anna.refresh_token).await), away());
    assert_eq!(refused(server.auth().login(login_as("anna", PASSWORD, "mobile")).await), away());

    read().await?;
    read_only("off").await?;
    let token = refresh(&server, &anna.refresh_token).await?;
    read_only("on").await?;
    cut(&home).await?;
    read().await?;
    read_only("off").await?;
    assert_eq!(refused(server.auth().login(login_as("anna", PASSWORD, "mobile")).await), away());
    server.sign_in("anna", "mobile").await?;
    refresh(&server, &token).await?;
    server.stop().await
}
