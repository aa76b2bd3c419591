//! The keys of other issuers that are fetched: when, how often, and what becomes of them.

use serde_json::json;
use tessera::proto::{CreateTrustedIssuerRequest, create_trusted_issuer_request::Keys};

use super::trusted_issuers::{ISSUER, get, register, token, verdict, with_keys};
use crate::support::{
    Home, Key, KeyServer, Outcome, Person, Server, eventually, jwks, one_key, timed_stories,
};

timed_stories! {
    made_up_key_ids_cost_one_fetch,
    a_new_key_is_found_and_an_old_one_forgotten,
    keys_are_fetched_ahead_of_their_end,
    the_last_good_keys_stay_for_a_day,
    an_issuer_whose_keys_are_away_is_registered,
    only_a_plain_answer_counts,
}

fn at(server: &KeyServer) -> CreateTrustedIssuerRequest {
    with_keys(ISSUER, Keys::JwksUrl(server.url()))
}

/// What `/metrics` counts of fetches with this outcome.
async fn counted(server: &Server, outcome: &str) -> Result<usize, Box<dyn std::error::Error>> {
    let page = server.get("/metrics").await?;
    let name = format!("tessera_foreign_key_fetches_total{{outcome=\"{outcome}\"}} ");
    let count = page.lines().find_map(|line| line.strip_prefix(&name));
    Ok(count.map(str::parse).transpose()?.unwrap_or_default())
}

async fn made_up_key_ids_cost_one_fetch(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let keys = KeyServer::serving(&set).await?;
    let made = register(&server, &admin, at(&keys)).await?;
    assert!(made.fetch_time.is_some() && made.fetch_error.is_empty(), "{}", made.fetch_error);
    assert_eq!(keys.asked(), 1);
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed");

    let flood = async || -> Outcome {
        let tokens: Vec<String> =
            (0..200).map(|n| token(&home, &key, &format!("made-up-{n}"))).collect::<Result<_, _>>()?;
        let checks = tokens.iter().map(|token| verdict(&server, &admin, token));
        for verdict in futures_util::future::join_all(checks).await {
            assert_eq!(verdict?, "TOKEN_INVALID");
        }
        Ok(())
    };
    flood().await?;
    assert_eq!(keys.asked(), 2);
    home.clock.advance(29);
    flood().await?;
    assert_eq!(keys.asked(), 2, "none before 30 s have passed");
    home.clock.advance(1);
    flood().await?;
    assert_eq!(keys.asked(), 3);
    assert_eq!(counted(&server, "OK").await?, 3);

    // Neither what is not of this issuer nor what could not be good anyway is worth a fetch.
    home.clock.advance(30);
    let stranger = with_keys("https://other.example", Keys::JwksJson(set.to_string()));
    register(&server, &admin, stranger).await?;
    let claims = json!({"iss": "https://other.example", "aud": "here", "sub": "u", "exp": 4_000_000_000_i64});
    let of_other = key.sign(&json!({"alg": "ES256", "kid": "made-up"}), &claims)?;
    assert_eq!(verdict(&server, &admin, &of_other).await?, "TOKEN_INVALID");
    assert_eq!(keys.asked(), 3);
    server.stop().await
}

async fn a_new_key_is_found_and_an_old_one_forgotten(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (old, set) = one_key("old")?;
    let keys = KeyServer::serving(&set).await?;
    register(&server, &admin, at(&keys)).await?;
    let new = Key::generate(tessera::domain::algorithm::Algorithm::EdDsa)?;
    keys.serve(&jwks(&[("new", &new), ("old", &old)]), "");
    assert_eq!(verdict(&server, &admin, &token(&home, &new, "new")?).await?, "believed", "at once");
    assert_eq!(verdict(&server, &admin, &token(&home, &old, "old")?).await?, "believed");
    assert_eq!(keys.asked(), 2);
    keys.serve(&jwks(&[("new", &new)]), "");
    home.clock.advance(300);
    assert_eq!(verdict(&server, &admin, &token(&home, &old, "old")?).await?, "TOKEN_INVALID", "withdrawn");
    assert_eq!(verdict(&server, &admin, &token(&home, &new, "new")?).await?, "believed");
    server.stop().await
}

async fn keys_are_fetched_ahead_of_their_end(home: Home) -> Outcome {
    let server = home.start().await?;
    let (_, set) = one_key("k1")?;
    let keys = KeyServer::serving(&set).await?;
    // What the server says of how long they may be kept, and when they are fetched anew: at three quarters of it.
    for (headers, seconds) in [
        ("", 225),
        ("cache-control: public, max-age=600\r\n", 450),
        ("cache-control: max-age=1\r\n", 45),
        ("cache-control: max-age=86400\r\n", 2700),
        ("cache-control: no-store\r\n", 45),
    ] {
        keys.serve(&set, headers);
        let admin = server.admin().await?;
        let name = format!("{ISSUER}/{seconds}");
        let made = register(&server, &admin, with_keys(&name, Keys::JwksUrl(keys.url()))).await?;
        let asked = keys.asked();
        home.clock.advance(seconds - 1);
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        assert_eq!(keys.asked(), asked, "{headers}: not before");
        home.clock.advance(1);
        // What she held may have expired.
        let admin = server.admin().await?;
        eventually("they are fetched anew", async || Ok(keys.asked() == asked + 1)).await?;
        let id = made.trusted_issuer_id;
        let fetched_anew = async || Ok(get(&server, &admin, &id).await?.fetch_time != made.fetch_time);
        eventually("it is told", fetched_anew).await?;
        remove(&server, &admin, &id).await?;
    }
    server.stop().await
}

