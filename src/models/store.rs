//! The pools, and the two ways to use them: [`Store::run`] for statements that stand alone and
//! [`Store::tx`] for those that belong together.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use diesel_async::{
    AsyncConnection, AsyncPgConnection, SimpleAsyncConnection,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod, SetupCallback,
    },
};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::task::TaskTracker;

use super::{
    Conn, StoreError, TxError,
    conn::{Either, PgConn, SqliteConn},
    migrate,
    steps::Steps,
};

/// How long a caller waits for a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a silent connection is asked whether its other end is still there; the driver's own default is too long.
const KEEPALIVE: Duration = Duration::from_secs(10);
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(2 * 60 * 60);
/// More connections to one SQLite file only compete for its cache.
const MOST_SQLITE_READERS: u32 = 4;
/// What a connection that reads is told. Most of what it keeps the system keeps as well: half of the default is enough.
const READER: &str = "PRAGMA query_only = ON; PRAGMA cache_size = -1024;";

/// A replica that the network has cut off in the middle of a transaction must not hold its locks for hours, and no
/// statement outlives the call that it is for, which is given up after 60 s.
const PG_SESSION: &str = "SET idle_in_transaction_session_timeout = '15s'; SET lock_timeout = '5s'; \
                          SET statement_timeout = '65s'";

type Manager<C> = AsyncDieselConnectionManager<C>;

/// Which database.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A server, by its URL.
    Postgres(Box<tokio_postgres::Config>),
}

/// The URL names no database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDatabaseUrl {
    /// Neither kind.
    #[error("is neither sqlite://PATH nor postgres://…")]
    Scheme,
    /// PostgreSQL's driver does not take it. Its message repeats no value.
    #[error("is no PostgreSQL URL: {0}")]
    Postgres(String),
    /// TLS to PostgreSQL.
    #[error(
        "asks for TLS, which this release doesn't speak to PostgreSQL; use a socket, a private network or a proxy"
    )]
    Tls,
}

impl FromStr for Database {
    type Err = BadDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, BadDatabaseUrl> {
        if let Some(path) = url.strip_prefix("sqlite://").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(BadDatabaseUrl::Scheme);
        }
        let mut config: tokio_postgres::Config = url
            .parse()
            .map_err(|error: tokio_postgres::Error| BadDatabaseUrl::Postgres(error.to_string()))?;
        if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
            return Err(BadDatabaseUrl::Tls);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(PATIENCE);
        }
        if config.get_tcp_user_timeout().is_none() {
            // A server behind a cut network is noticed in seconds and not in hours.
            config.tcp_user_timeout(2 * PATIENCE);
        }
        if config.get_keepalives_idle() == DEFAULT_KEEPALIVE {
            // The connection that listens sends nothing by itself for hours.
            config.keepalives_idle(KEEPALIVE);
        }
        if config.get_application_name().is_none() {
            config.application_name("tessera");
        }
        Ok(Self::Postgres(Box::new(config)))
    }
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    pools: Pools,
    max_connections: u32,
    transactions: TaskTracker,
    steps: Steps,
}

pub(super) enum Pools {
    /// SQLite has one writer at a time, so the queue for it is ours and fair.
    Sqlite {
        writer: Pool<SqliteConn>,
        readers: Pool<SqliteConn>,
    },
    Pg {
        pool: Pool<PgConn>,
        config: Box<tokio_postgres::Config>,
    },
}

/// A bb8 pool behind a queue: bb8 alone lets some waiters starve.
pub(super) struct Pool<C: PoolableConnection + 'static>
where
    Manager<C>: bb8::ManageConnection<Connection = C>,
{
    name: &'static str,
    pool: bb8::Pool<Manager<C>>,
    places: Arc<Semaphore>,
}

/// How a pool stands.
#[derive(Debug, Clone, Copy)]
pub struct PoolState {
    /// Which pool.
    pub name: &'static str,
    /// Open connections.
    pub connections: u32,
    /// Those of them that nobody uses.
    pub idle: u32,
}

/// What a statement that writes came to.
#[derive(Debug)]
pub struct Done<T> {
    /// What its last run said.
    pub value: T,
    /// It ran more than once.
    pub is_repeated: bool,
}

/// What a statement or a transaction is given to [`Store::run`] and [`Store::tx`] as: an async closure
/// over a connection whose future can move between threads.
pub trait Work<'c, T>:
    AsyncFnOnce(&'c mut Conn) -> T + FnOnce(&'c mut Conn) -> <Self as Work<'c, T>>::Future
{
    /// What the closure makes.
    type Future: Future<Output = T> + Send;
}

