//! A service with a key of its own (DPoP, RFC 9449): its tokens are of no use to who takes them.

use std::{error::Error, sync::Arc, time::Duration};

use serde_json::json;
use tessera::{
    domain::algorithm::Algorithm,
    proto::{CreateServiceAccountRequest, LogoutRequest},
    verifier::{
        AccessToken, Credential, Denial, Guard, HolderKey, OnStale, Refusal, Requirement, ServiceIdentity,
        ServiceTokens, Verifier,
    },
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ISSUER, anna, clock_of, issued, ledger, refused};
use crate::support::{
    Guarded, Holder, Home, Intermediary, Outcome, Registrar, Server, audience_token, authorized, bound,
    deputy, eventually, parts_of, proved, refusal, timed_stories, words,
};

timed_stories! {
    its_calls_show_its_key,
    it_takes_up_the_nonces_that_are_told,
    what_comes_back_unbound_is_not_used,
    verifiers_follow_and_ask_with_its_tokens,
}

const CHECK: &str = "/grpc.health.v1.Health/Check";
const NONCES: &str = "[tokens]\ndpop_nonce = \"required\"\n";

/// A service with this account and this key, at the issuer that is reached there.
async fn with_key(
    home: &Home,
    server: &Server,
    account: CreateServiceAccountRequest,
    url: String,
    key: &HolderKey,
) -> Result<ServiceIdentity, Box<dyn Error>> {
    let registrar = Registrar::of(server).await?;
    let account = registrar.create(account).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let identity = ServiceIdentity::at(url, &account.client_id, Credential::client_secret(secret));
    Ok(identity.clock(clock_of(home)).bound_to_key(key.clone()).build()?)
}

/// The service `ledger`, which lets in only who holds a key.
async fn ledger_service(home: &Home, server: &Server) -> Result<Guarded, Box<dyn Error>> {
    let verifier = Verifier::connect(server.url()).issuer(ISSUER).audience("ledger");
    let verifier = verifier.max_staleness(Duration::from_secs(100_000)).clock(home.clock.clone());
    let demanding = Guard::new(verifier.start().await?).others(Requirement::good_token().bound_to_key());
    Guarded::start(demanding).await
}

async fn is_bound(tokens: &ServiceTokens, key: &HolderKey) -> Result<AccessToken, Box<dyn Error>> {
    let token = tokens.token().await?;
    assert!(token.is_bound_to_key());
    assert_eq!(parts_of(token.expose())?.1["cnf"], json!({"jkt": key.thumbprint()}));
    Ok(token)
}

/// Whoever has the token, and not its key.
async fn is_of_no_use_to_a_thief(home: &Home, service: &Guarded, token: &AccessToken) -> Outcome {
    let (token, check) = (token.expose(), HealthCheckRequest::default);
    let proof = Holder::new(Algorithm::Es256)?.proof(CHECK, home.now(), Some(token))?;
    for (what, request, reason) in [
        ("by itself", authorized(token, check()), "TOKEN_INVALID"),
        ("without a proof", bound(token, check()), "INVALID_DPOP_PROOF"),
        ("with a key of the thief's", proved(token, &proof, check()), "TOKEN_INVALID"),
    ] {
        let refused = refusal(service.health()?.check(request).await);
        assert_eq!(refused, (Code::Unauthenticated, reason.to_owned()), "{what}");
    }
    Ok(())
}

async fn its_calls_show_its_key(home: Home) -> Outcome {
    shows_its_key(&home, "").await
}

async fn it_takes_up_the_nonces_that_are_told(home: Home) -> Outcome {
    shows_its_key(&home, NONCES).await
}

