//! What keeps an exchange within bounds that others have set: the account, the audience, and whoever the token was for.

use serde_json::json;
use tessera::proto::{
    CreateAudienceRequest, DisableServiceAccountRequest, ExchangeTokenRequest, ListAudiencesRequest,
    LoginRequest, LogoutRequest, UpdateAudienceRequest, UpdateServiceAccountRequest, VerifyTokenRequest,
    WordSet,
};

use super::exchange::{Calling, anna, exchanging, is_active};
use crate::support::{
    Home, Outcome, PASSWORD, Person, Registrar, asks, authorized, denied, device, parts_of, refresh_with,
    refusal, revoked, stories, words,
};

stories! {
    a_service_that_is_not_seen_ends_what_it_handed_on,
    nobody_hands_on_more_than_its_account_may_ask_for,
    a_service_about_itself_needs_what_it_would_need_without,
    an_exchange_for_fewer_scopes_keeps_the_audience,
    people_get_no_scope_that_an_audience_lacks,
    wrong_guesses_hide_no_refusal,
}

async fn a_service_that_is_not_seen_ends_what_it_handed_on(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read"]).await?;
    let unseen = Calling::new(&registrar, "unseen", "billing", "impersonation").await?;
    let billing = Calling::new(&registrar, "billing", "ledger", "token_exchange").await?;
    let to_billing = unseen.exchange(&server, exchanging(&anna.access_token, "billing", &["read"])).await?;
    let to_ledger =
        billing.exchange(&server, exchanging(&to_billing.access_token, "ledger", &["read"])).await?;
    let claims = parts_of(&to_ledger.access_token)?.1;
    assert_eq!(claims["act"]["sub"], billing.account.client_id.as_str());
    assert!(claims["act"].get("act").is_none());
    let asked = VerifyTokenRequest { token: to_ledger.access_token.clone(), ..Default::default() };
    let told = server.auth().verify_token(asked).await?.into_inner().claims.ok_or("no claims")?;
    let via: Vec<_> = told.via.into_iter().map(|service| service.sub).collect();
    assert_eq!(via, [unseen.account.client_id.as_str()]);
    for token in [&to_billing, &to_ledger] {
        assert!(is_active(&server, &token.access_token).await?);
    }
    let request =
        DisableServiceAccountRequest { service_account_id: unseen.account.service_account_id.clone() };
    server.service_accounts().disable_service_account(authorized(&registrar.token, request)).await?;
    for token in [&to_billing, &to_ledger] {
        assert!(!is_active(&server, &token.access_token).await?, "also by the database");
    }
    assert!(is_active(&server, &anna.access_token).await?);
    server.stop().await
}

async fn nobody_hands_on_more_than_its_account_may_ask_for(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read", "audit"]).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let asked = |scope: &[&str]| exchanging(&anna.access_token, "ledger", scope);
    orders.exchange(&server, asked(&["read"])).await?;
    let both = orders.try_exchange(&server, asked(&["read", "audit"])).await;
    assert_eq!(refusal(both), denied(), "she has it, and `orders` may not ask for it");
    server.stop().await
}

async fn a_service_about_itself_needs_what_it_would_need_without(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let request = CreateAudienceRequest {
        name: "ledger".to_owned(),
        allowed_grants: words(&["token_exchange"]),
        ..Default::default()
    };
    server.audiences().create_audience(authorized(&registrar.token, request)).await?;
    let anna = anna(&server, &["read"]).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let straight = server.issue(asks(&orders.account.client_id, &orders.secret)).await;
    assert_eq!(refusal(straight), denied());
    let around = orders.try_exchange(&server, exchanging(&orders.token, "ledger", &[])).await;
    assert_eq!(refusal(around), denied());
    // Not in two steps either.
    let request = UpdateServiceAccountRequest {
        service_account_id: orders.account.service_account_id.clone(),
        allowed_audiences: Some(WordSet { words: words(&["tessera", "ledger", "billing"]) }),
        ..Default::default()
    };
    server.service_accounts().update_service_account(authorized(&registrar.token, request)).await?;
    let step = orders.exchange(&server, exchanging(&orders.token, "billing", &[])).await?;
    let around = orders.try_exchange(&server, exchanging(&step.access_token, "ledger", &[])).await;
    assert_eq!(refusal(around), denied());
    orders.exchange(&server, exchanging(&anna.access_token, "ledger", &["read"])).await?;
    server.stop().await
}

async fn an_exchange_for_fewer_scopes_keeps_the_audience(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read", "write"]).await?;
    let orders = Calling::new(&registrar, "orders", "orders", "token_exchange").await?;
    let asked =
        ExchangeTokenRequest { audience: Vec::new(), ..exchanging(&anna.access_token, "orders", &["read"]) };
    let narrowed = orders.exchange(&server, asked).await?.access_token;
    let claims = parts_of(&narrowed)?.1;
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!(["orders"]), &json!("read")));
    let billing = Calling::new(&registrar, "billing", "ledger", "token_exchange").await?;
    let asked = ExchangeTokenRequest { audience: Vec::new(), ..exchanging(&narrowed, "orders", &["read"]) };
    assert_eq!(refusal(billing.try_exchange(&server, asked).await), denied(), "it may not ask for `orders`");
    server.stop().await
}

async fn people_get_no_scope_that_an_audience_lacks(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    registrar.audience("ledger", &["read"]).await?;
    server.anna().await?;
    let asked = |scope: &[&str]| LoginRequest {
        username: "anna".to_owned(),
        password: PASSWORD.to_owned(),
        device: device("web"),
        audience: words(&["ledger"]),
        scope: words(scope),
        ..Default::default()
    };
    let anna: Person = server.auth().login(asked(&["read", "email", "profile"])).await?.into_inner().into();
    assert_eq!(refusal(server.auth().login(asked(&["read", "write"])).await), denied());
    // Nor do they keep one that has gone.
    let request = ListAudiencesRequest::default();
    let listed = server.audiences().list_audiences(authorized(&registrar.token, request)).await?.into_inner();
    let ledger = listed.audiences.into_iter().next().ok_or("no audience")?;
    let request = UpdateAudienceRequest {
        audience_id: ledger.audience_id,
        scopes: Some(WordSet { words: words(&["write"]) }),
        ..Default::default()
    };
    server.audiences().update_audience(authorized(&registrar.token, request)).await?;
    let refreshed = server.auth().refresh(refresh_with(&anna.refresh_token)).await?.into_inner();
    assert_eq!(refreshed.tokens.ok_or("no tokens")?.scope, "email profile");
    server.stop().await
}

/// A client id is no secret: whoever knows one must not be able to keep others' attempts out of the trail.
async fn wrong_guesses_hide_no_refusal(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let admin = server.admin().await?;
    let anna = anna(&server, &["read"]).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    for _ in 0..120 {
        server.issue(asks(&orders.account.client_id, "tcs_wrong")).await.expect_err("a wrong secret");
    }
    let wider = exchanging(&anna.access_token, "ledger", &["audit"]);
    assert_eq!(refusal(orders.try_exchange(&server, wider).await), denied());
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    let dead = exchanging(&anna.access_token, "ledger", &["read"]);
    assert_eq!(refusal(orders.try_exchange(&server, dead).await), revoked());
    let events = server.events(&admin, "exchange_token").await?;
    let reasons: Vec<_> = events.iter().map(|event| event.reason.as_str()).collect();
    assert_eq!(reasons, ["TOKEN_REVOKED", "INSUFFICIENT_SCOPE"], "the newest first");
    server.stop().await
}
