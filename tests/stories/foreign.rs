//! Clients that know nothing of this code: PyJWT, grpcio, grpcurl; and the `verifier` with the issuer's keys alone.
//! Against the binary, since they look at the real clock.

use std::{env, path::Path, process::Stdio};

use chrono::TimeDelta;
use tessera::{
    clock::{Clock, SystemClock},
    proto::{GetJwksRequest, LogoutRequest},
    verifier::{Expected, Refusal, Verifier},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

use crate::support::{
    Home, Outcome, PASSWORD, Server, authorized, client, file, installed, login_as, process_stories,
    refresh_with, run_client,
};

process_stories! {
    pyjwt_checks_a_token_with_nothing_but_the_jwks_url,
    pyjwt_walks_the_endorsement_with_the_issuers_keys_alone,
    grpcio_signs_in_refreshes_verifies_and_logs_out,
    the_verifier_needs_the_issuers_keys_alone,
}

/// The service's own name by default.
const ISSUER: &str = "http://127.0.0.1:50051";

/// Makes `anna`, and gives the token of a session that she has begun for this audience.
async fn token_for(server: &Server, audience: &str) -> Result<String, Box<dyn std::error::Error>> {
    let mut login = login_as("anna", PASSWORD, "web");
    login.audience = vec![audience.to_owned()];
    let reply = server.auth().login(login).await?.into_inner();
    Ok(reply.tokens.ok_or("no tokens")?.access_token)
}

async fn pyjwt_checks_a_token_with_nothing_but_the_jwks_url(home: Home) -> Outcome {
    let server = home.start_with("[sessions]\nper_device_type = 2\n").await?;
    server.anna().await?;
    let token = token_for(&server, "orders").await?;
    let for_another = token_for(&server, "billing").await?;
    let base_url = format!("http://{}", server.address);
    run_client(client("pyjwt_jwks_url.py").arg(file("README.md")).args([base_url, token, for_another]))
        .await?;
    server.stop().await
}

async fn pyjwt_walks_the_endorsement_with_the_issuers_keys_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    server.anna().await?;
    let token = token_for(&server, "orders").await?;
    run_client(client("pyjwt_endorsement.py").args([format!("http://{}", server.address), token])).await?;
    server.stop().await
}

async fn grpcio_signs_in_refreshes_verifies_and_logs_out(home: Home) -> Outcome {
    let server = home.start().await?;
    let admin = server.admin().await?;
    server.make_user(&admin, "anna").await?;
    run_client(client("grpcio_session.py").args([server.address.to_string().as_str(), "anna", PASSWORD]))
        .await?;
    server.stop().await
}

