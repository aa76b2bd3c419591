//! Brings a database's schema up to date when the service starts.

use diesel::{migration::MigrationSource, sql_query, sql_types::BigInt};
use diesel_async::{AsyncMigrationHarness, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{
    StoreError,
    conn::{PgConn, SqliteConn},
};

const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");

/// What replicas that start together queue at: "tessera" in ASCII.
const MIGRATION_LOCK: i64 = 0x0074_6573_7365_7261;

/// No other process has this file open: the data directory is locked.
pub(super) async fn sqlite(conn: SqliteConn) -> Result<(), StoreError> {
    run(AsyncMigrationHarness::new(conn), SQLITE)
}

/// The lock is the connection's own and ends with it.
pub(super) async fn postgres(mut conn: PgConn) -> Result<(), StoreError> {
    sql_query("SELECT pg_advisory_lock($1)").bind::<BigInt, _>(MIGRATION_LOCK).execute(&mut conn).await?;
    run(AsyncMigrationHarness::new(conn), POSTGRES)
}

fn run<C, DB>(mut harness: AsyncMigrationHarness<C>, source: EmbeddedMigrations) -> Result<(), StoreError>
where
    C: diesel_async::AsyncConnection<Backend = DB>,
    DB: diesel::backend::Backend,
    AsyncMigrationHarness<C>: MigrationHarness<DB>,
    EmbeddedMigrations: MigrationSource<DB>,
{
    let done = harness.run_pending_migrations(source);
    let versions = done.map_err(|error| StoreError::Unavailable(format!("migrating the schema: {error}")))?;
    for version in versions {
        tracing::info!(%version, "migrated the schema");
    }
    Ok(())
}
