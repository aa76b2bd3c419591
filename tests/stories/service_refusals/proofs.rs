//! Proofs of keys (DPoP): beside what a service proves itself with, and beside its token when it exchanges another one. One that
//! is refused before it is known who calls is counted.

use chrono::TimeDelta;
use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{CreateServiceAccountRequest, ExchangeTokenRequest, IssueServiceTokenRequest, ServiceAccount},
};
use tonic::Request;

use super::{
    BAD_PROOF, DISABLED, EXCHANGE, INVALID_TOKEN, ISSUE, REVOKED, Result, Trail, WRONG, calls, is_refused,
};
use crate::support::{
    Holder, Home, Outcome, Registrar, Server, asks, audience_token, authorized, orders, parts_of,
    proof_claims, proved, reason, stories, with_proofs, words,
};

stories! {
    a_proof_is_refused_with_its_row,
    a_bound_token_is_refused_without_a_good_proof,
    elsewhere_a_repeated_proof_gains_nothing,
}

/// An account that may exchange tokens for `ledger`, its secret, and the id of that.
async fn exchanger(registrar: &Registrar<'_>) -> Result<(ServiceAccount, String, String)> {
    let request = CreateServiceAccountRequest {
        allowed_audiences: words(&["tessera", "ledger"]),
        allowed_grants: words(&["client_credentials", "token_exchange"]),
        ..orders()
    };
    let account = registrar.create(request).await?;
    let (secret, credential_id) = registrar.secret(&account).await?;
    Ok((account, secret, credential_id))
}

/// Proofs of which each is wrong in one thing, beside this token where there is one.
fn bad_proofs(
    home: &Home,
    holder: &Holder,
    path: &str,
    token: Option<&str>,
) -> Result<Vec<(&'static str, String)>> {
    let now = home.now();
    let at = |seconds| holder.proof(path, now + TimeDelta::seconds(seconds), token);
    let stranger = Holder::new(Algorithm::Es256)?;
    let long = json!({"more": "x".repeat(20_000)});
    Ok(vec![
        ("another key", stranger.key.sign(&holder.header(), &proof_claims(path, now, token))?),
        ("expired", at(-100)?),
        ("not good yet", at(200)?),
        ("for another method", holder.proof("/tessera.v1.Auth/Login", now, token)?),
        ("too long", holder.proof_with(path, now, token, long)?),
    ])
}

async fn counted(server: &Server) -> Result<u64> {
    server.metric("tessera_key_proofs_total{outcome=\"INVALID_DPOP_PROOF\"}").await
}

async fn a_proof_is_refused_with_its_row(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let (account, secret, credential_id) = exchanger(&registrar).await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let good = || holder.proof(ISSUE, home.now(), None);
    let ask = async |secret: &str, proof: &str| {
        let request = Request::new(asks(&account.client_id, secret));
        server.auth().issue_service_token(with_proofs(&[proof], request)).await
    };
    let bad = bad_proofs(&home, &holder, ISSUE, None)?;
    for (what, proof) in &bad {
        is_refused(what, ask(&secret, proof).await, BAD_PROOF);
    }
    assert_eq!(counted(&server).await?, bad.len() as u64);
    trail.tells_nothing(&server).await?;
    // HTTP/2 refuses this one itself, and others on the connection go on.
    let mut watching = server.watch().await?;
    let heard = watching.entries.len();
    let status = ask(&secret, &"x".repeat(100_000)).await.expect_err("far too long");
    assert_eq!(reason(&status), "", "{status:?}");

    let once = good()?;
    ask(&secret, &once).await?;
    trail.tells(&server, &account, "used", ask(&secret, &once).await, BAD_PROOF).await?;
    assert_eq!(counted(&server).await?, bad.len() as u64 + 1);
    registrar.revoke(&account.service_account_id, &credential_id).await?;
    trail.tells(&server, &account, "revoked", ask(&secret, &good()?).await, WRONG).await?;
    let (secret, _) = registrar.secret(&account).await?;
    registrar.bar(&account).await?;
    trail.tells(&server, &account, "disabled", ask(&secret, &good()?).await, DISABLED).await?;
    watching.until(|watching| watching.entries.len() > heard).await?;
    drop(watching);
    server.stop().await
}

