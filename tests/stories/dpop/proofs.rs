//! What a proof must be: for this call, of now, good once.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tessera::{
    domain::algorithm::Algorithm,
    proto::{ListSessionsRequest, LoginRequest},
};
use tonic::{Code, Request};

use super::{LIST, LOGIN, anna, invalid_proof, list, sign_in};
use crate::support::{
    Holder, Home, Outcome, PASSWORD, login_as, proof_claims, proved, reason, refusal, sign_hs256, stories,
    timed_stories, unsigned, with_proofs,
};

stories! {
    a_proof_that_differs_in_one_thing_is_refused,
    a_proof_is_good_once,
    where_origins_are_named_a_proof_names_one,
}
timed_stories! { a_proof_is_good_for_a_minute }

/// With this member set, or without it where that is null.
fn with(object: &Value, member: &str, value: Value) -> Value {
    let mut object = object.clone();
    if value.is_null() {
        object.as_object_mut().expect("an object").remove(member);
    } else {
        object[member] = value;
    }
    object
}

async fn a_proof_that_differs_in_one_thing_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let (holder, other) = (Holder::new(Algorithm::Es256)?, Holder::new(Algorithm::Es256)?);
    let tokens = sign_in(&home, &server, &holder).await?.tokens.ok_or("no tokens")?;
    let token = tokens.access_token.as_str();
    let (header, now) = (holder.header(), home.now());
    let claims = || proof_claims(LIST, now, Some(token));
    let another_ath = proof_claims(LIST, now, Some("another"))["ath"].clone();

    let mut proofs = Vec::new();
    for (member, values) in [
        ("htm", vec![json!("GET"), json!("post"), json!(""), Value::Null]),
        (
            "htu",
            vec![
                json!("/tessera.v1.Session/GetSession"),
                json!("/tessera.v1.Session/ListSessions/"),
                json!("/tessera.v1.session/listsessions"),
                json!("//h/tessera.v1.Session/ListSessions"),
                json!("https://h/x/tessera.v1.Session/ListSessions"),
                json!("https://h"),
                json!(""),
                Value::Null,
            ],
        ),
        ("jti", vec![json!(""), json!("x".repeat(129)), json!(7), Value::Null]),
        (
            "iat",
            vec![
                json!(now.timestamp() - 91),
                json!(now.timestamp() + 200),
                json!(now.timestamp().to_string()),
                json!(1e300),
                Value::Null,
            ],
        ),
        ("ath", vec![another_ath, json!(""), Value::Null]),
    ] {
        for value in values {
            let what = format!("{member} {value}");
            proofs.push((what, holder.key.sign(&header, &with(&claims(), member, value))?));
        }
    }
    let mut private = header["jwk"].clone();
    private["d"] = json!("AAAA");
    for (member, values) in [
        ("typ", vec![json!("JWT"), json!("at+jwt"), Value::Null]),
        ("alg", vec![json!("ES384"), json!("RS256"), json!("ES256K"), Value::Null]),
        (
            "jwk",
            vec![
                private,
                json!(other.key.jwk()),
                with(&header["jwk"], "alg", json!("ES384")),
                with(&header["jwk"], "use", json!("enc")),
                with(&header["jwk"], "x", Value::Null),
                json!({"kty": "oct", "k": "AAAA"}),
                json!({}),
                json!("AAAA"),
                Value::Null,
            ],
        ),
        ("crit", vec![json!(["exp"])]),
        ("jku", vec![json!("https://h/jwks.json")]),
        ("x5c", vec![json!(["AAAA"])]),
    ] {
        for value in values {
            let what = format!("{member} {value}");
            proofs.push((what, holder.key.sign(&with(&header, member, value), &claims())?));
        }
    }
    let with_alg = |alg: &str| with(&header, "alg", json!(alg));
    proofs.push(("no signature".to_owned(), unsigned(&with_alg("none"), &claims())));
    let secret = holder.key.public_pem()?;
    proofs.push(("HS256".to_owned(), sign_hs256(secret.as_bytes(), &with_alg("HS256"), &claims())?));
    let good = holder.key.sign(&header, &claims())?;
    let (signed, signature) = good.rsplit_once('.').ok_or("no signature")?;
    let turned = |first: &str| if first == "A" { "B" } else { "A" };
    proofs.push(("signature".to_owned(), format!("{signed}.{}{}", turned(&signature[..1]), &signature[1..])));
    proofs.push(("a piece less".to_owned(), signed.to_owned()));
    proofs.push(("a piece more".to_owned(), format!("{good}.AAAA")));
    proofs.push(("two in one".to_owned(), format!("{good},{good}")));
    proofs.push(("nothing".to_owned(), String::new()));
    let long = with(&claims(), "more", json!("x".repeat(8 * 1024)));
    proofs.push(("too long".to_owned(), holder.key.sign(&header, &long)?));

    let mut session = server.session();
    for (what, proof) in proofs {
        let refused = session.list_sessions(proved(token, &proof, ListSessionsRequest::default())).await;
        assert_eq!(refusal(refused), invalid_proof(), "{what}");
    }
    let two = with_proofs(&[&good], proved(token, &good, ListSessionsRequest::default()));
    assert_eq!(refusal(session.list_sessions(two).await), invalid_proof(), "two headers");

    // What is not looked at, and other ways to say the same. None of them was used up by what was refused.
    for (header, claims) in [
        (header.clone(), with(&claims(), "htu", json!("https://h:1/tessera.v1.Session/ListSessions?a#b"))),
        (header.clone(), with(&claims(), "iat", json!(now.timestamp() as f64 - 59.5))),
        (header.clone(), with(&claims(), "jti", json!("x".repeat(128)))),
        (with(&header, "kid", json!("k")), with(&claims(), "nonce", json!("any"))),
        (with(&header, "typ", json!("application/DPoP+JWT")), claims()),
        (with(&header, "jwk", with(&header["jwk"], "alg", Value::Null)), claims()),
    ] {
        let proof = holder.key.sign(&header, &claims)?;
        session.list_sessions(proved(token, &proof, ListSessionsRequest::default())).await?;
    }
    session.list_sessions(proved(token, &good, ListSessionsRequest::default())).await?;
    assert!(server.metric("tessera_key_proofs_total{outcome=\"INVALID_DPOP_PROOF\"}").await? > 30);
    assert_eq!(server.metric("tessera_cache_entries{cache=\"key_proofs\"}").await?, 8);
    server.stop().await
}

