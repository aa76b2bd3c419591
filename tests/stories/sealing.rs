//! What lies sealed in the database: the key that seals it is exchanged while the service runs, and the database alone is
//! worth nothing.

use std::error::Error;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use secrecy::SecretSlice;
use serde_json::json;
use tessera::{
    crypto::{refresh_tag::TagKey, sealing::Sealer, signing::SigningKey},
    domain::algorithm::Algorithm,
    proto::LogoutRequest,
};
use tonic::Code;

use crate::support::{
    Home, Outcome, Server, authorized, login_as, parts_of, process_stories, refresh_with, refusal, run,
    sign_hs256, stories,
};

process_stories! {
    the_sealing_key_is_exchanged_while_the_service_runs,
    a_sealing_key_that_is_still_needed_is_missed,
}
stories! { a_dump_of_the_database_is_worth_nothing }

const SEALED: [(&str, &str); 4] = [
    ("issuer_keys", "sealed_private_key"),
    ("server_secrets", "sealed"),
    ("session_keys", "sealed_private_key"),
    ("spare_keys", "sealed_private_key"),
];

fn kek(id: &str, byte: u8) -> String {
    format!("{id}:{}", STANDARD.encode([byte; 32]))
}

async fn start(home: &Home, keks: &str) -> Result<Server, Box<dyn Error>> {
    let settings = "[signing]\nsession_algorithm = \"RS256\"\nrsa_pool = 6\n";
    let server = home.start_with(&format!("{settings}[sealing]\nkeks = \"{keks}\"\n")).await?;
    server.has_spare_keys(6).await?;
    Ok(server)
}

/// Every sealed value, as its table and its bytes.
async fn sealed(home: &Home) -> Result<Vec<(&'static str, Vec<u8>)>, Box<dyn Error>> {
    let mut values = Vec::new();
    for (table, column) in SEALED {
        let hex = if home.database_url().is_some() {
            format!("encode({column}, 'hex')")
        } else {
            format!("lower(hex({column}))")
        };
        for text in home.query(&format!("SELECT {hex} AS first FROM {table}")).await? {
            values.push((table, from_hex(&text)?));
        }
    }
    Ok(values)
}

fn from_hex(text: &str) -> Result<Vec<u8>, std::num::ParseIntError> {
    (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16)).collect()
}

/// How many values are sealed under this key.
async fn sealed_under(home: &Home, id: &str) -> Result<usize, Box<dyn Error>> {
    let values = sealed(home).await?;
    Ok(values.iter().filter(|(_, bytes)| bytes.get(2..2 + id.len()) == Some(id.as_bytes())).count())
}

async fn the_sealing_key_is_exchanged_while_the_service_runs(home: Home) -> Outcome {
    let (old, new) = (kek("old", 1), kek("new", 2));
    let server = start(&home, &old).await?;
    let anna = server.anna().await?;
    server.stop().await?;
    assert!(sealed_under(&home, "old").await? >= 4 && sealed_under(&home, "new").await? == 0);

    // The new one first: it seals, and both open. What there is still lies under the old one.
    let both = format!("{new},{old}");
    let server = start(&home, &both).await?;
    let reseal = |keks: &str| {
        let mut command = home.binary();
        command.arg("reseal").env("TESSERA_SEALING__KEKS", keks);
        run(command)
    };
    // Two at once, while people sign in and refresh.
    let busy = async {
        let mut token = anna.refresh_token.clone();
        for _ in 0..20 {
            let refreshed = server.auth().refresh(refresh_with(&token)).await?.into_inner();
            token = refreshed.tokens.ok_or("no tokens")?.refresh_token;
        }
        Ok::<_, Box<dyn Error>>(token)
    };
    let (first, second, token) = tokio::join!(reseal(&both), reseal(&both), busy);
    let (first, second, token) = (first?, second?, token?);
    for ended in [&first, &second] {
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stdout.contains("issuer_keys: "), "{ended:?}");
    }
    assert_eq!(sealed_under(&home, "old").await?, 0, "{first:?} {second:?}");
    let again = reseal(&both).await?;
    assert!(again.stdout.lines().all(|line| line.contains(": 0 sealed anew, ")), "{again:?}");
    server.stop().await?;

    // The old one is not needed any more.
    let server = start(&home, &new).await?;
    let refreshed = server.auth().refresh(refresh_with(&token)).await?.into_inner();
    assert!(server.is_active(&refreshed.tokens.ok_or("no tokens")?.access_token, true).await?);
    server.stop().await
}

