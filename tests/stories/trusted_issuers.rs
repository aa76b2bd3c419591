//! Other issuers: who registers them, and which of their tokens are believed.

use std::{collections::HashMap, error::Error};

use chrono::TimeDelta;
use serde_json::{Value, json};
use tessera::{
    clock::Clock,
    domain::algorithm::Algorithm,
    proto::{
        CheckForeignTokenRequest, CheckForeignTokenResponse, ClaimMapping, CreateTenantRequest,
        CreateTrustedIssuerRequest, DeleteTrustedIssuerRequest, GetTrustedIssuerRequest, ListEventsRequest,
        ListTrustedIssuersRequest, LogoutRequest, TrustedAlgorithms, TrustedAudiences, TrustedIssuer,
        UpdateTrustedIssuerRequest, create_trusted_issuer_request::Keys, trusted_issuer,
        update_trusted_issuer_request,
    },
};
use tonic::{Code, Status};

use crate::support::{
    Home, Key, Kind, Outcome, PASSWORD, Person, Server, authorized, eventually, jwks, login_as, one_key,
    parts_of, refusal, sign_hs256, stories, timed_stories, unsigned,
};

stories! {
    admins_register_change_and_remove_issuers,
    only_admins_of_the_whole_may,
    what_makes_no_sense_is_not_registered,
    a_row_that_makes_no_sense_breaks_no_other,
}
timed_stories! {
    a_token_of_a_trusted_issuer_is_believed,
    every_algorithm_is_believed_and_only_those_that_are_accepted,
    what_is_not_genuine_or_not_for_here_is_not_believed,
    one_issuer_never_speaks_for_another,
    there_are_not_more_than_a_hundred,
}

pub const ISSUER: &str = "https://idp.example";

/// A registration with a set of keys, for the audience `here`.
pub fn with_keys(issuer: &str, keys: Keys) -> CreateTrustedIssuerRequest {
    CreateTrustedIssuerRequest {
        issuer: issuer.to_owned(),
        keys: Some(keys),
        audience: vec!["here".to_owned()],
        ..Default::default()
    }
}

pub async fn register(
    server: &Server,
    by: &Person,
    request: CreateTrustedIssuerRequest,
) -> Result<TrustedIssuer, Status> {
    let made = server.keys().create_trusted_issuer(authorized(&by.access_token, request)).await?;
    Ok(made.into_inner().trusted_issuer.unwrap_or_default())
}

pub async fn get(server: &Server, by: &Person, id: &str) -> Result<TrustedIssuer, Status> {
    let request = GetTrustedIssuerRequest { trusted_issuer_id: id.to_owned() };
    let found = server.keys().get_trusted_issuer(authorized(&by.access_token, request)).await?;
    Ok(found.into_inner().trusted_issuer.unwrap_or_default())
}

pub async fn check(server: &Server, by: &Person, token: &str) -> Result<CheckForeignTokenResponse, Status> {
    let request = CheckForeignTokenRequest { token: token.to_owned() };
    Ok(server.keys().check_foreign_token(authorized(&by.access_token, request)).await?.into_inner())
}

/// Whether a token is believed, and if not why.
pub async fn verdict(server: &Server, by: &Person, token: &str) -> Result<String, Status> {
    let answer = check(server, by, token).await?;
    assert_eq!(answer.active, answer.reason.is_empty());
    Ok(if answer.active { "believed".to_owned() } else { answer.reason })
}

/// The claims of a good token.
pub fn claims(home: &Home) -> Value {
    let exp = (home.clock.now() + TimeDelta::minutes(5)).timestamp();
    json!({"iss": ISSUER, "sub": "u-1", "aud": "here", "exp": exp})
}

/// The same with a claim changed, or without it.
fn but(home: &Home, name: &str, value: Value) -> Value {
    let mut claims = claims(home);
    match (&mut claims, value) {
        (Value::Object(claims), Value::Null) => drop(claims.remove(name)),
        (claims, value) => claims[name] = value,
    }
    claims
}

/// A good token of this key.
pub fn token(home: &Home, key: &Key, kid: &str) -> Result<String, Box<dyn Error>> {
    key.sign(&json!({"alg": key.algorithm().as_str(), "kid": kid}), &claims(home))
}

