//! Tokens and the keys that they are checked with.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tessera::{
    clock::Clock,
    crypto::{random::SystemRandomness, signing::NewKey},
    domain::{
        algorithm,
        claims::{ENDORSEMENT_TYPE, Endorsement, KeyConfirmation},
    },
    proto::{GetJwkRequest, GetJwksRequest, LogoutRequest, VerifyTokenRequest},
    verifier::{Expected, Refusal, Verifier},
};
use tonic::Code;

use crate::support::{
    Home, Kind, Outcome, PASSWORD, Server, authorized, login_as, refresh_with, refusal, stories,
    timed_stories,
};

stories! {
    a_token_is_active_only_for_what_it_is_for,
    a_token_that_is_not_ours_is_inactive,
    what_is_no_token_is_malformed,
    the_keys_are_published,
    strict_asks_the_database,
    tokens_without_endorsement_are_good_here_and_through_their_key,
}
timed_stories! {
    the_verifier_checks_any_session_with_the_issuers_keys_alone,
    a_token_expires,
    tokens_outlive_a_restart,
}

async fn verify(
    server: &Server,
    token: &str,
    audience: &str,
    scopes: &[&str],
) -> Result<(bool, String), tonic::Status> {
    let request = VerifyTokenRequest {
        token: token.to_owned(),
        audience: audience.to_owned(),
        required_scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        strict: false,
    };
    let answer = server.auth().verify_token(request).await?.into_inner();
    assert_eq!(answer.active, answer.claims.is_some());
    Ok((answer.active, answer.reason))
}

fn inactive(reason: &str) -> (bool, String) {
    (false, reason.to_owned())
}

async fn a_token_is_active_only_for_what_it_is_for(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let mut login = login_as("anna", PASSWORD, "web");
    login.audience = vec!["orders".to_owned(), "billing".to_owned()];
    login.scope = vec!["orders:read".to_owned(), "orders:write".to_owned()];
    let tokens = server.auth().login(login).await?.into_inner().tokens.ok_or("no tokens")?;
    let token = &tokens.access_token;
    assert_eq!(tokens.scope, "orders:read orders:write");
    assert_eq!(verify(&server, token, "", &[]).await?, (true, String::new()));
    assert_eq!(verify(&server, token, "billing", &["orders:read"]).await?, (true, String::new()));
    assert_eq!(verify(&server, token, "payments", &[]).await?, inactive("TOKEN_INVALID"));
    assert_eq!(verify(&server, token, "orders", &["orders:delete"]).await?, inactive("INSUFFICIENT_SCOPE"));
    let act = server.auth().logout(authorized(token, LogoutRequest {})).await;
    assert_eq!(
        refusal(act),
        (Code::Unauthenticated, "TOKEN_INVALID".to_owned()),
        "not for Tessera's own API"
    );

    let refresh = refresh_with(&tokens.refresh_token);
    let next = server.auth().refresh(refresh).await?.into_inner().tokens.ok_or("no tokens")?;
    assert_eq!(
        verify(&server, &next.access_token, "billing", &["orders:write"]).await?,
        (true, String::new())
    );
    server.stop().await
}

/// Takes a token apart: header, claims, signature.
fn parts(token: &str) -> Result<(Value, Value, String), Box<dyn std::error::Error>> {
    let pieces: Vec<&str> = token.split('.').collect();
    let json = |text: &str| -> Result<Value, Box<dyn std::error::Error>> {
        Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text)?)?)
    };
    Ok((json(pieces[0])?, json(pieces[1])?, pieces[2].to_owned()))
}

fn assemble(header: &Value, claims: &Value, signature: &str) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{signature}", encode(header), encode(claims))
}

