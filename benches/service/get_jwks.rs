//! `GetJwks`: the processor time of a call against a bare call of the same size.

use tessera::proto::{GetJwksRequest, keys_client::KeysClient};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome,
    case::{Case, Limit, Place, Rounds},
    echo::EchoLoad,
    load::{Caller, load, over},
    process::Process,
    report::Report,
};

pub const NAME: &str = "get_jwks";
/// Calls at once.
const IN_FLIGHT: usize = 64;

struct JwksCaller(KeysClient<Channel>);

impl Caller for JwksCaller {
    async fn call(&mut self) -> Result<(), Status> {
        let answer = self.0.get_jwks(GetJwksRequest::default()).await?.into_inner();
        if answer.keys.is_empty() { Err(Status::internal("no key is published")) } else { Ok(()) }
    }
}

/// Measures it.
pub async fn measure(bench: &Bench, report: &mut Report, server: &Process, place: Place) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let request = GetJwksRequest::default();
    let answer = KeysClient::new(server.channel().await?).get_jwks(request).await?.into_inner();
    let mut callers = over(server, IN_FLIGHT, |channel, _| JwksCaller(KeysClient::new(channel))).await?;
    let mut echo = EchoLoad::new(bench, IN_FLIGHT, &request, &answer).await?;
    let mut rounds = Rounds::default();
    for round in 0..=bench.pace.rounds {
        let got = load(server, &mut callers, bench.pace.slice).await?;
        let echoed = echo.run(bench).await?;
        let (ratio, ceiling_us) = (got.cpu_us() / echoed.cpu_us(), echoed.cpu_us());
        rounds.push(round, got, echoed, ratio, ceiling_us);
    }
    report.add(Case::of(NAME, place, rounds, "CPU of echo", Limit::AtMost(1.2)))
}
