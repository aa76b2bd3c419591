//! A service that proves itself with a certificate whose files are replaced while it runs.

use std::{
    error::Error,
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tessera::{
    proto::ServiceAccount,
    verifier::{
        AccessToken, CertificateFiles, Guard, IdentityError, Requirement, ServiceIdentity, ServiceTokens,
        Verifier,
    },
};
use tonic::transport::{Certificate, Endpoint, ServerTlsConfig};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tracing::Dispatch;

use super::{ISSUER, anna, clock_of};
use crate::{
    stories::mutual_tls::exchanger,
    support::{
        Guarded, Home, Kind, Leaf, ORDERS_URI, Outcome, Registrar, Server, Shop, eventually, over_tls,
        parts_of, replace, timed_stories,
    },
};

timed_stories! {
    its_certificate_is_replaced_on_disk,
    a_token_goes_with_the_certificate_that_it_is_bound_to,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The files of the service `orders`, which somebody replaces.
struct Own {
    cert: PathBuf,
    key: PathBuf,
    files: CertificateFiles,
}

impl Own {
    fn of(home: &Home, leaf: &Leaf) -> Result<Self> {
        let (cert, key) = (home.dir().join("own.crt"), home.dir().join("own.key"));
        let own = Self { files: CertificateFiles::new(&cert, &key), cert, key };
        own.write(leaf)?;
        Ok(own)
    }

    fn write(&self, leaf: &Leaf) -> Outcome {
        replace(&leaf.cert, &self.cert)?;
        replace(&leaf.key, &self.key)
    }

    fn identity(
        &self,
        home: &Home,
        shop: &Shop,
        server: &Server,
        account: &ServiceAccount,
    ) -> Result<ServiceIdentity> {
        let (issuer, tls) = (https(server.address.to_string())?, shop.authority.client_tls(None)?);
        let identity = ServiceIdentity::by_certificate(issuer, tls, &account.client_id, &self.files);
        Ok(identity.clock(clock_of(home)).build()?)
    }
}

fn https(address: String) -> Result<Endpoint> {
    Ok(Endpoint::from_shared(format!("https://{address}"))?)
}

/// Another certificate of the same service.
async fn next(shop: &Shop) -> Result<Leaf> {
    shop.authority.client("next", &format!("URI:{ORDERS_URI}"), 30).await
}

/// Which certificate a token is bound to.
fn bound_to(token: &AccessToken) -> Result<serde_json::Value> {
    Ok(parts_of(token.expose())?.1["cnf"].clone())
}

/// The service `ledger`, which lets in only who shows the certificate that its token is bound to.
async fn ledger(home: &Home, shop: &Shop, server: &Server) -> Result<Guarded> {
    let issuer = over_tls(server.address, shop.authority.client_tls(None)?)?;
    let verifier = Verifier::connect(issuer).issuer(ISSUER).audience("ledger");
    let verifier = verifier.max_staleness(Duration::from_secs(100_000)).clock(clock_of(home));
    let guard = Guard::new(verifier.start().await?);
    let clients = Certificate::from_pem(fs::read(shop.authority.certificate())?);
    let tls = ServerTlsConfig::new().identity(shop.authority.issue("ledger", "2").await?.identity()?);
    let tls = tls.client_ca_root(clients).client_auth_optional(true);
    Guarded::start_with_tls(guard.others(Requirement::good_token().bound_to_certificate()), tls).await
}

async fn its_certificate_is_replaced_on_disk(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "[tokens]\naccess_ttl = \"1h\"").await?;
    let account = exchanger(&Registrar::of(&server).await?).await?;
    let own = Own::of(&home, &shop.orders)?;
    let orders = own.identity(&home, &shop, &server, &account)?;
    let service = ledger(&home, &shop, &server).await?;
    let channel = own.files.connect(https(service.address.to_string())?, shop.authority.client_tls(None)?)?;
    let anna = anna(&server).await?;
    let own_tokens = orders.tokens(&["ledger"], &["read"]);
    let acting = orders.acting_for(&anna, &["ledger"], &["read"]);
    let calls = async |tokens: &ServiceTokens| -> Result<AccessToken> {
        HealthClient::new(tokens.attach(channel.clone())).check(HealthCheckRequest::default()).await?;
        Ok(tokens.token().await?)
    };
    let cnf = async |leaf: &Leaf| -> Result<serde_json::Value> {
        Ok(json!({"x5t#S256": shop.authority.thumbprint(leaf).await?}))
    };
    let before = cnf(&shop.orders).await?;
    for tokens in [&own_tokens, &acting] {
        assert_eq!(bound_to(&calls(tokens).await?)?, before);
    }

    let next = next(&shop).await?;
    let cert = fs::read(&next.cert)?;
    // Half of it, then the whole beside the key of the one before, then both; and no call fails meanwhile.
    for (what, written, expected) in [
        ("half", &cert[..cert.len() / 2], &before),
        ("without its key", &cert[..], &before),
        ("none", &b""[..], &before),
        ("both", &cert[..], &cnf(&next).await?),
    ] {
        fs::write(&own.cert, written)?;
        if what == "both" {
            replace(&next.key, &own.key)?;
        }
        let (first, first_acting) = (calls(&own_tokens).await?, calls(&acting).await?);
        home.clock.advance(256);
        eventually("they are renewed", async || {
            Ok(calls(&own_tokens).await? != first && calls(&acting).await? != first_acting)
        })
        .await?;
        for tokens in [&own_tokens, &acting] {
            // One to act with may have been got with the service's own of before, until that was renewed as well.
            eventually(what, async || {
                let token = calls(tokens).await?;
                home.clock.advance(30);
                Ok(bound_to(&token)? == *expected)
            })
            .await?;
        }
    }
    server.stop().await
}

async fn a_token_goes_with_the_certificate_that_it_is_bound_to(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let account = exchanger(&Registrar::of(&server).await?).await?;
    let own = Own::of(&home, &shop.orders)?;
    let orders = own.identity(&home, &shop, &server, &account)?;
    let service = ledger(&home, &shop, &server).await?;
    let channel = own.files.connect(https(service.address.to_string())?, shop.authority.client_tls(None)?)?;
    let check = async |tokens: &ServiceTokens| {
        let mut health = HealthClient::new(tokens.attach(channel.clone()));
        health.check(HealthCheckRequest::default()).await
    };
    let (reading, writing) = (orders.tokens(&["ledger"], &["read"]), orders.tokens(&["ledger"], &["write"]));
    let former = reading.token().await?;
    own.write(&next(&shop).await?)?;
    let newer = writing.token().await?;
    assert_ne!(bound_to(&former)?, bound_to(&newer)?);
    for _ in 0..3 {
        for (tokens, token) in [(&reading, &former), (&writing, &newer)] {
            check(tokens).await?;
            assert_eq!(tokens.token().await?, *token, "it was not refused");
        }
    }
    // What carries no token shows the newest, and is refused for the token alone.
    let status = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    assert_eq!(crate::support::refusal(status).1, "TOKEN_MISSING");
    server.stop().await
}

/// Takes what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On one thread, which is the one whose log is taken.
#[tokio::test]
async fn a_pair_that_makes_no_sense_is_told_to_the_log() -> Outcome {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let listening = Dispatch::new(subscriber);
    // Of a single one, whichever thread comes first by a line decides for all whether it is listened to.
    let _second = Dispatch::new(tracing_subscriber::registry());
    let _taken = tracing::dispatcher::set_default(&listening);
    let said = |line: &str| String::from_utf8_lossy(&log.0.lock().unwrap()).contains(line);

    let home = Home::new(Kind::BinarySqlite).await?;
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let account = exchanger(&Registrar::of(&server).await?).await?;
    let own = Own::of(&home, &shop.orders)?;
    let orders = own.identity(&home, &shop, &server, &account)?;
    fs::remove_file(&own.key)?;
    let nothing = orders.token(&["ledger"], &["read"]).await;
    let key = own.key.display().to_string();
    assert!(matches!(nothing, Err(IdentityError::Credential(told)) if told.contains(&key)));
    replace(&shop.billing.key, &own.key)?;
    let nothing = orders.token(&["ledger"], &["write"]).await;
    assert!(matches!(nothing, Err(IdentityError::Credential(told)) if told.contains("KeyMismatch")));

    own.write(&shop.orders)?;
    let first = orders.token(&["ledger"], &[]).await?;
    replace(&shop.billing.key, &own.key)?;
    let second = orders.token(&["tessera"], &[]).await?;
    assert_eq!(bound_to(&second)?, bound_to(&first)?);
    assert!(said("the new certificate is not taken up") && said("KeyMismatch") && said(&key));
    assert!(!said("took up a new certificate"));
    own.write(&next(&shop).await?)?;
    let third = orders.token(&["ledger"], &["read", "write"]).await?;
    assert_ne!(bound_to(&third)?, bound_to(&first)?);
    assert!(said("took up a new certificate") && !said("BEGIN"));
    server.stop().await
}
