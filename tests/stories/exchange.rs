//! Services that act for whoever called them: what of a token they may hand on, who stands in it, and what ends it.

use std::error::Error;

use chrono::TimeDelta;
use serde_json::json;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        CreateServiceAccountRequest, DisableServiceAccountRequest, ExchangeTokenRequest,
        ExchangeTokenResponse, GetJwksRequest, LoginRequest, LogoutRequest, ServiceAccount, Tokens,
        UpdateServiceAccountRequest, VerifyTokenRequest, WordSet,
    },
    verifier::{Expected, Verifier},
};
use tonic::{Code, Response, Status};

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Registrar, Server, asks, authorized, denied, device, invalid,
    invalid_token, orders, parts_of, refresh_with, refusal, revoked, stories, timed_stories, words,
};

stories! {
    a_service_acts_for_the_person_who_called_it,
    a_chain_of_five_keeps_every_actor,
    nothing_is_handed_on_that_was_not_there,
    who_may_not_exchange_is_refused,
    it_ends_with_the_session_and_with_each_who_acts,
    nobody_stands_in_the_token_only_where_that_is_allowed,
    nobody_acts_for_another_one_here,
    what_was_meant_for_somebody_else_is_not_handed_on,
}
timed_stories! {
    it_never_lives_longer_than_what_it_was_made_of,
}

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A service that calls others, and its own token.
pub(super) struct Calling {
    pub account: ServiceAccount,
    pub secret: String,
    pub token: String,
}

impl Calling {
    /// One that may exchange tokens for this audience.
    pub async fn new(
        registrar: &Registrar<'_>,
        name: &str,
        audience: &str,
        grant: &str,
    ) -> Result<Self, Box<dyn Error>> {
        let account = registrar
            .create(CreateServiceAccountRequest {
                name: name.to_owned(),
                allowed_audiences: words(&["tessera", audience]),
                allowed_grants: words(&["client_credentials", grant]),
                ..orders()
            })
            .await?;
        let (secret, _) = registrar.secret(&account).await?;
        let mut calling = Self { account, secret, token: String::new() };
        calling.token = calling.own_token(registrar.server).await?;
        Ok(calling)
    }

    async fn own_token(&self, server: &Server) -> Result<String, Box<dyn Error>> {
        let mut request = asks(&self.account.client_id, &self.secret);
        request.audience = words(&["tessera"]);
        Ok(server.service_token(request).await?.access_token)
    }

    pub async fn try_exchange(
        &self,
        server: &Server,
        request: ExchangeTokenRequest,
    ) -> Result<Response<ExchangeTokenResponse>, Status> {
        server.auth().exchange_token(authorized(&self.token, request)).await
    }

    pub async fn exchange(
        &self,
        server: &Server,
        request: ExchangeTokenRequest,
    ) -> Result<Tokens, Box<dyn Error>> {
        Ok(self.try_exchange(server, request).await?.into_inner().tokens.ok_or("no tokens")?)
    }
}

pub(super) fn exchanging(subject_token: &str, audience: &str, scope: &[&str]) -> ExchangeTokenRequest {
    ExchangeTokenRequest {
        subject_token: subject_token.to_owned(),
        subject_token_type: ACCESS_TOKEN.to_owned(),
        audience: words(&[audience]),
        scope: words(scope),
        ..Default::default()
    }
}

/// Anna, signed in for `orders` with these scopes.
pub(super) async fn anna(server: &Server, scope: &[&str]) -> Result<Tokens, Box<dyn Error>> {
    server.anna().await?;
    let login = LoginRequest {
        username: "anna".to_owned(),
        password: PASSWORD.to_owned(),
        device: device("web"),
        audience: words(&["orders", "tessera"]),
        scope: words(scope),
        ..Default::default()
    };
    Ok(server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?)
}

pub(super) async fn is_active(server: &Server, token: &str) -> Result<bool, Box<dyn Error>> {
    let (plain, strict) = (server.is_active(token, false).await?, server.is_active(token, true).await?);
    assert_eq!(plain, strict);
    Ok(plain)
}

