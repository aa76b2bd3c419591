//! A service that gets its tokens by itself: once for all who ask, ahead of time, with whatever it proves itself with,
//! and while the issuer is away.

mod certificates;
mod keys;
mod lives;

use std::{error::Error, fs, sync::Arc};

use futures_util::future::join_all;
use serde_json::json;
use tessera::{
    clock::{Clock, SystemClock},
    domain::algorithm::Algorithm,
    proto::{
        CreateCredentialRequest, DisableServiceAccountRequest, EnableServiceAccountRequest, Federated,
        LoginRequest, LogoutRequest, PrivateKeyJwt, RevokeTokenRequest, ServiceAccount,
        create_credential_request::Kind, create_trusted_issuer_request::Keys,
    },
    verifier::{
        AccessToken, Credential, Guard, IdentityError, IdentityFigures, ServiceIdentity, ServiceTokens,
        Verifier, WithToken,
    },
};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::trusted_issuers::{register, with_keys};
use crate::support::{
    Guarded, Home, Key, Kind as HomeKind, Outcome, PASSWORD, Proxy, Registrar, Server, authorized, deputy,
    device, eventually, jwks, one_key, orders, parts_of, process_stories, stories, timed_stories, words,
};

stories! {
    each_credential_proves_the_service,
    what_it_may_not_have_it_is_told_at_once,
}
timed_stories! {
    one_asks_for_all,
    a_token_is_renewed_ahead_of_its_end,
    a_token_is_used_to_its_end_while_the_issuer_is_away,
    a_secret_is_replaced_on_disk,
    a_revoked_credential_is_told_when_its_last_token_ends,
    a_call_that_is_refused_is_made_once_more,
    a_disabled_service_is_told_so,
    it_acts_for_whom_it_was_called_by,
    a_token_to_act_with_is_not_asked_for_in_vain,
}
process_stories! {
    it_goes_on_with_a_server_that_was_restarted,
}

const ISSUER: &str = "http://127.0.0.1:50051";
const PLATFORM: &str = "https://platform.example";

fn clock_of(home: &Home) -> Arc<dyn Clock> {
    match home.kind {
        HomeKind::Binary | HomeKind::BinarySqlite => Arc::new(SystemClock),
        HomeKind::Sqlite | HomeKind::Postgres => home.clock.clone(),
    }
}

fn identity(
    home: &Home,
    url: String,
    account: &ServiceAccount,
    credential: Credential,
) -> Result<ServiceIdentity, tonic::transport::Error> {
    ServiceIdentity::at(url, &account.client_id, credential).clock(clock_of(home)).build()
}

