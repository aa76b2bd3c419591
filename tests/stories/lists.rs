//! Lists read no more rows than they show, however many there are.

use std::{collections::BTreeMap, error::Error};

use tessera::proto::{ListEventsRequest, ListSessionsRequest};

use crate::support::{Home, Kind, Outcome, authorized};

/// What the service asks the database, by what it is for.
type Asked = BTreeMap<&'static str, String>;

/// Has a server ask everything once, and reads in PostgreSQL's log what it asked. SQLite is asked in the same words.
async fn asked() -> Result<Asked, Box<dyn Error>> {
    let home = Home::new(Kind::Postgres).await?;
    let server = home.start().await?;
    let anna = server.anna().await?;
    server.stop().await?;
    let name = home.database_url().and_then(|url| url.rsplit('/').next()).ok_or("no database")?.to_owned();
    home.query(&format!("ALTER DATABASE {name} SET log_min_duration_statement = 0")).await?;
    let server = home.start().await?;
    let admin = server.admin().await?;
    let live = authorized(&anna.access_token, ListSessionsRequest::default());
    server.session().list_sessions(live).await?;
    let by_action = ListEventsRequest { action: "login".to_owned(), ..ListEventsRequest::default() };
    let by_actor = ListEventsRequest { actor_id: anna.user_id, ..ListEventsRequest::default() };
    for request in [by_action, by_actor] {
        server.audit().list_events(authorized(&admin.access_token, request)).await?;
    }
    server.stop().await?;

    let log = home.database_log()?;
    assert!(log.iter().any(|line| line.contains("statement_timeout = '65s'")), "{log:#?}");
    let statements = || log.iter().filter_map(|line| line.split_once(" execute ")?.1.split_once(": "));
    let find = |parts: &[&str]| -> Result<String, Box<dyn Error>> {
        let found = statements().find(|(_, sql)| parts.iter().all(|part| sql.contains(part)));
        Ok(found.ok_or_else(|| format!("{parts:?} was not asked: {log:#?}"))?.1.to_owned())
    };
    let of_user = r#"("sessions"."user_id" = $1)"#;
    Ok(BTreeMap::from([
        ("live sessions", find(&[of_user, r#""sessions"."end_time" IS NULL"#, "ORDER BY"])?),
        (
            "open sessions",
            find(&["SELECT", r#""sessions"."user_id" = $1"#, r#"("sessions"."end_time" IS NULL)"#])?,
        ),
        ("events by action", find(&[r#""audit_events"."action" = $"#])?),
        ("events by actor", find(&[r#""audit_events"."actor_id" = $"#])?),
    ]))
}

/// A user with twenty thousand sessions that ended, two hundred others, and as many events.
async fn fill(home: &Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    server.stop().await?;
    let is_postgres = home.database_url().is_some();
    let id = |n: &str| match is_postgres {
        true => format!("CAST(lpad(to_hex({n}), 32, '0') AS uuid)"),
        false => format!("unhex(printf('%032x', {n}))"),
    };
    let numbers = |most: u32| {
        format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {most})"
        )
    };
    let session = "tenant_id, device_type, device_id, device_name, slot, kid, salt, profile, generation, create_time, \
                   refresh_time, idle_expire_time, expire_time, first_address, last_address, user_agent";
    let of_anna = "FROM numbers, sessions WHERE device_type = 'web'";
    for statement in [
        format!(
            "{} INSERT INTO users (id, tenant_id, username, password_hash, password_change_required, display_name, \
             roles, token_version, create_time, update_time) SELECT {}, tenant_id, CAST(n AS TEXT), password_hash, \
             password_change_required, display_name, roles, token_version, create_time, update_time \
             FROM numbers, users WHERE username = 'anna'",
            numbers(200),
            id("n")
        ),
        format!(
            "{} INSERT INTO sessions (id, user_id, end_time, end_reason, {session}) \
             SELECT {}, user_id, create_time, 'logout', {session} {of_anna}",
            numbers(20_000),
            id("n")
        ),
        format!(
            "{} INSERT INTO sessions (id, user_id, end_time, end_reason, {session}) SELECT {}, {}, \
             CASE WHEN n > 200 THEN create_time END, CASE WHEN n > 200 THEN 'logout' END, {session} {of_anna} \
             AND end_time IS NULL",
            numbers(2000),
            id("n + 100000"),
            id("1 + n % 200")
        ),
        format!(
            "{} INSERT INTO audit_events (id, tenant_id, create_time, action, actor_id, target_type, address, \
             user_agent, request_id) SELECT {}, tenant_id, create_time, CASE WHEN n % 9000 = 0 THEN 'rare' ELSE \
             'login' END, {}, target_type, address, user_agent, request_id FROM numbers, \
             (SELECT * FROM audit_events WHERE action = 'login' LIMIT 1) AS one",
            numbers(20_000),
            id("n"),
            id("1 + n % 200")
        ),
    ] {
        home.query(&statement).await?;
    }
    if is_postgres {
        home.query("ANALYZE").await?;
    }
    Ok(())
}

/// How the database goes about it, asked for these values: PostgreSQL's plan depends on them.
async fn plan(home: &Home, sql: &str, values: &str) -> Result<String, Box<dyn Error>> {
    if home.database_url().is_none() {
        return Ok(home.query(&format!("EXPLAIN QUERY PLAN {sql}")).await?.join("\n"));
    }
    Ok(home.query(&format!("PREPARE asked AS {sql}; EXPLAIN EXECUTE asked ({values})")).await?.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_list_has_its_index() -> Outcome {
    let asked = asked().await?;
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let home = Home::new(kind).await?;
        fill(&home).await?;
        let hex = if kind == Kind::Sqlite { "hex(id)" } else { "CAST(id AS TEXT)" };
        let id = async |of: &str| home.query(&format!("SELECT {hex} AS first FROM {of}")).await;
        let (tenants, users) = (id("tenants").await?, id("users WHERE username = 'anna'").await?);
        let (tenant, anna) = (tenants.join(""), users.join(""));
        let (above_all, actor) = (uuid::Uuid::max(), uuid::Uuid::from_u128(7));
        // A user's sessions that have not ended are few: an index of them alone will do, in whatever order.
        let open = &["sessions_open_of_user", "sessions_in_slot"][..];
        for (what, indexes, values) in [
            ("live sessions", open, format!("'{anna}', '{above_all}', '2026-01-01', 51")),
            ("open sessions", open, format!("'{anna}'")),
            (
                "events by action",
                &["audit_events_by_action"],
                format!("'{tenant}', '{above_all}', 'rare', 51"),
            ),
            (
                "events by actor",
                &["audit_events_by_actor"],
                format!("'{tenant}', '{above_all}', '{actor}', 51"),
            ),
        ] {
            let plan = plan(&home, &asked[what], &values).await?;
            assert!(indexes.iter().any(|index| plan.contains(index)), "{kind:?}, {what}: {plan}");
            let is_sorted = plan.contains("Sort") || plan.contains("TEMP B-TREE");
            assert!(!is_sorted || indexes == open, "{kind:?}, {what}: {plan}");
        }
    }
    Ok(())
}

/// So that PostgreSQL keeps the new version of the row on its page.
#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_writes_no_column_of_an_index() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    home.start().await?.stop().await?;
    let indexes = home.query("SELECT indexdef FROM pg_indexes WHERE tablename = 'sessions'").await?;
    assert!(indexes.len() > 3, "{indexes:?}");
    for column in ["generation", "refresh_time", "idle_expire_time", "last_address", "last_network"] {
        assert!(!indexes.iter().any(|index| index.contains(column)), "{column}: {indexes:?}");
    }
    Ok(())
}