async fn admins_register_change_and_remove_issuers(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (_, set) = one_key("k1")?;
    let json = Keys::JwksJson(set.to_string());
    let made = register(&server, &admin, with_keys(ISSUER, json.clone())).await?;
    assert_eq!(made.keys, Some(trusted_issuer::Keys::JwksJson(set.to_string())));
    assert_eq!(made.algorithm, ["ES256", "ES384", "EdDSA", "RS256", "PS256"]);
    assert_eq!(made.claim_mapping, HashMap::from([("sub".to_owned(), "sub".to_owned())]));
    assert_eq!((made.fetch_time, made.fetch_error.as_str()), (None, ""));
    let id = made.trusted_issuer_id.clone();
    assert_eq!(get(&server, &admin, &id).await?, made);
    let again = register(&server, &admin, with_keys(ISSUER, json.clone())).await.expect_err("it is taken");
    assert_eq!(refusal::<()>(Err(again)), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));

    let other = register(&server, &admin, with_keys("https://other.example", json)).await?;
    let list = |size, token: String| ListTrustedIssuersRequest { page_size: size, page_token: token };
    let page = authorized(&admin.access_token, list(1, String::new()));
    let page = server.keys().list_trusted_issuers(page).await?.into_inner();
    assert_eq!(page.trusted_issuers[0].trusted_issuer_id, other.trusted_issuer_id);
    assert_eq!(page.trusted_issuers[0].keys, None, "a list leaves long texts out");
    let page = list(1, page.next_page_token);
    let page = server.keys().list_trusted_issuers(authorized(&admin.access_token, page)).await?.into_inner();
    assert_eq!(page.trusted_issuers[0].trusted_issuer_id, id);
    assert!(page.next_page_token.is_empty());

    let change = UpdateTrustedIssuerRequest {
        trusted_issuer_id: id.clone(),
        display_name: Some("The others".to_owned()),
        audiences: Some(TrustedAudiences { audience: vec!["there".to_owned()] }),
        algorithms: Some(TrustedAlgorithms { algorithm: vec!["ES256".to_owned()] }),
        claim_mapping: Some(ClaimMapping { claims: [("email".to_owned(), "mail".to_owned())].into() }),
        ..Default::default()
    };
    let update = |change: UpdateTrustedIssuerRequest| {
        let request = authorized(&admin.access_token, change);
        let mut keys = server.keys();
        async move { keys.update_trusted_issuer(request).await }
    };
    let changed = update(change).await?.into_inner().trusted_issuer.ok_or("none")?;
    assert_eq!(changed.display_name, "The others");
    assert_eq!(
        (&changed.audience[..], &changed.algorithm[..]),
        (&["there".into()][..], &["ES256".into()][..])
    );
    assert_eq!(changed.claim_mapping["email"], "mail");
    assert_eq!(changed.keys, made.keys, "what is not given stays");
    let no_key = UpdateTrustedIssuerRequest {
        trusted_issuer_id: id.clone(),
        algorithms: Some(TrustedAlgorithms { algorithm: vec!["EdDSA".to_owned()] }),
        ..Default::default()
    };
    assert_eq!(refusal(update(no_key).await).1, "INVALID_FIELD", "its key is for ES256");
    let elsewhere = UpdateTrustedIssuerRequest {
        trusted_issuer_id: id.clone(),
        keys: Some(update_trusted_issuer_request::Keys::JwksUrl("http://127.0.0.1:1/jwks.json".to_owned())),
        ..Default::default()
    };
    let changed = update(elsewhere).await?.into_inner().trusted_issuer.ok_or("none")?;
    assert!(changed.fetch_error.starts_with("can't be reached"), "{}", changed.fetch_error);

    let delete = || {
        let request = DeleteTrustedIssuerRequest { trusted_issuer_id: id.clone() };
        let request = authorized(&admin.access_token, request);
        let mut keys = server.keys();
        async move { keys.delete_trusted_issuer(request).await }
    };
    delete().await?;
    let not_found = (Code::NotFound, "NOT_FOUND".to_owned());
    assert_eq!(refusal(delete().await), not_found);
    let gone = get(&server, &admin, &id).await.expect_err("it is gone");
    assert_eq!(refusal::<()>(Err(gone)), not_found);

    let events = authorized(&admin.access_token, ListEventsRequest::default());
    let events = server.audit().list_events(events).await?.into_inner().events;
    let of_it = events.iter().filter(|event| event.target_type == "trusted_issuer" && event.target_id == id);
    let of_it: Vec<_> = of_it.map(|event| (event.action.as_str(), event.target_name.as_str())).collect();
    let done =
        ["delete_trusted_issuer", "update_trusted_issuer", "update_trusted_issuer", "create_trusted_issuer"];
    assert_eq!(of_it, done.map(|action| (action, ISSUER)));
    server.stop().await
}

