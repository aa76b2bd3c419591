//! The harness. A [`Home`] is a database and a folder of its own; [`Home::start`] starts a server there, in this
//! process with a clock that the test turns, or as the binary.
//!
//! `stories!` makes of each story a test for each kind of home.

mod clock;
mod people;
mod postgres;
mod server;

pub use clock::TestClock;
pub use people::{
    ADMIN_PASSWORD, PASSWORD, Person, authorized, device, login_as, reason, refresh_with, refusal,
};
pub use postgres::query as query_postgres;
pub use server::{Ended, FENCE, Home, Kind, Server, eventually, run, signal};

/// What a test ends with: any error fails it.
pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Makes tests of stories: on SQLite and on PostgreSQL in this process, and with the binary on PostgreSQL.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            use crate::support::{Home, Kind, Outcome};

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() -> Outcome {
                super::$story(Home::new(Kind::Sqlite).await?).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() -> Outcome {
                super::$story(Home::new(Kind::Postgres).await?).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn binary() -> Outcome {
                super::$story(Home::new(Kind::Binary).await?).await
            }
        }
    )*};
}
pub(crate) use stories;

/// The same for stories that turn the clock, which no binary lets them.
macro_rules! timed_stories {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            use crate::support::{Home, Kind, Outcome};

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() -> Outcome {
                super::$story(Home::new(Kind::Sqlite).await?).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() -> Outcome {
                super::$story(Home::new(Kind::Postgres).await?).await
            }
        }
    )*};
}
pub(crate) use timed_stories;

/// Makes tests of stories that need a process: the binary on SQLite and on PostgreSQL.
macro_rules! process_stories {
    ($($story:ident),* $(,)?) => {$(
        mod $story {
            use crate::support::{Home, Kind, Outcome};

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite() -> Outcome {
                super::$story(Home::new(Kind::BinarySqlite).await?).await
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() -> Outcome {
                super::$story(Home::new(Kind::Binary).await?).await
            }
        }
    )*};
}
pub(crate) use process_stories;
