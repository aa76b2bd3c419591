//! Tokens signed with a secret that one audience shares: who checks them, and what its holder can't forge.

use chrono::TimeDelta;
use serde_json::{Value, json};
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        ChangePasswordRequest, CreateUserRequest, GetJwksRequest, LogoutAllRequest, LogoutRequest,
        RevokeSessionRequest, SignUpRequest,
    },
    verifier::{Denial, Expected, Refusal, SharedKey, Verifier},
};
use tonic::Code;

use super::{Hands, ISSUER, bytes_of, login_for, refused, tokens_for, verify};
use crate::support::{
    Home, Outcome, PASSWORD, authorized, client, eventually, login_as, parts_of, refresh_with, refusal,
    run_client, sign_hs256, stories, story,
};

stories! {
    a_token_is_good_for_its_audience_alone,
    a_secret_forges_nothing_for_others,
    it_must_be_asked_for_alone,
    a_revoked_token_is_refused,
    our_own_api_is_never_such_an_audience,
    who_must_change_the_password_does_that_first,
}
story!(a_connected_verifier_takes_them_until_they_end, sqlite: Sqlite, postgres: Postgres);
story!(libraries_load_the_secret_and_check, sqlite: BinarySqlite);

async fn a_token_is_good_for_its_audience_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (_, secret) = hands.create_hs256("orders").await?;
    hands.create_hs256("billing").await?;
    let tokens = tokens_for(&server, "one", &["orders"]).await?;
    let (header, claims) = parts_of(&tokens.access_token)?;
    assert_eq!(header, json!({"typ": "at+jwt", "alg": "HS256", "kid": secret.kid}));
    assert_eq!(claims["aud"], json!(["orders"]));

    assert_eq!(verify(&server, &tokens.access_token, "orders").await?, "");
    for audience in ["", "tessera", "billing", "shipping"] {
        assert_eq!(verify(&server, &tokens.access_token, audience).await?, "TOKEN_INVALID", "{audience}");
    }
    let act = server.auth().logout(authorized(&tokens.access_token, LogoutRequest {})).await;
    assert_eq!(refusal(act), refused(Code::Unauthenticated, "TOKEN_INVALID"));

    let next = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?.access_token;
    assert_eq!(parts_of(&next)?.0["alg"], "HS256");
    assert_eq!(verify(&server, &next, "orders").await?, "");
    server.stop().await
}

async fn a_secret_forges_nothing_for_others(home: Home) -> Outcome {
    // Where tokens carry no endorsement, an unknown key is looked up.
    for settings in ["", "[signing]\nendorse_in_header = false\n"] {
        let server = home.start_with(settings).await?;
        if settings.is_empty() {
            server.anna().await?;
        }
        let hands = Hands::of(&server).await?;
        let name = if settings.is_empty() { "orders" } else { "more-orders" };
        let (_, secret) = hands.create_hs256(name).await?;
        let (_, others) = hands.create_hs256(&format!("{name}-other")).await?;
        let bytes = bytes_of(&secret)?;
        let token = tokens_for(&server, "one", &[name]).await?.access_token;
        let (header, claims) = parts_of(&token)?;
        let forge = |changes: Value, aud: Value| {
            let (mut header, mut claims) = (header.clone(), claims.clone());
            header.as_object_mut().unwrap().extend(changes.as_object().cloned().unwrap());
            claims["aud"] = aud;
            claims["roles"] = json!(["admin"]);
            sign_hs256(&bytes, &header, &claims)
        };
        let same = || json!({});
        // It may say whatever it wants, to its own audience.
        assert_eq!(verify(&server, &forge(same(), json!([name]))?, name).await?, "");
        let other = format!("{name}-other");
        let public = tokens_for(&server, "two", &["tessera"]).await?.access_token;
        let session_kid = parts_of(&public)?.0["kid"].clone();
        let cases = [
            (forge(same(), json!(["tessera"]))?, vec!["", "tessera", name]),
            (forge(same(), json!([other]))?, vec!["", &other, name]),
            (forge(same(), json!(["unregistered"]))?, vec!["", "unregistered", name]),
            (forge(same(), json!([name, "tessera"]))?, vec!["", "tessera", name]),
            (forge(same(), json!([]))?, vec!["", name]),
            (forge(same(), json!([name]))?, vec!["", "tessera", &other]),
            (forge(json!({"kid": others.kid}), json!([other]))?, vec!["", &other, name]),
            (forge(json!({"kid": session_kid}), json!(["tessera"]))?, vec!["", "tessera", name]),
            (forge(json!({"kid": "unknown"}), json!([name]))?, vec!["", name]),
            (forge(json!({"kid": null}), json!([name]))?, vec!["", name]),
            (forge(json!({"alg": "ES256"}), json!([name]))?, vec!["", name]),
            (forge(json!({"typ": "JWT"}), json!([name]))?, vec!["", name]),
        ];
        for (forged, audiences) in cases {
            for audience in audiences {
                let told = verify(&server, &forged, audience).await?;
                assert_eq!(told, "TOKEN_INVALID", "{audience}: {:?}", parts_of(&forged)?);
            }
            let act = server.auth().logout(authorized(&forged, LogoutRequest {})).await;
            assert_eq!(refusal(act), refused(Code::Unauthenticated, "TOKEN_INVALID"));
        }
        server.stop().await?;
    }
    Ok(())
}

