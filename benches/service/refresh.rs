//! `Refresh`: refreshes a second against the same UPDATE … RETURNING without a service around it.

use std::collections::VecDeque;

use tessera::proto::{RefreshRequest, auth_client::AuthClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome,
    case::{Case, Limit, Place, Rounds},
    home::Home,
    load::{Caller, load, over},
    people::Person,
    process::Process,
    raw_update::RawUpdates,
    report::Report,
    seed::Seeder,
};

/// How sessions are refreshed in a case.
pub struct Way {
    pub name: &'static str,
    /// Calls at once, and updates.
    in_flight: usize,
    /// Which of the seeded sessions the bare statement updates: none that another case has updated.
    part: usize,
    limit: Limit,
}

/// Few people in turn: the server has all that it makes their tokens with in memory.
pub const WARM: Way = Way { name: "refresh", in_flight: IN_FLIGHT, part: 0, limit: Limit::AtLeast(0.7) };
/// The same with fewer at once.
pub const FEWER: Way = Way { name: "refresh_16", in_flight: 16, part: 1, limit: Limit::NoTarget };
/// So many people in turn that the server has forgotten each one when it is its turn again.
pub const COLD: Way = Way { name: "refresh_cold", in_flight: IN_FLIGHT, part: 2, limit: Limit::NoTarget };

/// Calls at once.
pub const IN_FLIGHT: usize = 64;

/// Refreshes sessions in turn.
pub struct RefreshCaller {
    auth: AuthClient<Channel>,
    refresh_tokens: VecDeque<String>,
}

impl Caller for RefreshCaller {
    async fn call(&mut self) -> Result<(), Status> {
        let refresh_token = self.refresh_tokens.pop_front().unwrap_or_default();
        let answer = self.auth.refresh(RefreshRequest { refresh_token, device: None }).await?.into_inner();
        let tokens = answer.tokens.ok_or_else(|| Status::internal("no tokens"))?;
        self.refresh_tokens.push_back(tokens.refresh_token);
        Ok(())
    }
}

/// So many callers, among whom these people are divided.
pub async fn callers(server: &Process, people: &[Person], count: usize) -> Outcome<Vec<RefreshCaller>> {
    let of = |number| people.iter().skip(number).step_by(count).map(|person| person.refresh_token.clone());
    let caller = |channel, number| RefreshCaller {
        auth: AuthClient::new(channel),
        refresh_tokens: of(number).collect(),
    };
    over(server, count, caller).await
}

/// Where it is measured.
pub struct Stage<'s> {
    pub home: &'s Home,
    pub server: &'s Process,
    pub seeder: &'s Seeder,
    pub place: Place,
}

/// Measures one way. These people are good for one: a refresh token is used once.
pub async fn measure(
    bench: &Bench,
    report: &mut Report,
    stage: &Stage<'_>,
    people: &[Person],
    way: &Way,
) -> Outcome {
    if !bench.wants(way.name) {
        return Ok(());
    }
    let mut callers = callers(stage.server, people, way.in_flight).await?;
    let mut raw = RawUpdates::new(stage.home, stage.seeder, way.in_flight, way.part).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let refreshed = load(stage.server, &mut callers, bench.pace.slice).await?;
        let updated = raw.run(bench.pace.slice).await?;
        let ratio = refreshed.rate() / updated.rate();
        // What the database spends on it is not this process's to see.
        rounds.push(round, refreshed, updated, ratio, 0.0);
    }
    report.add(Case::of(way.name, stage.place, rounds, "the same UPDATE … RETURNING", way.limit))
}
