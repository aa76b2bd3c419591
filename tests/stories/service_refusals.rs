//! What a service may prove itself with, each refused for each reason: with its row of the error table, and told to the trail
//! where the account is known. Where nobody can tell whose it is, it is counted (`tessera_grpc_calls_total`,
//! `tessera_key_proofs_total`), and where it never became a call it stands in the log: ours for what a TLS handshake refuses, that of
//! h2 at `debug` for metadata that HTTP/2 refuses.
//!
//! | | wrong key | expired | replayed | for another audience | revoked, account disabled, too long |
//! | --- | --- | --- | --- | --- | --- |
//! | client secret | here | here | is there to be used again | names none | here |
//! | `private_key_jwt`, registered and published | `tokens` | `tokens` | `tokens`, each replica, after a restart | `tokens` | `tokens` |
//! | a pod's token, a JWT-SVID, a CI job's token | `tokens` | `tokens` | is its issuer's to limit: good again | `tokens` | `tokens` |
//! | certificate, of a connection and told by a proxy | `certificates` | `certificates` | proved by each handshake | names none | `certificates`; TLS has none that is too long |
//! | proof of a key (DPoP) | `proofs` | `proofs` | `proofs`; elsewhere it gains nothing | `proofs`: another method | `proofs` |
//!
//! `exchanged` has the same for tokens with which services act for others.

mod certificates;
mod exchanged;
mod proofs;
mod tokens;

use std::{collections::HashSet, error::Error, fmt::Debug};

use tessera::{
    clock::Clock,
    proto::{
        AuditEvent, ClientSecret, CreateCredentialRequest, CreateServiceAccountRequest, EventOutcome,
        IssueServiceTokenRequest, ListEventsRequest, ServiceAccount, create_credential_request::Kind,
    },
};
use tonic::{Code, Response, Status};

use crate::support::{
    Home, Outcome, Registrar, Server, asks, authorized, eventually, orders, refusal, stories, timed_stories,
};