async fn remove(server: &Server, by: &Person, id: &str) -> Outcome {
    let delete = tessera::proto::DeleteTrustedIssuerRequest { trusted_issuer_id: id.to_owned() };
    server.keys().delete_trusted_issuer(crate::support::authorized(&by.access_token, delete)).await?;
    Ok(())
}

async fn the_last_good_keys_stay_for_a_day(home: Home) -> Outcome {
    let server = home.start_with("[tokens]\naccess_ttl = \"1h\"\n").await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let keys = KeyServer::serving(&set).await?;
    let made = register(&server, &admin, at(&keys)).await?;
    keys.fall_silent();
    home.clock.advance(300);
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed");
    let told = get(&server, &admin, &made.trusted_issuer_id).await?;
    assert!(told.fetch_error.starts_with("can't be reached"), "{}", told.fetch_error);
    assert_eq!(told.fetch_time, made.fetch_time, "when it succeeded last");
    assert!(counted(&server, "UNREACHABLE").await? > 0);

    home.clock.advance(24 * 3600 - 301);
    let admin = server.admin().await?;
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed");
    home.clock.advance(1);
    assert_eq!(
        verdict(&server, &admin, &token(&home, &key, "k1")?).await?,
        "TOKEN_INVALID",
        "a day has passed"
    );
    keys.serve(&set, "");
    home.clock.advance(30);
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed", "it is back");
    assert_eq!(get(&server, &admin, &made.trusted_issuer_id).await?.fetch_error, "");
    server.stop().await
}

async fn an_issuer_whose_keys_are_away_is_registered(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let keys = KeyServer::serving(&set).await?;
    keys.fall_silent();
    let made = register(&server, &admin, at(&keys)).await?;
    assert_eq!(made.fetch_time, None);
    assert!(made.fetch_error.starts_with("can't be reached"), "{}", made.fetch_error);
    let asked = keys.asked();
    for _ in 0..10 {
        assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "TOKEN_INVALID");
    }
    assert_eq!(keys.asked(), asked, "not again at once");
    keys.serve(&set, "");
    home.clock.advance(30);
    // Without anybody who asks.
    let id = made.trusted_issuer_id;
    let is_fetched = async || Ok(get(&server, &admin, &id).await?.fetch_time.is_some());
    eventually("they are fetched", is_fetched).await?;
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed");
    server.stop().await
}

async fn only_a_plain_answer_counts(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    let (key, set) = one_key("k1")?;
    let (keys, target) = (KeyServer::serving(&set).await?, KeyServer::serving(&set).await?);
    let mut private = set.clone();
    private["keys"][0]["d"] = json!("AAAA");
    let long = format!("{}{}", " ".repeat(256 * 1024), set);
    let redirect = format!("302 Found\r\nlocation: {}", target.url());
    let fitting = format!("{}{set}", " ".repeat(256 * 1024 - set.to_string().len()));
    let cases = [
        ("302 Found", redirect.as_str(), String::new(), "answered with 302", "BAD_STATUS"),
        ("404", "404 Not Found", set.to_string(), "answered with 404", "BAD_STATUS"),
        ("too long", "200 OK", long, "is longer than 256 KiB", "TOO_LONG"),
        ("no JSON", "200 OK", "<html>".to_owned(), "the document is not a JWK set", "BAD_KEYS"),
        ("a private key", "200 OK", private.to_string(), "the document holds a private", "BAD_KEYS"),
        ("fits", "200 OK", fitting, "", "OK"),
    ];
    for (n, (what, head, body, error, outcome)) in cases.into_iter().enumerate() {
        keys.answer(head, &body);
        let name = format!("{ISSUER}/{n}");
        let before = counted(&server, outcome).await?;
        let made = register(&server, &admin, with_keys(&name, Keys::JwksUrl(keys.url()))).await?;
        assert!(made.fetch_error.starts_with(error), "{what}: {}", made.fetch_error);
        assert_eq!(made.fetch_time.is_some(), outcome == "OK", "{what}: {}", made.fetch_error);
        assert_eq!(counted(&server, outcome).await?, before + 1, "{what}");
    }
    assert_eq!(target.asked(), 0, "no redirect is followed");
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "TOKEN_INVALID");
    server.stop().await
}

/// One that accepts and then says nothing. Takes the five seconds that are allowed.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_holds_up_no_other() -> Outcome {
    let home = Home::new(crate::support::Kind::Sqlite).await?;
    let server = home.start().await?;
    let admin = server.admin().await?;
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/jwks.json", silent.local_addr()?);
    let (key, set) = one_key("k1")?;
    let keys = KeyServer::serving(&set).await?;
    let slow = with_keys("https://slow.example", Keys::JwksUrl(url));
    let (slow, quick) = tokio::join!(register(&server, &admin, slow), async {
        let made = register(&server, &admin, at(&keys)).await?;
        Ok::<_, tonic::Status>((made, std::time::Instant::now()))
    });
    let (slow, (quick, then)) = (slow?, quick?);
    assert_eq!(slow.fetch_error, "did not answer in full within 5 s");
    assert!(quick.fetch_time.is_some());
    assert!(then.elapsed() > std::time::Duration::from_secs(4), "it did not wait for the other");
    assert_eq!(verdict(&server, &admin, &token(&home, &key, "k1")?).await?, "believed");
    assert_eq!(counted(&server, "TIMEOUT").await?, 1);
    server.stop().await
}
