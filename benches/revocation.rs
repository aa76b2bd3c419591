//! From the reply of `Logout` to the refusal at every verifier: three replicas on one PostgreSQL, a hundred connected
//! verifiers spread over them, a thousand logouts. With LISTEN and NOTIFY, and by polling alone.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use tessera::{
    proto::LogoutRequest,
    verifier::{ConnectedVerifier, Verifier},
};

// Starts servers and talks to them.
#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{Home, Kind, Person, Server, authorized};

type Outcome<T> = Result<T, Box<dyn Error>>;

const REPLICAS: usize = 3;
const VERIFIERS: usize = 100;
const LOGOUTS: usize = 1000;
const CHEAP: &str =
    "[passwords]\nargon2_memory_kib = 64\nargon2_time = 1\n[sessions]\nper_user = 100000\n[database]\n";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Outcome<()> {
    println!("{REPLICAS} replicas, {VERIFIERS} verifiers, {LOGOUTS} logouts");
    println!("| how replicas hear of each other | p50 | p99 | max |\n| --- | --- | --- | --- |");
    measure(&Way {
        name: "LISTEN and NOTIFY",
        settings: "",
        logs_out: REPLICAS,
        at_once: 1,
        look: Duration::from_millis(1),
    })
    .await?;
    // All at one replica: one that logs somebody out itself reads the log at once.
    let settings = "listen_notify = false\n";
    measure(&Way {
        name: "polling every second",
        settings,
        logs_out: 1,
        at_once: 10,
        look: Duration::from_millis(10),
    })
    .await
}

/// How replicas hear of each other, and how they are asked.
struct Way {
    name: &'static str,
    settings: &'static str,
    /// Replicas that people log out at.
    logs_out: usize,
    /// Logouts under way at once.
    at_once: usize,
    /// How often each verifier is asked whether it refuses already: the resolution of what is measured. Asking takes
    /// processors away from the servers.
    look: Duration,
}

async fn measure(way: &Way) -> Outcome<()> {
    let Way { name, settings, logs_out, at_once, look } = *way;
    let home = Home::new(Kind::Binary).await?;
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(home.start_with(&format!("{CHEAP}{settings}")).await?);
    }
    let (first, replicas) = (replicas[0].anna().await?, Arc::new(replicas));
    drop(first);
    let mut verifiers = Vec::new();
    for number in 0..VERIFIERS {
        verifiers.push(connect(&replicas[number % REPLICAS]).await?);
    }
    let verifiers = Arc::new(verifiers);
    let mut people = Vec::new();
    for number in 0..LOGOUTS {
        people.push(replicas[number % REPLICAS].sign_in("anna", &format!("d{number}")).await?);
    }
    let logouts = stream::iter(people.into_iter().enumerate()).map(|(number, person)| {
        let (replicas, verifiers) = (replicas.clone(), verifiers.clone());
        async move { log_out(&replicas[number % logs_out], &verifiers, &person, look).await }
    });
    let took: Vec<Outcome<Duration>> = logouts.buffer_unordered(at_once).collect().await;
    let mut took = took.into_iter().collect::<Outcome<Vec<Duration>>>()?;
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    println!("| {name} | {:.1} ms | {:.1} ms | {:.1} ms |", at(50), at(99), at(100));
    drop(verifiers);
    for replica in Arc::into_inner(replicas).ok_or("a replica is in use")? {
        replica.stop().await?;
    }
    Ok(())
}

async fn connect(replica: &Server) -> Outcome<ConnectedVerifier> {
    let connecting = Verifier::connect(format!("http://{}", replica.address))
        .issuer("http://127.0.0.1:50051")
        .audience("tessera");
    Ok(connecting.start().await?)
}

/// Signs out, and waits until the last verifier refuses the token.
async fn log_out(
    replica: &Server,
    verifiers: &[ConnectedVerifier],
    person: &Person,
    look: Duration,
) -> Outcome<Duration> {
    for verifier in verifiers {
        verifier.check(&person.access_token).await?;
    }
    replica.auth().logout(authorized(&person.access_token, LogoutRequest {})).await?;
    let replied = Instant::now();
    let mut accepting: Vec<_> = verifiers.iter().collect();
    loop {
        accepting.retain(|verifier| matches!(verifier.try_check(&person.access_token), Some(Ok(_))));
        if accepting.is_empty() {
            return Ok(replied.elapsed());
        }
        tokio::time::sleep(look).await;
    }
}
