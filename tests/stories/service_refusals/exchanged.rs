//! Tokens with which services act for others: they die with the logout, and are never wider.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tessera::{
    proto::{
        CreateServiceAccountRequest, ExchangeTokenRequest, ExchangeTokenResponse, LogoutRequest,
        ServiceAccount, VerifyTokenRequest,
    },
    verifier::{ConnectedVerifier, Denial, Refusal, Verifier},
};
use tonic::{Response, Status};

use super::{DENIED, INVALID_TOKEN, REVOKED, Result, Trail, is_refused};
use crate::support::{
    Home, Outcome, Registrar, Server, audience_token, authorized, eventually, orders, parts_of,
    timed_stories, words,
};

timed_stories! {
    each_token_of_a_chain_dies_with_the_logout_at_every_verifier,
    nothing_is_widened_by_one,
}

/// A service that calls the next one.
struct Link {
    account: ServiceAccount,
    token: String,
}

impl Link {
    /// One that may exchange tokens for this audience, for up to an hour.
    async fn new(registrar: &Registrar<'_>, name: &str, next: &str) -> Result<Self> {
        let request = CreateServiceAccountRequest {
            name: name.to_owned(),
            allowed_audiences: words(&[next]),
            allowed_grants: words(&["client_credentials", "token_exchange"]),
            token_ttl: Some(prost_types::Duration { seconds: 3600, nanos: 0 }),
            ..orders()
        };
        let (account, asks) = registrar.service(request).await?;
        let token = registrar.server.service_token(asks).await?.access_token;
        Ok(Self { account, token })
    }

    async fn try_exchange(
        &self,
        server: &Server,
        subject_token: &str,
        audience: &[&str],
        scope: &[&str],
    ) -> std::result::Result<Response<ExchangeTokenResponse>, Status> {
        let request = ExchangeTokenRequest {
            subject_token: subject_token.to_owned(),
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token".to_owned(),
            audience: words(audience),
            scope: words(scope),
            ..Default::default()
        };
        server.auth().exchange_token(authorized(&self.token, request)).await
    }

    async fn exchange(&self, server: &Server, subject_token: &str, next: &str) -> Result<String> {
        let reply = self.try_exchange(server, subject_token, &[next], &["read"]).await?.into_inner();
        Ok(reply.tokens.ok_or("no tokens")?.access_token)
    }
}

async fn verifier(home: &Home, server: &Server, audience: &str) -> Result<ConnectedVerifier> {
    let verifier = Verifier::connect(server.url()).issuer("http://127.0.0.1:50051").audience(audience);
    let long = Duration::from_secs(100_000);
    Ok(verifier.clock(home.clock.clone()).max_staleness(long).start().await?)
}

async fn each_token_of_a_chain_dies_with_the_logout_at_every_verifier(home: Home) -> Outcome {
    let server = home.start().await?;
    let replica = home.another("").await?;
    let registrar = Registrar::of(&server).await?;
    server.anna().await?;
    let anna = audience_token(&server, "anna", &["s1", "tessera"], &["read"]).await?;
    let (mut handed, mut chain) = (anna.clone(), Vec::new());
    for number in 1..=5 {
        let (name, next) = (format!("s{number}"), format!("s{}", number + 1));
        let link = Link::new(&registrar, &name, &next).await?;
        let to_next = link.exchange(&server, &handed, &next).await?;
        let mut verifiers = vec![verifier(&home, &server, &next).await?];
        if let Some(replica) = &replica {
            verifiers.push(verifier(&home, replica, &next).await?);
        }
        for verifier in &verifiers {
            assert_eq!(verifier.check(&to_next).await?.actors().count(), number);
        }
        chain.push((link, std::mem::replace(&mut handed, to_next.clone()), to_next, verifiers));
    }
    let servers: Vec<&Server> = std::iter::once(&server).chain(&replica).collect();
    let ended = Denial::Refused(Refusal::Revoked);
    server.auth().logout(authorized(&anna, LogoutRequest {})).await?;
    for (link, handed, token, verifiers) in &chain {
        for verifier in verifiers {
            eventually("a verifier hears of it", async || {
                Ok(verifier.check(token).await.err().as_ref() == Some(&ended))
            })
            .await?;
        }
        for server in &servers {
            eventually("a server hears of it", async || Ok(!server.is_active(token, false).await?)).await?;
            assert!(!server.is_active(token, true).await?);
            let refused = link.try_exchange(server, handed, &[&link.account.allowed_audiences[0]], &[]).await;
            is_refused("handed on", refused, REVOKED);
        }
    }
    drop(chain);
    if let Some(replica) = replica {
        replica.stop().await?;
    }
    server.stop().await
}

/// No field asks for a second more: a token ends with the one it was made of, however long the service's own live.
async fn nothing_is_widened_by_one(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"10m\"\nservice_ttl = \"1h\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    registrar.audience("ledger", &["read", "write", "audit"]).await?;
    let link = Link::new(&registrar, "orders", "ledger").await?;
    server.anna().await?;
    let anna = audience_token(&server, "anna", &["orders"], &["read", "write"]).await?;
    let scopes = ["read", "write", "audit"];
    let answer = link.try_exchange(&server, &anna, &["ledger"], &scopes).await;
    trail.tells(&server, &link.account, "a scope", answer, DENIED).await?;
    let answer = link.try_exchange(&server, &anna, &["ledger", "payments"], &["read"]).await;
    trail.tells(&server, &link.account, "an audience", answer, DENIED).await?;
    let narrowed = link.exchange(&server, &anna, "ledger").await?;
    let answer = link.try_exchange(&server, &narrowed, &["ledger"], &["read", "write"]).await;
    trail.tells(&server, &link.account, "a scope that was left out", answer, DENIED).await?;

    home.clock.advance(60);
    let later = link.exchange(&server, &narrowed, "ledger").await?;
    let end = |token: &str| Ok::<_, Box<dyn std::error::Error>>(parts_of(token)?.1["exp"].clone());
    assert_eq!((end(&narrowed)?, end(&later)?), (end(&anna)?, end(&anna)?));
    for (name, value) in [
        ("exp", json!(end(&later)?.as_i64().ok_or("no number")? + 1)),
        ("scope", json!("read write")),
        ("aud", json!(["ledger", "payments"])),
    ] {
        let wider = with_claim(&later, name, value)?;
        let asked = VerifyTokenRequest { token: wider.clone(), ..Default::default() };
        assert_eq!(server.auth().verify_token(asked).await?.into_inner().reason, INVALID_TOKEN.1, "{name}");
        let answer = link.try_exchange(&server, &wider, &["ledger"], &[]).await;
        trail.tells(&server, &link.account, name, answer, INVALID_TOKEN).await?;
    }
    trail.tells_nothing(&server).await?;

    // To the second, and what clocks may differ by.
    home.clock.advance(9 * 60 + 29);
    assert!(server.is_active(&later, false).await?);
    home.clock.advance(1);
    assert!(!server.is_active(&later, false).await?);
    server.stop().await
}

/// The token with another claim, under the signature that it had.
fn with_claim(token: &str, name: &str, value: Value) -> Result<String> {
    let mut claims = parts_of(token)?.1;
    claims[name] = value;
    let mut pieces = token.split('.');
    let (header, signature) = (pieces.next().ok_or("no header")?, pieces.nth(1).ok_or("no signature")?);
    Ok(format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string())))
}
