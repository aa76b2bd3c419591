//! How long it takes from the command until the server says SERVING: in an empty folder, and again.

use std::time::Instant;

use super::{
    Bench, Outcome,
    case::Case,
    home::{Home, Kind},
    load::{Sample, nanos},
    report::Report,
};

const FIRST_MS: f64 = 1_000.0;
const RESTART_MS: f64 = 300.0;

/// Measures it on SQLite.
pub async fn measure(bench: &Bench, report: &mut Report) -> Outcome {
    let (mut first, mut again) = (Sample::default(), Sample::default());
    for _ in 0..bench.pace.starts {
        let home = Home::new(Kind::Sqlite)?;
        for sample in [&mut first, &mut again] {
            let begun = Instant::now();
            let server = home.start(&bench.settings("")).await?;
            sample.latencies.push(nanos(begun.elapsed()));
            server.stop()?;
        }
    }
    report.add(Case::of_start("first_start", &first, FIRST_MS));
    report.add(Case::of_start("restart", &again, RESTART_MS));
    Ok(())
}
