//! What came out: a table on the terminal, JSON for programs, Markdown for the README.

use std::{env, fs, path::PathBuf};

use serde_json::Value;

use super::{Outcome, case::Case, growth};

pub const HEAD: &str = "\
| path | database | sessions | calls/s | p50 µs | p99 µs | server CPU µs | ceiling | its calls/s / CPU µs | ratio | target |
| --- | --- | --: | --: | --: | --: | --: | --- | --: | --: | --- |";

/// Everything that was measured.
pub struct Report {
    cases: Vec<Case>,
    mode: &'static str,
}

impl Report {
    pub fn new(is_short: bool) -> Self {
        Self { cases: Vec::new(), mode: if is_short { "short" } else { "full" } }
    }

    /// Prints the case and writes it down: whatever goes wrong later, it was measured.
    pub fn add(&mut self, case: Case) -> Outcome {
        if self.cases.is_empty() {
            println!("{HEAD}");
        }
        println!("{}", case.to_row());
        self.cases.push(case);
        let dir = dir();
        fs::create_dir_all(&dir)?;
        let cases: Vec<Value> = self.cases.iter().map(Case::to_json).collect();
        fs::write(dir.join("service.json"), serde_json::to_string_pretty(&cases)?)?;
        Ok(fs::write(dir.join("service.md"), self.to_markdown())?)
    }

    fn to_markdown(&self) -> String {
        let rows: Vec<String> = self.cases.iter().map(Case::to_row).collect();
        format!(
            "Measured with `cargo bench --bench service`, {} mode, {} cores.\n\n{HEAD}\n{}\n\n{}\n",
            self.mode,
            super::bare::all_processors(),
            rows.join("\n"),
            growth::lines(&self.cases).join("\n")
        )
    }

    /// An error where a call failed: figures of a server that refuses are worth nothing.
    pub fn finish(self) -> Outcome {
        if self.cases.is_empty() {
            return Err("there is no such case on this database".into());
        }
        println!("\n{}", growth::lines(&self.cases).join("\n"));
        println!("Written to {}", dir().join("service.{json,md}").display());
        let errors: u64 = self.cases.iter().map(|case| case.errors).sum();
        if errors > 0 { Err(format!("{errors} calls failed").into()) } else { Ok(()) }
    }
}

/// Beside what cargo builds: three folders above the program, as `target/release/deps/service-…`.
fn dir() -> PathBuf {
    let program = env::current_exe().ok();
    let target = program.as_deref().and_then(|program| program.ancestors().nth(3));
    target.map_or_else(|| "target".into(), PathBuf::from).join("bench")
}