fn exchanging(subject_token: &str) -> ExchangeTokenRequest {
    ExchangeTokenRequest {
        subject_token: subject_token.to_owned(),
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

/// The service's own token for Tessera's API, bound to this key.
async fn own_token(
    home: &Home,
    server: &Server,
    account: &ServiceAccount,
    secret: &str,
    holder: &Holder,
) -> Result<String> {
    let proof = holder.proof(ISSUE, home.now(), None)?;
    let request =
        IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks(&account.client_id, secret) };
    let reply = server.auth().issue_service_token(with_proofs(&[&proof], Request::new(request))).await?;
    Ok(reply.into_inner().tokens.ok_or("no tokens")?.access_token)
}

async fn a_bound_token_is_refused_without_a_good_proof(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let (account, secret, _) = exchanger(&registrar).await?;
    let (holder, thief) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::EdDsa)?);
    let own = own_token(&home, &server, &account, &secret, &holder).await?;
    server.anna().await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let exchange =
        async |proof: &str| server.auth().exchange_token(proved(&own, proof, exchanging(&subject))).await;
    let good = |holder: &Holder| holder.proof(EXCHANGE, home.now(), Some(&own));
    let mut bad = bad_proofs(&home, &holder, EXCHANGE, Some(&own))?;
    bad.push(("for another token", holder.proof(EXCHANGE, home.now(), Some(&subject))?));
    for (what, proof) in &bad {
        is_refused(what, exchange(proof).await, BAD_PROOF);
    }
    assert_eq!(counted(&server).await?, bad.len() as u64);
    is_refused("a thief's", exchange(&good(&thief)?).await, INVALID_TOKEN);
    let by_itself = server.auth().exchange_token(authorized(&own, exchanging(&subject))).await;
    is_refused("none", by_itself, INVALID_TOKEN);
    assert_eq!(calls(&server, EXCHANGE, "UNAUTHENTICATED").await?, bad.len() as u64 + 2);

    trail.tells_nothing(&server).await?;

    let once = good(&holder)?;
    exchange(&once).await?;
    trail.tells(&server, &account, "used", exchange(&once).await, BAD_PROOF).await?;
    registrar.bar(&account).await?;
    is_refused("disabled", exchange(&good(&holder)?).await, REVOKED);
    trail.tells_nothing(&server).await?;
    server.stop().await
}

/// Servers don't tell each other which proofs they saw. Whoever repeats one where it is new gets what is bound to a key that it
/// doesn't have.
async fn elsewhere_a_repeated_proof_gains_nothing(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let (account, secret, _) = exchanger(&registrar).await?;
    let (holder, thief) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    server.anna().await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let own = own_token(&home, &server, &account, &secret, &holder).await?;
    let issue = holder.proof(ISSUE, home.now(), None)?;
    let exchange = holder.proof(EXCHANGE, home.now(), Some(&own))?;
    let ask_both = async |server: &Server| -> Result<[String; 2]> {
        let request =
            IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks(&account.client_id, &secret) };
        let issued = server.auth().issue_service_token(with_proofs(&[&issue], Request::new(request))).await;
        let asked = proved(&own, &exchange, exchanging(&subject));
        let exchanged = server.auth().exchange_token(asked).await?.into_inner().tokens;
        let issued = issued?.into_inner().tokens;
        Ok([issued.ok_or("no tokens")?.access_token, exchanged.ok_or("no tokens")?.access_token])
    };
    let worthless = async |server: &Server, [issued, exchanged]: [String; 2]| -> Outcome {
        for token in [&issued, &exchanged] {
            assert_eq!(parts_of(token)?.1["cnf"], json!({"jkt": holder.jkt()}));
        }
        let proof = thief.proof(EXCHANGE, home.now(), Some(&issued))?;
        let stolen = server.auth().exchange_token(proved(&issued, &proof, exchanging(&subject))).await;
        is_refused("a thief's", stolen, INVALID_TOKEN);
        Ok(())
    };
    ask_both(&server).await?;
    assert!(ask_both(&server).await.is_err(), "here it is known");
    if let Some(replica) = home.another("").await? {
        worthless(&replica, ask_both(&replica).await?).await?;
        replica.stop().await?;
    }
    server.stop().await?;
    let server = home.start().await?;
    worthless(&server, ask_both(&server).await?).await?;
    let by_itself = server.auth().exchange_token(authorized(&own, exchanging(&subject))).await;
    is_refused("none", by_itself, INVALID_TOKEN);
    server.stop().await
}
