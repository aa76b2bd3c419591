//! Calls, as many at once as there are callers, and what became of them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tonic::{Status, transport::Channel};

use super::{Outcome, process::Process};

/// Connections that callers share.
const CONNECTIONS: usize = 4;

/// Makes one call after another.
pub trait Caller: Send + 'static {
    /// One call; what is not as it must be is an error too.
    fn call(&mut self) -> impl Future<Output = Result<(), Status>> + Send;
}

/// What was measured in one turn.
#[derive(Default)]
pub struct Sample {
    pub errors: u64,
    pub took: Duration,
    /// The server's, for all calls.
    pub cpu: Duration,
    /// Of each call that succeeded, in nanoseconds.
    pub latencies: Vec<u64>,
}

impl Sample {
    /// Adds what another turn measured.
    pub fn extend(&mut self, other: Self) {
        self.errors += other.errors;
        self.took += other.took;
        self.cpu += other.cpu;
        self.latencies.extend(other.latencies);
    }

    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.latencies.len() as f64
    }

    /// The time that this share of the calls kept to, in microseconds.
    pub fn quantile_us(&self, share: f64) -> f64 {
        quantile_us(&mut self.latencies.clone(), share)
    }
}

/// The time that this share kept to, in microseconds.
pub fn quantile_us(latencies: &mut [u64], share: f64) -> f64 {
    latencies.sort_unstable();
    let last = latencies.len().saturating_sub(1);
    let at = ((latencies.len() as f64 * share) as usize).min(last);
    latencies.get(at).map_or(0.0, |nanos| *nanos as f64 / 1e3)
}

/// Callers that share a few connections to a server.
pub async fn over<C>(
    server: &Process,
    count: usize,
    caller: impl Fn(Channel, usize) -> C,
) -> Outcome<Vec<C>> {
    let channels = server.channels(CONNECTIONS.min(count)).await?;
    Ok((0..count).map(|number| caller(channels[number % channels.len()].clone(), number)).collect())
}

/// Lets every caller call for this long.
pub async fn load<C: Caller>(server: &Process, callers: &mut Vec<C>, slice: Duration) -> Outcome<Sample> {
    let cpu = server.cpu()?;
    let mut sample = run(callers, slice).await?;
    sample.cpu = server.cpu()?.saturating_sub(cpu);
    Ok(sample)
}

/// The same without a server whose time counts.
pub async fn run<C: Caller>(callers: &mut Vec<C>, slice: Duration) -> Outcome<Sample> {
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (place, caller) in callers.drain(..).enumerate() {
        tasks.spawn(async move {
            let (caller, sample) = call_until(caller, begun + slice).await;
            (place, caller, sample)
        });
    }
    let mut done = tasks.join_all().await;
    let took = begun.elapsed();
    done.sort_by_key(|(place, ..)| *place);
    let mut whole = Sample { took, ..Sample::default() };
    for (_, caller, sample) in done {
        callers.push(caller);
        whole.errors += sample.errors;
        whole.latencies.extend(sample.latencies);
    }
    Ok(whole)
}

async fn call_until<C: Caller>(mut caller: C, end: Instant) -> (C, Sample) {
    let mut sample = Sample::default();
    while Instant::now() < end {
        let begun = Instant::now();
        match caller.call().await {
            Ok(()) => sample.latencies.push(nanos(begun.elapsed())),
            Err(status) => {
                // The first of each caller is enough to tell what is wrong.
                if sample.errors == 0 {
                    eprintln!("a call failed: {status}");
                }
                sample.errors += 1;
            }
        }
    }
    (caller, sample)
}

pub fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