async fn only_admins_of_the_whole_may(home: Home) -> Outcome {
    let server = home.start().await?;
    let root = server.admin().await?;
    let create = CreateTenantRequest { name: "blue".to_owned(), display_name: String::new() };
    server.tenants().create_tenant(authorized(&root.access_token, create)).await?;
    server.make_user_in(&root, "blue", "boss", &["admin"]).await?;
    let login =
        tessera::proto::LoginRequest { tenant: "blue".to_owned(), ..login_as("boss", PASSWORD, "web") };
    let boss: Person = server.auth().login(login).await?.into_inner().into();
    let anna = server.anna().await?;
    let (key, set) = one_key("k1")?;
    let request = with_keys(ISSUER, Keys::JwksJson(set.to_string()));
    for by in [&boss, &anna] {
        let refused = register(&server, by, request.clone()).await.expect_err("it may not");
        assert_eq!(refusal::<()>(Err(refused)), (Code::PermissionDenied, "INSUFFICIENT_SCOPE".to_owned()));
        let refused = check(&server, by, &token(&home, &key, "k1")?).await.expect_err("it may not");
        assert_eq!(refusal::<()>(Err(refused)), (Code::PermissionDenied, "INSUFFICIENT_SCOPE".to_owned()));
    }
    server.stop().await
}

