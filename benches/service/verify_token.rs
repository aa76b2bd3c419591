//! `VerifyToken`: the processor time of a call against a bare call and one ES256 verification. Once with few tokens, which
//! the server remembers; once with so many that it remembers hardly one.

use std::sync::Arc;

use tessera::proto::{VerifyTokenRequest, auth_client::AuthClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome, bare,
    case::{Case, Limit, Place, Rounds},
    echo::EchoLoad,
    load::{Caller, load, over},
    people::{self, Person},
    process::Process,
    report::Report,
};

pub const NAME: &str = "verify_token";
pub const NEW: &str = "verify_token_new";
/// Calls at once.
const IN_FLIGHT: usize = 64;
/// Many times what the server remembers, so that one is forgotten before it comes again.
const NEW_TOKENS: usize = 50_000;

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

/// Measures both.
pub async fn measure(
    bench: &Bench,
    report: &mut Report,
    server: &Process,
    people: &[Person],
    place: Place,
) -> Outcome {
    if bench.wants(NAME) {
        let tokens = people.iter().map(|person| person.access_token.clone()).collect();
        report.add(with(NAME, bench, server, tokens, place).await?)?;
    }
    // It asks no database: another one would show the same, and the short mode has no time for that.
    if bench.wants(NEW) && !(bench.options.short && place.database == "postgres") {
        let tokens = people::sign_ahead(people, NEW_TOKENS)?.into();
        report.add(with(NEW, bench, server, tokens, place).await?)?;
    }
    Ok(())
}

async fn with(
    name: &'static str,
    bench: &Bench,
    server: &Process,
    tokens: Arc<[String]>,
    place: Place,
) -> Outcome<Case> {
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
    Ok(Case::of(name, place, rounds, "CPU of echo + one ES256 verify", Limit::AtMost(1.25)))
}