async fn a_proof_is_good_once(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let proof = holder.proof(LOGIN, home.now(), None)?;
    // Who may not sign in uses up no proof: else anybody could fill the memory with them.
    let wrong = with_proofs(&[&proof], Request::new(login_as("anna", "not the password", "web")));
    assert_eq!(refusal(server.auth().login(wrong).await).1, "INVALID_CREDENTIALS");
    let login = || with_proofs::<LoginRequest>(&[&proof], anna());
    let tokens = server.auth().login(login()).await?.into_inner().tokens.ok_or("no tokens")?;
    assert_eq!(refusal(server.auth().login(login()).await), invalid_proof());
    // The password was right, and whoever guessed it has left a trace.
    let events = server.events(&server.admin().await?, "login").await?;
    assert!(events.iter().any(|event| event.reason == "INVALID_DPOP_PROOF" && !event.actor_id.is_empty()));

    let token = tokens.access_token.as_str();
    let proof = holder.proof(LIST, home.now(), Some(token))?;
    let call = || proved(token, &proof, ListSessionsRequest::default());
    server.session().list_sessions(call()).await?;
    for _ in 0..2 {
        assert_eq!(refusal(server.session().list_sessions(call()).await), invalid_proof());
    }
    list(&home, &server, &holder, token).await?;
    // The same id of another key is another one.
    let other = Holder::new(Algorithm::Es256)?;
    let proof = other.proof(LOGIN, home.now(), None)?;
    let mobile = with_proofs(&[&proof], Request::new(login_as("anna", PASSWORD, "mobile")));
    let mine = server.auth().login(mobile).await?.into_inner().tokens.ok_or("no tokens")?.access_token;
    for (holder, token) in [(&holder, token), (&other, &*mine)] {
        let same = json!({"jti": "same"});
        let proof = holder.proof_with(LIST, home.now(), Some(token), same.clone())?;
        server.session().list_sessions(proved(token, &proof, ListSessionsRequest::default())).await?;
        let later = holder.proof_with(LIST, home.now(), Some(token), same)?;
        let again =
            server.session().list_sessions(proved(token, &later, ListSessionsRequest::default())).await;
        assert_eq!(refusal(again), invalid_proof(), "its holder gave the id twice");
    }
    server.stop().await
}

