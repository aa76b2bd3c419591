//! Tokens encrypted to a public key that their audience registered.

use chrono::TimeDelta;
use jose_rs::jwk::{Jwk, generate_ec, generate_rsa};
use serde_json::Value;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        Audience, AudienceSigning, CreateAudienceRequest, GetJwksRequest, LogoutRequest,
        UpdateAudienceRequest,
    },
    verifier::{DecryptionKey, Expected, Refusal, SharedKey, Verifier},
};
use tonic::Code;

use super::{Hands, ISSUER, login_for, refused, tokens_for, verify};
use crate::support::{
    Home, Outcome, authorized, client, parts_of, refresh_with, refusal, run_client, stories, story,
};

stories! {
    a_key_is_registered_exchanged_and_removed,
    a_token_is_encrypted_and_nobody_else_checks_it,
}
story!(libraries_decrypt_and_check, sqlite: BinarySqlite);

fn public_half(key: &Jwk) -> Result<String, Box<dyn std::error::Error>> {
    Ok(key.to_public_jwk().to_json()?)
}

fn with_key(name: &str, jwk: String) -> CreateAudienceRequest {
    CreateAudienceRequest { name: name.to_owned(), encryption_jwk: jwk, ..Default::default() }
}

/// The header of a JWE, or of a JWS.
fn header_of(token: &str) -> Result<Value, Box<dyn std::error::Error>> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let header = token.split('.').next().unwrap_or_default();
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header)?)?)
}

async fn a_key_is_registered_exchanged_and_removed(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let (first, second) = (generate_ec("P-256")?, generate_ec("P-256")?);
    let invalid = refused(Code::InvalidArgument, "INVALID_FIELD");
    for bad in [first.to_json()?, "no key".to_owned(), public_half(&generate_ec("P-384")?)?] {
        let answer = hands.try_create(with_key("orders", bad)).await;
        let told = answer.as_ref().err().map(|status| format!("{status:?}")).unwrap_or_default();
        assert!(!first.d.as_ref().is_some_and(|secret| told.contains(secret.as_str())), "{told}");
        assert_eq!(refusal(answer), invalid);
    }

    let audience = hands.try_create(with_key("orders", public_half(&first)?)).await?.into_inner();
    let audience = audience.audience.ok_or("no audience")?;
    let shown: Value = serde_json::from_str(&audience.encryption_jwk)?;
    assert_eq!((&shown["use"], &shown["alg"]), (&"enc".into(), &"ECDH-ES+A256KW".into()));
    assert!(shown.get("d").is_none());
    let tokens = tokens_for(&server, "one", &["orders"]).await?;
    assert_eq!(header_of(&tokens.access_token)?["kid"], shown["kid"]);

    let update = |jwk: String| UpdateAudienceRequest {
        audience_id: audience.audience_id.clone(),
        encryption_jwk: Some(jwk),
        ..Default::default()
    };
    assert_eq!(refusal(hands.try_update(update(second.to_json()?)).await), invalid, "a private key");
    hands.try_update(update(public_half(&second)?)).await?;
    let next = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?;
    let (old, new) =
        (DecryptionKey::from_jwk(&first.to_json()?)?, DecryptionKey::from_jwk(&second.to_json()?)?);
    assert!(old.decrypt(&next.access_token).is_err());
    let inside = new.decrypt(&next.access_token)?;
    assert_eq!(verify(&server, &inside, "orders").await?, "", "what was inside is a token like any other");

    hands.try_update(update(String::new())).await?;
    let plain = tokens_for(&server, "two", &["orders"]).await?.access_token;
    assert_eq!(parts_of(&plain)?.0["alg"], "ES256");
    assert_eq!(hands.get("orders").await?.encryption_jwk, "");

    hands.try_update(update(public_half(&first)?)).await?;
    let tokens = tokens_for(&server, "three", &["orders"]).await?;
    assert_eq!(tokens.access_token.split('.').count(), 5);
    hands.delete(&audience).await?;
    let next = server.auth().refresh(refresh_with(&tokens.refresh_token)).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?.access_token;
    assert_eq!(verify(&server, &next, "orders").await?, "", "deletion returns tokens to plain");
    server.stop().await
}