async fn it_must_be_asked_for_alone(home: Home) -> Outcome {
    let server = home
        .start_with("[accounts]\nsignup = \"open\"\n[tokens]\ndefault_audience = [\"tessera\", \"late\"]\n")
        .await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    hands.create_hs256("orders").await?;
    let before = tokens_for(&server, "one", &["late", "billing"]).await?;
    hands.create_hs256("late").await?;

    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    for audience in [&["orders", "billing"][..], &["tessera", "orders"], &["orders", "late"]] {
        let status = server.auth().login(login_for("two", audience)).await;
        assert!(
            status.as_ref().is_err_and(|status| status.message().contains("asked for alone")),
            "{status:?}"
        );
        assert_eq!(refusal(status), invalid);
        let sign_up = SignUpRequest {
            username: "berta".to_owned(),
            password: PASSWORD.to_owned(),
            audience: audience.iter().map(|name| (*name).to_owned()).collect(),
            ..Default::default()
        };
        assert_eq!(refusal(server.auth().sign_up(sign_up).await), invalid);
    }
    // Twice the same is one.
    let twice = tokens_for(&server, "three", &["orders", "orders"]).await?.access_token;
    assert_eq!(parts_of(&twice)?.0["alg"], "HS256");

    // Registered after the session began, or by default: several audiences never share a secret.
    let next = server.auth().refresh(refresh_with(&before.refresh_token)).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?.access_token;
    let by_default = tokens_for(&server, "four", &[]).await?.access_token;
    for token in [&next, &by_default] {
        assert_eq!(parts_of(token)?.0["alg"], "ES256");
        assert_eq!(verify(&server, token, "late").await?, "");
    }
    server.stop().await
}

async fn a_revoked_token_is_refused(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let hands = Hands::of(&server).await?;
    hands.create_hs256("orders").await?;
    let tokens = tokens_for(&server, "one", &["orders"]).await?;
    assert_eq!(verify(&server, &tokens.access_token, "orders").await?, "");
    let end = RevokeSessionRequest { session_id: tokens.session_id.clone() };
    server.session().revoke_session(authorized(&anna.access_token, end)).await?;
    assert_eq!(verify(&server, &tokens.access_token, "orders").await?, "TOKEN_REVOKED");
    server.stop().await
}

/// Not even where somebody wrote it into the database.
async fn our_own_api_is_never_such_an_audience(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (_, secret) = hands.create_hs256("orders").await?;
    let token = tokens_for(&server, "one", &["orders"]).await?.access_token;
    server.stop().await?;
    home.query("UPDATE audiences SET name = 'tessera'").await?;

    let server = home.start().await?;
    let public = tokens_for(&server, "two", &["tessera"]).await?.access_token;
    assert_eq!(parts_of(&public)?.0["alg"], "ES256");
    let (header, mut claims) = parts_of(&token)?;
    claims["aud"] = json!(["tessera"]);
    let forged = sign_hs256(&bytes_of(&secret)?, &header, &claims)?;
    for audience in ["", "tessera", "orders"] {
        assert_eq!(verify(&server, &forged, audience).await?, "TOKEN_INVALID");
    }
    let act = server.auth().logout(authorized(&forged, LogoutRequest {})).await;
    assert_eq!(refusal(act), refused(Code::Unauthenticated, "TOKEN_INVALID"));
    server.stop().await
}

