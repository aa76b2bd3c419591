//! One run: steps made up from a seed, each compared with the model.

use std::{error::Error, time::Duration};

use rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus};
use tessera::{
    clock::Clock,
    proto::{GetSessionRequest, SessionState},
};

use super::{
    call::{Planned, make},
    chain::{Call, Chain, Rules},
    explain::{Said, explain},
    held::Held,
};
use crate::support::{Home, Kind, Outcome, PASSWORD, Server, authorized, login_as};

const STEPS: usize = 40;
const USERS: usize = 2;

pub struct Run<'h> {
    home: &'h Home,
    pub servers: Vec<Server>,
    rules: Rules,
    rng: Xoshiro256PlusPlus,
    /// What was done and answered, for who has to understand a failure.
    pub told: Vec<String>,
    /// What the clock has shown, up to now; seconds.
    instants: Vec<i64>,
    users: Vec<String>,
    /// Each user's sessions; the last one is in use.
    sessions: [Vec<Held>; USERS],
}

/// What happens to a server while calls are made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Nothing,
    /// It is stopped, or killed where it is a process, after so long; and comes back.
    Gone(Duration),
}

fn settings(rules: &Rules) -> String {
    let Rules { grace, access_ttl, idle_ttl, absolute_ttl } = rules;
    format!(
        "[tokens]\naccess_ttl = \"{access_ttl}s\"\nleeway = \"0s\"\n[database]\npoll_interval = \"10ms\"\n\
         [sessions]\nrefresh_grace = \"{grace}s\"\nidle_ttl = \"{idle_ttl}s\"\nabsolute_ttl = \"{absolute_ttl}s\"\n\
         [passwords]\nargon2_memory_kib = 64\nargon2_time = 1\n"
    )
}

/// As many replicas as the database lets be, up to two.
pub async fn start(home: &Home, rules: &Rules) -> Result<Vec<Server>, Box<dyn Error>> {
    let settings = settings(rules);
    let mut servers = vec![home.start_with(&settings).await?];
    servers.extend(home.another(&settings).await?);
    Ok(servers)
}

impl<'h> Run<'h> {
    /// With people of its own in a home where others were before.
    pub async fn new(
        home: &'h Home,
        servers: Vec<Server>,
        rules: Rules,
        seed: u64,
        number: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let admin = servers[0].admin().await?;
        let users: Vec<String> = (0..USERS).map(|user| format!("user-{user}-of-run-{number}")).collect();
        for user in &users {
            servers[0].make_user(&admin, user).await?;
        }
        let mut run = Self {
            home,
            servers,
            rules,
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
            told: Vec::new(),
            instants: Vec::new(),
            users,
            sessions: Default::default(),
        };
        // No test turns the clock of a process: for the model it stands still.
        run.instants.push(if run.turns() { home.clock.now().timestamp() } else { 0 });
        Ok(run)
    }

    /// Takes every step, and compares the sessions in the end.
    pub async fn go(&mut self) -> Outcome {
        for user in 0..USERS {
            self.log_in(user).await?;
        }
        for _ in 0..STEPS {
            let user = self.rng.random_range(0..USERS);
            if !self.is_in_use(user) && self.rng.random_bool(0.6) {
                self.log_in(user).await?;
                continue;
            }
            match self.rng.random_range(0..100) {
                0..38 => self.calls(user, 1, Fate::Nothing).await?,
                38..64 => {
                    let count = self.rng.random_range(2..=6);
                    self.calls(user, count, Fate::Nothing).await?;
                }
                64..67 => {
                    let delay = Duration::from_micros(self.rng.random_range(0..3000));
                    self.calls(user, 3, Fate::Gone(delay)).await?;
                }
                67..70 => self.log_in(user).await?,
                _ => self.turn_the_clock(),
            }
        }
        self.compare_sessions().await
    }

    fn turns(&self) -> bool {
        matches!(self.home.kind, Kind::Sqlite | Kind::Postgres)
    }

    fn now(&self) -> i64 {
        self.instants.last().copied().unwrap_or_default()
    }

    fn tell(&mut self, what: &str) {
        self.told.push(format!("  at {}s: {what}", self.now()));
    }

    fn is_in_use(&self, user: usize) -> bool {
        let now = self.now();
        let is_live = |chain: &Chain| !chain.has_ended() && !chain.has_expired(now);
        self.sessions[user].last().is_some_and(|held| held.chains.iter().any(is_live))
    }

    fn any_server(&mut self) -> usize {
        self.rng.random_range(0..self.servers.len())
    }

    fn turn_the_clock(&mut self) {
        if !self.turns() {
            return;
        }
        let Rules { grace, access_ttl, idle_ttl, .. } = self.rules;
        let steps =
            [1, 1, 2, (grace - 1).max(1), grace.max(1), grace + 1, access_ttl, idle_ttl - 1, idle_ttl];
        let seconds = steps[self.rng.random_range(0..steps.len())];
        self.home.clock.advance(seconds);
        self.instants.push(self.home.clock.now().timestamp());
        self.tell(&format!("{seconds}s have passed"));
    }