async fn a_token_is_encrypted_and_nobody_else_checks_it(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    hands.try_create(with_key("orders", public_half(&generate_rsa(2048)?)?)).await?;
    let token = tokens_for(&server, "one", &["orders"]).await?.access_token;
    for audience in ["", "orders"] {
        assert_eq!(verify(&server, &token, audience).await?, "TOKEN_INVALID");
    }
    let act = server.auth().logout(authorized(&token, LogoutRequest {})).await;
    assert_eq!(refusal(act), refused(Code::Unauthenticated, "TOKEN_INVALID"));
    let together = server.auth().login(login_for("two", &["orders", "billing"])).await;
    assert_eq!(refusal(together), refused(Code::InvalidArgument, "INVALID_FIELD"));
    let ours = tokens_for(&server, "three", &["tessera"]).await?.access_token;
    assert_eq!(verify(&server, &ours, "tessera").await?, "");
    server.stop().await
}

/// Against the binary, since they look at the real clock.
async fn libraries_decrypt_and_check(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let hands = Hands::of(&server).await?;
    let jwks_url = format!("http://{}/.well-known/jwks.json", server.address);
    let jwks = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner().jwks_json;
    let now = SystemClock.now() + TimeDelta::seconds(1);
    for (name, private, algorithm) in [
        ("orders", generate_ec("P-256")?, "ECDH-ES+A256KW"),
        ("billing", generate_rsa(2048)?, "RSA-OAEP-256"),
    ] {
        let audience: Audience = hands
            .try_create(with_key(name, public_half(&private)?))
            .await?
            .into_inner()
            .audience
            .unwrap_or_default();
        let token = tokens_for(&server, name, &[name]).await?.access_token;
        let header = header_of(&token)?;
        assert_eq!((&header["alg"], &header["enc"]), (&algorithm.into(), &"A256GCM".into()));

        let mut own: Value = serde_json::from_str(&private.to_json()?)?;
        own["alg"] = algorithm.into();
        let (key_file, token_file) =
            (home.dir().join(format!("{name}.jwk")), home.dir().join(format!("{name}.jwe")));
        std::fs::write(&key_file, own.to_string())?;
        std::fs::write(&token_file, &token)?;
        let key = DecryptionKey::from_jwk(&private.to_json()?)?;
        let (_, claims) = parts_of(&key.decrypt(&token)?)?;
        for script in ["decrypt.py", "decrypt.mjs"] {
            let mut decrypt = client(script);
            decrypt.arg(&key_file).arg(&token_file).args([&jwks_url, ISSUER, name]);
            let said = run_client(&mut decrypt).await?;
            assert_eq!(serde_json::from_str::<Value>(&said)?, claims, "{script}");
        }

        let expected = Expected {
            issuer: ISSUER.to_owned(),
            audience: Some(name.to_owned()),
            leeway: TimeDelta::seconds(30),
        };
        let verifier = || -> Result<Verifier, Box<dyn std::error::Error>> {
            let verifier = Verifier::from_jwks(&jwks)?.with_decryption_keys(vec![key.clone()]);
            Ok(verifier.require_encryption())
        };
        assert_eq!(verifier()?.check(&token, &expected, now)?.aud, [name]);

        // The same audience with a secret beside the key: signed with one and encrypted to the other.
        hands.delete(&audience).await?;
        let both = CreateAudienceRequest {
            signing: AudienceSigning::Hs256.into(),
            ..with_key(name, public_half(&private)?)
        };
        let secret = hands.try_create(both).await?.into_inner().secret.ok_or("no secret")?;
        let token = tokens_for(&server, name, &[name]).await?.access_token;
        assert_eq!(verifier()?.check(&token, &expected, now), Err(Refusal::UnknownKey));
        let verifier = verifier()?.with_shared_secrets(name, vec![SharedKey::from_jwk(&secret.secret_jwk)?]);
        assert_eq!(verifier.check(&token, &expected, now)?.aud, [name]);
        let inside = key.decrypt(&token)?;
        assert_eq!(parts_of(&inside)?.0["alg"], "HS256");
        assert_eq!(verify(&server, &inside, name).await?, "");
    }
    server.stop().await
}