async fn shows_its_key(home: &Home, settings: &str) -> Outcome {
    let server = home.start_with(settings).await?;
    let key = HolderKey::generate()?;
    let identity = with_key(home, &server, deputy(), server.url(), &key).await?;
    let service = ledger_service(home, &server).await?;
    let anna = anna(&server).await?;
    let own = identity.tokens(&["ledger"], &["read"]);
    let acting = identity.acting_for(&anna, &["ledger"], &["read"]);
    let client = |tokens: &ServiceTokens| -> Result<_, Box<dyn Error>> {
        Ok(HealthClient::new(tokens.attach(service.channel()?)))
    };
    for tokens in [&own, &acting] {
        let token = is_bound(tokens, &key).await?;
        let mut health = client(tokens)?;
        for _ in 0..3 {
            health.check(HealthCheckRequest::default()).await?;
        }
        is_of_no_use_to_a_thief(home, &service, &token).await?;
        assert_eq!(tokens.token().await?, token, "it was never refused to the service itself");
    }
    assert_eq!(issued(&server).await?, 2, "one for the ledger, and one to exchange with");

    let (mut health, mut for_anna) = (client(&own)?, client(&acting)?);
    let first = (own.token().await?, acting.token().await?);
    home.clock.advance(256);
    eventually("both are renewed", async || {
        health.check(HealthCheckRequest::default()).await?;
        for_anna.check(HealthCheckRequest::default()).await?;
        Ok(is_bound(&own, &key).await? != first.0 && is_bound(&acting, &key).await? != first.1)
    })
    .await?;
    // The one to exchange with is renewed beside, and its proof must not be on the way while the clock is turned.
    eventually("the third is renewed", async || Ok(issued(&server).await? == 4)).await?;
    // So long that all has ended: the tokens, and the nonce that was told last.
    home.clock.advance(500);
    health.check(HealthCheckRequest::default()).await?;
    for_anna.check(HealthCheckRequest::default()).await?;
    server.stop().await
}

async fn what_comes_back_unbound_is_not_used(home: Home) -> Outcome {
    let server = home.start().await?;
    // The issuer sees no key, as one of before doesn't.
    let between = Intermediary::without("dpop", server.channel()).await?;
    let key = HolderKey::generate()?;
    let identity = with_key(&home, &server, deputy(), between.url(), &key).await?;
    assert_eq!(ledger(&identity).await, refused("its tokens are not bound to the key"));
    assert_eq!(issued(&server).await?, 1, "there was one");
    let anna = anna(&server).await?;
    let acting = identity.exchange(&anna, &["ledger"], &["read"]).await;
    assert_eq!(acting, refused("its tokens are not bound to the key"));
    server.stop().await
}

async fn verifiers_follow_and_ask_with_its_tokens(home: Home) -> Outcome {
    let settings = "[server]\nwatch = \"services\"\nmax_watchers = 1\n\
                    [tokens]\nintrospection = \"services\"\ndpop_nonce = \"required\"\n";
    let server = home.start_with(settings).await?;
    let key = HolderKey::generate()?;
    let own_audiences = words(&["orders"]);
    let account = CreateServiceAccountRequest { own_audiences, ..deputy() };
    let identity = with_key(&home, &server, account, server.url(), &key).await?;
    let tokens = identity.tokens(&["tessera"], &[]);
    let connect = || {
        let verifier = Verifier::connect(server.url()).issuer(ISSUER).audience("orders");
        verifier.clock(home.clock.clone()).authorization(Arc::new(tokens.clone()))
    };
    let following = connect().start().await?;
    // There is no place left for this one, so that it has to ask.
    let asking = connect().on_stale(OnStale::AskIssuer).first_contact(Duration::ZERO).start().await?;
    let token = is_bound(&tokens, &key).await?;
    server.anna().await?;
    let anna = audience_token(&server, "anna", &["orders", "tessera"], &[]).await?;
    following.check(&anna).await?;
    asking.check(&anna).await?;
    server.auth().logout(authorized(&anna, LogoutRequest {})).await?;
    let revoked = Err(Denial::Refused(Refusal::Revoked));
    eventually("the logout is heard", async || Ok(following.check(&anna).await == revoked)).await?;
    assert_eq!(asking.check(&anna).await, revoked);
    // What it was told to put into its proofs is not good any more.
    let anna = audience_token(&server, "anna", &["orders"], &[]).await?;
    home.clock.advance(120);
    asking.check(&anna).await?;
    assert_eq!(tokens.token().await?, token, "it was good all the time");
    server.stop().await
}