impl<'c, T, F, Fut> Work<'c, T> for F
where
    F: AsyncFnOnce(&'c mut Conn) -> T + FnOnce(&'c mut Conn) -> Fut,
    Fut: Future<Output = T> + Send,
{
    type Future = Fut;
}

impl Store {
    /// Opens the database and brings its schema up to date.
    pub async fn open(database: &Database, max_connections: u32) -> Result<Self, StoreError> {
        let pools = match database {
            Database::Sqlite(path) => {
                let url = path.to_str().ok_or_else(|| unavailable("the path is not UTF-8"))?;
                migrate::sqlite(sqlite_connection(url.to_owned(), "").await.map_err(unavailable)?).await?;
                let readers = max_connections.clamp(1, MOST_SQLITE_READERS);
                Pools::Sqlite {
                    writer: Pool::new("writer", url, 1, sqlite_setup("")).await?,
                    readers: Pool::new("readers", url, readers, sqlite_setup(READER)).await?,
                }
            }
            Database::Postgres(config) => {
                migrate::postgres(pg_connection(config).await.map_err(unavailable)?).await?;
                let of_pool = config.clone();
                let setup: SetupCallback<PgConn> = Box::new(move |_| {
                    let config = of_pool.clone();
                    Box::pin(async move {
                        let mut conn = pg_connection(&config).await?;
                        conn.batch_execute(PG_SESSION)
                            .await
                            .map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
                        Ok(conn)
                    })
                });
                let pool = Pool::new("postgres", "", max_connections, setup).await?;
                Pools::Pg { pool, config: config.clone() }
            }
        };
        Ok(Self(Arc::new(Inner {
            pools,
            max_connections,
            transactions: TaskTracker::new(),
            steps: Steps::default(),
        })))
    }

    /// Runs statements that stand alone and write nothing.
    ///
    /// A pooled connection may have died unnoticed; then the work is done again on another one.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<T, StoreError>
            + for<'c> Work<'c, Result<T, StoreError>>
            + Clone
            + Send,
    {
        Ok(self.run(Access::Read, work).await?.value)
    }

    /// Runs one statement that writes. Where a connection dies while it runs, it runs again, and says so:
    /// the first run may have done it.
    pub async fn write<T, F>(&self, work: F) -> Result<Done<T>, StoreError>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<T, StoreError>
            + for<'c> Work<'c, Result<T, StoreError>>
            + Clone
            + Send,
    {
        self.run(Access::Write, work).await
    }

    /// Each connection that turns out dead is thrown away; when none is left, a new one is made.
    async fn run<T, F>(&self, access: Access, work: F) -> Result<Done<T>, StoreError>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<T, StoreError>
            + for<'c> Work<'c, Result<T, StoreError>>
            + Clone
            + Send,
    {
        for repeats in 0..self.0.max_connections {
            let mut conn = self.connection(access).await?;
            match work.clone()(&mut conn).await {
                Err(StoreError::Lost(_)) => conn.spoil(),
                done => return Ok(Done { value: done?, is_repeated: repeats > 0 }),
            }
        }
        let value = work(&mut self.connection(access).await?).await?;
        Ok(Done { value, is_repeated: true })
    }

    /// Runs a transaction: commits what ends in `Ok`, rolls back what ends in `Err`.
    ///
    /// It runs in a task of its own, so that it ends either way when the caller goes away.
    pub async fn tx<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<T, E>
            + for<'c> Work<'c, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: TxError,
    {
        self.tx_then(work, |_| {}).await
    }

    /// The same, and `after` the commit whatever has to follow from it, also when the caller has gone away.
    pub async fn tx_then<T, E, F>(&self, work: F, after: impl FnOnce(&T) + Send + 'static) -> Result<T, E>
    where
        F: for<'c> AsyncFnOnce(&'c mut Conn) -> Result<T, E>
            + for<'c> Work<'c, Result<T, E>>
            + Send
            + 'static,
        T: Send + 'static,
        E: TxError,
    {
        let store = self.clone();
        let task = self.0.transactions.spawn(async move {
            let mut conn = store.begin().await?;
            match work(&mut conn).await {
                Ok(value) => {
                    conn.commit().await.map_err(|error| E::from(error.into()))?;
                    after(&value);
                    Ok(value)
                }
                Err(error) => {
                    // A connection that can't even roll back is broken, and the pool drops it.
                    let _ = conn.rollback().await;
                    if error.is_away() {
                        conn.spoil();
                    }
                    Err(error)
                }
            }
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(unavailable("the transaction was torn down").into()),
        }
    }

    /// Waits for transactions that callers have left, then closes.
    pub async fn close(&self) {
        self.0.transactions.close();
        self.0.transactions.wait().await;
    }

    pub(super) fn pools_ref(&self) -> &Pools {
        &self.0.pools
    }

    /// The steps along refresh chains that wait.
    pub(super) fn steps(&self) -> &Steps {
        &self.0.steps
    }

    /// A connection that writes, for as long as it is kept.
    pub(super) async fn writer(&self) -> Result<Conn, StoreError> {
        self.connection(Access::Write).await
    }

    /// Runs something that closing waits for, whether its caller does or not.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.transactions.spawn(work);
    }

