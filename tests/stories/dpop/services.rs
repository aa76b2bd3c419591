//! Services that hold a key: their own tokens, those with which they act for others, and those that they are shown.

use std::{error::Error, time::Duration};

use serde_json::{Value, json};
use tessera::{
    clock::Clock,
    domain::algorithm::Algorithm,
    proto::{ExchangeTokenRequest, IssueServiceTokenRequest, Tokens},
    verifier::{ConnectedVerifier, Guard, GuardInterceptor, KeyProofs, Requirement, Verifier},
};
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;

use super::invalid_proof;
use crate::support::{
    Guarded, Holder, Home, Outcome, PASSWORD, Registrar, Server, asks, authorized, denied, deputy,
    eventually, invalid_token, login_as, parts_of, proved, refusal, stories, timed_stories, with_proofs,
    words,
};

stories! {
    a_service_gets_a_token_for_its_key,
    a_service_acts_with_a_key_of_its_own,
    what_is_bound_is_taken_from_whom_it_is_for,
}
timed_stories! {
    a_guarded_service_wants_the_proof,
    a_guarded_service_can_demand_a_key,
    an_interceptor_takes_no_bound_token,
    a_bound_token_ends_with_its_session_everywhere,
}

const ISSUE: &str = "/tessera.v1.Auth/IssueServiceToken";
const EXCHANGE: &str = "/tessera.v1.Auth/ExchangeToken";
const CHECK: &str = "/grpc.health.v1.Health/Check";

/// An account that may exchange tokens, and how it asks for its own.
async fn account(server: &Server) -> Result<IssueServiceTokenRequest, Box<dyn Error>> {
    let registrar = Registrar::of(server).await?;
    let account = registrar.create(deputy()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    Ok(IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks(&account.client_id, &secret) })
}

/// The service's own token, bound to a key.
async fn bound_token(
    home: &Home,
    server: &Server,
    holder: &Holder,
    asked: &IssueServiceTokenRequest,
) -> Result<Tokens, Box<dyn Error>> {
    let proof = holder.proof(ISSUE, home.now(), None)?;
    let request = with_proofs(&[&proof], Request::new(asked.clone()));
    Ok(server.auth().issue_service_token(request).await?.into_inner().tokens.ok_or("no tokens")?)
}

fn cnf(token: &str) -> Result<Value, Box<dyn Error>> {
    Ok(parts_of(token)?.1["cnf"].clone())
}

async fn a_service_gets_a_token_for_its_key(home: Home) -> Outcome {
    let server = home.start().await?;
    let asked = account(&server).await?;
    let holder = Holder::new(Algorithm::EdDsa)?;
    let tokens = bound_token(&home, &server, &holder, &asked).await?;
    assert_eq!(
        (tokens.token_type.as_str(), cnf(&tokens.access_token)?),
        ("DPoP", json!({"jkt": holder.jkt()}))
    );
    assert!(server.is_active(&tokens.access_token, true).await?);
    let plain = server.service_token(asked.clone()).await?;
    assert_eq!((plain.token_type.as_str(), cnf(&plain.access_token)?), ("Bearer", Value::Null));

    let proof = holder.proof(ISSUE, home.now(), None)?;
    let request = || with_proofs(&[&proof], Request::new(asked.clone()));
    let mut wrong = asked.clone();
    wrong.client_secret.replace_range(4..8, "AAAA");
    let refused = server.auth().issue_service_token(with_proofs(&[&proof], Request::new(wrong))).await;
    assert_eq!(refusal(refused).1, "INVALID_CREDENTIALS");
    server.auth().issue_service_token(request()).await?;
    assert_eq!(refusal(server.auth().issue_service_token(request()).await), invalid_proof());
    let elsewhere = holder.proof(EXCHANGE, home.now(), None)?;
    let elsewhere = with_proofs(&[&elsewhere], Request::new(asked.clone()));
    assert_eq!(refusal(server.auth().issue_service_token(elsewhere).await), invalid_proof());
    assert_eq!(
        home.query("SELECT count(*) || '' AS first FROM used_assertions").await?,
        ["0"],
        "nothing is written"
    );
    server.stop().await
}

/// Anna's token for `orders`, bound to this key where there is one.
async fn anna_at(
    home: &Home,
    server: &Server,
    holder: Option<&Holder>,
    audience: &str,
) -> Result<Tokens, Box<dyn Error>> {
    let mut login = login_as("anna", PASSWORD, if holder.is_some() { "mobile" } else { "web" });
    login.audience = words(&[audience]);
    login.scope = words(&["read"]);
    let mut request = Request::new(login);
    if let Some(holder) = holder {
        let proof = holder.proof(super::LOGIN, home.now(), None)?;
        request = with_proofs(&[&proof], request);
    }
    Ok(server.auth().login(request).await?.into_inner().tokens.ok_or("no tokens")?)
}