async fn who_must_change_the_password_does_that_first(home: Home) -> Outcome {
    let server = home.start().await?;
    let hands = Hands::of(&server).await?;
    hands.create_hs256("orders").await?;
    let anna = CreateUserRequest {
        username: "anna".to_owned(),
        password: PASSWORD.to_owned(),
        password_change_required: true,
        ..Default::default()
    };
    server.users().create_user(authorized(&hands.token, anna)).await?;
    let tokens = tokens_for(&server, "one", &["orders"]).await?;
    let (header, claims) = parts_of(&tokens.access_token)?;
    assert_eq!((&header["alg"], &claims["aud"]), (&json!("ES256"), &json!(["tessera"])));
    let change = ChangePasswordRequest {
        current_password: PASSWORD.to_owned(),
        new_password: "somebody's better words".to_owned(),
        ..Default::default()
    };
    server.auth().change_password(authorized(&tokens.access_token, change)).await?;
    let next = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?.into_inner();
    let (header, claims) = parts_of(&next.tokens.ok_or("no tokens")?.access_token)?;
    assert_eq!((&header["alg"], &claims["aud"]), (&json!("HS256"), &json!(["orders"])));
    server.stop().await
}

/// Against the binary, since they look at the real clock.
async fn libraries_load_the_secret_and_check(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (_, secret) = hands.create_hs256("orders").await?;
    let token = tokens_for(&server, "one", &["orders"]).await?.access_token;
    let (_, claims) = parts_of(&token)?;
    let file = home.dir().join("secret.jwk");
    std::fs::write(&file, &secret.secret_jwk)?;
    let jwks_url = format!("http://{}/.well-known/jwks.json", server.address);
    for script in ["hs256.py", "hs256.mjs"] {
        let said = run_client(client(script).arg(&file).args([&token, &jwks_url, ISSUER, "orders"])).await?;
        assert_eq!(serde_json::from_str::<Value>(&said)?, claims, "{script}");
    }

    let jwks = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json;
    let expected = |audience: Option<&str>| Expected {
        issuer: ISSUER.to_owned(),
        audience: audience.map(str::to_owned),
        leeway: TimeDelta::seconds(30),
    };
    let now = SystemClock.now();
    let verifier = Verifier::from_jwks(&jwks)?;
    assert_eq!(verifier.check(&token, &expected(Some("orders")), now), Err(Refusal::UnknownKey));
    let verifier = verifier.with_shared_secrets("orders", vec![SharedKey::from_jwk(&secret.secret_jwk)?]);
    let checked = verifier.check(&token, &expected(Some("orders")), now)?;
    assert_eq!(checked.sub.to_string(), claims["sub"].as_str().unwrap_or_default());
    for audience in [None, Some("billing"), Some("tessera")] {
        assert_eq!(verifier.check(&token, &expected(audience), now), Err(Refusal::UnknownKey));
    }
    let (header, mut claims) = parts_of(&token)?;
    claims["aud"] = json!(["orders", "billing"]);
    let for_two = sign_hs256(&bytes_of(&secret)?, &header, &claims)?;
    let refused = Err(Refusal::Invalid("signed with the secret of another audience"));
    assert_eq!(verifier.check(&for_two, &expected(Some("orders")), now), refused);
    // What the issuer's keys vouch for is taken as before.
    let plain = tokens_for(&server, "two", &["orders", "billing"]).await;
    assert!(plain.is_err(), "it must be asked for alone");
    let public = tokens_for(&server, "two", &["tessera"]).await?.access_token;
    assert!(verifier.check(&public, &expected(Some("tessera")), now).is_ok());
    server.stop().await
}

async fn a_connected_verifier_takes_them_until_they_end(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (_, secret) = hands.create_hs256("orders").await?;
    let connect =
        || Verifier::connect(server.url()).issuer(ISSUER).audience("orders").clock(home.clock.clone());
    let holder = connect().shared_secrets(vec![SharedKey::from_jwk(&secret.secret_jwk)?]).start().await?;
    let other = connect().start().await?;
    let token = tokens_for(&server, "one", &["orders"]).await?.access_token;
    for _ in 0..2 {
        assert_eq!(holder.check(&token).await?.sub.to_string(), anna.user_id);
    }
    assert_eq!(other.check(&token).await, Err(Denial::Refused(Refusal::UnknownKey)));
    assert_eq!(holder.figures().remembered_tokens, 0, "to check it costs no signature");

    let public = server.auth().login(login_as("anna", PASSWORD, "two")).await?.into_inner();
    let public = public.tokens.ok_or("no tokens")?.access_token;
    assert!(holder.check(&public).await.is_err(), "it is for another audience");
    server.auth().logout_all(authorized(&public, LogoutAllRequest::default())).await?;
    let revoked = Err(Denial::Refused(Refusal::Revoked));
    eventually("the logout is heard", async || Ok(holder.check(&token).await == revoked)).await?;
    server.stop().await
}