stories! {
    what_is_too_long_to_be_a_credential_is_counted,
}
timed_stories! {
    a_secret_is_refused_with_its_row,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// A row of the error table.
type Row = (Code, &'static str);

const WRONG: Row = (Code::Unauthenticated, "INVALID_CREDENTIALS");
const DISABLED: Row = (Code::PermissionDenied, "ACCOUNT_DISABLED");
const DENIED: Row = (Code::PermissionDenied, "INSUFFICIENT_SCOPE");
const MALFORMED: Row = (Code::InvalidArgument, "TOKEN_MALFORMED");
const INVALID_FIELD: Row = (Code::InvalidArgument, "INVALID_FIELD");
const INVALID_TOKEN: Row = (Code::Unauthenticated, "TOKEN_INVALID");
const REVOKED: Row = (Code::Unauthenticated, "TOKEN_REVOKED");
const BAD_PROOF: Row = (Code::Unauthenticated, "INVALID_DPOP_PROOF");

const ISSUE: &str = "/tessera.v1.Auth/IssueServiceToken";
const EXCHANGE: &str = "/tessera.v1.Auth/ExchangeToken";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn is_refused<T: Debug>(what: &str, answer: std::result::Result<Response<T>, Status>, (code, reason): Row) {
    assert_eq!(refusal(answer), (code, reason.to_owned()), "{what}");
}

/// An account of this name, and the credential that it is given, with its id.
async fn account_with(registrar: &Registrar<'_>, name: &str, kind: Kind) -> Result<(ServiceAccount, String)> {
    let request = CreateServiceAccountRequest { name: name.to_owned(), ..orders() };
    let account = registrar.create(request).await?;
    let credential_id = credential(registrar, &account, kind).await?;
    Ok((account, credential_id))
}

/// Gives an account a credential; gives its id.
async fn credential(registrar: &Registrar<'_>, account: &ServiceAccount, kind: Kind) -> Result<String> {
    let request = CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        kind: Some(kind),
        ..Default::default()
    };
    let made = registrar.try_credential(request).await?.into_inner();
    Ok(made.credential.ok_or("no credential")?.credential_id)
}

/// Calls of a method that ended with this code.
async fn calls(server: &Server, method: &str, code: &str) -> Result<u64> {
    server.metric(&format!("tessera_grpc_calls_total{{method=\"{method}\",code=\"{code}\"}}")).await
}

/// What an admin finds in the trail of what services were refused, as it grows.
struct Trail {
    /// The admin's token.
    token: String,
    known: HashSet<String>,
}

impl Trail {
    fn of(registrar: &Registrar<'_>) -> Self {
        Self { token: registrar.token.clone(), known: HashSet::new() }
    }

    /// The events that came to it.
    async fn news(&mut self, server: &Server) -> Result<Vec<AuditEvent>> {
        let mut news = Vec::new();
        for action in ["issue_service_token", "exchange_token"] {
            let request =
                ListEventsRequest { action: action.to_owned(), page_size: 500, ..Default::default() };
            let events = server.audit().list_events(authorized(&self.token, request)).await?.into_inner();
            news.extend(events.events.into_iter().filter(|event| self.known.insert(event.event_id.clone())));
        }
        Ok(news)
    }

    /// An account is refused so, and that is told once.
    async fn tells<T: Debug>(
        &mut self,
        server: &Server,
        account: &ServiceAccount,
        what: &str,
        answer: std::result::Result<Response<T>, Status>,
        row: Row,
    ) -> Outcome {
        is_refused(what, answer, row);
        let news = self.news(server).await?;
        let [event] = &news[..] else { return Err(format!("{what}: {news:#?}").into()) };
        assert_eq!((event.outcome(), event.reason.as_str()), (EventOutcome::Failure, row.1), "{what}");
        let target = (event.target_type.as_str(), event.target_id.as_str(), event.target_name.as_str());
        assert_eq!(target, ("service_account", &*account.service_account_id, &*account.name), "{what}");
        // Before it is proved who asks, nobody is known to have acted.
        let actor = if row == WRONG { "" } else { &account.client_id };
        assert_eq!(event.actor_id, actor, "{what}");
        assert!(!event.address.is_empty() && !event.request_id.is_empty(), "{what}: {event:?}");
        Ok(())
    }

    /// What was just refused concerns no account.
    async fn tells_nothing(&mut self, server: &Server) -> Outcome {
        let news = self.news(server).await?;
        if news.is_empty() { Ok(()) } else { Err(format!("{news:#?}").into()) }
    }
}

async fn a_secret_is_refused_with_its_row(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let account = registrar.create(orders()).await?;
    let other =
        registrar.create(CreateServiceAccountRequest { name: "other".to_owned(), ..orders() }).await?;
    let (secret, credential_id) = registrar.secret(&account).await?;
    let (others, _) = registrar.secret(&other).await?;
    let id = account.client_id.as_str();
    for _ in 0..2 {
        server.service_token(asks(id, &secret)).await?;
    }
    trail.tells(&server, &account, "another's", server.issue(asks(id, &others)).await, WRONG).await?;
    let long = format!("{secret}{}", "A".repeat(10_000));
    trail.tells(&server, &account, "a long one", server.issue(asks(id, &long)).await, WRONG).await?;

    let seconds = (home.clock.now() + chrono::TimeDelta::seconds(60)).timestamp();
    let request = CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        expire_time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
        kind: Some(Kind::ClientSecret(ClientSecret {})),
    };
    let brief = registrar.try_credential(request).await?.into_inner().client_secret;
    server.service_token(asks(id, &brief)).await?;
    home.clock.advance(61);
    trail.tells(&server, &account, "expired", server.issue(asks(id, &brief)).await, WRONG).await?;

    registrar.revoke(&account.service_account_id, &credential_id).await?;
    trail.tells(&server, &account, "revoked", server.issue(asks(id, &secret)).await, WRONG).await?;
    if let Some(replica) = home.another("").await? {
        eventually("it hears of that", async || Ok(replica.issue(asks(id, &secret)).await.is_err())).await?;
        trail.news(&server).await?;
        trail.tells(&server, &account, "revoked", replica.issue(asks(id, &secret)).await, WRONG).await?;
        replica.stop().await?;
    }

    let (secret, _) = registrar.secret(&account).await?;
    server.service_token(asks(id, &secret)).await?;
    registrar.bar(&account).await?;
    trail.tells(&server, &account, "disabled", server.issue(asks(id, &secret)).await, DISABLED).await?;
    let wrong = server.issue(asks(id, &others)).await;
    trail.tells(&server, &account, "told after the right one alone", wrong, WRONG).await?;
    server.stop().await
}

/// Nobody reads so far as to know whose it is.
async fn what_is_too_long_to_be_a_credential_is_counted(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let asserting = |client_assertion: String| IssueServiceTokenRequest {
        client_assertion_type: ASSERTION_TYPE.to_owned(),
        client_assertion,
        ..asks("", "")
    };
    let long = "x".repeat(1 << 20);
    let before = calls(&server, ISSUE, "INVALID_ARGUMENT").await?;
    for (what, request, row) in [
        ("a secret", asks(&account.client_id, &long), INVALID_FIELD),
        ("an assertion", asserting(long.clone()), INVALID_FIELD),
        ("an assertion that can be received", asserting(format!("e30.e30.{}", &long[..20_000])), MALFORMED),
    ] {
        is_refused(what, server.issue(request).await, row);
    }
    trail.tells_nothing(&server).await?;
    assert_eq!(calls(&server, ISSUE, "INVALID_ARGUMENT").await?, before + 3);
    server.service_token(asks(&account.client_id, &secret)).await?;
    server.stop().await
}