async fn what_makes_no_sense_is_not_registered(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (_, set) = one_key("k1")?;
    let with = |name: &str, value: &str| {
        let mut set = set.clone();
        set["keys"][0][name] = json!(value);
        Keys::JwksJson(set.to_string())
    };
    let good = || with("use", "sig");
    let url = |url: &str| Keys::JwksUrl(url.to_owned());
    let short = json!({"keys": [{"kty": "RSA", "e": "AQAB", "n": "x".repeat(171)}]});
    let but = |change: fn(&mut CreateTrustedIssuerRequest)| {
        let mut request = with_keys(ISSUER, good());
        change(&mut request);
        request
    };
    let cases = [
        ("a private key", with_keys(ISSUER, with("d", "AAAA"))),
        ("a symmetric key", with_keys(ISSUER, with("kty", "oct"))),
        ("a key for encryption", with_keys(ISSUER, with("use", "enc"))),
        ("a key for HS256", with_keys(ISSUER, with("alg", "HS256"))),
        ("a key for another curve's algorithm", with_keys(ISSUER, with("alg", "ES384"))),
        ("a short RSA key", with_keys(ISSUER, Keys::JwksJson(short.to_string()))),
        ("no keys", with_keys(ISSUER, Keys::JwksJson(r#"{"keys":[]}"#.to_owned()))),
        ("no JWK set", with_keys(ISSUER, Keys::JwksJson("PEM".to_owned()))),
        ("no source", CreateTrustedIssuerRequest { keys: None, ..with_keys(ISSUER, good()) }),
        ("plain http", with_keys(ISSUER, url("http://idp.example/jwks"))),
        ("a file", with_keys(ISSUER, url("file:///etc/passwd"))),
        ("a user in the URL", with_keys(ISSUER, url("https://me:secret@idp.example/jwks"))),
        ("an issuer with a query", with_keys("https://idp.example?x", good())),
        ("an issuer with a fragment", with_keys("https://idp.example#x", good())),
        ("no issuer", with_keys("", good())),
        ("our own name", with_keys("http://127.0.0.1:50051", good())),
        ("no audience", but(|request| request.audience.clear())),
        ("an unknown algorithm", but(|request| request.algorithm = vec!["HS256".to_owned()])),
        ("another algorithm than the key's", but(|request| request.algorithm = vec!["RS256".to_owned()])),
        (
            "an unknown name",
            but(|request| request.claim_mapping = [("aud".to_owned(), "x".to_owned())].into()),
        ),
        ("no name", but(|request| request.claim_mapping = [("email".to_owned(), String::new())].into())),
    ];
    for (what, request) in cases {
        let refused = register(&server, &admin, request).await.expect_err(what);
        assert!(!refused.message().contains("AAAA"), "{what} is not repeated");
        assert_eq!(
            refusal::<()>(Err(refused)),
            (Code::InvalidArgument, "INVALID_FIELD".to_owned()),
            "{what}"
        );
    }
    let list = authorized(&admin.access_token, ListTrustedIssuersRequest::default());
    assert!(server.keys().list_trusted_issuers(list).await?.into_inner().trusted_issuers.is_empty());
    server.stop().await
}

async fn a_row_that_makes_no_sense_breaks_no_other(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (_, set) = one_key("k1")?;
    let json = || Keys::JwksJson(set.to_string());
    let broken = register(&server, &admin, with_keys("https://broken.example", json())).await?;
    let sound = register(&server, &admin, with_keys(ISSUER, json())).await?;
    home.query("UPDATE trusted_issuers SET algorithms = 'X' WHERE issuer = 'https://broken.example'").await?;
    server.stop().await?;
    let server = home.start().await?;
    let list = authorized(&admin.access_token, ListTrustedIssuersRequest::default());
    let list = server.keys().list_trusted_issuers(list).await?.into_inner().trusted_issuers;
    let ids: Vec<_> = list.iter().map(|issuer| issuer.trusted_issuer_id.as_str()).collect();
    assert_eq!(ids, [sound.trusted_issuer_id.as_str()]);
    let delete = DeleteTrustedIssuerRequest { trusted_issuer_id: broken.trusted_issuer_id };
    server.keys().delete_trusted_issuer(authorized(&admin.access_token, delete)).await?;
    register(&server, &admin, with_keys("https://broken.example", json())).await?;
    server.stop().await
}

async fn a_token_of_a_trusted_issuer_is_believed(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let mapping = [("sub", "oid"), ("roles", "realm_access.roles"), ("email", "mail")];
    let request = CreateTrustedIssuerRequest {
        claim_mapping: mapping.map(|(own, foreign)| (own.to_owned(), foreign.to_owned())).into(),
        ..with_keys(ISSUER, Keys::JwksJson(set.to_string()))
    };
    let issuer = register(&server, &admin, request).await?;
    let mut claims = claims(&home);
    claims["oid"] = json!("o-1");
    claims["aud"] = json!(["there", "here"]);
    claims["realm_access"] = json!({"roles": ["reader", "writer"]});
    claims["mail"] = json!(5);
    for typ in [None, Some("JWT"), Some("at+jwt"), Some("application/at+jwt")] {
        let mut header = json!({"alg": "ES256", "kid": "k1"});
        if let Some(typ) = typ {
            header["typ"] = json!(typ);
        }
        let answer = check(&server, &admin, &key.sign(&header, &claims)?).await?;
        assert!(answer.active, "{typ:?}: {}", answer.reason);
        assert_eq!(answer.trusted_issuer_id, issuer.trusted_issuer_id);
        assert_eq!(answer.subject, "o-1");
        assert_eq!(serde_json::from_str::<Value>(&answer.claims_json)?, claims);
        let mapped = [("sub", "o-1"), ("roles", "reader writer")];
        assert_eq!(answer.mapped, mapped.map(|(own, value)| (own.to_owned(), value.to_owned())).into());
    }
    let header = json!({"alg": "ES256", "kid": "k1"});
    let nobody = key.sign(&header, &but(&home, "oid", json!("")))?;
    assert_eq!(verdict(&server, &admin, &nobody).await?, "TOKEN_INVALID", "about nobody");
    server.stop().await
}

async fn every_algorithm_is_believed_and_only_those_that_are_accepted(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let keys: Vec<Key> = Algorithm::ALL.into_iter().map(Key::generate).collect::<Result<_, _>>()?;
    let named: Vec<_> = keys.iter().map(|key| (key.algorithm().as_str(), key)).collect();
    let set = Keys::JwksJson(jwks(&named).to_string());
    let mut request = with_keys(ISSUER, set);
    let issuer = register(&server, &admin, request.clone()).await?;
    for key in &keys {
        let kid = key.algorithm().as_str();
        assert_eq!(verdict(&server, &admin, &token(&home, key, kid)?).await?, "believed", "{kid}");
    }
    let delete = DeleteTrustedIssuerRequest { trusted_issuer_id: issuer.trusted_issuer_id };
    server.keys().delete_trusted_issuer(authorized(&admin.access_token, delete)).await?;
    assert_eq!(
        verdict(&server, &admin, &token(&home, &keys[0], "ES256")?).await?,
        "TOKEN_INVALID",
        "it is gone"
    );

    request.algorithm = vec!["ES384".to_owned(), "PS256".to_owned()];
    register(&server, &admin, request).await?;
    for key in &keys {
        let kid = key.algorithm().as_str();
        let wanted = if ["ES384", "PS256"].contains(&kid) { "believed" } else { "TOKEN_INVALID" };
        assert_eq!(verdict(&server, &admin, &token(&home, key, kid)?).await?, wanted, "{kid}");
        let turned = key.algorithm().is_rsa().then(|| key.signing_with(Algorithm::Rs256)).transpose()?;
        if let Some(turned) = turned {
            assert_eq!(
                verdict(&server, &admin, &token(&home, &turned, kid)?).await?,
                "TOKEN_INVALID",
                "{kid}"
            );
        }
    }
    server.stop().await
}

async fn what_is_not_genuine_or_not_for_here_is_not_believed(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    register(&server, &admin, with_keys(ISSUER, Keys::JwksJson(set.to_string()))).await?;
    let header = json!({"alg": "ES256", "kid": "k1"});
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let good = token(&home, &key, "k1")?;
    assert_eq!(verdict(&server, &admin, &good).await?, "believed");
    let now = home.clock.now().timestamp();
    let of = |claims: Value| key.sign(&header, &claims);
    assert_eq!(
        verdict(&server, &admin, &of(but(&home, "exp", json!(now - 29)))?).await?,
        "believed",
        "leeway"
    );
    assert_eq!(verdict(&server, &admin, &of(but(&home, "exp", json!(now as f64 + 1.5)))?).await?, "believed");
    let expired = of(but(&home, "exp", json!(now - 30)))?;
    assert_eq!(verdict(&server, &admin, &expired).await?, "TOKEN_EXPIRED");

    let unnamed = key.sign(&json!({"alg": "ES256"}), &claims(&home))?;
    assert_eq!(verdict(&server, &admin, &unnamed).await?, "believed");

    let (signed, signature) = good.rsplit_once('.').ok_or("no signature")?;
    let (_, other_claims) = parts_of(&of(but(&home, "sub", json!("u-2")))?)?;
    let tampered = unsigned(&header, &other_claims) + signature;
    let confused = |secret: &str| sign_hs256(secret.as_bytes(), &with("alg", json!("HS256")), &claims(&home));
    let stranger = Key::generate(Algorithm::Es256)?;
    let anna = server.anna().await?;
    let (_, mut ours) = parts_of(&anna.access_token)?;
    let as_us = key.sign(&with("typ", json!("at+jwt")), &ours)?;
    ours["iss"] = json!(ISSUER);
    let for_us = key.sign(&with("typ", json!("at+jwt")), &ours)?;
    let cases = [
        ("another audience", of(but(&home, "aud", json!("there")))?),
        ("other audiences", of(but(&home, "aud", json!(["there", "h"])))?),
        ("no audience", of(but(&home, "aud", Value::Null))?),
        ("no end", of(but(&home, "exp", Value::Null))?),
        ("an end in words", of(but(&home, "exp", json!("tomorrow")))?),
        ("not yet", of(but(&home, "nbf", json!(now + 31)))?),
        ("made in the future", of(but(&home, "iat", json!(now + 31)))?),
        ("about nobody", of(but(&home, "sub", Value::Null))?),
        ("another issuer", of(but(&home, "iss", json!("https://idp.example/")))?),
        ("no issuer", of(but(&home, "iss", Value::Null))?),
        ("tampered", tampered),
        ("no signature", format!("{signed}.")),
        ("alg none", unsigned(&with("alg", json!("none")), &claims(&home))),
        ("HS256 with the set as secret", confused(&set.to_string())?),
        ("HS256 with the PEM as secret", confused(&key.public_pem()?)?),
        ("a stranger's key", token(&home, &stranger, "k1")?),
        ("an unknown key", token(&home, &stranger, "k2")?),
        ("no key id, and a stranger's key", stranger.sign(&json!({"alg": "ES256"}), &claims(&home))?),
        ("an endorsement", key.sign(&with("typ", json!("session-key+jwt")), &claims(&home))?),
        ("another type", key.sign(&with("typ", json!("logout+jwt")), &claims(&home))?),
        ("a key in the header", key.sign(&with("jwk", set["keys"][0].clone()), &claims(&home))?),
        ("a URL in the header", key.sign(&with("jku", json!("https://idp.example")), &claims(&home))?),
        ("a critical parameter", key.sign(&with("crit", json!(["exp"])), &claims(&home))?),
        ("our own token", anna.access_token.clone()),
        ("a foreign token in our name", as_us.clone()),
    ];
    for (what, token) in cases {
        assert_eq!(verdict(&server, &admin, &token).await?, "TOKEN_INVALID", "{what}");
    }
    for (what, token) in [("as ours", as_us), ("as itself", for_us), ("as it is", good.clone())] {
        assert!(!server.is_active(&token, false).await?, "{what}");
        let act = server.auth().logout(authorized(&token, LogoutRequest {})).await;
        assert_eq!(refusal(act), (Code::Unauthenticated, "TOKEN_INVALID".to_owned()), "{what}");
    }
    for no_token in ["", "x", "a.b.c", &format!("{good}.x"), &"a".repeat(20_000)] {
        let refused = check(&server, &admin, no_token).await.expect_err("it is no token");
        assert_eq!(refusal::<()>(Err(refused)), (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned()));
    }
    server.stop().await
}

async fn one_issuer_never_speaks_for_another(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let ((here, set), (there, other_set)) = (one_key("k1")?, one_key("k1")?);
    register(&server, &admin, with_keys(ISSUER, Keys::JwksJson(set.to_string()))).await?;
    let mut plain = other_set;
    plain["keys"][0].as_object_mut().ok_or("no key")?.remove("kid");
    let other = "https://other.example";
    register(&server, &admin, with_keys(other, Keys::JwksJson(plain.to_string()))).await?;
    assert_eq!(verdict(&server, &admin, &token(&home, &there, "k1")?).await?, "TOKEN_INVALID");
    let claims = but(&home, "iss", json!(other));
    let no_kid = json!({"alg": "ES256"});
    assert_eq!(verdict(&server, &admin, &there.sign(&no_kid, &claims)?).await?, "believed", "the only key");
    assert_eq!(verdict(&server, &admin, &here.sign(&no_kid, &claims)?).await?, "TOKEN_INVALID");
    server.stop().await
}

async fn there_are_not_more_than_a_hundred(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (_, set) = one_key("k1")?;
    let request = |n: usize| with_keys(&format!("{ISSUER}/{n}"), Keys::JwksJson(set.to_string()));
    for n in 0..100 {
        register(&server, &admin, request(n)).await?;
    }
    let refused = register(&server, &admin, request(100)).await.expect_err("it is one too many");
    assert_eq!(refusal::<()>(Err(refused)), (Code::InvalidArgument, "INVALID_FIELD".to_owned()));
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn another_replica_hears_of_it() -> Outcome {
    let home = Home::new(Kind::Postgres).await?;
    let quick = "[database]\npoll_interval = \"10ms\"\n";
    let (here, there) = (home.start_with(quick).await?, home.start_with(quick).await?);
    let admin = here.admin().await?;
    let (key, set) = one_key("k1")?;
    let good = token(&home, &key, "k1")?;
    assert_eq!(verdict(&there, &admin, &good).await?, "TOKEN_INVALID");
    let made = register(&here, &admin, with_keys(ISSUER, Keys::JwksJson(set.to_string()))).await?;
    assert_eq!(verdict(&here, &admin, &good).await?, "believed", "at once");
    eventually("it is believed there", async || Ok(verdict(&there, &admin, &good).await? == "believed"))
        .await?;
    let delete = DeleteTrustedIssuerRequest { trusted_issuer_id: made.trusted_issuer_id };
    here.keys().delete_trusted_issuer(authorized(&admin.access_token, delete)).await?;
    eventually("it is refused there", async || Ok(verdict(&there, &admin, &good).await? != "believed"))
        .await?;
    there.stop().await?;
    here.stop().await
}