    /// How the pools stand.
    pub fn pools(&self) -> Vec<PoolState> {
        match &self.0.pools {
            Pools::Sqlite { writer, readers } => vec![writer.state(), readers.state()],
            Pools::Pg { pool, .. } => vec![pool.state()],
        }
    }

    /// Nothing has been done yet when BEGIN fails, so that dead connections are replaced without harm.
    async fn begin(&self) -> Result<Conn, StoreError> {
        for _ in 0..self.0.max_connections {
            let mut conn = self.connection(Access::Write).await?;
            match conn.begin().await.map_err(StoreError::from) {
                Ok(()) => return Ok(conn),
                Err(StoreError::Lost(_)) => drop(conn),
                Err(error) => return Err(error),
            }
        }
        let mut conn = self.connection(Access::Write).await?;
        conn.begin().await?;
        Ok(conn)
    }

    async fn connection(&self, access: Access) -> Result<Conn, StoreError> {
        let connecting = async {
            match (&self.0.pools, access) {
                (Pools::Sqlite { writer, .. }, Access::Write) => writer.get(Either::Sqlite).await,
                (Pools::Sqlite { readers, .. }, Access::Read) => readers.get(Either::Sqlite).await,
                (Pools::Pg { pool, .. }, _) => pool.get(Either::Pg).await,
            }
        };
        timeout(PATIENCE, connecting).await.map_err(|_| unavailable("no connection became free in time"))?
    }
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl<C> Pool<C>
where
    C: PoolableConnection + 'static,
    Manager<C>: bb8::ManageConnection<Connection = C>,
    <Manager<C> as bb8::ManageConnection>::Error: std::error::Error,
{
    async fn new(
        name: &'static str,
        url: &str,
        size: u32,
        setup: SetupCallback<C>,
    ) -> Result<Self, StoreError> {
        let mut config = ManagerConfig::default();
        config.custom_setup = setup;
        // Looks at the connection's own state when it is taken, which costs no query.
        config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|conn: &mut C| {
            let is_broken = conn.is_broken();
            Box::pin(async move {
                if is_broken { Err(diesel::result::Error::BrokenTransactionManager) } else { Ok(()) }
            })
        }));
        let pool = bb8::Pool::builder()
            .max_size(size)
            .connection_timeout(PATIENCE)
            .test_on_check_out(true)
            .build(Manager::new_with_config(url, config))
            .await
            .map_err(unavailable)?;
        Ok(Self { name, pool, places: Arc::new(Semaphore::new(size as usize)) })
    }

    async fn get(
        &self,
        either: impl FnOnce(bb8::PooledConnection<'static, Manager<C>>) -> Either,
    ) -> Result<Conn, StoreError> {
        let place: Result<OwnedSemaphorePermit, AcquireError> = self.places.clone().acquire_owned().await;
        let place = place.map_err(unavailable)?;
        let pooled = self.pool.get_owned().await.map_err(unavailable)?;
        Ok(Conn { inner: either(pooled), _place: place })
    }

    fn state(&self) -> PoolState {
        let state = self.pool.state();
        PoolState { name: self.name, connections: state.connections, idle: state.idle_connections }
    }
}

pub(super) fn unavailable(error: impl ToString) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

fn sqlite_setup(more: &'static str) -> SetupCallback<SqliteConn> {
    Box::new(move |url| Box::pin(sqlite_connection(url.to_owned(), more)))
}

async fn sqlite_connection(path: String, more: &str) -> diesel::ConnectionResult<SqliteConn> {
    let mut conn = SqliteConn::establish(&path).await?;
    // FULL: a logout that was answered is still there after a power cut.
    let pragmas = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                   PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;";
    let setup = conn.batch_execute(&format!("{pragmas} {more}")).await;
    setup.map_err(diesel::ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

async fn pg_connection(config: &tokio_postgres::Config) -> diesel::ConnectionResult<PgConn> {
    let connected = config.connect(tokio_postgres::NoTls).await;
    let (client, connection) =
        connected.map_err(|error| diesel::ConnectionError::BadConnection(describe(&error)))?;
    AsyncPgConnection::try_from_client_and_connection(client, connection).await
}

/// The error with its causes: the driver's own text is as short as "error connecting to server".
fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", describe(source)),
        None => error.to_string(),
    }
}