async fn a_service_acts_for_the_person_who_called_it(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let anna = anna(&server, &["read", "write", "email"]).await?;
    let request = exchanging(&anna.access_token, "ledger", &["read"]);
    let reply = orders.try_exchange(&server, request).await?.into_inner();
    assert_eq!(reply.issued_token_type, ACCESS_TOKEN);
    let tokens = reply.tokens.ok_or("no tokens")?;
    assert!(tokens.refresh_token.is_empty() && tokens.session_id.is_empty());

    let (before, now) = (parts_of(&anna.access_token)?.1, parts_of(&tokens.access_token)?.1);
    for same in ["iss", "sub", "sid", "ver", "gen", "tenant_id", "auth_time", "amr", "device_type"] {
        assert_eq!(now[same], before[same], "{same}");
    }
    assert_eq!((&now["aud"], &now["scope"]), (&json!(["ledger"]), &json!("read")));
    assert_eq!(now["client_id"], orders.account.client_id.as_str());
    assert_eq!(now["act"], json!({"sub": orders.account.client_id, "ver": 0}));
    assert!(before.get("email").is_none() || now.get("email").is_none(), "not asked for");
    assert_ne!(now["jti"], before["jti"]);

    // Anybody checks it with the issuer's keys alone.
    let set = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
    let expected = Expected {
        issuer: "http://127.0.0.1:50051".to_owned(),
        audience: Some("ledger".to_owned()),
        leeway: TimeDelta::seconds(30),
    };
    let time = if matches!(home.kind, Kind::Binary) { SystemClock.now() } else { home.clock.now() };
    let claims = Verifier::from_jwks(&set.jwks_json)?.check(&tokens.access_token, &expected, time)?;
    let actors: Vec<String> = claims.actors().map(|actor| actor.sub.to_string()).collect();
    assert_eq!(actors, [orders.account.client_id.as_str()]);

    let asked = VerifyTokenRequest { token: tokens.access_token, ..Default::default() };
    let told = server.auth().verify_token(asked).await?.into_inner().claims.ok_or("no claims")?;
    assert_eq!(told.act.map(|act| act.sub), Some(orders.account.client_id.clone()));

    // The same where it names itself, and with the other name of the type.
    let named = ExchangeTokenRequest {
        actor_token: orders.token.clone(),
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".to_owned(),
        ..exchanging(&anna.access_token, "ledger", &[])
    };
    let tokens = orders.exchange(&server, named).await?;
    assert_eq!(parts_of(&tokens.access_token)?.1["act"]["sub"], orders.account.client_id.as_str());
    server.stop().await
}

async fn a_chain_of_five_keeps_every_actor(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read"]).await?;
    let (mut token, mut names) = (anna.access_token, Vec::new());
    for number in 1..=5 {
        let (name, next) = (format!("s{number}"), format!("s{}", number + 1));
        let calling = Calling::new(&registrar, &name, &next, "token_exchange").await?;
        token = calling.exchange(&server, exchanging(&token, &next, &["read"])).await?.access_token;
        names.insert(0, calling.account.client_id);
    }
    let claims = parts_of(&token)?.1;
    let mut actors = Vec::new();
    let mut act = &claims["act"];
    while let Some(sub) = act["sub"].as_str() {
        actors.push(sub.to_owned());
        act = &act["act"];
    }
    assert_eq!(actors, names, "the newest first");
    assert!(is_active(&server, &token).await?);
    for number in 6..=8 {
        let (name, next) = (format!("s{number}"), format!("s{}", number + 1));
        let calling = Calling::new(&registrar, &name, &next, "token_exchange").await?;
        token = calling.exchange(&server, exchanging(&token, &next, &["read"])).await?.access_token;
    }
    let ninth = Calling::new(&registrar, "s9", "s10", "token_exchange").await?;
    let refused = ninth.try_exchange(&server, exchanging(&token, "s10", &["read"])).await;
    assert_eq!(refusal(refused), denied(), "there is an end to it");
    server.stop().await
}

