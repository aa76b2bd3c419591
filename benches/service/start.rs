//! How long it takes from the command until the server says SERVING: in an empty folder, again, and again where there are
//! many sessions.

use std::time::Instant;

use super::{
    Bench, Outcome,
    case::{Case, Place},
    home::{Home, Kind},
    load::{Sample, nanos},
    report::Report,
};

pub const FIRST: &str = "first_start";
pub const AGAIN: &str = "restart";
pub const FULL: &str = "restart_full";
const FIRST_MS: f64 = 1_000.0;
const RESTART_MS: f64 = 300.0;

/// Measures it on SQLite, in new folders.
pub async fn measure(bench: &Bench, report: &mut Report) -> Outcome {
    if !bench.wants(FIRST) && !bench.wants(AGAIN) {
        return Ok(());
    }
    let (mut first, mut again) = (Sample::default(), Sample::default());
    for _ in 0..bench.pace.starts {
        let home = Home::new(Kind::Sqlite)?;
        for sample in [&mut first, &mut again] {
            time(bench, &home, sample).await?;
        }
    }
    let place = Place { database: "sqlite", sessions: None };
    if bench.wants(FIRST) {
        report.add(Case::of_start(FIRST, place, &first, FIRST_MS))?;
    }
    if bench.wants(AGAIN) {
        report.add(Case::of_start(AGAIN, place, &again, RESTART_MS))?;
    }
    Ok(())
}

/// Measures it where there is a server's home already.
pub async fn measure_full(bench: &Bench, report: &mut Report, home: &Home, place: Place) -> Outcome {
    if !bench.wants(FULL) {
        return Ok(());
    }
    let mut again = Sample::default();
    for _ in 0..bench.pace.starts {
        time(bench, home, &mut again).await?;
    }
    report.add(Case::of_start(FULL, place, &again, RESTART_MS))
}

async fn time(bench: &Bench, home: &Home, sample: &mut Sample) -> Outcome {
    let begun = Instant::now();
    let server = home.start(&bench.settings("")).await?;
    sample.latencies.push(nanos(begun.elapsed()));
    server.stop()
}