async fn a_sealing_key_that_is_still_needed_is_missed(home: Home) -> Outcome {
    let (old, new) = (kek("old", 1), kek("new", 2));
    let server = start(&home, &old).await?;
    server.anna().await?;
    server.stop().await?;
    let mut command = home.binary();
    command.arg("reseal").env("TESSERA_SEALING__KEKS", &new);
    let ended = run(command).await?;
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("`old`"), "{ended:?}");
    assert_eq!(sealed_under(&home, "new").await?, 0, "nothing was touched");
    let mut missing = home.binary();
    missing.args(["reseal", "--data-dir", "elsewhere", "--database-url", "sqlite://elsewhere/tessera.db"]);
    let ended = run(missing).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(!home.dir().join("elsewhere/tessera.db").exists(), "nothing was made");
    start(&home, &old).await?.stop().await
}

/// Every text and every sequence of bytes that a thief of the database holds.
async fn loot(home: &Home) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut found: Vec<Vec<u8>> = sealed(home).await?.into_iter().map(|(_, bytes)| bytes).collect();
    let hex = if home.database_url().is_some() { "encode(salt, 'hex')" } else { "lower(hex(salt))" };
    for text in home.query(&format!("SELECT {hex} AS first FROM sessions")).await? {
        found.push(from_hex(&text)?);
    }
    for (table, column) in [
        ("users", "password_hash"),
        ("sessions", "kid"),
        ("sessions", "profile"),
        ("session_keys", "public_jwk"),
        ("issuer_keys", "public_jwk"),
        ("issuer_keys", "kid"),
    ] {
        let texts = home.query(&format!("SELECT {column} AS first FROM {table}")).await?;
        found.extend(texts.into_iter().map(String::into_bytes));
    }
    // Also parts: what follows the head of a sealed value, and what a hash is made of.
    let parts: Vec<Vec<u8>> = found
        .iter()
        .flat_map(|bytes| [bytes.get(2..), bytes.get(15..), bytes.get(bytes.len().saturating_sub(32)..)])
        .flatten()
        .map(<[u8]>::to_vec)
        .collect();
    found.extend(parts);
    Ok(found)
}

async fn a_dump_of_the_database_is_worth_nothing(home: Home) -> Outcome {
    let server = home.start_with("[signing]\nsession_algorithm = \"RS256\"\nrsa_pool = 6\n").await?;
    server.has_spare_keys(6).await?;
    let anna = server.anna().await?;
    let (header, claims) = parts_of(&anna.access_token)?;
    let loot = loot(&home).await?;
    assert!(loot.len() > 30);
    let session_id = anna.session_id.parse()?;
    let mut tried = 0;
    for bytes in &loot {
        let secret = SecretSlice::from(bytes.clone());
        // It signs nothing.
        for algorithm in Algorithm::ALL {
            assert!(SigningKey::from_pkcs8(algorithm, &secret).is_err());
        }
        let mut confused = header.clone();
        confused["alg"] = json!("HS256");
        let forged = sign_hs256(bytes, &confused, &claims)?;
        assert!(!server.is_active(&forged, true).await?);
        let acted = server.auth().logout(authorized(&forged, LogoutRequest {})).await;
        assert_eq!(refusal(acted), (Code::Unauthenticated, "TOKEN_INVALID".to_owned()));
        // It refreshes nothing, whichever of it is taken for the secret and whichever for the salt.
        for salt in loot.iter().filter(|salt| salt.len() <= 32) {
            let forged = TagKey::derive(&secret, salt)?.token(session_id, 0)?.to_text();
            assert_ne!(forged, anna.refresh_token);
            tried += 1;
        }
        let forged = TagKey::derive(&secret, bytes)?.token(session_id, 0)?.to_text();
        assert!(server.auth().refresh(refresh_with(&forged)).await.is_err());
        // It opens nothing.
        if let Ok(key) = <[u8; 32]>::try_from(&bytes[..]) {
            let sealer: Sealer = format!("{}:{}", "guess", STANDARD.encode(key)).parse()?;
            for other in &loot {
                assert!(sealer.open("secret:refresh", other).is_err());
            }
        }
        // It signs nobody in.
        if let Ok(text) = str::from_utf8(bytes) {
            let text: String = text.chars().filter(|c| !c.is_control()).take(128).collect();
            let login = server.auth().login(login_as("anna", &text, "thief")).await;
            assert!(login.is_err(), "{text}");
            let encoded = URL_SAFE_NO_PAD.encode(bytes);
            assert!(server.auth().refresh(refresh_with(&format!("trt_{encoded}"))).await.is_err());
        }
    }
    assert!(tried > 30, "{tried}");
    // The true token still does: nothing of this ended the session, and no guess was taken for reuse.
    assert!(server.auth().refresh(refresh_with(&anna.refresh_token)).await.is_ok());
    server.has_spare_keys(6).await?;
    assert!(server.sign_in("anna", "web").await.is_ok());
    server.stop().await
}
