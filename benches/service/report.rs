//! What came out: a table on the terminal, JSON for programs, Markdown for the README.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

use super::{Outcome, case::Case};

/// How far a figure may move as the tables grow.
const MOST_GROWTH: f64 = 0.2;

pub const HEAD: &str = "\
| path | database | sessions | calls/s | p50 µs | p99 µs | server CPU µs | ceiling | its calls/s / CPU µs | ratio | target |
| --- | --- | --: | --: | --: | --: | --: | --- | --: | --: | --- |";

/// Everything that was measured.
#[derive(Default)]
pub struct Report(Vec<Case>);

impl Report {
    /// Prints the case and keeps it.
    pub fn add(&mut self, case: Case) {
        if self.0.is_empty() {
            println!("{HEAD}");
        }
        println!("{}", case.to_row());
        self.0.push(case);
    }

    /// How the figures of a case moved against the smallest tables.
    fn growth(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for case in &self.0 {
            let is_same =
                |other: &&Case| other.name == case.name && other.place.database == case.place.database;
            let Some(smallest) = self.0.iter().find(is_same) else { continue };
            let (Some(sessions), Some(least)) = (case.place.sessions, smallest.place.sessions) else {
                continue;
            };
            let rates = case.figure("calls_per_second").zip(smallest.figure("calls_per_second"));
            let Some((rate, rate_of_smallest)) = rates.filter(|_| sessions > least) else { continue };
            let moved = rate / rate_of_smallest - 1.0;
            let (name, database) = (case.name, case.place.database);
            let verdict =
                if moved >= -MOST_GROWTH { "no more than 20 % slower" } else { "**more than 20 % slower**" };
            lines.push(format!(
                "`{name}` on {database}, {least} → {sessions} sessions: {:+.0} % calls/s, {verdict}.",
                moved * 100.0
            ));
        }
        lines
    }

    /// Writes the files. An error where a call failed: figures of a server that refuses are worth nothing.
    pub fn finish(self, is_short: bool) -> Outcome {
        let growth = self.growth();
        println!("\n{}", growth.join("\n"));
        let rows: Vec<String> = self.0.iter().map(Case::to_row).collect();
        let mode = if is_short { "short" } else { "full" };
        let markdown = format!(
            "Measured with `cargo bench --bench service`, {mode} mode, {} cores.\n\n{HEAD}\n{}\n\n{}\n",
            super::bare::all_processors(),
            rows.join("\n"),
            growth.join("\n")
        );
        let dir = target_dir().join("bench");
        fs::create_dir_all(&dir)?;
        let cases: Vec<Value> = self.0.iter().map(Case::to_json).collect();
        fs::write(dir.join("service.json"), serde_json::to_string_pretty(&cases)?)?;
        fs::write(dir.join("service.md"), markdown)?;
        println!("Written to {}", dir.join("service.{json,md}").display());
        let errors: u64 = self.0.iter().map(|case| case.errors).sum();
        if errors > 0 { Err(format!("{errors} calls failed").into()) } else { Ok(()) }
    }
}

/// Where cargo builds: three folders above the program, as `target/release/deps/service-…`.
fn target_dir() -> PathBuf {
    let program = env::current_exe().ok();
    let target = program.as_deref().and_then(|program| program.ancestors().nth(3));
    target.map_or_else(|| "target".into(), Into::into)
}
