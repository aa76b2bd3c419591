//! Where a measured server lives: a folder and a database that keeps what it was told, also after a power cut.

use std::process::Command;

use diesel::{
    Connection, QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_query, sql_types::Text,
    sqlite::SqliteConnection,
};
use tempfile::TempDir;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    Outcome,
    process::Process,
    support::{ADMIN_PASSWORD, OwnPostgres, query_postgres},
};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// A folder and a database.
pub struct Home {
    pub kind: Kind,
    pub dir: TempDir,
    postgres: Option<OwnPostgres>,
}

#[derive(QueryableByName)]
struct First {
    #[diesel(sql_type = Text)]
    first: String,
}

impl Home {
    /// An empty one.
    pub fn new(kind: Kind) -> Outcome<Self> {
        let postgres = (kind == Kind::Postgres).then(|| OwnPostgres::start_with(""));
        Ok(Self { kind, dir: TempDir::new()?, postgres })
    }

    /// Starts the server here, and waits until it says that it serves.
    pub async fn start(&self, settings: &str) -> Outcome<Process> {
        let file = self.dir.path().join("settings.toml");
        std::fs::write(&file, settings)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(file)
            .current_dir(self.dir.path())
            .env_clear()
            .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
        if let Some(url) = self.url() {
            command.env("DATABASE_URL", url);
        }
        let server = Process::start(command)?;
        let asked = HealthClient::new(server.channel().await?).check(HealthCheckRequest::default()).await?;
        match asked.into_inner().status() {
            ServingStatus::Serving => Ok(server),
            other => Err(format!("the server says {}", other.as_str_name()).into()),
        }
    }

    /// The URL of its PostgreSQL.
    pub fn url(&self) -> Option<String> {
        self.postgres.as_ref().map(OwnPostgres::url)
    }

    /// A connection to its SQLite.
    pub fn sqlite(&self) -> Outcome<SqliteConnection> {
        let path = self.dir.path().join("data/tessera.db");
        let mut conn = SqliteConnection::establish(path.to_str().ok_or("not UTF-8")?)?;
        conn.batch_execute("PRAGMA busy_timeout = 5000")?;
        Ok(conn)
    }

    /// Runs statements, as fast as they go: what they write need not be kept after a power cut.
    pub async fn write(&self, sql: &str) -> Outcome {
        match self.url() {
            Some(url) => {
                // Without the triggers that check foreign keys row by row.
                let quick = "SET session_replication_role = replica; SET synchronous_commit = off;";
                query_postgres(&url, &format!("{quick} {sql}")).await?;
            }
            None => {
                let quick =
                    "PRAGMA synchronous = OFF; PRAGMA cache_size = -500000; PRAGMA temp_store = MEMORY;";
                self.sqlite()?.batch_execute(&format!("{quick} BEGIN; {sql}; COMMIT;"))?;
            }
        }
        Ok(())
    }

    /// Asks for one column of text named `first`.
    pub async fn query(&self, sql: &str) -> Outcome<Vec<String>> {
        match self.url() {
            Some(url) => query_postgres(&url, sql).await,
            None => {
                let rows: Vec<First> = sql_query(sql).load(&mut self.sqlite()?)?;
                Ok(rows.into_iter().map(|row| row.first).collect())
            }
        }
    }

    /// Does now what the database would do later, in the middle of a measurement, about what was written.
    pub async fn settle(&self) -> Outcome {
        match self.url() {
            Some(url) => {
                for step in ["VACUUM ANALYZE", "CHECKPOINT"] {
                    query_postgres(&url, step).await?;
                }
            }
            None => self.sqlite()?.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?,
        }
        Ok(())
    }
}