async fn a_token_that_is_not_ours_is_inactive(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let bert = server.admin().await?;
    let (header, claims, signature) = parts(&anna.access_token)?;
    let (others_header, ..) = parts(&bert.access_token)?;
    let jwks = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json;

    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header
    };
    let mut richer = claims.clone();
    richer["roles"] = json!(["admin"]);
    let mut attacker = Header::new(Algorithm::HS256);
    attacker.typ = Some("at+jwt".to_owned());
    attacker.kid = header["kid"].as_str().map(str::to_owned);
    let confused = jsonwebtoken::encode(&attacker, &claims, &EncodingKey::from_secret(jwks.as_bytes()))?;

    let cases = [
        ("claims changed", assemble(&header, &richer, &signature)),
        ("alg none", assemble(&with("alg", json!("none")), &claims, "")),
        ("alg None", assemble(&with("alg", json!("None")), &claims, "")),
        ("HS256 with the public keys as secret", confused),
        ("another algorithm", assemble(&with("alg", json!("ES384")), &claims, &signature)),
        ("no signature", assemble(&header, &claims, "")),
        ("a key in the header", assemble(&with("jwk", json!({"kty": "EC"})), &claims, &signature)),
        ("a URL in the header", assemble(&with("jku", json!("https://evil.example")), &claims, &signature)),
        ("an unknown critical parameter", assemble(&with("crit", json!(["exp"])), &claims, &signature)),
        (
            "another session's endorsement",
            assemble(&with("skc", others_header["skc"].clone()), &claims, &signature),
        ),
        ("an unknown key", assemble(&with("kid", json!("unknown")), &claims, &signature)),
        ("an endorsement", header["skc"].as_str().unwrap_or_default().to_owned()),
        ("another issuer's token", foreign_token(&claims)?),
    ];
    for (what, token) in cases {
        assert_eq!(verify(&server, &token, "", &[]).await?, inactive("TOKEN_INVALID"), "{what}");
        let act = server.auth().logout(authorized(&token, LogoutRequest {})).await;
        assert_eq!(refusal(act), (Code::Unauthenticated, "TOKEN_INVALID".to_owned()), "{what}");
    }
    assert_eq!(verify(&server, &anna.access_token, "", &[]).await?, (true, String::new()));
    server.stop().await
}

/// A token with the same claims by somebody who has an issuer key and endorses session keys just as we do.
fn foreign_token(claims: &Value) -> Result<String, Box<dyn std::error::Error>> {
    let issuer = NewKey::generate(algorithm::Algorithm::Es256, 2048, &SystemRandomness)?.key;
    let session = NewKey::generate(algorithm::Algorithm::Es256, 2048, &SystemRandomness)?.key;
    let field = |name: &str| claims[name].as_str().unwrap_or_default();
    let endorsement = Endorsement {
        iss: field("iss").to_owned(),
        sid: field("sid").parse()?,
        sub: field("sub").parse()?,
        exp: claims["exp"].as_i64().unwrap_or_default(),
        cnf: KeyConfirmation { jwk: session.jwk().clone() },
    };
    let endorsement = issuer.sign_jwt(ENDORSEMENT_TYPE, None, &endorsement)?;
    Ok(session.sign_jwt("at+jwt", Some(&endorsement), claims)?)
}

async fn what_is_no_token_is_malformed(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let malformed = (Code::InvalidArgument, "TOKEN_MALFORMED".to_owned());
    let four = format!("{}.x", anna.access_token);
    for token in ["", "x", "a.b", "...", &four, "a.b.c", &anna.refresh_token, &"a".repeat(20_000)] {
        let request = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
        assert_eq!(refusal(server.auth().verify_token(request).await), malformed, "{token:.20}");
        if !token.is_empty() && token.len() < 10_000 {
            let act = server.auth().logout(authorized(token, LogoutRequest {})).await;
            assert_eq!(refusal(act), malformed, "{token:.20}");
        }
    }
    server.stop().await
}

async fn the_keys_are_published(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let reply = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
    assert_eq!(reply.keys.len(), 1);
    let set: Value = serde_json::from_str(&reply.jwks_json)?;
    assert_eq!(set["keys"][0]["kid"], reply.keys[0].kid);
    assert_eq!(set["keys"][0]["x"], reply.keys[0].x);
    assert!(set["keys"][0].get("d").is_none(), "no private half");
    assert!(reply.refresh_hint.is_some_and(|hint| hint.seconds > 0));

    let (header, ..) = parts(&anna.access_token)?;
    let kid = header["kid"].as_str().ok_or("no kid")?.to_owned();
    let found = server.keys().get_jwk(GetJwkRequest { kid: kid.clone() }).await?.into_inner();
    let key = found.key.ok_or("no key")?;
    assert_eq!((key.kid.as_str(), key.alg.as_str(), key.crv.as_str()), (kid.as_str(), "ES256", "P-256"));
    let (header, vouched, _) = parts(&found.endorsement)?;
    assert_eq!(header["typ"], "session-key+jwt");
    assert_eq!(header["kid"], reply.keys[0].kid);
    assert_eq!(vouched["cnf"]["jwk"]["x"], key.x);

    let issuers = server.keys().get_jwk(GetJwkRequest { kid: reply.keys[0].kid.clone() }).await?.into_inner();
    assert!(issuers.endorsement.is_empty());
    for unknown in ["", "unknown", &"x".repeat(43)] {
        let answer = server.keys().get_jwk(GetJwkRequest { kid: unknown.to_owned() }).await;
        assert_eq!(refusal(answer), (Code::NotFound, "NOT_FOUND".to_owned()), "{unknown}");
    }
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    let answer = server.keys().get_jwk(GetJwkRequest { kid }).await;
    assert_eq!(refusal(answer).0, Code::NotFound, "the key of a session that has ended");
    server.stop().await
}