async fn nothing_is_handed_on_that_was_not_there(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    registrar.audience("ledger", &["read", "audit"]).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let anna = anna(&server, &["read", "write"]).await?;
    let token = anna.access_token.as_str();
    for (what, request) in [
        ("a scope that she lacks", exchanging(token, "ledger", &["read", "audit"])),
        ("a scope that the audience lacks", exchanging(token, "ledger", &["write"])),
        ("an audience that is not allowed", exchanging(token, "payments", &["read"])),
        (
            "one audience more",
            ExchangeTokenRequest {
                audience: words(&["ledger", "payments"]),
                ..exchanging(token, "ledger", &[])
            },
        ),
    ] {
        assert_eq!(refusal(orders.try_exchange(&server, request).await), denied(), "{what}");
    }
    for request in [
        ExchangeTokenRequest { subject_token_type: String::new(), ..exchanging(token, "ledger", &[]) },
        ExchangeTokenRequest {
            subject_token_type: "urn:ietf:params:oauth:token-type:refresh_token".to_owned(),
            ..exchanging(token, "ledger", &[])
        },
        ExchangeTokenRequest { actor_token: token.to_owned(), ..exchanging(token, "ledger", &[]) },
    ] {
        assert_eq!(refusal(orders.try_exchange(&server, request).await), invalid());
    }
    let malformed = orders.try_exchange(&server, exchanging("x", "ledger", &[])).await;
    assert_eq!(refusal(malformed), (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned()));
    let refresh_token = orders.try_exchange(&server, exchanging(&anna.refresh_token, "ledger", &[])).await;
    assert_eq!(refusal(refresh_token), (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned()));
    // A service's own token can be narrowed too.
    let own = orders.exchange(&server, exchanging(&orders.token, "ledger", &[])).await?;
    assert_eq!(parts_of(&own.access_token)?.1["sub"], orders.account.client_id.as_str());
    let narrowed = orders.exchange(&server, exchanging(token, "ledger", &["read"])).await?.access_token;
    let again = orders.try_exchange(&server, exchanging(&narrowed, "ledger", &["write"])).await;
    assert_eq!(refusal(again), denied(), "what is gone does not come back");
    let events = server.events(&server.admin().await?, "exchange_token").await?;
    assert_eq!(events.len(), 5, "{events:#?}");
    assert!(events.iter().all(|event| event.actor_id == orders.account.client_id));
    server.stop().await
}

async fn who_may_not_exchange_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read"]).await?;
    let without = Calling::new(&registrar, "without", "ledger", "client_credentials").await?;
    let asked = || exchanging(&anna.access_token, "ledger", &["read"]);
    assert_eq!(refusal(without.try_exchange(&server, asked()).await), denied());

    let user = server.auth().exchange_token(authorized(&anna.access_token, asked())).await;
    assert_eq!(refusal(user), invalid_token(), "a user is no service");
    let nobody = server.auth().exchange_token(asked()).await;
    assert_eq!(refusal(nobody), (Code::Unauthenticated, "TOKEN_MISSING".to_owned()));
    let elsewhere =
        server.service_token(asks(&without.account.client_id, &without.secret)).await?.access_token;
    let elsewhere = server.auth().exchange_token(authorized(&elsewhere, asked())).await;
    assert_eq!(refusal(elsewhere), invalid_token(), "for another audience");
    server.stop().await
}

async fn it_ends_with_the_session_and_with_each_who_acts(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let first = Calling::new(&registrar, "first", "second", "token_exchange").await?;
    let second = Calling::new(&registrar, "second", "third", "token_exchange").await?;
    let anna = anna(&server, &["read"]).await?;
    let to_second = first.exchange(&server, exchanging(&anna.access_token, "second", &["read"])).await?;
    let to_third = second.exchange(&server, exchanging(&to_second.access_token, "third", &["read"])).await?;
    assert!(is_active(&server, &to_third.access_token).await?);

    // Whoever acted first is barred: what was handed on ends with it.
    let request =
        DisableServiceAccountRequest { service_account_id: first.account.service_account_id.clone() };
    server.service_accounts().disable_service_account(authorized(&registrar.token, request)).await?;
    assert!(!is_active(&server, &to_third.access_token).await?);
    let revoked = revoked();
    let refused = first.try_exchange(&server, exchanging(&anna.access_token, "second", &["read"])).await;
    assert_eq!(refusal(refused), revoked);
    let refused = second.try_exchange(&server, exchanging(&to_second.access_token, "third", &["read"])).await;
    assert_eq!(refusal(refused), revoked);

    // The person leaves.
    let to_third = second.exchange(&server, exchanging(&anna.access_token, "third", &["read"])).await?;
    assert!(is_active(&server, &to_third.access_token).await?);
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    assert!(!is_active(&server, &to_third.access_token).await?);
    let refused = second.try_exchange(&server, exchanging(&anna.access_token, "third", &["read"])).await;
    assert_eq!(refusal(refused), revoked);
    server.stop().await
}

