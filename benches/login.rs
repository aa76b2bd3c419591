//! Logins whose session gets an RS256 key against logins whose session gets an ES256 key: while the pool of RSA keys
//! holds, and when it is empty.
//!
//! A server of the same profile runs for each case, on an SQLite of its own. The cases take turns, and nobody makes
//! keys in another one's turn. One client asks, the next login as soon as the last is answered.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PKCS1_SHA256};
use secrecy::ExposeSecret;
use tessera::{
    crypto::{random::SystemRandomness, signing::NewKey},
    domain::algorithm::Algorithm,
    proto::auth_client::AuthClient,
};
use tokio::time::sleep;
use tonic::{Code, transport::Channel};

// Starts servers and talks to them.
#[allow(unused, reason = "the tests use the rest of it")]
#[path = "../tests/support/mod.rs"]
mod support;

use support::{ADMIN_PASSWORD, Home, Kind, Server, login_as, reason};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ROUNDS: usize = 20;
/// What sessions' keys may cost is hidden by the default hash, and seen beside the cheapest.
const HASHES: [(&str, &str); 2] = [
    ("the cheapest password hash", "[passwords]\nargon2_memory_kib = 8\nargon2_time = 1\n"),
    ("the default password hash", ""),
];
const CASES: [(&str, &str, Turn); 3] = [
    ("ES256", "session_algorithm = 'ES256'", Turn { logins: 25, pool: 0 }),
    ("RS256, pool holds", "session_algorithm = 'RS256'", Turn { logins: 25, pool: 64 }),
    ("RS256, pool empty", "session_algorithm = 'RS256'\nrsa_pool = 1", Turn { logins: 5, pool: 1 }),
];

/// How often a case logs in before the next one's turn, and how many RSA keys are there when it begins.
#[derive(Clone, Copy)]
struct Turn {
    logins: usize,
    pool: usize,
}

/// One server and what was measured there.
struct Case {
    name: &'static str,
    turn: Turn,
    server: Server,
    auth: AuthClient<Channel>,
    _home: Home,
    admitted: Vec<Duration>,
    refused: Vec<Duration>,
    /// From the first refusal's call to the reply with tokens.
    waited: Vec<Duration>,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    for (hash, passwords) in HASHES {
        let mut cases = Vec::new();
        for (name, signing, turn) in CASES {
            cases.push(Case::start(name, turn, &format!("[signing]\n{signing}\n{passwords}")).await?);
        }
        let mut signatures = Signatures::new()?;
        for _ in 0..ROUNDS {
            for case in &mut cases {
                case.take_turn().await?;
            }
            signatures.measure()?;
        }
        println!("With {hash}, milliseconds:");
        report(&mut cases, signatures)?;
        for case in cases {
            case.server.stop().await?;
        }
    }
    Ok(())
}

impl Case {
    async fn start(name: &'static str, turn: Turn, settings: &str) -> Outcome<Self> {
        let home = Home::new(Kind::BinarySqlite).await?;
        let server = home.start_with(settings).await?;
        let (admitted, refused, waited) = Default::default();
        let auth = server.auth();
        let mut case = Self { name, turn, auth, server, _home: home, admitted, refused, waited };
        case.fill_pool().await?;
        // What only the first one pays.
        case.take_turn().await?;
        Ok(case)
    }

    async fn take_turn(&mut self) -> Outcome<()> {
        for _ in 0..self.turn.logins {
            self.log_in().await?;
        }
        self.fill_pool().await
    }

    /// Tries until it is admitted.
    async fn log_in(&mut self) -> Outcome<()> {
        let begun = Instant::now();
        for tries in 1.. {
            let request = login_as("admin", ADMIN_PASSWORD, "cli");
            let asked = Instant::now();
            let answer = self.auth.login(request).await;
            let took = asked.elapsed();
            match answer {
                Ok(_) => {
                    self.admitted.push(took);
                    self.waited.extend((tries > 1).then(|| begun.elapsed()));
                    break;
                }
                Err(status)
                    if status.code() == Code::ResourceExhausted && reason(&status) == "OVERLOADED" =>
                {
                    self.refused.push(took);
                }
                Err(status) => return Err(status.into()),
            }
        }
        Ok(())
    }

    /// Waits until a key has been made for each login and the pool besides.
    async fn fill_pool(&self) -> Outcome<()> {
        let wanted = if self.turn.pool == 0 { 0 } else { self.admitted.len() + self.turn.pool };
        // However long: the threads that make keys give way to everything else that the machine does.
        while self.keys_made().await? < wanted {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    async fn keys_made(&self) -> Outcome<usize> {
        let metrics = self.server.get("/metrics").await?;
        let made = metrics.lines().find_map(|line| line.strip_prefix("tessera_rsa_pool_made_total "));
        Ok(made.ok_or("the number of keys made is not among the metrics")?.parse()?)
    }
}

/// The ceiling: RSA signatures and nothing else.
struct Signatures {
    key: KeyPair,
    took: Vec<Duration>,
}

impl Signatures {
    fn new() -> Outcome<Self> {
        let new = NewKey::generate(Algorithm::Rs256, 2048, &SystemRandomness)?;
        Ok(Self { key: KeyPair::from_pkcs8(new.pkcs8.expose_secret())?, took: Vec::new() })
    }

    fn measure(&mut self) -> Outcome<()> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        for _ in 0..25 {
            let begun = Instant::now();
            self.key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &[7; 1024], &mut signature)?;
            self.took.push(begun.elapsed());
        }
        Ok(())
    }
}

fn report(cases: &mut [Case], mut signatures: Signatures) -> Outcome<()> {
    println!("  {:<20} {:>7}  {:>7}  {:>7}", "", "number", "median", "p99");
    let mut medians = Vec::new();
    for case in cases {
        medians.push(print(case.name, &mut case.admitted));
        if case.turn.pool == 1 {
            print("  refused", &mut case.refused);
            print("  until admitted", &mut case.waited);
        } else if !case.refused.is_empty() {
            return Err(format!("{}: {} were refused", case.name, case.refused.len()).into());
        }
    }
    let signature = print("one RSA signature", &mut signatures.took);
    let more = medians[1] - medians[0];
    println!("  RS256 takes {more:.3} ms more than ES256: {:.1} RSA signatures\n", more / signature);
    Ok(())
}

/// Prints a line and gives the median.
fn print(what: &str, took: &mut [Duration]) -> f64 {
    took.sort_unstable();
    let at = |share: f64| {
        took.get((took.len() as f64 * share) as usize).map_or(0.0, |took| took.as_secs_f64() * 1e3)
    };
    println!("  {what:<20} {:>7}  {:>7.3}  {:>7.3}", took.len(), at(0.5), at(0.99));
    at(0.5)
}
