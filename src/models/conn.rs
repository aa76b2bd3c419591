//! A connection to either database, and what lets one query run on both.

use diesel::{
    QueryResult,
    backend::Backend,
    connection::{AnsiTransactionManager as SyncTransactions, TransactionManagerStatus},
    query_builder::{AstPass, Query, QueryFragment, QueryId},
    sqlite::SqliteConnection,
};
use diesel_async::{
    AnsiTransactionManager, AsyncConnection, AsyncPgConnection, TransactionManager,
    pooled_connection::AsyncDieselConnectionManager, sync_connection_wrapper::SyncConnectionWrapper,
};
use tokio::sync::OwnedSemaphorePermit;

pub(super) type SqliteConn = SyncConnectionWrapper<SqliteConnection>;
pub(super) type PgConn = AsyncPgConnection;
type Pooled<C> = bb8::PooledConnection<'static, AsyncDieselConnectionManager<C>>;

/// A connection taken from its pool. Dropped, it goes back, and then its place in the queue.
pub struct Conn {
    pub(super) inner: Either,
    pub(super) _place: OwnedSemaphorePermit,
}

#[allow(clippy::large_enum_variant, reason = "one lives in each call, and never in a list")]
pub(super) enum Either {
    Sqlite(Pooled<SqliteConn>),
    Pg(Pooled<PgConn>),
}

/// Expands a query once for each database.
macro_rules! on {
    ($conn:expr, $c:ident => $query:expr) => {
        match &mut $conn.inner {
            $crate::models::conn::Either::Sqlite(pooled) => {
                let $c = &mut **pooled;
                $query
            }
            $crate::models::conn::Either::Pg(pooled) => {
                let $c = &mut **pooled;
                $query
            }
        }
    };
}
pub(super) use on;

impl Conn {
    /// Begins a transaction. SQLite takes the write lock at once: a transaction that reads first and
    /// wants to write later could no longer get it.
    pub(super) async fn begin(&mut self) -> QueryResult<()> {
        match &mut self.inner {
            Either::Sqlite(c) => {
                c.spawn_blocking(|c| SyncTransactions::begin_transaction_sql(c, "BEGIN IMMEDIATE")).await
            }
            Either::Pg(c) => AnsiTransactionManager::begin_transaction(&mut **c).await,
        }
    }

    pub(super) async fn commit(&mut self) -> QueryResult<()> {
        on!(self, c => commit(c).await)
    }

    /// Lets the pool throw it away instead of giving it to somebody else.
    pub(super) fn spoil(&mut self) {
        on!(self, c => *status(c) = TransactionManagerStatus::InError);
    }

    pub(super) async fn rollback(&mut self) -> QueryResult<()> {
        on!(self, c => rollback(c).await)
    }
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(conn).await
}

fn status<C: AsyncConnection>(conn: &mut C) -> &mut TransactionManagerStatus {
    C::TransactionManager::transaction_manager_status_mut(conn)
}

async fn rollback<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::rollback_transaction(conn).await
}

/// A statement whose text never changes. diesel prepares each UPDATE and INSERT anew, since it can't
/// know that of them; this tells it to prepare once for each connection.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Cached<Q>(pub Q);

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for Cached<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

impl<Q> QueryId for Cached<Q> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Cached<Q> {
    type SqlType = Q::SqlType;
}

impl<Q, C> diesel::RunQueryDsl<C> for Cached<Q> {}
