//! `IssueServiceToken`: the processor time of a call against a bare call and one ES256 signature.

use tessera::proto::{
    ClientSecret, CreateCredentialRequest, CreateServiceAccountRequest, IssueServiceTokenRequest,
    auth_client::AuthClient, create_credential_request::Kind, service_accounts_client::ServiceAccountsClient,
};
use tonic::{Status, transport::Channel};

use super::{
    Bench, Outcome, bare,
    case::{Case, Limit, Place, Rounds},
    echo::EchoLoad,
    load::{Caller, load, over},
    process::Process,
    report::Report,
    support::{ADMIN_PASSWORD, authorized, login_as},
};

const NAME: &str = "issue_service_token";
/// Calls at once.
const IN_FLIGHT: usize = 64;
const AUDIENCE: &str = "ledger";

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

/// Makes an account and its secret; gives what it asks with.
pub async fn account(server: &Process, name: String) -> Outcome<IssueServiceTokenRequest> {
    let channel = server.channel().await?;
    let login = login_as("admin", ADMIN_PASSWORD, "bench");
    let admin =
        AuthClient::new(channel.clone()).login(login).await?.into_inner().tokens.ok_or("no tokens")?;
    let mut accounts = ServiceAccountsClient::new(channel);
    let new = CreateServiceAccountRequest {
        name,
        allowed_audiences: vec![AUDIENCE.to_owned()],
        allowed_scopes: vec!["write".to_owned()],
        ..Default::default()
    };
    let made = accounts.create_service_account(authorized(&admin.access_token, new)).await?.into_inner();
    let client_id = made.service_account.ok_or("no account")?.client_id;
    let credential = CreateCredentialRequest {
        service_account_id: client_id.clone(),
        kind: Some(Kind::ClientSecret(ClientSecret {})),
        ..Default::default()
    };
    let made = accounts.create_credential(authorized(&admin.access_token, credential)).await?.into_inner();
    Ok(IssueServiceTokenRequest {
        client_id,
        client_secret: made.client_secret,
        audience: vec![AUDIENCE.to_owned()],
        scope: vec!["write".to_owned()],
        ..Default::default()
    })
}

/// Measures it.
pub async fn measure(bench: &Bench, report: &mut Report, server: &Process, place: Place) -> Outcome {
    if !bench.wants(NAME) {
        return Ok(());
    }
    let request = account(server, format!("bench-{}", place.sessions.unwrap_or_default())).await?;
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
    report.add(Case::of(NAME, place, rounds, "CPU of echo + one ES256 sign", Limit::AtMost(1.5)));
    Ok(())
}