    /// A login, which takes the place of the session before.
    async fn log_in(&mut self, user: usize) -> Outcome {
        let server = self.any_server();
        let login = login_as(&self.users[user], PASSWORD, "web");
        let reply = self.servers[server].auth().login(login).await?.into_inner();
        let tokens = reply.tokens.ok_or("no tokens")?;
        let now = self.now();
        self.tell(&format!("user {user} signs in, session {}", self.sessions[user].len()));
        if let Some(held) = self.sessions[user].last_mut() {
            held.chains = held.chains.drain().map(|chain| chain.replaced(now)).collect();
        }
        let mut held = Held::new(&tokens.session_id, Chain::new(&self.rules, now));
        held.keep(0, tokens, self.turns())?;
        self.sessions[user].push(held);
        Ok(())
    }

    /// Which refresh token is presented: mostly what an honest client has, or had.
    fn generation(&mut self, known: usize) -> usize {
        match self.rng.random_range(0..100) {
            0..55 => known - 1,
            55..85 => known.saturating_sub(2),
            _ => self.rng.random_range(0..known),
        }
    }

    fn plan(&mut self, user: usize, session: usize) -> Planned {
        let held = &self.sessions[user][session];
        let (known, now) = (held.refresh.len(), self.now());
        let good = held.good(now);
        let (call, token) = match self.rng.random_range(0..100) {
            0..6 if !good.is_empty() => (Call::Logout, good[self.rng.random_range(0..good.len())].clone()),
            6..20 if !good.is_empty() => (Call::Verify, good[self.rng.random_range(0..good.len())].clone()),
            _ => {
                let generation = self.generation(known);
                (Call::Refresh(generation), self.sessions[user][session].refresh[generation].clone())
            }
        };
        let patience =
            self.rng.random_bool(0.15).then(|| Duration::from_micros(self.rng.random_range(0..3000)));
        let server = self.any_server();
        Planned { call, token, auth: self.servers[server].auth(), patience }
    }

    /// Calls with tokens of one session, at once.
    async fn calls(&mut self, user: usize, count: usize, fate: Fate) -> Outcome {
        let sessions = self.sessions[user].len();
        let is_old = self.rng.random_bool(0.1);
        let session = if is_old { self.rng.random_range(0..sessions) } else { sessions - 1 };
        let planned: Vec<Planned> = (0..count).map(|_| self.plan(user, session)).collect();
        let calls: Vec<Call> = planned.iter().map(|planned| planned.call).collect();
        let heard = match fate {
            Fate::Nothing => make(planned, false).await?,
            Fate::Gone(delay) => {
                let victim = self.any_server();
                let server = self.servers.remove(victim);
                let is_killed = !self.turns();
                let leave = async {
                    tokio::time::sleep(delay).await;
                    if is_killed { server.kill().await } else { server.stop().await }
                };
                let (heard, left) = tokio::join!(make(planned, true), leave);
                left?;
                self.servers.push(self.home.start_with(&settings(&self.rules)).await?);
                heard?
            }
        };
        let said: Vec<Said> = calls.iter().copied().zip(heard.iter().map(|heard| heard.answer)).collect();
        self.tell(&format!("user {user}, session {session}: {said:?} {fate:?}"));
        let (now, turns) = (self.now(), self.turns());
        let held = &mut self.sessions[user][session];
        for (call, heard) in calls.iter().zip(heard) {
            if let (Call::Refresh(generation), Some(tokens)) = (call, heard.tokens) {
                held.keep(generation + 1, tokens, turns)?;
            }
        }
        let chains = explain(&held.chains, &said, &self.rules, &self.instants);
        if chains.is_empty() {
            return Err(format!("the model says otherwise; the session was {:?}", held.chains).into());
        }
        held.chains = chains;
        if held.chains.iter().all(Chain::has_ended) {
            held.is_refused_everywhere(&self.servers, now).await?;
        }
        Ok(())
    }

    /// What the service itself says of each session in the end.
    async fn compare_sessions(&mut self) -> Outcome {
        let (now, server) = (self.now(), &self.servers[0]);
        let admin = server.admin().await?;
        for held in self.sessions.iter().flatten() {
            let get = GetSessionRequest { session_id: held.id.clone() };
            let reply = server.session().get_session(authorized(&admin.access_token, get)).await?;
            let session = reply.into_inner().session.ok_or("no session")?;
            let is_like = |chain: &Chain| {
                let state = match (chain.has_ended(), chain.has_expired(now)) {
                    (true, _) => SessionState::Ended,
                    (false, true) => SessionState::Expired,
                    (false, false) => SessionState::Active,
                };
                session.state() == state && usize::try_from(session.generation) == Ok(chain.newest)
            };
            let chains = explain(&held.chains, &[], &self.rules, &self.instants);
            if !chains.iter().any(is_like) {
                return Err(format!("the session is {session:?}, and in the model {chains:?}").into());
            }
        }
        Ok(())
    }
}
