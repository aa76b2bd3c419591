//! Every path of the service against its own ceiling, in one run.
//!
//! The release server runs as a child process, on SQLite and on PostgreSQL. This process loads it over gRPC, takes
//! turns between the server and the bare work that no server could leave out, and reads from the operating system what
//! the server's process used. Writes `target/bench/service.json` and `service.md`; any call that fails makes the run
//! fail.

mod bare;
mod case;
mod echo;
mod get_jwks;
mod home;
mod issue_service_token;
mod load;
mod login;
mod memory;
mod people;
mod process;
mod proofs;
mod raw_update;
mod refresh;
mod report;
mod seed;
mod start;
mod verifier;
mod verify_token;

use std::{error::Error, process::ExitCode, time::Duration};

use clap::Parser;

// Issues tokens, starts PostgreSQL.
#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../../tests/support/mod.rs"]
mod support;

use bare::Signatures;
use case::Place;
use home::{Home, Kind};
use process::Process;
use report::Report;
use seed::Seeder;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Measures each path of the service against its own ceiling.
#[derive(Parser)]
struct Options {
    /// Within two minutes: fewer and shorter rounds, a million sessions on SQLite alone, nowhere ten million
    #[arg(long)]
    short: bool,
    /// Sessions in the tables, ascending, as 10000,1000000
    #[arg(long, value_delimiter = ',')]
    sessions: Vec<u64>,
    /// Only these cases, as verify_token,refresh
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only this database, sqlite or postgres
    #[arg(long)]
    database: Option<String>,
    /// The server's log.filter; without it, the server's default, which writes a line for each call
    #[arg(long)]
    log: Option<String>,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the bare server that the others are measured against
    #[arg(long, hide = true)]
    echo: bool,
}

/// How long and how often.
#[derive(Clone, Copy)]
struct Pace {
    rounds: usize,
    slice: Duration,
    /// How often the server is started.
    starts: usize,
}

/// What every case is measured with.
struct Bench {
    options: Options,
    pace: Pace,
    echo: Process,
    signatures: Signatures,
}

impl Bench {
    fn wants(&self, case: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|only| only == case)
    }

    /// The server's settings, and these.
    fn settings(&self, more: &str) -> String {
        let log = self.options.log.as_ref().map(|filter| format!("[log]\nfilter = '{filter}'\n"));
        format!("{}{more}", log.unwrap_or_default())
    }

    /// The sizes of the tables.
    fn sizes(&self, kind: Kind) -> Vec<u64> {
        match (&*self.options.sessions, self.options.short, kind) {
            ([], true, Kind::Sqlite) => vec![10_000, 1_000_000],
            // To fill more of it would take longer than two minutes allow.
            ([], true, Kind::Postgres) => vec![10_000],
            ([], false, _) => vec![10_000, 1_000_000, 10_000_000],
            (given, ..) => given.to_vec(),
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async { if options.echo { echo::serve().await } else { measure(options).await } })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(options: Options) -> Outcome {
    let pace = if options.short {
        Pace { rounds: 3, slice: Duration::from_millis(320), starts: 5 }
    } else {
        Pace { rounds: 7, slice: Duration::from_secs(2), starts: 21 }
    };
    let bench = Bench { pace, echo: Process::echo()?, signatures: Signatures::new()?, options };
    let mut report = Report::default();
    if bench.wants("start") {
        start::measure(&bench, &mut report).await?;
    }
    verifier::measure(&bench, &mut report)?;
    for kind in [Kind::Sqlite, Kind::Postgres] {
        if bench.options.database.as_ref().is_none_or(|only| only == kind.name()) {
            measure_on(kind, &bench, &mut report).await?;
        }
    }
    report.finish(bench.options.short)
}

/// The cases that need a database, with tables of each size.
async fn measure_on(kind: Kind, bench: &Bench, report: &mut Report) -> Outcome {
    let home = Home::new(kind)?;
    home.start("").await?.stop()?;
    let mut seeder = Seeder::new(&home).await?;
    let sizes = bench.sizes(kind);
    for (number, &sessions) in sizes.iter().enumerate() {
        seeder.fill_to(&home, sessions).await?;
        let mut people = seeder.add_people(&home, people::IN_TURN).await?;
        home.settle().await?;
        let server = home.start(&bench.settings("")).await?;
        people::introduce(&server, &mut people).await?;
        let place = Place { database: kind.name(), sessions: Some(sessions) };
        // What asks no database has no reason to change with its size; the full mode looks nevertheless.
        if number == 0 || !bench.options.short {
            verify_token::measure(bench, report, &server, &people, place).await?;
            get_jwks::measure(bench, report, &server, place).await?;
            issue_service_token::measure(bench, report, &server, place).await?;
        }
        login::measure(bench, report, &server, &seeder, place).await?;
        refresh::measure(bench, report, &home, &server, &seeder, &people, place).await?;
        server.stop()?;
    }
    if kind == Kind::Sqlite && bench.wants("memory") {
        memory::measure(bench, report, &home, &mut seeder).await?;
    }
    Ok(())
}
