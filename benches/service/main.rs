//! Every path of the service against its own ceiling, in one run.
//!
//! The release server runs as a child process, on SQLite and on PostgreSQL. This process loads it over gRPC, takes
//! turns between the server and the bare work that no server could leave out, and reads from the operating system what
//! the server's process used. Writes `target/bench/service.json` and `service.md`; any call that fails makes the run
//! fail.

mod accounts;
mod ahead;
mod bare;
mod caches;
mod case;
mod cpu;
mod echo;
mod get_jwks;
mod growth;
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
mod seed_only;
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
use refresh::Stage;
use report::Report;
use seed::Seeder;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What can be measured.
const CASES: [&str; 14] = [
    start::FIRST,
    start::AGAIN,
    start::FULL,
    verifier::NEW,
    verifier::SEEN,
    verify_token::NAME,
    verify_token::NEW,
    get_jwks::NAME,
    issue_service_token::NAME,
    login::NAME,
    refresh::WARM.name,
    refresh::FEWER.name,
    refresh::COLD.name,
    memory::NAME,
];
/// Sessions that are many.
const MILLION: u64 = 1_000_000;

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
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    only: Vec<String>,
    /// Only this database
    #[arg(long, value_parser = [Kind::Sqlite.name(), Kind::Postgres.name()])]
    database: Option<String>,
    /// Measure nothing: fill tables, say how to start a server on them, and keep them until Ctrl-C
    #[arg(long, requires = "database", requires = "sessions")]
    seed_only: bool,
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
    fn takes(&self, kind: Kind) -> bool {
        self.options.database.as_ref().is_none_or(|only| only == kind.name())
    }

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
            ([], true, Kind::Sqlite) => vec![10_000, MILLION],
            // To fill more of it would take longer than two minutes allow.
            ([], true, Kind::Postgres) => vec![10_000],
            ([], false, _) => vec![10_000, MILLION, 10 * MILLION],
            (given, ..) => given.to_vec(),
        }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.map_err(Into::into).and_then(|runtime| {
        runtime.block_on(async {
            match options {
                Options { echo: true, .. } => echo::serve().await,
                Options { seed_only: true, .. } => seed(&options).await,
                _ => measure(options).await,
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn seed(options: &Options) -> Outcome {
    let sessions = options.sessions.last().copied().unwrap_or_default();
    let is_postgres = options.database.as_deref() == Some(Kind::Postgres.name());
    seed_only::keep(if is_postgres { Kind::Postgres } else { Kind::Sqlite }, sessions).await
}

async fn measure(options: Options) -> Outcome {
    let pace = if options.short {
        Pace { rounds: 3, slice: Duration::from_millis(250), starts: 5 }
    } else {
        Pace { rounds: 5, slice: Duration::from_secs(2), starts: 21 }
    };
    let mut report = Report::new(options.short);
    let bench = Bench { pace, echo: Process::echo()?, signatures: Signatures::new()?, options };
    start::measure(&bench, &mut report).await?;
    verifier::measure(&bench, &mut report)?;
    for kind in [Kind::Sqlite, Kind::Postgres] {
        if bench.takes(kind) {
            measure_on(kind, &bench, &mut report).await?;
        }
    }
    report.finish()
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
        // With more cases, which have no target.
        let is_thorough = !bench.options.short && (10_000..=MILLION).contains(&sessions);
        let more = if is_thorough { people::IN_TURN + people::MANY } else { 0 };
        let others = seeder.add_people(&home, more).await?;
        home.settle().await?;
        let place = Place { database: kind.name(), sessions: Some(sessions) };
        if kind == Kind::Sqlite && sessions >= MILLION && !bench.options.short {
            start::measure_full(bench, report, &home, place).await?;
        }
        let server = home.start(&bench.settings("")).await?;
        people::introduce(&server, &mut people).await?;
        // What asks no database has no reason to change with its size; the full mode looks nevertheless.
        if number == 0 || !bench.options.short {
            verify_token::measure(bench, report, &server, &people, place).await?;
            get_jwks::measure(bench, report, &server, place).await?;
            issue_service_token::measure(bench, report, &server, place).await?;
        }
        login::measure(bench, report, &server, &seeder, place).await?;
        let stage = Stage { home: &home, server: &server, seeder: &seeder, place };
        refresh::measure(bench, report, &stage, &people, &refresh::WARM).await?;
        if is_thorough {
            let (few, many) = others.split_at(people::IN_TURN);
            refresh::measure(bench, report, &stage, few, &refresh::FEWER).await?;
            refresh::measure(bench, report, &stage, many, &refresh::COLD).await?;
        }
        server.stop()?;
    }
    if kind == Kind::Sqlite && bench.wants(memory::NAME) {
        memory::measure(bench, report, &home, &mut seeder).await?;
    }
    Ok(())
}
