//! What can go wrong between Tessera and its database.

use diesel::result::{DatabaseErrorKind, Error};

use crate::domain::Inconsistent;

/// The database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It can't be reached, is starting, stopping or locked. Trying later may help.
    #[error("the database is away: {0}")]
    Unavailable(String),
    /// The connection died. Another one may be alive.
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

/// Beginnings of messages of a database that is not there for now; diesel has no kinds for them.
const AWAY: [&str; 4] =
    ["database is locked", "the database system is", "sorry, too many clients", "remaining connection slots"];

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
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => {
                Self::Lost(message())
            }
            _ if begins_with(&BUSY) => Self::Conflict(message()),
            _ if begins_with(&AWAY) => Self::Unavailable(message()),
            _ if begins_with(&LOST) => Self::Lost(message()),
            _ => Self::Query(error),
        }
    }
}