/// The service `orders`, which has a secret.
async fn with_secret(
    home: &Home,
    server: &Server,
) -> Result<(ServiceIdentity, ServiceAccount), Box<dyn Error>> {
    let registrar = Registrar::of(server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    Ok((identity(home, server.url(), &account, Credential::client_secret(secret))?, account))
}

async fn ledger(identity: &ServiceIdentity) -> Result<AccessToken, IdentityError> {
    identity.token(&["ledger"], &["read"]).await
}

fn refused<T>(reason: &str) -> Result<T, IdentityError> {
    Err(IdentityError::Refused(reason.to_owned()))
}

async fn issued(server: &Server) -> Result<u64, Box<dyn Error>> {
    server.metric("tessera_service_tokens_total").await
}

async fn exchanged(server: &Server) -> Result<u64, Box<dyn Error>> {
    server.metric("tessera_token_exchanges_total").await
}

async fn each_credential_proves_the_service(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let path = home.dir().join("credential");
    let proves = async |credential: Credential| -> Outcome {
        let token = ledger(&identity(&home, server.url(), &account, credential)?).await?;
        let claims = parts_of(token.expose())?.1;
        assert_eq!((&claims["sub"], &claims["scope"]), (&json!(account.client_id), &json!("read")));
        Ok(())
    };
    let gets = async |kind: Kind| {
        let request = CreateCredentialRequest {
            service_account_id: account.service_account_id.clone(),
            kind: Some(kind),
            ..Default::default()
        };
        registrar.try_credential(request).await
    };

    let (secret, _) = registrar.secret(&account).await?;
    fs::write(&path, format!("{secret}\n"))?;
    proves(Credential::client_secret(secret)).await?;
    proves(Credential::client_secret_file(&path)).await?;

    for algorithm in Algorithm::ALL {
        let key = Key::generate(algorithm)?;
        // By its thumbprint, and by a name.
        let set = jwks(&[(key.kid(), &key), ("named", &key)]);
        let keys = PrivateKeyJwt { jwks_json: set.to_string(), ..Default::default() };
        gets(Kind::PrivateKeyJwt(keys)).await?;
        let jwk = key.private_jwk()?;
        let mut named = jwk.clone();
        named["kid"] = json!("named");
        fs::write(&path, named.to_string())?;
        proves(Credential::private_key(jwk.to_string(), ISSUER)).await?;
        proves(Credential::private_key_file(&path, ISSUER)).await?;
        // Nothing in PEM says for which of two an RSA key is.
        if algorithm != Algorithm::Ps256 {
            let pem = key.private_pem()?;
            fs::write(&path, &pem)?;
            proves(Credential::private_key(pem, ISSUER)).await?;
            proves(Credential::private_key_file(&path, ISSUER).with_key_id("named")).await?;
        }
    }

    let (platform, set) = one_key("p1")?;
    let admin = server.admin().await?;
    register(&server, &admin, with_keys(PLATFORM, Keys::JwksJson(set.to_string()))).await?;
    let subject = "spiffe://shop.example/orders".to_owned();
    let federated = Federated { issuer: PLATFORM.to_owned(), subject, claims: Default::default() };
    gets(Kind::Federated(federated)).await?;
    let exp = clock_of(&home).now().timestamp() + 300;
    let claims = json!({"iss": PLATFORM, "sub": "spiffe://shop.example/orders", "aud": "here", "exp": exp});
    fs::write(&path, platform.sign(&json!({"alg": "ES256", "kid": "p1"}), &claims)?)?;
    proves(Credential::workload_token_file(&path)).await?;

    let nobody = identity(&home, server.url(), &account, Credential::connection())?;
    assert!(ledger(&nobody).await.is_err_and(|error| !error.is_passing()), "it has shown no certificate");
    server.stop().await
}

async fn what_it_may_not_have_it_is_told_at_once(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, account) = with_secret(&home, &server).await?;
    for (audience, scope) in [("ledger", "admin"), ("billing", "read"), ("tessera", "read")] {
        assert_eq!(identity.token(&[audience], &[scope]).await, refused("INSUFFICIENT_SCOPE"));
    }
    let url = || server.url();
    let wrong = self::identity(&home, url(), &account, Credential::client_secret("tcs_wrong"))?;
    assert_eq!(ledger(&wrong).await, refused("INVALID_CREDENTIALS"));
    let before = issued(&server).await?;
    for told in join_all((0..200).map(|_| ledger(&wrong))).await {
        assert_eq!(told, refused("INVALID_CREDENTIALS"));
    }
    assert!(issued(&server).await? - before < 20, "it is not tried with each call");
    let nowhere = Credential::client_secret_file(home.dir().join("nowhere"));
    let nowhere = ledger(&self::identity(&home, url(), &account, nowhere)?).await;
    assert!(matches!(nowhere, Err(IdentityError::Credential(_))), "{nowhere:?}");
    let away = "http://127.0.0.1:1".to_owned();
    let away = self::identity(&home, away, &account, Credential::client_secret("tcs_x"))?;
    assert_eq!(ledger(&away).await, Err(IdentityError::Unavailable(Code::Unavailable)));
    server.stop().await
}

