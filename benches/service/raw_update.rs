//! The statement of a refresh by itself, prepared once: through tokio-postgres from as many tasks, each with a
//! connection; on SQLite, which has one writer however many ask, from one thread with the service's own pragmas.

use std::{error::Error, time::Duration};

use bytes::BytesMut;
use chrono::{TimeDelta, Utc};
use diesel::{
    QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{BigInt, Binary, Text},
    sqlite::SqliteConnection,
};
use tessera::{
    clock::{Clock, SystemClock},
    models::Cached,
};
use tokio_postgres::{
    Client, NoTls, Statement,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use tonic::Status;
use uuid::Uuid;

use super::{
    Outcome, bare,
    home::Home,
    load::{Caller, Sample, run},
    seed::Seeder,
};

/// Sessions that each one updates in turn, as many as refresh in the other case.
const IN_TURN: usize = super::people::IN_TURN;
const ADDRESS: &str = "127.0.0.1";
const NETWORK: &str = "127.0.0.0/24";

/// How the service writes it; `?` stands for a parameter.
const UPDATE: &str = "UPDATE sessions SET generation = ?, refresh_time = ?, idle_expire_time = ?, last_address = ?, \
     last_network = ? WHERE id = ? AND (last_network = ? OR last_network = ? OR ?) AND generation = ? \
     AND end_time IS NULL AND idle_expire_time > ? RETURNING profile";

/// Whoever updates, and what.
pub enum RawUpdates {
    Postgres(Vec<PgCaller>),
    Sqlite { home_dir: std::path::PathBuf, rows: Rows },
}

/// Sessions and their generations, in turn.
#[derive(Clone)]
pub struct Rows {
    rows: Vec<(Uuid, i64)>,
    next: usize,
}

impl RawUpdates {
    /// Updates the newest sessions that were seeded, which nobody refreshes: the last thousand, or a thousand before those.
    /// They have not been updated yet.
    pub async fn new(home: &Home, seeder: &Seeder, in_flight: usize, part: usize) -> Outcome<Self> {
        let newest = (0..seeder.sessions).rev().skip(part * IN_TURN).take(IN_TURN);
        let rows: Vec<_> = newest.map(|number| (seeder.session_id(number), 0)).collect();
        let Some(url) = home.url() else {
            return Ok(Self::Sqlite { home_dir: home.dir.path().into(), rows: Rows { rows, next: 0 } });
        };
        let mut callers = Vec::new();
        for number in 0..in_flight {
            let rows = rows.iter().skip(number).step_by(in_flight).copied().collect();
            callers.push(PgCaller::new(&url, Rows { rows, next: 0 }).await?);
        }
        Ok(Self::Postgres(callers))
    }

    /// One turn.
    pub async fn run(&mut self, slice: Duration) -> Outcome<Sample> {
        match self {
            Self::Postgres(callers) => run(callers, slice).await,
            Self::Sqlite { home_dir, rows } => {
                let mut conn = sqlite(home_dir)?;
                let rows = std::sync::Mutex::new((rows, &mut conn));
                bare::spin(1, slice, |_| {
                    || {
                        let mut guard = rows.lock().expect("one thread uses it");
                        let (rows, conn) = &mut *guard;
                        rows.update_sqlite(conn)
                    }
                })
            }
        }
    }
}

impl Rows {
    fn next(&mut self) -> &mut (Uuid, i64) {
        self.next = (self.next + 1) % self.rows.len();
        &mut self.rows[self.next]
    }

    fn update_sqlite(&mut self, conn: &mut SqliteConnection) -> bool {
        let (id, generation) = self.next();
        let now = SystemClock.now();
        let idle_end = (now + TimeDelta::days(14)).timestamp_micros();
        let update = sql_query(UPDATE)
            .bind::<BigInt, _>(*generation + 1)
            .bind::<BigInt, _>(now.timestamp_micros())
            .bind::<BigInt, _>(idle_end)
            .bind::<Text, _>(ADDRESS)
            .bind::<Text, _>(NETWORK)
            .bind::<Binary, _>(id.as_bytes().as_slice())
            .bind::<Text, _>(NETWORK)
            .bind::<Text, _>("")
            .bind::<diesel::sql_types::Bool, _>(false)
            .bind::<BigInt, _>(*generation)
            .bind::<BigInt, _>(now.timestamp_micros());
        let profiles: QueryResult<Vec<Profile>> = Cached(update).load(conn);
        *generation += 1;
        profiles.is_ok_and(|rows| rows.iter().any(|row| !row.profile.is_empty()))
    }
}

#[derive(QueryableByName)]
struct Profile {
    #[diesel(sql_type = Text)]
    profile: String,
}

fn sqlite(home_dir: &std::path::Path) -> Outcome<SqliteConnection> {
    use diesel::Connection;
    let path = home_dir.join("data/tessera.db");
    let mut conn = SqliteConnection::establish(path.to_str().ok_or("not UTF-8")?)?;
    conn.batch_execute(
        "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;",
    )?;
    Ok(conn)
}

/// One connection and the sessions that it updates.
pub struct PgCaller {
    client: Client,
    update: Statement,
    rows: Rows,
}

impl PgCaller {
    async fn new(url: &str, rows: Rows) -> Outcome<Self> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(connection);
        let mut parts = UPDATE.split('?');
        let mut sql = parts.next().unwrap_or_default().to_owned();
        for (number, part) in parts.enumerate() {
            sql.push_str(&format!("${}{part}", number + 1));
        }
        let update = client.prepare(&sql).await?;
        Ok(Self { client, update, rows })
    }
}

impl Caller for PgCaller {
    async fn call(&mut self) -> Result<(), Status> {
        let (id, generation) = self.rows.next();
        let now: chrono::DateTime<Utc> = SystemClock.now();
        let (idle_end, now) = (std::time::SystemTime::from(now + TimeDelta::days(14)), now.into());
        let (next, now): (i64, std::time::SystemTime) = (*generation + 1, now);
        let id = PgId(*id);
        let values: [&(dyn ToSql + Sync); 11] =
            [&next, &now, &idle_end, &ADDRESS, &NETWORK, &id, &NETWORK, &"", &false, generation, &now];
        let updated = self.client.query(&self.update, &values).await;
        let rows = updated.map_err(|error| Status::unavailable(error.to_string()))?;
        *generation = next;
        if rows.len() == 1 { Ok(()) } else { Err(Status::not_found("no row was updated")) }
    }
}

/// An id as PostgreSQL takes it.
#[derive(Debug)]
struct PgId(Uuid);

impl ToSql for PgId {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::UUID
    }

    to_sql_checked!();
}
