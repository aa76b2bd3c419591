//! The harness. A [`Home`] is a database and a folder of its own; [`Home::start`] starts a server there, in this
//! process with a clock that the test turns, or as the binary.
//!
//! `stories!` makes of each story a test for each kind of home.

mod authority;
mod clients;
mod clock;
mod envoy;
mod forge;
mod grpcurl;
mod guarded;
mod holder;
mod intermediary;
mod issuer;
mod key_server;
mod people;
mod places;
mod postgres;
mod private_keys;
mod proxy;
mod refusals;
mod server;
mod services;
mod shop;
mod watcher;

pub use authority::{Authority, Leaf, over_tls, replace};
pub use clients::{client, file, installed, run_client};
pub use clock::{ShiftedClock, TestClock};
pub use envoy::{Envoy, Provider};
pub use forge::{Forge, Key, parts_of, sign_hs256, unsigned};
pub use grpcurl::Grpcurl;
pub use guarded::{Guarded, audience_token};
pub use holder::{Holder, bound, proof_claims, proved, with_proofs};
pub use intermediary::Intermediary;
pub use issuer::Issuer;
pub use key_server::{KeyServer, jwks, one_key};
pub use people::{ADMIN_PASSWORD, PASSWORD, Person, authorized, device, login_as, refresh_with};
pub use places::{BEHIND_A_PROXY, at, refresh_at};
pub use postgres::{OwnPostgres, query as query_postgres};
pub use proxy::Proxy;
pub use refusals::{denied, invalid, invalid_token, not_found, reason, refusal, revoked, wrong};
pub use server::{Ended, FENCE, Home, Kind, Server, eventually, run, signal};
pub use services::{Registrar, asks, deputy, orders, words};
pub use shop::{ORDERS_URI, Shop};
pub use watcher::Watching;

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
