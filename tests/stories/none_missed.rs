//! No revocation is missed: whatever happens to replicas, to PostgreSQL and between them, a verifier that has reached
//! a revision refuses everything that was revoked up to there, and in the end knows what the database knows.

use std::{
    collections::HashMap,
    error::Error,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use tessera::{
    proto::{
        LogoutAllRequest, LogoutRequest, RevokeKeyRequest, RevokeTokenRequest, VerifyTokenRequest,
        auth_client::AuthClient, keys_client::KeysClient,
    },
    verifier::{ConnectedVerifier, Denial, OnStale, Refusal, Verifier},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::{Channel, Endpoint};

use crate::support::{
    ADMIN_PASSWORD, FENCE, Home, Kind, Outcome, OwnPostgres, PASSWORD, Person, Proxy, Server, authorized,
    eventually, login_as, query_postgres, refresh_with,
};

const REPLICAS: usize = 3;
const VERIFIERS: usize = 6;
const WORKERS: usize = 8;
/// Things that go wrong, one after another.
const MISHAPS: usize = 9;
const SETTINGS: &str = r#"
    [passwords]
    argon2_memory_kib = 64
    argon2_time = 1
    [sessions]
    per_user = 1000000
    [database]
    poll_interval = "200ms"
"#;

/// A token whose own endorsement was withdrawn is good where a newer one of the same session was seen, and only there.
const ENDORSED_BY_WITHDRAWN: Result<(), Refusal> = Err(Refusal::Invalid("unknown issuer key"));

/// A replica at an address that it keeps, behind a connection to the database that can be cut.
struct Replica {
    home: Home,
    proxy: Proxy,
    address: SocketAddr,
    server: Option<Server>,
}

/// What the workers have got and given up.
#[derive(Default)]
struct Seen {
    /// Every access token that was handed out.
    issued: Vec<String>,
    /// Those whose revocation was answered, and a revision at or after it.
    revoked: Vec<Revoked>,
}

/// A token that must not be accepted any more, since when, and what ended it.
#[derive(Clone)]
struct Revoked {
    token: String,
    revision: i64,
    by: &'static str,
}

struct World {
    database: String,
    endpoints: Vec<Endpoint>,
    seen: Mutex<Seen>,
    is_over: AtomicBool,
}

impl Replica {
    async fn start(home: Home, postgres: &OwnPostgres) -> Result<Self, Box<dyn Error>> {
        let proxy = Proxy::to(postgres.socket()).await?;
        let mut replica = Self { home, proxy, address: ([127, 0, 0, 1], 0).into(), server: None };
        replica.come_back().await?;
        replica.address = replica.server.as_ref().ok_or("it has not started")?.address;
        Ok(replica)
    }

    async fn come_back(&mut self) -> Outcome {
        let settings = self.home.dir().join("replica.toml");
        std::fs::write(&settings, SETTINGS)?;
        let mut command = self.home.binary();
        command
            .args(["serve", "--listen", &self.address.to_string(), "--config"])
            .arg(settings)
            .env("DATABASE_URL", format!("postgres://postgres@{}/postgres", self.proxy.address))
            .env("TESSERA_SEALING__KEKS", format!("k1:{}=", "A".repeat(43)))
            .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
        self.server = Some(Server::of_binary(command).await?);
        Ok(())
    }

    async fn die(&mut self) -> Outcome {
        self.server.take().ok_or("it is dead already")?.kill().await
    }
}

impl World {
    fn auth(&self, rng: &mut Xoshiro256PlusPlus) -> AuthClient<Channel> {
        let at = rng.random_range(0..self.endpoints.len());
        AuthClient::new(self.endpoints[at].connect_lazy())
    }

    /// A revision at or after everything that was answered; none while PostgreSQL is away.
    async fn head(&self) -> Option<i64> {
        let sql = "SELECT revision FROM trust_head";
        query_postgres(&self.database, sql).await.ok()?.first()?.parse().ok()
    }

    async fn has_revoked(&self, by: &'static str, tokens: Vec<String>) {
        if let Some(revision) = self.head().await {
            let revoked = tokens.into_iter().map(|token| Revoked { token, revision, by });
            self.seen.lock().unwrap().revoked.extend(revoked);
        }
    }
}

/// Signs in, refreshes and revokes at any replica, whatever becomes of it.
async fn work(world: Arc<World>, seed: u64) {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let name = format!("person-{seed}");
    let mut mine: HashMap<String, (Person, Vec<String>)> = HashMap::new();
    let mut made = 0;
    while !world.is_over.load(Ordering::Relaxed) {
        let mut auth = world.auth(&mut rng);
        let chosen = mine.keys().nth(rng.random_range(0..mine.len().max(1))).cloned();
        let Some(id) = chosen.filter(|_| rng.random_bool(0.7)) else {
            made += 1;
            let login = auth.login(login_as(&name, PASSWORD, &format!("d{made}")));
            if let Ok(Ok(reply)) = timeout(FENCE, login).await {
                let person = Person::from(reply.into_inner());
                world.seen.lock().unwrap().issued.push(person.access_token.clone());
                let tokens = vec![person.access_token.clone()];
                mine.insert(person.session_id.clone(), (person, tokens));
            }
            continue;
        };
        let Some((person, tokens)) = mine.get_mut(&id) else { continue };
        match rng.random_range(0..10) {
            0..4 => {
                let reply = auth.refresh(refresh_with(&person.refresh_token)).await;
                let Some(next) = reply.ok().and_then(|reply| reply.into_inner().tokens) else { continue };
                world.seen.lock().unwrap().issued.push(next.access_token.clone());
                tokens.push(next.access_token.clone());
                (person.access_token, person.refresh_token) = (next.access_token, next.refresh_token);
            }
            4..6 => {
                let token = person.access_token.clone();
                let request = RevokeTokenRequest { token: token.clone(), jti: String::new() };
                if auth.revoke_token(authorized(&token, request)).await.is_ok() {
                    world.has_revoked("RevokeToken", vec![token]).await;
                }
            }
            6..9 => {
                if auth.logout(authorized(&person.access_token, LogoutRequest {})).await.is_ok() {
                    let tokens = std::mem::take(tokens);
                    mine.remove(&id);
                    world.has_revoked("Logout", tokens).await;
                }
            }
            _ => {
                if auth.logout_all(authorized(&person.access_token, LogoutAllRequest {})).await.is_ok() {
                    let all = mine.drain().flat_map(|(_, (_, tokens))| tokens).collect();
                    world.has_revoked("LogoutAll", all).await;
                }
            }
        }
    }
}

/// Asks verifiers about tokens that were revoked, all the time. Gives how often one had reached the revocation.
async fn doubt(world: Arc<World>, verifiers: Arc<Vec<ConnectedVerifier>>) -> usize {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut asked = 0;
    while !world.is_over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let chosen = {
            let seen = world.seen.lock().unwrap();
            // Mostly among the latest: there the race is.
            let from = if rng.random_bool(0.8) { seen.revoked.len().saturating_sub(20) } else { 0 };
            (from < seen.revoked.len())
                .then(|| seen.revoked[rng.random_range(from..seen.revoked.len())].clone())
        };
        let Some(Revoked { token, revision, by }) = chosen else { continue };
        let verifier = &verifiers[rng.random_range(0..verifiers.len())];
        if verifier.revision() >= revision {
            let answer = verifier.check(&token).await;
            assert!(answer.is_err(), "accepted at {}, ended by {by} before {revision}", verifier.revision());
            asked += 1;
        }
    }
    asked
}

/// What a verifier says once it can: it asks the issuer about keys within a budget.
async fn verdict(verifier: &ConnectedVerifier, token: &str) -> Result<Result<(), Refusal>, Box<dyn Error>> {
    let mut said = None;
    eventually("it says something of the token", async || {
        said = match verifier.check(token).await {
            Ok(_) => Some(Ok(())),
            Err(Denial::Refused(refusal)) => Some(Err(refusal)),
            Err(_) => None,
        };
        Ok(said.is_some())
    })
    .await?;
    Ok(said.ok_or("nothing was said")?)
}

/// Rotates in an emergency: everything that the active key signed stops verifying.
async fn withdraw_key(world: &World) -> Outcome {
    for endpoint in &world.endpoints {
        let channel = endpoint.connect_lazy();
        let login = AuthClient::new(channel.clone()).login(login_as("admin", ADMIN_PASSWORD, "cli")).await;
        let Ok(admin) = login.map(|reply| Person::from(reply.into_inner())) else { continue };
        let sql = "SELECT kid FROM issuer_keys WHERE state = 'ACTIVE'";
        let kid = query_postgres(&world.database, sql).await?.pop().ok_or("no key is active")?;
        let request = authorized(&admin.access_token, RevokeKeyRequest { kid });
        if KeysClient::new(channel).revoke_key(request).await.is_ok() {
            return Ok(());
        }
    }
    Err("no replica withdrew the key".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_restarted_and_cut_no_revocation_is_missed() -> Outcome {
    let postgres = OwnPostgres::start();
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        replicas.push(Replica::start(Home::new(Kind::BinarySqlite).await?, &postgres).await?);
    }
    let first = replicas[0].server.as_ref().ok_or("it is dead")?;
    let admin = first.admin().await?;
    for worker in 0..WORKERS {
        first.make_user(&admin, &format!("person-{worker}")).await?;
    }
    let endpoint = |replica: &Replica| Endpoint::from_shared(format!("http://{}", replica.address));
    let world = Arc::new(World {
        database: postgres.url(),
        endpoints: replicas.iter().map(endpoint).collect::<Result<_, _>>()?,
        seen: Mutex::default(),
        is_over: AtomicBool::new(false),
    });
    let mut verifiers = Vec::new();
    for number in 0..VERIFIERS {
        let verifier = Verifier::connect(world.endpoints[number % REPLICAS].clone())
            .issuer("http://127.0.0.1:50051")
            .audience("tessera")
            // What it knows is what is asked for here, however old.
            .on_stale(OnStale::FailOpen);
        verifiers.push(verifier.start().await?);
    }
    let verifiers = Arc::new(verifiers);
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(world.clone(), worker as u64));
    }
    let doubter = tokio::spawn(doubt(world.clone(), verifiers.clone()));

    for mishap in 0..MISHAPS {
        let busy = world.seen.lock().unwrap().issued.len() + 20;
        eventually("work goes on", async || Ok(world.seen.lock().unwrap().issued.len() >= busy)).await?;
        let victim = &mut replicas[mishap % REPLICAS];
        match mishap % 4 {
            0 => {
                victim.die().await?;
                victim.come_back().await?;
            }
            1 => postgres.restart().await?,
            2 => {
                victim.proxy.cut();
                let others = world.seen.lock().unwrap().issued.len() + 20;
                eventually("others go on", async || Ok(world.seen.lock().unwrap().issued.len() >= others))
                    .await?;
                victim.proxy.mend();
            }
            _ => withdraw_key(&world).await?,
        }
    }
    world.is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = workers.join_next().await {
        ended?;
    }
    let doubted = doubter.await?;

    let head = world.head().await.ok_or("no head")?;
    for verifier in verifiers.iter() {
        eventually("it has reached the head", async || Ok(verifier.revision() >= head)).await?;
    }
    let seen = std::mem::take(&mut *world.seen.lock().unwrap());
    let replica = replicas[0].server.as_ref().ok_or("it is dead")?;
    let mut accepted = 0;
    for token in &seen.issued {
        let request = VerifyTokenRequest { token: token.clone(), strict: true, ..Default::default() };
        let answer = replica.auth().verify_token(request).await?.into_inner();
        accepted += usize::from(answer.active);
        for verifier in verifiers.iter() {
            let said = verdict(verifier, token).await?;
            match answer.reason.as_str() {
                "" | "TOKEN_INVALID" if said == ENDORSED_BY_WITHDRAWN => {}
                "" => assert_eq!(said, Ok(()), "{token}"),
                "TOKEN_REVOKED" => assert_ne!(said, Ok(()), "{token}"),
                // The same, met by the replica: the verifier may have seen a newer endorsement.
                "TOKEN_INVALID" => {}
                reason => return Err(format!("unexpected: {reason}").into()),
            }
        }
    }
    for Revoked { token, by, .. } in &seen.revoked {
        assert!(!replica.is_active(token, true).await?, "ended by {by}: {token}");
    }
    println!(
        "{} tokens, {accepted} good at the end; {} revocations answered, {doubted} times doubted",
        seen.issued.len(),
        seen.revoked.len()
    );
    assert!(accepted > 0 && doubted > 100 && seen.revoked.len() > 100, "too little happened");
    for replica in &mut replicas {
        replica.server.take().ok_or("it is dead")?.stop().await?;
    }
    Ok(())
}