async fn one_asks_for_all(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, _) = with_secret(&home, &server).await?;
    let mut tokens = join_all((0..100).map(|_| ledger(&identity))).await.into_iter();
    let first = tokens.next().ok_or("none")??;
    assert!(tokens.all(|token| token.is_ok_and(|token| token == first)));
    assert_eq!(issued(&server).await?, 1);
    let both = identity.token(&["ledger"], &["write", "read"]).await?;
    assert_eq!(identity.token(&["ledger"], &["read", "write", "read"]).await?, both, "it is one set");
    assert_ne!(both, first);
    assert_eq!(issued(&server).await?, 2);
    // Who goes away takes nothing along.
    let other = identity.clone();
    let call = tokio::spawn(async move { other.token(&["ledger"], &[]).await });
    tokio::task::yield_now().await;
    call.abort();
    identity.token(&["ledger"], &[]).await?;
    assert_eq!(issued(&server).await?, 3);
    server.stop().await
}

async fn a_token_is_renewed_ahead_of_its_end(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, _) = with_secret(&home, &server).await?;
    let first = ledger(&identity).await?;
    home.clock.advance(209);
    assert_eq!(ledger(&identity).await?, first, "it has life enough");
    home.clock.advance(47);
    for token in join_all((0..50).map(|_| ledger(&identity))).await {
        token?;
    }
    eventually("it is renewed", async || Ok(ledger(&identity).await? != first)).await?;
    assert_eq!(issued(&server).await?, 2);
    // Asleep for so long that it has ended: now they wait, for one.
    home.clock.advance(3000);
    for token in join_all((0..50).map(|_| ledger(&identity))).await {
        assert!(server.is_active(token?.expose(), true).await?);
    }
    assert_eq!(issued(&server).await?, 3);
    server.stop().await
}

async fn a_token_is_used_to_its_end_while_the_issuer_is_away(home: Home) -> Outcome {
    let server = home.start().await?;
    let proxy = Proxy::to_address(server.address).await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    let identity = identity(&home, proxy.url(), &account, Credential::client_secret(secret))?;
    let first = ledger(&identity).await?;
    proxy.cut();
    home.clock.advance(299);
    for token in join_all((0..50).map(|_| ledger(&identity))).await {
        assert_eq!(token?, first);
    }
    home.clock.advance(1);
    let away = ledger(&identity).await;
    assert!(matches!(away, Err(IdentityError::Unavailable(_))), "{away:?}");
    proxy.mend();
    eventually("it goes on", async || Ok(ledger(&identity).await.is_ok())).await?;
    server.stop().await
}

async fn a_secret_is_replaced_on_disk(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (old, old_id) = registrar.secret(&account).await?;
    let path = home.dir().join("secret");
    fs::write(&path, &old)?;
    let identity = identity(&home, server.url(), &account, Credential::client_secret_file(&path))?;
    let first = ledger(&identity).await?;
    let (new, _) = registrar.secret(&account).await?;
    registrar.revoke(&account.service_account_id, &old_id).await?;
    // Whoever writes it has come half-way.
    fs::write(&path, &new[..20])?;
    home.clock.advance(256);
    eventually("half of it is refused", async || {
        assert_eq!(ledger(&identity).await?, first);
        Ok(server.metric("tessera_service_tokens_total{outcome=\"INVALID_CREDENTIALS\"}").await? > 0)
    })
    .await?;
    fs::write(&path, &new)?;
    eventually("it is read again", async || Ok(ledger(&identity).await? != first)).await?;
    server.stop().await
}

async fn a_revoked_credential_is_told_when_its_last_token_ends(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (secret, id) = registrar.secret(&account).await?;
    let identity = identity(&home, server.url(), &account, Credential::client_secret(secret))?;
    let first = ledger(&identity).await?;
    registrar.revoke(&account.service_account_id, &id).await?;
    assert_eq!(identity.token(&["ledger"], &["write"]).await, refused("INVALID_CREDENTIALS"));
    home.clock.advance(299);
    assert_eq!(ledger(&identity).await?, first, "what was given is good to its end");
    home.clock.advance(1);
    assert_eq!(ledger(&identity).await, refused("INVALID_CREDENTIALS"));
    server.stop().await
}