async fn a_service_acts_with_a_key_of_its_own(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let asked = account(&server).await?;
    let (holder, person) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    let own = bound_token(&home, &server, &holder, &asked).await?.access_token;
    let unbound = server.service_token(asked.clone()).await?.access_token;
    let subject = anna_at(&home, &server, None, "orders").await?.access_token;
    let bound_subject = anna_at(&home, &server, Some(&person), "orders").await?.access_token;
    let exchanging = |subject: &str| ExchangeTokenRequest {
        subject_token: subject.to_owned(),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        audience: words(&["ledger"]),
        scope: words(&["read"]),
        ..Default::default()
    };
    let mut auth = server.auth();
    let mut exchange = async |request: Request<ExchangeTokenRequest>| {
        let reply = auth.exchange_token(request).await.map_err(|status| status.to_string())?;
        reply.into_inner().tokens.ok_or_else(|| "no tokens".to_owned())
    };
    // Whoever's the subject is bound to, the new token is bound to the caller's key, or to none.
    for subject in [&subject, &bound_subject] {
        let proof = holder.proof(EXCHANGE, home.now(), Some(&own))?;
        let tokens = exchange(proved(&own, &proof, exchanging(subject))).await?;
        assert_eq!(tokens.token_type, "DPoP");
        assert_eq!(cnf(&tokens.access_token)?, json!({"jkt": holder.jkt()}));
        let tokens = exchange(authorized(&unbound, exchanging(subject))).await?;
        assert_eq!((tokens.token_type.as_str(), cnf(&tokens.access_token)?), ("Bearer", Value::Null));
        // A key may also be shown beside a token that is bound to none.
        let proof = holder.proof(EXCHANGE, home.now(), Some(&unbound))?;
        let shown = with_proofs(&[&proof], authorized(&unbound, exchanging(subject)));
        assert_eq!(cnf(&exchange(shown).await?.access_token)?, json!({"jkt": holder.jkt()}));
    }
    let by_itself = auth.exchange_token(authorized(&own, exchanging(&subject))).await;
    assert_eq!(refusal(by_itself), invalid_token());
    let proof = holder.proof(EXCHANGE, home.now(), None)?;
    let no_ath = with_proofs(&[&proof], authorized(&unbound, exchanging(&subject)));
    assert_eq!(refusal(auth.exchange_token(no_ath).await), invalid_proof());
    let proof = person.proof(EXCHANGE, home.now(), Some(&own))?;
    let strangers = auth.exchange_token(proved(&own, &proof, exchanging(&subject))).await;
    assert_eq!(refusal(strangers), invalid_token());
    server.stop().await
}

/// Whoever else gets hold of it has seen no proof.
async fn what_is_bound_is_taken_from_whom_it_is_for(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let own = server.service_token(account(&server).await?).await?.access_token;
    let person = Holder::new(Algorithm::Es256)?;
    for (holder, audience, is_taken) in
        [(None, "billing", true), (Some(&person), "billing", false), (Some(&person), "orders", true)]
    {
        let subject = anna_at(&home, &server, holder, audience).await?.access_token;
        let request = ExchangeTokenRequest {
            subject_token: subject,
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
            audience: words(&["ledger"]),
            scope: words(&["read"]),
            ..Default::default()
        };
        let outcome = server.auth().exchange_token(authorized(&own, request)).await;
        assert_eq!(outcome.is_ok(), is_taken, "{audience}");
        if !is_taken {
            assert_eq!(refusal(outcome), denied());
        }
    }
    server.stop().await
}

async fn connect(home: &Home, server: &Server) -> Result<ConnectedVerifier, Box<dyn Error>> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience("orders");
    let long = Duration::from_secs(100_000);
    Ok(verifier.clock(home.clock.clone()).max_staleness(long).start().await?)
}

/// What a guarded service answers over gRPC; OK and nothing where the call gets past the guard.
async fn answer(service: &Guarded, request: Request<HealthCheckRequest>) -> (Code, String) {
    match service.health().expect("a client").check(request).await {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => refusal::<()>(Err(status)),
    }
}

fn passes() -> (Code, String) {
    (Code::Ok, String::new())
}

