//! The server's memory: at rest, and with a million sessions stored, every cache full and every path used.

use std::time::Duration;

use super::{
    Bench, Outcome, caches,
    case::Case,
    home::Home,
    load::load,
    login,
    people::MANY,
    refresh::{self, IN_FLIGHT},
    report::Report,
    seed::Seeder,
};

pub const NAME: &str = "memory";
/// How long it may go on with what it does once, after a start.
const REST: Duration = Duration::from_secs(1);
const REST_MIB: f64 = 40.0;
const FULL_MIB: f64 = 100.0;

/// Measures it.
pub async fn measure(bench: &Bench, report: &mut Report, home: &Home, seeder: &mut Seeder) -> Outcome {
    let mut people = seeder.add_people(home, MANY).await?;
    home.settle().await?;
    let server = home.start(&bench.settings("")).await?;
    tokio::time::sleep(REST).await;
    let rest_mib = server.resident_mib()?;
    caches::fill(home, &server, &mut people).await?;
    let mut refreshing = refresh::callers(&server, &people, IN_FLIGHT).await?;
    let signed_in = load(&server, &mut login::callers(&server, seeder).await?, bench.pace.slice).await?;
    let refreshed = load(&server, &mut refreshing, bench.pace.slice).await?;
    let case = Case::of_memory(
        home.kind.name(),
        seeder.sessions,
        [(rest_mib, REST_MIB), (server.peak_mib()?, FULL_MIB)],
        signed_in.errors + refreshed.errors,
    );
    report.add(case)?;
    server.stop()
}