/// The service `ledger`, and a client of it that has these tokens.
async fn ledger_of(
    home: &Home,
    server: &Server,
    tokens: &ServiceTokens,
) -> Result<(Guarded, HealthClient<WithToken<Channel, ServiceTokens>>), Box<dyn Error>> {
    let verifier = Verifier::connect(server.url()).issuer(ISSUER).audience("ledger");
    let verifier = verifier.clock(home.clock.clone()).start().await?;
    let service = Guarded::start(Guard::new(verifier)).await?;
    let client = HealthClient::new(tokens.attach(service.channel()?));
    Ok((service, client))
}

/// Waits until a service refuses a token.
async fn hears_of(service: &Guarded, token: &AccessToken) -> Outcome {
    let bearer = format!("Bearer {}", token.expose());
    eventually("the service knows", async || {
        Ok(service.get("/greet", &[&bearer]).await?.starts_with("HTTP/1.1 401"))
    })
    .await
}

async fn revoke(server: &Server, token: &AccessToken) -> Outcome {
    let admin = server.admin().await?;
    let request = RevokeTokenRequest { token: token.expose().to_owned(), ..Default::default() };
    server.auth().revoke_token(authorized(&admin.access_token, request)).await?;
    Ok(())
}

async fn a_call_that_is_refused_is_made_once_more(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, _) = with_secret(&home, &server).await?;
    let tokens = identity.tokens(&["ledger"], &["read"]);
    let (service, mut health) = ledger_of(&home, &server, &tokens).await?;
    health.check(HealthCheckRequest::default()).await?;
    let first = tokens.token().await?;
    revoke(&server, &first).await?;
    hears_of(&service, &first).await?;
    let before = issued(&server).await?;
    let calls = join_all((0..20).map(|_| {
        let mut health = health.clone();
        async move { health.check(HealthCheckRequest::default()).await }
    }));
    for call in calls.await {
        call?;
    }
    assert_eq!(issued(&server).await? - before, 1, "one asks again for all");
    assert_ne!(tokens.token().await?, first);
    server.stop().await
}

async fn a_disabled_service_is_told_so(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, account) = with_secret(&home, &server).await?;
    let registrar = Registrar::of(&server).await?;
    let tokens = identity.tokens(&["ledger"], &["read"]);
    let (service, mut health) = ledger_of(&home, &server, &tokens).await?;
    health.check(HealthCheckRequest::default()).await?;
    let first = tokens.token().await?;
    let service_account_id = account.service_account_id.clone();
    let request = DisableServiceAccountRequest { service_account_id: service_account_id.clone() };
    server.service_accounts().disable_service_account(authorized(&registrar.token, request)).await?;
    hears_of(&service, &first).await?;
    let status = health.check(HealthCheckRequest::default()).await.expect_err("it is disabled");
    assert_eq!(status.code(), Code::Unauthenticated, "as the service says");
    assert_eq!(tokens.token().await, refused("ACCOUNT_DISABLED"), "nothing is left of its token");
    let status = health.check(HealthCheckRequest::default()).await.expect_err("it is disabled");
    assert_eq!(status.code(), Code::Internal, "that is nothing to whoever calls it");

    let request = EnableServiceAccountRequest { service_account_id };
    server.service_accounts().enable_service_account(authorized(&registrar.token, request)).await?;
    eventually("it is let in again", async || Ok(health.check(HealthCheckRequest::default()).await.is_ok()))
        .await?;
    server.stop().await
}

/// The service `orders`, which may act at `ledger` for those who call it.
async fn acting(home: &Home, server: &Server) -> Result<ServiceIdentity, Box<dyn Error>> {
    let registrar = Registrar::of(server).await?;
    let account = registrar.create(deputy()).await?;
    let (secret, _) = registrar.secret(&account).await?;
    Ok(identity(home, server.url(), &account, Credential::client_secret(secret))?)
}

/// Anna's token for `orders`.
async fn anna(server: &Server) -> Result<String, Box<dyn Error>> {
    server.anna().await?;
    let login = LoginRequest {
        username: "anna".to_owned(),
        password: PASSWORD.to_owned(),
        device: device("web"),
        audience: words(&["orders", "tessera"]),
        scope: words(&["read", "write"]),
        ..Default::default()
    };
    Ok(server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?.access_token)
}

