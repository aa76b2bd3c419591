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

const NAME: &str = "refresh";
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

/// Callers among whom these people are divided.
pub async fn callers(server: &Process, people: &[Person]) -> Outcome<Vec<RefreshCaller>> {
    let of =
        |number| people.iter().skip(number).step_by(IN_FLIGHT).map(|person| person.refresh_token.clone());
    let caller = |channel, number| RefreshCaller {
        auth: AuthClient::new(channel),
        refresh_tokens: of(number).collect(),
    };
    over(server, IN_FLIGHT, caller).await
}

/// Measures it.
pub async fn measure(
    bench: &Bench,
    report: &mut Report,
    home: &Home,
    server: &Process,
    seeder: &Seeder,
    people: &[Person],
    place: Place,
) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let mut callers = callers(server, people).await?;
    let mut raw = RawUpdates::new(home, seeder, IN_FLIGHT).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let refreshed = load(server, &mut callers, bench.pace.slice).await?;
        let updated = raw.run(bench.pace.slice).await?;
        let ratio = refreshed.rate() / updated.rate();
        // What the database spends on it is not this process's to see.
        rounds.push(round, refreshed, updated, ratio, 0.0);
    }
    report.add(Case::of(NAME, place, rounds, "the same UPDATE … RETURNING", Limit::AtLeast(0.7)));
    Ok(())
}