async fn a_guarded_service_wants_the_proof(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let (holder, thief) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    let token = anna_at(&home, &server, Some(&holder), "orders").await?.access_token;
    let unbound = anna_at(&home, &server, None, "orders").await?.access_token;
    let verifier = connect(&home, &server).await?;
    let service = Guarded::start(Guard::new(verifier.clone())).await?;
    let check = HealthCheckRequest::default;
    let now = home.clock.now();
    let good = holder.proof(CHECK, now, Some(&token))?;
    assert_eq!(answer(&service, proved(&token, &good, check())).await, passes());
    assert_eq!(answer(&service, proved(&token, &good, check())).await, invalid_proof(), "used before");
    assert_eq!(answer(&service, authorized(&token, check())).await, invalid_token());
    assert_eq!(answer(&service, authorized(&unbound, check())).await, passes());
    for (holder, path, token, shown, refused) in [
        (&thief, CHECK, &token, &token, invalid_token()),
        (&holder, CHECK, &unbound, &unbound, invalid_token()),
        (&holder, CHECK, &token, &unbound, invalid_proof()),
        (&holder, "/grpc.health.v1.Health/Watch", &token, &token, invalid_proof()),
    ] {
        let proof = holder.proof(path, now, Some(shown))?;
        assert_eq!(answer(&service, proved(token, &proof, check())).await, refused);
    }
    home.clock.advance(91);
    let old = holder.proof(CHECK, now, Some(&token))?;
    assert_eq!(
        answer(&service, proved(&token, &old, check())).await,
        invalid_proof(),
        "by the verifier's clock"
    );

    // Over HTTP, with the method that it is.
    let get = async |headers: &[String]| -> Result<(u16, Vec<String>), Box<dyn Error>> {
        let page = service.get_with("/greet", headers).await?;
        let status = page.split(' ').nth(1).ok_or("no status")?.parse()?;
        let told = page.lines().filter_map(|line| line.strip_prefix("www-authenticate: "));
        Ok((status, told.map(str::to_owned).collect()))
    };
    let dpop = format!("authorization: DPoP {token}");
    let proof = |htm: &str| -> Result<String, Box<dyn Error>> {
        let htm = json!({"htm": htm});
        Ok(format!("dpop: {}", holder.proof_with("/greet", home.clock.now(), Some(&token), htm)?))
    };
    assert_eq!(get(&[dpop.clone(), proof("GET")?]).await?.0, 200);
    let algs = "algs=\"ES256 ES384 EdDSA RS256 PS256\"";
    let (status, told) = get(&[dpop.clone(), proof("POST")?]).await?;
    let expected = "DPoP error=\"invalid_dpop_proof\", error_description=\"the proof of the key is not good: \
                    its `htm` is another method\", ";
    assert_eq!((status, told), (401, vec![format!("{expected}{algs}")]));
    let (status, told) = get(&[format!("authorization: Bearer {token}")]).await?;
    let expected = "Bearer error=\"invalid_token\", error_description=\"the token is not valid here\"";
    assert_eq!((status, told), (401, vec![expected.to_owned(), format!("DPoP {algs}")]));
    assert_eq!(get(&[]).await?, (401, vec!["Bearer".to_owned(), format!("DPoP {algs}")]));
    server.stop().await
}

async fn a_guarded_service_can_demand_a_key(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let token = anna_at(&home, &server, Some(&holder), "orders").await?.access_token;
    let unbound = anna_at(&home, &server, None, "orders").await?.access_token;
    let check = HealthCheckRequest::default;
    let proofs = KeyProofs::default().only_at(["https://orders.example"])?.with_memory(1);
    let guard = Guard::new(connect(&home, &server).await?)
        .require(CHECK, Requirement::good_token().bound_to_key())
        .key_proofs(proofs);
    let service = Guarded::start(guard).await?;
    assert_eq!(answer(&service, authorized(&unbound, check())).await, invalid_token());
    let nowhere = holder.proof(CHECK, home.clock.now(), Some(&token))?;
    assert_eq!(answer(&service, proved(&token, &nowhere, check())).await, invalid_proof());
    let mut answers = Vec::new();
    for _ in 0..100 {
        let here = holder.proof(&format!("https://orders.example{CHECK}"), home.clock.now(), Some(&token))?;
        answers.push(answer(&service, proved(&token, &here, check())).await);
    }
    // None is forgotten to make room: beyond what can be remembered nobody is let in.
    let full = (Code::ResourceExhausted, "OVERLOADED".to_owned());
    let passed = answers.iter().filter(|answer| **answer == passes()).count();
    assert_eq!(passed, 1);
    assert_eq!(answers.iter().filter(|answer| **answer == full).count(), 100 - passed);
    server.stop().await
}

async fn an_interceptor_takes_no_bound_token(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let token = anna_at(&home, &server, Some(&holder), "orders").await?.access_token;
    let interceptor = GuardInterceptor::new(connect(&home, &server).await?, Requirement::good_token());
    let service = Guarded::start_intercepted(interceptor).await?;
    let check = HealthCheckRequest::default;
    assert_eq!(answer(&service, authorized(&token, check())).await, invalid_token());
    let proof = holder.proof(CHECK, home.clock.now(), Some(&token))?;
    assert_eq!(answer(&service, proved(&token, &proof, check())).await.1, "TOKEN_MISSING");
    server.stop().await
}

async fn a_bound_token_ends_with_its_session_everywhere(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let tokens = anna_at(&home, &server, Some(&holder), "orders").await?;
    let service = Guarded::start(Guard::new(connect(&home, &server).await?)).await?;
    let call = async || {
        let proof = holder.proof(CHECK, home.clock.now(), Some(&tokens.access_token)).expect("a proof");
        answer(&service, proved(&tokens.access_token, &proof, HealthCheckRequest::default())).await
    };
    assert_eq!(call().await, passes());
    let revoke = tessera::proto::RevokeSessionRequest { session_id: tokens.session_id.clone() };
    server.session().revoke_session(authorized(&anna.access_token, revoke)).await?;
    let revoked = (Code::Unauthenticated, "TOKEN_REVOKED".to_owned());
    eventually("the end is heard", async || Ok(call().await == revoked)).await?;
    server.stop().await
}