async fn it_acts_for_whom_it_was_called_by(home: Home) -> Outcome {
    let server = home.start().await?;
    let identity = acting(&home, &server).await?;
    let anna = anna(&server).await?;
    let mut tokens =
        join_all((0..50).map(|_| identity.exchange(&anna, &["ledger"], &["read"]))).await.into_iter();
    let first = tokens.next().ok_or("none")??;
    assert!(tokens.all(|token| token.is_ok_and(|token| token == first)));
    assert_eq!((issued(&server).await?, exchanged(&server).await?), (1, 1));
    assert_eq!(identity.figures(), IdentityFigures { own_tokens: 1, tokens_to_act_with: 1 });
    let (hers, claims) = (parts_of(&anna)?.1, parts_of(first.expose())?.1);
    assert_eq!((&claims["sub"], &claims["sid"]), (&hers["sub"], &hers["sid"]));
    assert_eq!(claims["act"]["sub"], claims["client_id"], "who acts stands in it");
    let more = identity.exchange(&anna, &["ledger"], &["admin"]).await;
    assert_eq!(more, refused("INSUFFICIENT_SCOPE"));

    // Its own token ends before its time: it gets another one, and is let in with that.
    let own = identity.token(&["tessera"], &[]).await?;
    revoke(&server, &own).await?;
    let before = (issued(&server).await?, exchanged(&server).await?);
    identity.exchange(&anna, &["ledger"], &["write"]).await?;
    assert_eq!((issued(&server).await?, exchanged(&server).await?), (before.0 + 1, before.1 + 1));

    let tokens = identity.acting_for(&anna, &["ledger"], &["read"]);
    let (service, mut health) = ledger_of(&home, &server, &tokens).await?;
    health.check(HealthCheckRequest::default()).await?;
    server.auth().logout(authorized(&anna, LogoutRequest {})).await?;
    hears_of(&service, &first).await?;
    let status = health.check(HealthCheckRequest::default()).await.expect_err("she is gone");
    assert_eq!(status.code(), Code::Unauthenticated);
    let gone = Err(IdentityError::SubjectRefused("TOKEN_REVOKED".to_owned()));
    assert_eq!(tokens.token().await, gone);
    let status = health.check(HealthCheckRequest::default()).await.expect_err("she is gone");
    assert_eq!(status.code(), Code::Unauthenticated, "that is for whoever called to know");
    server.stop().await
}

async fn a_token_to_act_with_is_not_asked_for_in_vain(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"4m\"\n").await?;
    let (identity, anna) = (acting(&home, &server).await?, anna(&server).await?);
    let tokens = identity.acting_for(&anna, &["ledger"], &["read"]);
    tokens.token().await?;
    home.clock.advance(205);
    // The next one ends when hers does, as this one.
    eventually("it is renewed", async || {
        tokens.token().await?;
        Ok(exchanged(&server).await? == 2)
    })
    .await?;
    home.clock.advance(34);
    for _ in 0..20 {
        tokens.token().await?;
    }
    assert_eq!(exchanged(&server).await?, 2);
    home.clock.advance(40);
    let ended = Err(IdentityError::SubjectRefused("TOKEN_EXPIRED".to_owned()));
    assert_eq!(tokens.token().await, ended);
    server.stop().await
}

async fn it_goes_on_with_a_server_that_was_restarted(home: Home) -> Outcome {
    let server = home.start().await?;
    let (identity, _) = with_secret(&home, &server).await?;
    let (address, first) = (server.address, ledger(&identity).await?);
    server.stop().await?;
    assert_eq!(ledger(&identity).await?, first);
    let away = identity.token(&["ledger"], &[]).await;
    assert!(matches!(away, Err(IdentityError::Unavailable(_))), "{away:?}");
    let server = home.start_again_at(address).await?;
    let other = identity.token(&["ledger"], &["write"]).await?;
    assert!(server.is_active(other.expose(), true).await?);
    assert!(server.is_active(first.expose(), true).await?);
    server.stop().await?;
    // A connection that was broken meanwhile is not what is tried first and last.
    let server = home.start_again_at(address).await?;
    identity.token(&["ledger"], &["read", "write"]).await?;
    server.stop().await
}
