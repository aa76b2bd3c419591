//! A model of refresh, and random runs against it: clients, thieves, retries, lost replies, replicas that stop or are
//! killed, and the clock.
//!
//! [`chain`] is what must hold, [`explain`] compares it with what was answered, [`run`] makes the runs up. What a run
//! does follows from its seed; how calls that are made at once fall into each other does not.
//!
//! `MODEL_SEEDS=1000` runs the seeds from 0 to 999 instead of a few, `MODEL_SEEDS=37..38` that one alone. A run that
//! fails tells its seed and its steps.

mod call;
mod chain;
mod explain;
mod held;
mod run;

use std::ops::Range;

use chain::Rules;
use run::Run;

use crate::support::{Home, Kind, Outcome, process_stories, timed_stories};

timed_stories! { refresh_is_as_its_model, strict_refresh_is_as_its_model }
process_stories! { refresh_is_as_its_model_when_servers_are_killed }

/// Seeds that failed once; they run every time. None has so far.
const REGRESSIONS: [u64; 0] = [];
/// Runs without a word from outside.
const FEW: u64 = 8;
/// A killed server takes long to come back.
const FEW_KILLED: u64 = 2;

fn seeds(few: u64) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let asked: Range<u64> = match std::env::var("MODEL_SEEDS") {
        Err(_) => 0..few,
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => from.parse()?..to.parse()?,
            None => 0..text.parse()?,
        },
    };
    Ok(REGRESSIONS.into_iter().chain(asked).collect())
}

/// Runs each seed in one home, with people of its own.
async fn hold(home: &Home, rules: Rules, few: u64) -> Outcome {
    let mut servers = run::start(home, &rules).await?;
    for (number, seed) in seeds(few)?.into_iter().enumerate() {
        let mut run = Run::new(home, servers, rules, seed, number).await?;
        if let Err(error) = run.go().await {
            return Err(format!("seed {seed}: {error}\n{}", run.told.join("\n")).into());
        }
        servers = run.servers;
    }
    for server in servers {
        server.stop().await?;
    }
    Ok(())
}

async fn refresh_is_as_its_model(home: Home) -> Outcome {
    hold(&home, Rules { grace: 10, access_ttl: 20, idle_ttl: 60, absolute_ttl: 200 }, FEW).await
}

/// Without grace, every repetition is reuse.
async fn strict_refresh_is_as_its_model(home: Home) -> Outcome {
    hold(&home, Rules { grace: 0, access_ttl: 20, idle_ttl: 60, absolute_ttl: 200 }, FEW).await
}

/// No test turns the clock of a process: all of a run lies within grace.
async fn refresh_is_as_its_model_when_servers_are_killed(home: Home) -> Outcome {
    assert!(matches!(home.kind, Kind::Binary | Kind::BinarySqlite));
    hold(&home, Rules { grace: 3000, access_ttl: 3000, idle_ttl: 40_000, absolute_ttl: 40_000 }, FEW_KILLED)
        .await
}
