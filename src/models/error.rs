//! What can go wrong between Tessera and its database.

use diesel::result::{DatabaseErrorKind, Error};

use crate::domain::Inconsistent;

/// The database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, is starting, stopping, locked, full or too slow. Trying later may help.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// The connection died, or leads to where nothing can be written. Another one may be alive.
    #[error("the connection to the database died: {0}")]
    Lost(String),
    /// A unique value is taken.
    #[error("the unique value is taken: {0}")]
    Taken(String),
    /// Another transaction came first.
    #[error("another transaction came first: {0}")]
    Conflict(String),
    /// A stored value makes no sense.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// Anything else.
    #[error("the database refused: {0}")]
    Query(Error),
}

/// What a transaction can fail with.
pub trait TxError: From<StoreError> + Send + 'static {
    /// Its connection is of no use for now; another one may be.
    fn is_away(&self) -> bool;
}

impl TxError for StoreError {
    fn is_away(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Lost(_))
    }
}

/// Beginnings of messages of a database that is not there for now; diesel has no kinds for them.
const AWAY: [&str; 7] = [
    "database is locked",
    "the database system is",
    "sorry, too many clients",
    "remaining connection slots",
    "canceling statement due to statement timeout",
    "database or disk is full",
    "could not extend file",
];

/// The end of the message of whatever the system has no room for.
const NO_ROOM: &str = "No space left on device";

/// The same for a row that others hold.
const BUSY: [&str; 2] = ["deadlock detected", "canceling statement due to lock timeout"];

/// The same for a connection.
const LOST: [&str; 3] =
    ["terminating connection", "connection closed", "error communicating with the server"];

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let Error::DatabaseError(kind, info) = &error else {
            return Self::Query(error);
        };
        let message = || info.message().to_owned();
        let begins_with = |known: &[&str]| known.iter().any(|text| info.message().starts_with(text));
        match kind {
            DatabaseErrorKind::UniqueViolation => Self::Taken(message()),
            DatabaseErrorKind::SerializationFailure => Self::Conflict(message()),
            // It may lead to a server that is no longer the one to write to.
            DatabaseErrorKind::ReadOnlyTransaction
            | DatabaseErrorKind::ClosedConnection
            | DatabaseErrorKind::UnableToSendCommand => Self::Lost(message()),
            _ if begins_with(&BUSY) => Self::Conflict(message()),
            _ if begins_with(&AWAY) || info.message().ends_with(NO_ROOM) => Self::Unavailable(message()),
            _ if begins_with(&LOST) => Self::Lost(message()),
            _ => Self::Query(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use diesel::{Connection, RunQueryDsl, sql_query, sqlite::SqliteConnection};

    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_ours() {
        let mut conn = SqliteConnection::establish(":memory:").unwrap();
        for statement in ["CREATE TABLE heap (grain blob)", "PRAGMA max_page_count = 3"] {
            sql_query(statement).execute(&mut conn).unwrap();
        }
        let full = sql_query("INSERT INTO heap VALUES (zeroblob(1000000))").execute(&mut conn).unwrap_err();
        let full = StoreError::from(full);
        assert!(matches!(full, StoreError::Unavailable(_)), "{full:?}");
    }
}