async fn the_verifier_needs_the_issuers_keys_alone(home: Home) -> Outcome {
    let server = home.start().await?;
    let anna = server.anna().await?;
    let keys = server.keys().get_jwks(GetJwksRequest::default()).await?.into_inner();
    let verifier = Verifier::from_jwks(&keys.jwks_json)?;
    let expected = |issuer: &str, audience: &str| Expected {
        issuer: issuer.to_owned(),
        audience: Some(audience.to_owned()),
        leeway: TimeDelta::seconds(30),
    };
    let (ours, now) = (expected(ISSUER, "tessera"), SystemClock.now());
    let token = &anna.access_token;

    let claims = verifier.check(token, &ours, now)?;
    let user = claims.user.as_ref().ok_or("no user")?;
    assert_eq!(user.sid.to_string(), anna.session_id);
    assert_eq!(claims.sub.to_string(), anna.user_id);
    assert_eq!(claims.exp - claims.iat, 15 * 60);

    let end = claims.expire_time().ok_or("no end")? + ours.leeway;
    assert!(verifier.check(token, &ours, end - TimeDelta::seconds(1)).is_ok());
    assert_eq!(verifier.check(token, &ours, end).err(), Some(Refusal::Expired));
    let refused = |token: &str, expected: &Expected| verifier.check(token, expected, now).err();
    let elsewhere = expected(ISSUER, "orders");
    assert_eq!(refused(token, &elsewhere), Some(Refusal::Invalid("another audience")));
    // A new one, which remembers no endorsement: the issuer's name stands there too.
    let others = expected("http://127.0.0.1:50052", "tessera");
    assert_eq!(refused(token, &others), Some(Refusal::Invalid("another issuer")));
    let new = Verifier::from_jwks(&keys.jwks_json)?;
    assert!(new.check(token, &others, now).is_err());

    let (signed, signature) = token.rsplit_once('.').ok_or("no signature")?;
    let first = if signature.starts_with('A') { "B" } else { "A" };
    for forged in [format!("{signed}."), format!("{signed}.{first}{}", &signature[1..])] {
        assert!(matches!(refused(&forged, &ours), Some(Refusal::Invalid(_) | Refusal::Malformed)));
    }
    assert!(Verifier::default().check(token, &ours, now).is_err(), "a verifier without keys accepts nothing");

    // Another generation of the session, by the same verifier: no key is fetched for it.
    let request = refresh_with(&anna.refresh_token);
    let next = server.auth().refresh(request).await?.into_inner();
    let next = next.tokens.ok_or("no tokens")?.access_token;
    assert!(verifier.check(&next, &ours, SystemClock.now()).is_ok());
    assert_eq!(verifier.remembered_keys(), 1);

    // It is told of a logout by its owner; until then the token's end is what it knows.
    server.auth().logout(authorized(&next, LogoutRequest {})).await?;
    assert!(verifier.check(&next, &ours, SystemClock.now()).is_ok());
    let revocation = tessera::domain::trust::Revocation::Session(user.sid);
    verifier.trust().admit(&revocation, end, SystemClock.uptime());
    assert_eq!(verifier.check(&next, &ours, SystemClock.now()).err(), Some(Refusal::Revoked));
    server.stop().await
}

/// The tour starts as its reader does, with nothing given but the port, which another test may hold.
#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_follows_the_readme_word_for_word() -> Outcome {
    let home = Home::new(crate::support::Kind::BinarySqlite).await?;
    let mut server = home
        .binary()
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("TESSERA_LOG__FORMAT", "text")
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(server.stderr.take().ok_or("its output is piped")?).lines();
    let mut said = String::new();
    let address = loop {
        let line = lines.next_line().await?.ok_or_else(|| format!("it ended: {said}"))?;
        said.push_str(&line);
        said.push('\n');
        if let Some((_, rest)) = line.split_once("serves gRPC and HTTP on http://") {
            break rest.split_once(',').ok_or("no address in the line")?.0.to_owned();
        }
    };
    // A pipe that nobody empties would stop the server.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });

    let reader = tempfile::TempDir::new()?;
    let said_file = reader.path().join("said");
    std::fs::write(&said_file, said)?;
    let grpcurl = installed("TESTS_GRPCURL", "python/bin/grpcurl");
    let mut path = grpcurl.parent().ok_or("it lies in a folder")?.as_os_str().to_owned();
    for folder in [
        Path::new(env!("CARGO_BIN_EXE_tessera"))
            .parent()
            .ok_or("it lies in a folder")?
            .as_os_str()
            .to_owned(),
        env::var_os("PATH").unwrap_or_default(),
    ] {
        path.push(":");
        path.push(folder);
    }
    let example = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--example", "protected_service"])
        .status()
        .await?;
    assert!(example.success());
    let built = Path::new(env!("CARGO_BIN_EXE_tessera")).with_file_name("examples");
    let mut tour = client("tour.py");
    tour.env("PROTECTED_SERVICE", built.join("protected_service"));
    // Where the service runs too: its data lies in ./data.
    tour.current_dir(home.dir()).env("PATH", path).arg(file("README.md")).arg(address).arg(said_file);
    if env::var_os("TESTS_WRITE_README").is_some() {
        tour.arg("--write");
    }
    run_client(&mut tour).await?;

    let pid = server.id().ok_or("it has ended before")?;
    assert!(Command::new("kill").arg(pid.to_string()).status().await?.success());
    assert!(server.wait().await?.success());
    Ok(())
}
