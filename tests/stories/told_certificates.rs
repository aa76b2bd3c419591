//! Certificates that a proxy tells of its clients: who is believed, and what.

use base64::{Engine, engine::general_purpose::STANDARD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use tessera::{
    domain::certificate::Certificate,
    proto::{IssueServiceTokenRequest, mtls::Certificate as Which},
};
use tonic::{Request, metadata::MetadataValue};

use super::mutual_tls::{bare, credential, exchanger, exchanging, token};
use crate::support::{
    Authority, Home, Leaf, ORDERS_URI, Outcome, Registrar, Shop, audience_token, authorized, invalid_token,
    orders, parts_of, refusal, stories, words, wrong,
};

stories! {
    a_trusted_proxy_tells_the_certificate_of_its_client,
    the_standard_header_tells_it_too,
    nobody_else_is_believed,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const XFCC: &str = "x-forwarded-client-cert";

/// As Envoy writes it, where it is told to tell the certificate.
fn envoy(leaf: &Leaf) -> Result<String> {
    let pem = std::fs::read_to_string(&leaf.cert)?;
    let cert = utf8_percent_encode(&pem, NON_ALPHANUMERIC);
    let hash = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
    Ok(format!(
        "By=spiffe://shop.example/tessera;Hash={hash};Cert=\"{cert}\";Subject=\"CN=a,b\";URI={ORDERS_URI};DNS=a"
    ))
}

/// A request with these lines of a header.
fn told<T>(header: &'static str, lines: &[&str], mut request: Request<T>) -> Result<Request<T>> {
    for line in lines {
        request.metadata_mut().append(header, MetadataValue::try_from(*line)?);
    }
    Ok(request)
}

async fn a_trusted_proxy_tells_the_certificate_of_its_client(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let former = shop.authority.client("former", &format!("URI:{ORDERS_URI}"), -1).await?;
    let toml = format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\nclient_cert_header = \"{XFCC}\"\n");
    let server = home.start_with(&toml).await?;
    let (registrar, admin) = (Registrar::of(&server).await?, server.admin().await?);
    let account = exchanger(&registrar).await?;
    let (id, auth) = (account.client_id.as_str(), server.auth());
    let (own, other, former) = (envoy(&shop.orders)?, envoy(&shop.billing)?, envoy(&former)?);
    let cnf = json!({"x5t#S256": shop.authority.thumbprint(&shop.orders).await?});
    let both = format!("{other},{own}");
    let claims = parts_of(&token(&auth, told(XFCC, &[&own], Request::new(bare(id)))?).await?)?.1;
    assert_eq!(claims["cnf"], cnf);
    let (other_last, cut) = (format!("{own},{other}"), &own[..own.len() / 2]);
    let hash_alone = format!("Hash=468ed33b;URI={ORDERS_URI}");
    let no_certificate = "Cert=\"-----BEGIN%20CERTIFICATE-----%0AAQID%0A-----END%20CERTIFICATE-----\"";
    let bad: [&[&str]; 12] = [
        &[&both],
        &[],
        &[""],
        &["nonsense"],
        &[cut],
        &[&other],
        &[&former],
        &[&other_last],
        &[&hash_alone],
        &[no_certificate],
        &[&own, &own],
        &[&own, "nonsense"],
    ];
    for lines in bad {
        let refused =
            refusal(server.auth().issue_service_token(told(XFCC, lines, Request::new(bare(id)))?).await);
        assert_eq!(refused, wrong(), "{lines:?}");
    }
    let long = format!("{own};By={}", "a".repeat(16 * 1024));
    let refused = server.auth().issue_service_token(told(XFCC, &[&long], Request::new(bare(id)))?).await;
    assert_eq!(refusal(refused), wrong(), "too long");
    let events = server.events(&admin, "issue_service_token").await?;
    assert_eq!(events.len(), bad.len() + 1, "each is told");

    let own_api = IssueServiceTokenRequest { audience: words(&["tessera"]), ..bare(id) };
    let bound = token(&auth, told(XFCC, &[&own], Request::new(own_api))?).await?;
    server.anna().await?;
    let subject = audience_token(&server, "anna", &["orders"], &[]).await?;
    let asked = || authorized(&bound, exchanging(&subject));
    server.auth().exchange_token(told(XFCC, &[&own], asked())?).await?;
    let bad: [&[&str]; 4] = [&[], &[&other], &[&former], &[&own, &own]];
    for lines in bad {
        let refused = server.auth().exchange_token(told(XFCC, lines, asked())?).await;
        assert_eq!(refusal(refused), invalid_token(), "{lines:?}");
    }
    server.stop().await
}

async fn the_standard_header_tells_it_too(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let toml = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\nclient_cert_header = \"Client-Cert\"\n";
    let server = home.start_with(toml).await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    credential(&registrar, &account, Which::SanDns("billing.shop.example".to_owned())).await?;
    let id = account.client_id.as_str();
    let der = STANDARD.encode(shop.billing.der()?);
    let good = format!(":{der}:");
    let claims =
        parts_of(&token(&server.auth(), told("client-cert", &[&good], Request::new(bare(id)))?).await?)?.1;
    assert_eq!(claims["cnf"]["x5t#S256"], shop.authority.thumbprint(&shop.billing).await?);
    let twice = format!("{good}, {good}");
    for lines in [&[&*good, &*good][..], &[&*twice], &[&*der], &[":AQID:"]] {
        let refused = refusal(
            server.auth().issue_service_token(told("client-cert", lines, Request::new(bare(id)))?).await,
        );
        assert_eq!(refused, wrong(), "{lines:?}");
    }
    server.stop().await
}

async fn nobody_else_is_believed(home: Home) -> Outcome {
    let shop = Shop::new(&home).await?;
    let toml = format!("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\nclient_cert_header = \"{XFCC}\"\n");
    let server = home.start_with(&toml).await?;
    let registrar = Registrar::of(&server).await?;
    let account = exchanger(&registrar).await?;
    let id = account.client_id.as_str();
    let own = envoy(&shop.orders)?;
    let refused = server.auth().issue_service_token(told(XFCC, &[&own], Request::new(bare(id)))?).await;
    assert_eq!(refusal(refused), wrong());
    // Nor by saying that it is such a proxy.
    let mut passed_on = told(XFCC, &[&own], Request::new(bare(id)))?;
    passed_on.metadata_mut().insert("x-forwarded-for", "10.0.0.1".parse()?);
    assert_eq!(refusal(server.auth().issue_service_token(passed_on).await), wrong());
    server.stop().await
}

/// Whoever may write one into a header brings nothing down with it.
#[tokio::test]
async fn a_damaged_certificate_is_none_or_another_one() -> Outcome {
    let authority = Authority::new().await?;
    let leaf = authority.client("orders", &format!("URI:{ORDERS_URI}, DNS:a.example"), 1).await?;
    let der = leaf.der()?;
    let read = |der: &[u8]| Certificate::read(der, String::new());
    let whole = read(&der).ok_or("it can be read")?;
    for length in 0..der.len() {
        assert_eq!(read(&der[..length]), None);
    }
    let mut damaged = der.to_vec();
    for place in 0..damaged.len() {
        for bit in 0..8 {
            damaged[place] ^= 1 << bit;
            let _ = read(&damaged);
            damaged[place] ^= 1 << bit;
        }
    }
    damaged.push(0);
    assert_eq!(read(&damaged), None, "with something behind it");
    assert_eq!(read(&der), Some(whole));
    Ok(())
}
