//! For how long a token is sent: not beyond its own life, nor beyond that of whom it stands for.

use tessera::{
    proto::{CreateServiceAccountRequest, LogoutRequest},
    verifier::{Credential, IdentityError},
};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use super::{acting, anna, identity, issued, ledger, ledger_of};
use crate::support::{Home, Outcome, Registrar, authorized, eventually, orders, reason, timed_stories};

timed_stories! {
    a_token_to_act_with_is_forgotten_with_whom_it_stands_for,
    a_short_token_is_not_sent_beyond_its_life,
}

async fn a_token_to_act_with_is_forgotten_with_whom_it_stands_for(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, anna) = (acting(&home, &server).await?, anna(&server).await?);
    let tokens = identity.acting_for(&anna, &["ledger"], &["read"]);
    let first = tokens.token().await?;
    server.auth().logout(authorized(&anna, LogoutRequest {})).await?;
    assert_eq!(tokens.token().await?, first, "nobody has told it");
    // The token is due, and good for a while by its own end: nobody waits for the issuer's answer.
    home.clock.advance(256);
    let gone = Err(IdentityError::SubjectRefused("TOKEN_REVOKED".to_owned()));
    eventually("the issuer has told it", async || {
        let token = tokens.token().await;
        assert!(token == gone || token.as_ref() == Ok(&first), "{token:?}");
        Ok(token == gone)
    })
    .await?;
    let (_service, mut health) = ledger_of(&home, &server, &tokens).await?;
    let status = health.check(HealthCheckRequest::default()).await.expect_err("she is gone");
    assert_eq!((status.code(), reason(&status)), (Code::Unauthenticated, "TOKEN_REVOKED".to_owned()));
    assert!(status.message().contains("whom to act for"), "nothing was sent: {status:?}");
    server.stop().await
}

async fn a_short_token_is_not_sent_beyond_its_life(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let token_ttl = Some(prost_types::Duration { seconds: 2, nanos: 0 });
    let account = registrar.create(CreateServiceAccountRequest { token_ttl, ..orders() }).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let identity = identity(&home, server.url(), &account, Credential::client_secret(secret))?;
    let first = ledger(&identity).await?;
    home.clock.advance(1);
    assert_eq!(ledger(&identity).await?, first, "it has life enough");
    home.clock.advance(1);
    let next = ledger(&identity).await?;
    assert_ne!(next, first);
    assert_eq!(issued(&server).await?, 2);
    server.stop().await
}