async fn strict_asks_the_database(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    if home.kind == Kind::Sqlite {
        // An embedded database has one server.
        return server.stop().await;
    }
    // It never looks into the trust log by itself, and nobody tells it to.
    let other = home.start_with("[database]\npoll_interval = \"1h\"\nlisten_notify = false\n").await?;
    let request =
        |strict| VerifyTokenRequest { token: anna.access_token.clone(), strict, ..Default::default() };
    assert!(other.auth().verify_token(request(true)).await?.into_inner().active);
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    assert!(other.auth().verify_token(request(false)).await?.into_inner().active, "it has not heard of it");
    let answer = other.auth().verify_token(request(true)).await?.into_inner();
    assert_eq!((answer.active, answer.reason.as_str()), (false, "TOKEN_REVOKED"));
    other.stop().await?;
    server.stop().await
}

async fn the_verifier_checks_any_session_with_the_issuers_keys_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    let jwks = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json;
    let verifier = Verifier::from_jwks(&jwks)?;
    let expected = |issuer: &str, audience: &str| Expected {
        issuer: issuer.to_owned(),
        audience: Some(audience.to_owned()),
        leeway: TimeDelta::seconds(30),
    };
    let ours = expected("http://127.0.0.1:50051", "tessera");
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    let now = home.clock.now();
    for person in [&anna, &admin] {
        let claims = verifier.check(&person.access_token, &ours, now)?;
        assert_eq!(claims.sub.to_string(), person.user_id);
    }
    let check = |expected: &Expected, seconds| {
        verifier.check(&anna.access_token, expected, now + TimeDelta::seconds(seconds)).err()
    };
    assert_eq!(check(&ours, 929), None, "within the leeway");
    assert_eq!(check(&ours, 930), Some(Refusal::Expired));
    assert_eq!(check(&ours, -31), Some(Refusal::Invalid("not valid yet")));
    assert!(matches!(check(&expected("http://127.0.0.1:50051", "orders"), 0), Some(Refusal::Invalid(_))));
    assert!(matches!(check(&expected("http://127.0.0.1", "tessera"), 0), Some(Refusal::Invalid(_))));
    assert!(matches!(Verifier::default().check(&anna.access_token, &ours, now), Err(Refusal::Invalid(_))));
    server.stop().await
}

async fn a_token_expires(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"1m\"\n").await?;
    let anna = server.anna().await?;
    home.clock.advance(89);
    assert_eq!(
        verify(&server, &anna.access_token, "", &[]).await?,
        (true, String::new()),
        "within the leeway"
    );
    home.clock.advance(1);
    assert_eq!(verify(&server, &anna.access_token, "", &[]).await?, inactive("TOKEN_EXPIRED"));
    let act = server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await;
    assert_eq!(refusal(act), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    server.stop().await
}

async fn tokens_outlive_a_restart(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let admin = server.admin().await?;
    server.auth().logout(authorized(&admin.access_token, LogoutRequest {})).await?;
    server.stop().await?;

    let server = home.start().await?;
    assert_eq!(verify(&server, &anna.access_token, "", &[]).await?, (true, String::new()));
    assert_eq!(verify(&server, &admin.access_token, "", &[]).await?, inactive("TOKEN_REVOKED"));
    let refresh = refresh_with(&anna.refresh_token);
    assert!(server.auth().refresh(refresh).await.is_ok());
    server.stop().await
}

async fn tokens_without_endorsement_are_good_here_and_through_their_key(home: Home) -> Outcome {
    let server = home.start_with("[signing]\nendorse_in_header = false\n").await?;
    let anna = server.anna().await?;
    let (header, mut claims, signature) = parts(&anna.access_token)?;
    assert!(header.get("skc").is_none());
    assert_eq!(verify(&server, &anna.access_token, "tessera", &[]).await?, (true, String::new()));
    let kid = header["kid"].as_str().ok_or("no kid")?.to_owned();
    let key = server.keys().get_jwk(GetJwkRequest { kid: kid.clone() }).await?.into_inner();
    assert!(!key.endorsement.is_empty());
    claims["roles"] = json!(["admin"]);
    let forged = assemble(&header, &claims, &signature);
    assert_eq!(verify(&server, &forged, "", &[]).await?, inactive("TOKEN_INVALID"));
    let mut unknown = header.clone();
    unknown["kid"] = json!("x".repeat(43));
    assert_eq!(
        verify(&server, &assemble(&unknown, &claims, &signature), "", &[]).await?,
        inactive("TOKEN_INVALID")
    );
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    assert_eq!(verify(&server, &anna.access_token, "", &[]).await?, inactive("TOKEN_REVOKED"));
    server.stop().await
}
