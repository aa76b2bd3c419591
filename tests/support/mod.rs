//! The harness. A [`Home`] is a database and a folder of its own; [`Home::start`] starts a server there, in this
//! process with a clock that the test turns, or as the binary.
//!
//! `stories!` makes of each story a test for each kind of home.

mod clients;
mod clock;
mod envoy;
mod forge;
mod issuer;
mod key_server;
mod people;
mod postgres;
mod server;

pub use clients::{client, file, installed, run_client};
pub use clock::TestClock;
pub use envoy::{Envoy, Provider};
pub use forge::{Forge, Key, parts_of, sign_hs256, unsigned};
pub use issuer::Issuer;
pub use key_server::{KeyServer, jwks, one_key};
pub use people::{
    ADMIN_PASSWORD, PASSWORD, Person, authorized, device, login_as, reason, refresh_with, refusal,
};
pub use postgres::query as query_postgres;
pub use server::{Ended, FENCE, Home, Kind, Server, eventually, run, signal};

/// What a test ends with: any error fails it.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Makes tests of one story, each in a home of its own kind.
macro_rules! story {
    ($story:ident, $($test:ident: $kind:ident),*) => {
        mod $story {
            use crate::support::{Home, Kind, Outcome};

            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() -> Outcome {
                super::$story(Home::new(Kind::$kind).await?).await
            })*
        }
    };
}
pub(crate) use story;

/// Makes tests of stories: on SQLite and on PostgreSQL in this process, and with the binary on PostgreSQL.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        $($crate::support::story!($story, sqlite: Sqlite, postgres: Postgres, binary: Binary);)*
    };
}
pub(crate) use stories;

/// The same for stories that turn the clock, which no binary lets them.
macro_rules! timed_stories {
    ($($story:ident),* $(,)?) => {
        $($crate::support::story!($story, sqlite: Sqlite, postgres: Postgres);)*
    };
}
pub(crate) use timed_stories;

/// The same for stories that need a process: the binary on SQLite and on PostgreSQL.
macro_rules! process_stories {
    ($($story:ident),* $(,)?) => {
        $($crate::support::story!($story, sqlite: BinarySqlite, postgres: Binary);)*
    };
}
pub(crate) use process_stories;
