//! Ten thousand verifiers that follow one server: what they cost it while nothing happens, and what a revocation
//! costs. One more reads nothing at all, and must hold up nobody.

use std::{
    error::Error,
    fs,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use tessera::proto::{
    LogoutRequest, WatchRequest, WatchResponse, trust_entry::Subject, watch_response::Event,
};
use tokio::sync::mpsc;
use tonic::{Streaming, transport::Channel};

// Starts servers and talks to them.
#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{Home, Kind, Server, authorized};

type Outcome<T> = Result<T, Box<dyn Error>>;

const CONNECTIONS: usize = 100;
const STREAMS: usize = 100;
const REVOCATIONS: usize = 20;
/// How long nothing happens.
const IDLE: Duration = Duration::from_secs(20);
/// All of them are at one address.
const SETTINGS: &str = "[server]\nmax_watchers_per_address = 20000\n[passwords]\nargon2_memory_kib = 64\nargon2_time = 1\n\
                        [sessions]\nper_user = 1000\n";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    let home = Home::new(Kind::BinarySqlite).await?;
    let server = home.start_with(SETTINGS).await?;
    server.anna().await?;
    let pid = server.pid().ok_or("it is no process")?;
    let before = resident_mib(pid)?;
    let stuck = open(server.new_channel().await?).await?;
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..CONNECTIONS {
        let channel = server.new_channel().await?;
        for stream in try_join_all((0..STREAMS).map(|_| open(channel.clone()))).await? {
            tokio::spawn(follow(stream, tell.clone()));
        }
    }
    let watchers = CONNECTIONS * STREAMS;
    let full = resident_mib(pid)?;
    println!("{watchers} watchers: {before:.1} MiB before, {full:.1} MiB with them");
    println!("each: {:.1} KiB", (full - before) * 1024.0 / watchers as f64);
    let begun = cpu_seconds(pid)?;
    tokio::time::sleep(IDLE).await;
    let idle = (cpu_seconds(pid)? - begun) / IDLE.as_secs_f64();
    println!("idle, a heartbeat each 5 s: {:.1} % of a core", idle * 100.0);
    revoke(&server, pid, watchers, &mut told).await?;
    drop(stuck);
    server.stop().await
}

async fn open(channel: Channel) -> Outcome<Streaming<WatchResponse>> {
    let mut keys = tessera::proto::keys_client::KeysClient::new(channel);
    Ok(keys.watch(WatchRequest::default()).await?.into_inner())
}

/// Tells of every session that it hears of.
async fn follow(mut stream: Streaming<WatchResponse>, tell: mpsc::UnboundedSender<String>) {
    while let Ok(Some(message)) = stream.message().await {
        let Some(Event::Changes(changes)) = message.event else { continue };
        for entry in changes.entries {
            if let Some(Subject::SessionId(id)) = entry.subject {
                let _ = tell.send(id);
            }
        }
    }
}

/// Ends sessions one after another, each once all have heard of the one before.
async fn revoke(
    server: &Server,
    pid: u32,
    watchers: usize,
    told: &mut mpsc::UnboundedReceiver<String>,
) -> Outcome<()> {
    let (mut took, begun) = (Vec::new(), cpu_seconds(pid)?);
    for number in 0..REVOCATIONS {
        let anna = server.sign_in("anna", &format!("d{number}")).await?;
        server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
        let replied = Instant::now();
        let mut heard = 0;
        while heard < watchers {
            let id = told.recv().await.ok_or("nobody follows any more")?;
            heard += usize::from(id == anna.session_id);
        }
        took.push(replied.elapsed());
    }
    took.sort();
    let cpu = (cpu_seconds(pid)? - begun) / REVOCATIONS as f64;
    println!("a revocation: {:.0} ms of CPU, {:.1} µs for each", cpu * 1e3, cpu * 1e6 / watchers as f64);
    let ms = |took: Duration| took.as_secs_f64() * 1e3;
    println!(
        "until all have heard: median {:.0} ms, at most {:.0} ms",
        ms(took[REVOCATIONS / 2]),
        ms(took[REVOCATIONS - 1])
    );
    Ok(())
}

fn resident_mib(pid: u32) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
}

/// What the process has used so far, at 100 ticks in a second.
fn cpu_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').ok_or("no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}
