//! Services that prove themselves with a key of their own (RFC 7523): each assertion is for Tessera alone and good once.

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tessera::{
    clock::Clock,
    domain::algorithm::Algorithm,
    proto::{
        CreateCredentialRequest, CreateServiceAccountRequest, IssueServiceTokenRequest, PrivateKeyJwt,
        RevokeCredentialRequest, ServiceAccount, create_credential_request::Kind,
    },
};
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    Home, Key, KeyServer, Outcome, Registrar, Server, authorized, eventually, invalid, jwks, one_key, orders,
    parts_of, refusal, sign_hs256, stories, timed_stories, unsigned, words, wrong,
};

stories! {
    a_service_signs_for_itself,
    an_assertion_that_differs_in_one_thing_is_refused,
    an_assertion_is_good_once_whoever_brings_it,
    keys_are_found_where_the_service_publishes_them,
    more_keys_than_are_kept_are_not_taken,
    keys_that_give_something_away_are_not_registered,
}
timed_stories! {
    used_assertions_are_forgotten_in_their_time,
}

const ISSUER: &str = "http://127.0.0.1:50051";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Asks with an assertion, which says who asks.
fn asks_with(assertion: &str) -> IssueServiceTokenRequest {
    IssueServiceTokenRequest {
        client_assertion_type: ASSERTION_TYPE.to_owned(),
        client_assertion: assertion.to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

fn good_claims(client_id: &str, now: DateTime<Utc>) -> Value {
    json!({
        "iss": client_id,
        "sub": client_id,
        "aud": ISSUER,
        "iat": now.timestamp(),
        "exp": now.timestamp() + 60,
        "jti": fastrand::u128(..).to_string(),
    })
}

fn header(kid: &str) -> Value {
    json!({"alg": "ES256", "kid": kid, "typ": "JWT"})
}

/// An account with a key, registered as it is or by its address.
async fn account_with(
    registrar: &Registrar<'_>,
    keys: PrivateKeyJwt,
) -> Result<(ServiceAccount, String), Box<dyn std::error::Error>> {
    let account = registrar.create(orders()).await?;
    let credential_id = registrar.credential(&account, Kind::PrivateKeyJwt(keys)).await?;
    Ok((account, credential_id))
}

fn registered(set: &Value) -> PrivateKeyJwt {
    PrivateKeyJwt { jwks_json: set.to_string(), ..Default::default() }
}

async fn a_service_signs_for_itself(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let (key, set) = one_key("k1")?;
    let (account, credential_id) = account_with(&registrar, registered(&set)).await?;
    let id = account.client_id.as_str();
    let assertion = |more: Value| {
        let mut claims = good_claims(id, home.now());
        claims.as_object_mut().ok_or("no object")?.extend(more.as_object().cloned().unwrap_or_default());
        key.sign(&header("k1"), &claims)
    };
    let tokens = server.service_token(asks_with(&assertion(json!({}))?)).await?;
    assert_eq!(parts_of(&tokens.access_token)?.1["sub"], id);
    assert!(server.is_active(&tokens.access_token, true).await?);
    // What says so of itself; an array of one; what the client names beside it.
    let claims = good_claims(id, home.now());
    let named = json!({"alg": "ES256", "kid": "k1", "typ": "client-authentication+jwt"});
    server.service_token(asks_with(&key.sign(&named, &claims)?)).await?;
    server.service_token(asks_with(&assertion(json!({"aud": [ISSUER]}))?)).await?;
    let unnamed = key.sign(&json!({"alg": "ES256"}), &good_claims(id, home.now()))?;
    server.service_token(asks_with(&unnamed)).await?;
    let fraction = json!({"exp": home.now().timestamp() as f64 + 60.5});
    server.service_token(asks_with(&assertion(fraction)?)).await?;
    let named = IssueServiceTokenRequest { client_id: id.to_owned(), ..asks_with(&assertion(json!({}))?) };
    server.service_token(named).await?;

    let request =
        RevokeCredentialRequest { service_account_id: account.service_account_id.clone(), credential_id };
    server.service_accounts().revoke_credential(authorized(&registrar.token, request)).await?;
    assert_eq!(refusal(server.issue(asks_with(&assertion(json!({}))?)).await), wrong());
    server.stop().await
}

async fn an_assertion_that_differs_in_one_thing_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let (account, _) = account_with(&registrar, registered(&set)).await?;
    let (id, now) = (account.client_id.as_str(), home.now());
    let with = |name: &str, value: Value| {
        let mut claims = good_claims(id, now);
        claims[name] = value;
        claims
    };
    let without = |name: &str| {
        let mut claims = good_claims(id, now);
        claims.as_object_mut().map(|claims| claims.remove(name));
        claims
    };
    let nobody = Uuid::from_u128(7).to_string();
    let token = admin.access_token.clone();
    let mut bad = vec![
        ("another audience", key.sign(&header("k1"), &with("aud", json!("https://other.example")))?),
        (
            "the token endpoint",
            key.sign(
                &header("k1"),
                &with("aud", json!(format!("{ISSUER}/tessera.v1.Auth/IssueServiceToken"))),
            )?,
        ),
        ("two audiences", key.sign(&header("k1"), &with("aud", json!([ISSUER, "https://other.example"])))?),
        ("no audience", key.sign(&header("k1"), &with("aud", json!([])))?),
        ("another subject", key.sign(&header("k1"), &with("sub", json!(nobody)))?),
        ("nobody", key.sign(&header("k1"), &with("iss", json!(nobody)))?),
        ("expired", key.sign(&header("k1"), &with("exp", json!(now.timestamp() - 31)))?),
        ("not yet", key.sign(&header("k1"), &with("nbf", json!(now.timestamp() + 31 + 60)))?),
        ("of tomorrow", key.sign(&header("k1"), &with("iat", json!(now.timestamp() + 86_400)))?),
        ("good for too long", key.sign(&header("k1"), &with("exp", json!(now.timestamp() + 3600)))?),
        ("an empty id", key.sign(&header("k1"), &with("jti", json!("")))?),
        ("a long id", key.sign(&header("k1"), &with("jti", json!("x".repeat(257))))?),
        ("an unknown key", key.sign(&header("k2"), &good_claims(id, now))?),
        ("another key", Key::generate(Algorithm::Es256)?.sign(&header("k1"), &good_claims(id, now))?),
        (
            "an access token's type",
            key.sign(&json!({"alg": "ES256", "kid": "k1", "typ": "at+jwt"}), &good_claims(id, now))?,
        ),
        ("a key that it brings along", {
            let header = json!({"alg": "ES256", "kid": "k1", "jwk": serde_json::to_value(key.jwk())?});
            key.sign(&header, &good_claims(id, now))?
        }),
        ("a shared secret", {
            let public = set["keys"][0].to_string();
            sign_hs256(public.as_bytes(), &json!({"alg": "HS256", "kid": "k1"}), &good_claims(id, now))?
        }),
        ("no signature", unsigned(&json!({"alg": "none"}), &good_claims(id, now))),
    ];
    for name in ["exp", "sub", "jti", "aud"] {
        bad.push((name, key.sign(&header("k1"), &without(name))?));
    }
    // Neither one of nobody nor one with a key in its header is looked into.
    let mut named = bad.len() - 2;
    for (what, assertion) in &bad {
        assert_eq!(refusal(server.issue(asks_with(assertion)).await), wrong(), "{what}");
    }
    // With a client id beside it, it must be that one's.
    let other = registrar
        .create(tessera::proto::CreateServiceAccountRequest { name: "other".to_owned(), ..orders() })
        .await?;
    let assertion = key.sign(&header("k1"), &good_claims(id, now))?;
    let of_other = IssueServiceTokenRequest { client_id: other.client_id.clone(), ..asks_with(&assertion) };
    assert_eq!(refusal(server.issue(of_other).await), wrong());
    named += 1;
    assert_eq!(refusal(server.issue(asks_with(&token)).await), wrong(), "a user's token is none");
    server.service_token(asks_with(&assertion)).await?;

    for request in [
        IssueServiceTokenRequest { client_assertion_type: String::new(), ..asks_with(&assertion) },
        IssueServiceTokenRequest { client_secret: "tcs_x".to_owned(), ..asks_with(&assertion) },
        IssueServiceTokenRequest { audience: words(&["ledger"]), ..Default::default() },
    ] {
        assert_eq!(refusal(server.issue(request).await), invalid());
    }
    let malformed = (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned());
    for assertion in ["x", "a.b.c", &"x".repeat(20_000)] {
        assert_eq!(refusal(server.issue(asks_with(assertion)).await), malformed);
    }
    let events = server.events(&admin, "issue_service_token").await?;
    assert_eq!(events.len(), named, "each that names an account is told to the trail");
    server.stop().await
}

async fn an_assertion_is_good_once_whoever_brings_it(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let (key, set) = one_key("k1")?;
    let (account, _) = account_with(&registrar, registered(&set)).await?;
    let assertion = || key.sign(&header("k1"), &good_claims(&account.client_id, home.now()));
    let other = home.another("").await?;

    let once = assertion()?;
    let servers: Vec<&Server> = std::iter::repeat_n(&server, 4).chain(other.iter().cycle().take(4)).collect();
    let asked = join_all(servers.iter().map(|server| server.issue(asks_with(&once)))).await;
    assert_eq!(asked.iter().filter(|asked| asked.is_ok()).count(), 1, "{asked:?}");
    asked.into_iter().filter(Result::is_err).for_each(|asked| assert_eq!(refusal(asked), wrong()));
    if let Some(other) = other {
        let once = assertion()?;
        other.service_token(asks_with(&once)).await?;
        assert_eq!(refusal(server.issue(asks_with(&once)).await), wrong());
        other.stop().await?;
    }
    let once = assertion()?;
    server.service_token(asks_with(&once)).await?;
    server.stop().await?;
    let server = home.start().await?;
    assert_eq!(refusal(server.issue(asks_with(&once)).await), wrong(), "after a restart too");
    server.service_token(asks_with(&assertion()?)).await?;

    // Spent, even where what was asked for is refused.
    let spent = assertion()?;
    let too_much = IssueServiceTokenRequest { scope: words(&["admin"]), ..asks_with(&spent) };
    assert_eq!(refusal(server.issue(too_much).await).1, "INSUFFICIENT_SCOPE");
    assert_eq!(refusal(server.issue(asks_with(&spent)).await), wrong());
    server.stop().await
}

async fn keys_are_found_where_the_service_publishes_them(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let (first, set) = one_key("k1")?;
    let published = KeyServer::serving(&set).await?;
    let keys = PrivateKeyJwt { jwks_uri: published.url(), ..Default::default() };
    let (account, _) = account_with(&registrar, keys).await?;
    let signed = |key: &Key, kid: &str| key.sign(&header(kid), &good_claims(&account.client_id, home.now()));
    for _ in 0..3 {
        server.service_token(asks_with(&signed(&first, "k1")?)).await?;
    }
    assert_eq!(published.asked(), 1, "they are kept");

    // It takes another key; whoever makes up names makes it asked once.
    let second = Key::generate(Algorithm::Es256)?;
    published.serve(&jwks(&[("k1", &first), ("k2", &second)]), "");
    server.service_token(asks_with(&signed(&second, "k2")?)).await?;
    for number in 0..5 {
        let made_up = signed(&second, &format!("made-up-{number}"))?;
        assert_eq!(refusal(server.issue(asks_with(&made_up)).await), wrong());
    }
    assert_eq!(published.asked(), 2);

    // Something else is registered meanwhile: what was fetched stays.
    registrar.audience("mail", &["read"]).await?;
    published.fall_silent();
    server.service_token(asks_with(&signed(&second, "k2")?)).await?;
    assert_eq!(published.asked(), 2);
    server.stop().await
}

async fn more_keys_than_are_kept_are_not_taken(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let key = Key::generate(Algorithm::Es256)?;
    for (count, is_taken) in [(20, true), (40, false)] {
        let kids: Vec<String> = (0..count).map(|number| format!("k{number}")).collect();
        let set: Vec<(&str, &Key)> = kids.iter().map(|kid| (kid.as_str(), &key)).collect();
        let published = KeyServer::serving(&jwks(&set)).await?;
        let keys = PrivateKeyJwt { jwks_uri: published.url(), ..Default::default() };
        let name = format!("orders-{count}");
        let account = registrar.create(CreateServiceAccountRequest { name, ..orders() }).await?;
        registrar.credential(&account, Kind::PrivateKeyJwt(keys)).await?;
        let signed = key.sign(&header("k0"), &good_claims(&account.client_id, home.now()))?;
        let answer = server.issue(asks_with(&signed)).await;
        assert_eq!(answer.is_ok(), is_taken, "{count}: {answer:?}");
    }
    assert_eq!(server.metric("tessera_foreign_key_fetches_total{outcome=\"BAD_KEYS\"}").await?, 1);
    server.stop().await
}

async fn keys_that_give_something_away_are_not_registered(home: Home) -> Outcome {
    let server = home.start().await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let (_, set) = one_key("k1")?;
    let mut private = set.clone();
    private["keys"][0]["d"] = json!("AAAA");
    let key = |jwks_json: &str, jwks_uri: &str| CreateCredentialRequest {
        service_account_id: account.service_account_id.clone(),
        kind: Some(Kind::PrivateKeyJwt(PrivateKeyJwt {
            jwks_json: jwks_json.to_owned(),
            jwks_uri: jwks_uri.to_owned(),
        })),
        ..Default::default()
    };
    for request in [
        key("", ""),
        key("{}", ""),
        key(r#"{"keys":[]}"#, ""),
        key(&private.to_string(), ""),
        key(r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#, ""),
        key(&set.to_string(), "https://a.example/jwks"),
        key("", "http://a.example/jwks"),
        key("", "file:///etc/passwd"),
    ] {
        assert_eq!(refusal(registrar.try_credential(request).await), invalid());
    }
    server.stop().await
}

async fn used_assertions_are_forgotten_in_their_time(home: Home) -> Outcome {
    let server = home.start_with("[database]\ncleanup_interval = \"1s\"\n").await?;
    let registrar = Registrar::of(&server).await?;
    let (key, set) = one_key("k1")?;
    let (account, _) = account_with(&registrar, registered(&set)).await?;
    let assertion = key.sign(&header("k1"), &good_claims(&account.client_id, home.clock.now()))?;
    server.service_token(asks_with(&assertion)).await?;
    let count = async || home.query("SELECT count(*) || '' AS first FROM used_assertions").await;
    home.clock.advance(TimeDelta::seconds(60 + 29).num_seconds());
    assert_eq!(refusal(server.issue(asks_with(&assertion)).await), wrong(), "by the leeway it could be good");
    assert_eq!(count().await?, ["1"]);
    home.clock.advance(302);
    eventually("it is forgotten", async || Ok(count().await? == ["0"])).await?;
    assert_eq!(refusal(server.issue(asks_with(&assertion)).await), wrong(), "it has expired by itself");
    server.stop().await
}
