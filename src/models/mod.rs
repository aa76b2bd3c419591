//! The tables: pools, portable column types, the schema, a file per table.
//!
//! One set of queries serves SQLite and PostgreSQL: [`Conn`] is one of the two connections and the
//! `on!` macro expands each query once for each of them.
//!
//! A row that is found by its key is asked for with `get_result`: the bound `LIMIT` of `first` has SQLite prepare the statement
//! anew each time.
//!
//! Must not enter: tonic, decisions about what a caller may do, the opening of transactions by a model.

mod columns;
mod conn;
mod error;
mod listen;
mod migrate;
mod schema;
mod store;

pub mod audience_secrets;
pub mod audiences;
pub mod audit_events;
pub mod issuer_keys;
pub mod old_sessions;
pub mod sealed;
pub mod server_secrets;
pub mod service_accounts;
pub mod service_credentials;
pub mod session_keys;
pub mod sessions;
pub mod spare_keys;
pub mod steps;
pub mod tenants;
pub mod trust_log;
pub mod trusted_issuers;
pub mod used_assertions;
pub mod user_sessions;
pub mod users;

pub use conn::{Cached, Conn};
pub use error::{StoreError, TxError};
pub use store::{Database, PoolState, Store, Work};

use conn::on;

/// What a model's function answers.
pub type Stored<T> = Result<T, StoreError>;

/// A part of a list, newest first: at most `limit` rows, all older than `before`.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Only rows with a smaller id; `None` begins at the newest.
    pub before: Option<uuid::Uuid>,
    /// How many rows at most.
    pub limit: i64,
}

impl Slice {
    /// An id that every row of the slice is smaller than.
    fn below(&self) -> columns::IdCol {
        columns::IdCol(self.before.unwrap_or(uuid::Uuid::max()))
    }
}