async fn nobody_stands_in_the_token_only_where_that_is_allowed(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let anna = anna(&server, &["read"]).await?;
    let calling = Calling::new(&registrar, "batch", "ledger", "impersonation").await?;
    let asked = || exchanging(&anna.access_token, "ledger", &["read"]);
    let tokens = calling.exchange(&server, asked()).await?;
    let claims = parts_of(&tokens.access_token)?.1;
    assert!(claims.get("act").is_none());
    assert_eq!(
        claims["client_id"],
        calling.account.client_id.as_str(),
        "it is known whose it is all the same"
    );
    let named = ExchangeTokenRequest { actor_token: calling.token.clone(), ..asked() };
    assert_eq!(refusal(calling.try_exchange(&server, named).await), denied(), "that is another grant");
    server.stop().await
}

async fn nobody_acts_for_another_one_here(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let anna = anna(&server, &["read"]).await?;
    let refused = orders.try_exchange(&server, exchanging(&anna.access_token, "tessera", &["read"])).await;
    assert_eq!(refusal(refused), denied());
    // The session goes on as if nothing had been.
    server.auth().refresh(refresh_with(&anna.refresh_token)).await?;
    server.stop().await
}

async fn what_was_meant_for_somebody_else_is_not_handed_on(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let billing = Calling::new(&registrar, "billing", "ledger", "token_exchange").await?;
    let anna = anna(&server, &["read"]).await?;
    let asked = || exchanging(&anna.access_token, "ledger", &["read"]);
    billing.exchange(&server, asked()).await?;
    for (calling, own) in [(&orders, "orders"), (&billing, "billing")] {
        let request = UpdateServiceAccountRequest {
            service_account_id: calling.account.service_account_id.clone(),
            own_audiences: Some(WordSet { words: words(&[own]) }),
            ..Default::default()
        };
        server.service_accounts().update_service_account(authorized(&registrar.token, request)).await?;
    }
    let to_ledger = orders.exchange(&server, asked()).await?.access_token;
    assert_eq!(refusal(billing.try_exchange(&server, asked()).await), denied(), "it was for orders");
    let stolen = billing.try_exchange(&server, exchanging(&to_ledger, "ledger", &["read"])).await;
    assert_eq!(refusal(stolen), denied(), "it is for the ledger, and was issued to orders");
    // What was issued to it is its own to narrow.
    orders.exchange(&server, exchanging(&to_ledger, "ledger", &[])).await?;
    billing.exchange(&server, exchanging(&billing.token, "ledger", &[])).await?;
    let events = server.events(&server.admin().await?, "exchange_token").await?;
    assert_eq!(events.len(), 2, "{events:#?}");
    assert!(events.iter().all(|event| event.actor_id == billing.account.client_id));
    server.stop().await
}

async fn it_never_lives_longer_than_what_it_was_made_of(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"10m\"\nservice_ttl = \"1h\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let orders = Calling::new(&registrar, "orders", "ledger", "token_exchange").await?;
    let anna = anna(&server, &["read"]).await?;
    home.clock.advance(60);
    let tokens = orders.exchange(&server, exchanging(&anna.access_token, "ledger", &["read"])).await?;
    let (before, now) = (parts_of(&anna.access_token)?.1, parts_of(&tokens.access_token)?.1);
    assert_eq!(now["exp"], before["exp"], "not by a second");
    home.clock.advance(9 * 60 + 31);
    assert!(!server.is_active(&tokens.access_token, false).await?);
    let refused = orders.try_exchange(&server, exchanging(&anna.access_token, "ledger", &["read"])).await;
    assert_eq!(refusal(refused), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    server.stop().await
}
