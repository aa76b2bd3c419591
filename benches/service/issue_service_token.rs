//! `IssueServiceToken`: the processor time of a call against a bare call and one ES256 signature.

use tessera::proto::{IssueServiceTokenRequest, auth_client::AuthClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome,
    accounts::Registrar,
    bare,
    case::{Case, Limit, Place, Rounds},
    echo::EchoLoad,
    load::{Caller, load, over},
    process::Process,
    report::Report,
};

pub const NAME: &str = "issue_service_token";
/// Calls at once.
const IN_FLIGHT: usize = 64;

struct ServiceCaller {
    auth: AuthClient<Channel>,
    request: IssueServiceTokenRequest,
}

impl Caller for ServiceCaller {
    async fn call(&mut self) -> Result<(), Status> {
        let answer = self.auth.issue_service_token(self.request.clone()).await?.into_inner();
        answer.tokens.map(|_| ()).ok_or_else(|| Status::internal("no token"))
    }
}

/// Measures it.
pub async fn measure(bench: &Bench, report: &mut Report, server: &Process, place: Place) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let name = format!("bench-{}", place.sessions.unwrap_or_default());
    let request = Registrar::of(server).await?.create(name).await?;
    let mut auth = AuthClient::new(server.channel().await?);
    let answer = auth.issue_service_token(request.clone()).await?.into_inner();
    let caller = |channel, _| ServiceCaller { auth: AuthClient::new(channel), request: request.clone() };
    let mut callers = over(server, IN_FLIGHT, caller).await?;
    let mut echo = EchoLoad::new(bench, IN_FLIGHT, &request, &answer).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let issued = load(server, &mut callers, bench.pace.slice).await?;
        let echoed = echo.run(bench).await?;
        let bare = bench.signatures.sign(bare::all_processors(), bench.pace.slice / 4)?;
        let ceiling_us = echoed.cpu_us() + bare.quantile_us(0.5);
        let ratio = issued.cpu_us() / ceiling_us;
        rounds.push(round, issued, echoed, ratio, ceiling_us);
    }
    report.add(Case::of(NAME, place, rounds, "CPU of echo + one ES256 sign", Limit::AtMost(1.5)))
}
