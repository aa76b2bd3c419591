//! TLS from files that are exchanged while it serves.

use std::{error::Error, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tessera::{
    proto::{LogoutRequest, create_trusted_issuer_request::Keys},
    verifier::{ConnectBuilder, StartError, Verifier},
};
use tokio::{net::TcpStream, process::Command};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::trusted_issuers::{ISSUER, register, with_keys};
use crate::support::{
    Authority, Home, Kind, Outcome, Server, authorized, eventually, over_tls, replace, run,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Starts a server with these files, reached by a client that trusts this authority.
async fn start(authority: &Authority, home: &Home) -> Result<Server> {
    let tls = authority.client_tls(None)?;
    Server::of_binary_at(serve(home), |address| over_tls(address, tls)).await
}

/// The certificate that a new connection is shown, once a client has accepted it that trusts this authority.
async fn shown(authority: &Authority, address: SocketAddr) -> Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.certificate())?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::from(address.ip());
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let shown = stream.get_ref().1.peer_certificates();
    let first = shown.and_then(<[_]>::first).ok_or("no certificate was shown")?;
    Ok(first.clone().into_owned())
}

fn with_tls(command: &mut Command) -> &mut Command {
    command.env("TESSERA_SERVER__TLS_CERT", "cert.pem").env("TESSERA_SERVER__TLS_KEY", "key.pem")
}

fn serve(home: &Home) -> Command {
    let mut command = home.binary();
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", crate::support::ADMIN_PASSWORD);
    with_tls(&mut command);
    command
}