async fn where_origins_are_named_a_proof_names_one(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\ndpop_origins = [\"https://auth.example\"]\n").await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    for (origin, is_good) in [
        ("https://AUTH.example:443", true),
        ("", false),
        ("http://auth.example", false),
        ("https://h", false),
    ] {
        let proof = holder.proof(&format!("{origin}{LOGIN}"), home.now(), None)?;
        let answer = server.auth().login(with_proofs(&[&proof], anna())).await;
        assert_eq!(answer.is_ok(), is_good, "{origin}");
    }
    server.stop().await
}

async fn a_proof_is_good_for_a_minute(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let holder = Holder::new(Algorithm::Es256)?;
    let at = |seconds| home.now() + TimeDelta::seconds(seconds);
    let token = sign_in(&home, &server, &holder).await?.tokens.ok_or("no tokens")?.access_token;
    let mut session = server.session();
    let mut answer = async |proof: &str| {
        let answer = session.list_sessions(proved(&token, proof, ListSessionsRequest::default())).await;
        answer.map_or_else(|status| reason(&status), |_| "OK".to_owned())
    };
    // A minute, and what the clocks may differ by: `tokens.leeway`.
    let (used, unused) = (holder.proof(LIST, at(0), Some(&token))?, holder.proof(LIST, at(0), Some(&token))?);
    let (early, too_early) =
        (holder.proof(LIST, at(30), Some(&token))?, holder.proof(LIST, at(31), Some(&token))?);
    assert_eq!(answer(&used).await, "OK");
    assert_eq!(answer(&too_early).await, "INVALID_DPOP_PROOF");
    assert_eq!(answer(&early).await, "OK");
    home.clock.advance(90);
    assert_eq!(answer(&used).await, "INVALID_DPOP_PROOF", "it is remembered for as long as it could be good");
    assert_eq!(answer(&unused).await, "OK");
    assert_eq!(answer(&too_early).await, "OK");
    let late = holder.proof(LIST, at(-90), Some(&token))?;
    home.clock.advance(1);
    assert_eq!(answer(&late).await, "INVALID_DPOP_PROOF");
    assert_eq!(answer(&early).await, "INVALID_DPOP_PROOF");
    home.clock.advance(200);
    assert_eq!(answer(&holder.proof(LIST, at(0), Some(&token))?).await, "OK");
    let kept = server.metric("tessera_cache_entries{cache=\"key_proofs\"}").await?;
    assert_eq!(kept, 1, "those that are too old are forgotten");
    // The token's own time counts as ever.
    home.clock.advance(900);
    let proof = holder.proof(LIST, at(0), Some(&token))?;
    let ended = session.list_sessions(proved(&token, &proof, ListSessionsRequest::default())).await;
    assert_eq!(refusal(ended), (Code::Unauthenticated, "TOKEN_EXPIRED".to_owned()));
    server.stop().await
}
