//! `VerifyToken`: the processor time of a call against a bare call and one ES256 verification.

use std::sync::Arc;

use tessera::proto::{VerifyTokenRequest, auth_client::AuthClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome, bare,
    case::{Case, Limit, Place, Rounds},
    echo::EchoLoad,
    load::{Caller, load, over},
    people::Person,
    process::Process,
    report::Report,
};

const NAME: &str = "verify_token";
/// Calls at once.
const IN_FLIGHT: usize = 64;

struct VerifyCaller {
    auth: AuthClient<Channel>,
    tokens: Arc<[String]>,
    next: usize,
}

impl Caller for VerifyCaller {
    async fn call(&mut self) -> Result<(), Status> {
        self.next += 1;
        let request = asks(&self.tokens[self.next % self.tokens.len()]);
        let answer = self.auth.verify_token(request).await?.into_inner();
        if answer.active { Ok(()) } else { Err(Status::internal(answer.reason)) }
    }
}

/// The question about a token.
pub fn asks(token: &str) -> VerifyTokenRequest {
    VerifyTokenRequest { token: token.to_owned(), audience: "tessera".to_owned(), ..Default::default() }
}

/// Measures it.
pub async fn measure(
    bench: &Bench,
    report: &mut Report,
    server: &Process,
    people: &[Person],
    place: Place,
) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let tokens: Arc<[String]> = people.iter().map(|person| person.access_token.clone()).collect();
    let request = asks(&tokens[0]);
    let answer = AuthClient::new(server.channel().await?).verify_token(request.clone()).await?.into_inner();
    let caller = |channel, number| VerifyCaller {
        auth: AuthClient::new(channel),
        tokens: tokens.clone(),
        next: number * tokens.len() / IN_FLIGHT,
    };
    let mut callers = over(server, IN_FLIGHT, caller).await?;
    let mut echo = EchoLoad::new(bench, IN_FLIGHT, &request, &answer).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let verified = load(server, &mut callers, bench.pace.slice).await?;
        let echoed = echo.run(bench).await?;
        let bare = bench.signatures.verify(bare::all_processors(), bench.pace.slice / 4)?;
        let ceiling_us = echoed.cpu_us() + bare.quantile_us(0.5);
        let ratio = verified.cpu_us() / ceiling_us;
        rounds.push(round, verified, echoed, ratio, ceiling_us);
    }
    report.add(Case::of(NAME, place, rounds, "CPU of echo + one ES256 verify", Limit::AtMost(1.25)));
    Ok(())
}