async fn home() -> Result<Home> {
    Home::new(Kind::BinarySqlite).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_trusts_the_authority_is_served_and_plain_text_is_not() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    authority.issue("first", "1").await?.install(&home)?;
    let server = start(&authority, &home).await?;
    assert!(server.said().contains(&format!("https://{}", server.address)), "{}", server.said());
    server.admin().await?;

    let plain = Endpoint::from_shared(format!("http://{}", server.address))?.connect().await;
    let answer = match plain {
        Ok(channel) => tonic_health::pb::health_client::HealthClient::new(channel)
            .check(tonic_health::pb::HealthCheckRequest::default())
            .await
            .map_err(|status| status.to_string()),
        Err(error) => Err(error.to_string()),
    };
    assert!(answer.is_err(), "{answer:?}");
    let page = server.get("/.well-known/jwks.json").await;
    assert!(!page.unwrap_or_default().contains("keys"));

    let stranger = Authority::new().await?;
    let refused = shown(&stranger, server.address).await;
    assert!(
        refused.is_err_and(|error| error.to_string().contains("invalid peer certificate")),
        "a client that trusts another authority"
    );
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_1_and_http_2_share_the_port() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    authority.issue("first", "1").await?.install(&home)?;
    let server = start(&authority, &home).await?;
    server.admin().await?;
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--fail", "--noproxy", "*", "--http1.1"])
        .args(["--write-out", "\n%{http_version} %{content_type}", "--cacert"])
        .arg(authority.certificate())
        .arg(format!("https://{}/.well-known/jwks.json", server.address));
    let ended = run(command).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (json, rest) = ended.stdout.rsplit_once('\n').ok_or("one line")?;
    assert_eq!(rest, "1.1 application/jwk-set+json");
    let set: serde_json::Value = serde_json::from_str(json)?;
    assert_eq!(set["keys"].as_array().map(Vec::len), Some(1), "{set}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_shown_without_a_restart() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    let first = authority.issue("first", "1").await?;
    let second = authority.issue("second", "2").await?;
    first.install(&home)?;
    let server = start(&authority, &home).await?;
    let admin = server.admin().await?;
    assert_eq!(shown(&authority, server.address).await?, first.der()?);

    second.install(&home)?;
    let begun = std::time::Instant::now();
    eventually("the new certificate is shown", async || {
        Ok(shown(&authority, server.address).await? == second.der()?)
    })
    .await?;
    println!("the new certificate was shown after {:?}", begun.elapsed());
    // The connection from before goes on.
    server.make_user(&admin, "anna").await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_that_makes_no_sense_leaves_the_old_one() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    let first = authority.issue("first", "1").await?;
    let second = authority.issue("second", "2").await?;
    first.install(&home)?;
    let server = start(&authority, &home).await?;
    let cert = home.dir().join("cert.pem");
    let refusals = || server.said().matches("the new certificate is not taken up").count();

    let garbage = home.dir().join("garbage");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nnonsense\n")?;
    // Nonsense, nothing at all, and the certificate of another key: half of an exchange.
    let empty = home.dir().join("empty");
    std::fs::write(&empty, "")?;
    for (index, bad) in [&garbage, &empty, &second.cert].into_iter().enumerate() {
        replace(bad, &cert)?;
        eventually("the server has seen the file", async || Ok(refusals() > index)).await?;
        assert_eq!(shown(&authority, server.address).await?, first.der()?, "{index}");
    }
    std::fs::remove_file(&cert)?;
    server.admin().await?;
    assert_eq!(shown(&authority, server.address).await?, first.der()?);

    // The other half follows.
    second.install(&home)?;
    eventually("the new certificate is shown", async || {
        Ok(shown(&authority, server.address).await? == second.der()?)
    })
    .await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_with_files_that_make_no_sense() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    let first = authority.issue("first", "1").await?;
    let second = authority.issue("second", "2").await?;
    let (cert, key) = (home.dir().join("cert.pem"), home.dir().join("key.pem"));
    let refused = async |words: &str| -> Outcome {
        let ended = run(serve(&home)).await?;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
        Ok(())
    };
    refused("cert.pem: No such file").await?;
    first.install(&home)?;
    replace(&second.key, &key)?;
    refused("key.pem: is not the key of the certificate in cert.pem").await?;
    replace(&first.key, &cert)?;
    refused("cert.pem: there is no certificate in it").await?;
    first.install(&home)?;
    std::fs::write(&key, "nonsense")?;
    refused("key.pem: ").await?;
    first.install(&home)?;
    start(&authority, &home).await?.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_over_tls_and_believes_no_other_certificate() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    let other = authority.issue("other", "2").await?;
    authority.issue("first", "1").await?.install(&home)?;
    let server = start(&authority, &home).await?;
    let health = async |cert: &Path| {
        let mut command = home.binary();
        command.args(["health", "--listen", &server.address.to_string()]);
        with_tls(&mut command).env("TESSERA_SERVER__TLS_CERT", cert);
        run(command).await
    };
    let ended = health(Path::new("cert.pem")).await?;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = health(&other.cert).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_another_issuer_come_over_tls_from_whom_the_system_trusts() -> Outcome {
    let (authority, issuers_home) = (Authority::new().await?, home().await?);
    authority.issue("first", "1").await?.install(&issuers_home)?;
    let issuer = start(&authority, &issuers_home).await?;
    let url = format!("https://{}/.well-known/jwks.json", issuer.address);
    let stranger = Authority::new().await?;
    for (trusted, is_fetched) in [(&authority, true), (&stranger, false)] {
        let home = home().await?;
        let mut command = home.binary();
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", crate::support::ADMIN_PASSWORD)
            .env("SSL_CERT_FILE", trusted.certificate());
        let server = Server::of_binary(command).await?;
        let admin = server.admin().await?;
        let made = register(&server, &admin, with_keys(ISSUER, Keys::JwksUrl(url.clone()))).await?;
        assert_eq!(made.fetch_time.is_some(), is_fetched, "{}", made.fetch_error);
        assert_eq!(
            made.fetch_error.contains("invalid peer certificate"),
            !is_fetched,
            "{}",
            made.fetch_error
        );
        server.stop().await?;
    }
    issuer.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_finish_their_handshake_hold_up_nobody() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    authority.issue("first", "1").await?.install(&home)?;
    let server = start(&authority, &home).await?;
    let mut silent = Vec::new();
    // More than may wait to be served.
    for _ in 0..200 {
        silent.push(TcpStream::connect(server.address).await?);
    }
    shown(&authority, server.address).await?;
    server.admin().await?;
    server.stop().await?;
    drop(silent);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connected_verifier_believes_only_whom_it_trusts() -> Outcome {
    let (authority, home) = (Authority::new().await?, home().await?);
    authority.issue("first", "1").await?.install(&home)?;
    let server = start(&authority, &home).await?;
    let connect = |trusted: &Authority| -> Result<ConnectBuilder> {
        let endpoint = over_tls(server.address, trusted.client_tls(None)?)?;
        Ok(Verifier::connect(endpoint).issuer("http://127.0.0.1:50051").audience("tessera"))
    };
    let verifier = connect(&authority)?.start().await?;
    let anna = server.anna().await?;
    assert_eq!(verifier.check(&anna.access_token).await?.sub.to_string(), anna.user_id);
    server.auth().logout(authorized(&anna.access_token, LogoutRequest {})).await?;
    eventually("the logout is heard", async || Ok(verifier.check(&anna.access_token).await.is_err())).await?;

    let stranger = Authority::new().await?;
    let refused = connect(&stranger)?.first_contact(Duration::from_secs(1)).start().await;
    assert!(matches!(refused, Err(StartError::IssuerAway(_))), "{:?}", refused.err());
    server.stop().await
}
