//! Certificates: shown on the connection, or told by a proxy that is trusted.

use base64::{Engine, engine::general_purpose::STANDARD};
use tessera::{
    clock::{Clock, SystemClock},
    proto::{
        IssueServiceTokenRequest, Mtls, auth_client::AuthClient, create_credential_request::Kind,
        mtls::Certificate as Which,
    },
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{DISABLED, Result, Trail, WRONG, account_with, credential};
use crate::support::{
    Authority, Home, Kind as HomeKind, Leaf, Outcome, Registrar, Server, asks, eventually, over_tls, reason,
    replace, stories, story, timed_stories,
};

stories! {
    a_told_certificate_is_refused_with_its_row,
}
timed_stories! {
    a_certificate_is_refused_with_its_row,
}
story!(a_handshake_that_is_refused_stands_in_the_log, sqlite: BinarySqlite);

const ORDERS: &str = "spiffe://shop.example/orders";
const URI: &str = "URI:spiffe://shop.example/orders";
const DAY: i64 = 24 * 60 * 60;
/// A header whose value is longer than any that is read, and short enough to be received.
const LONG: usize = 40 * 1024;

fn by_uri() -> Kind {
    let certificate = Some(Which::SanUri(ORDERS.to_owned()));
    Kind::Mtls(Mtls { certificate })
}

/// Sets the clock to the day on which certificates are made.
fn today(home: &Home) {
    if matches!(home.kind, HomeKind::Sqlite | HomeKind::Postgres) {
        home.clock.advance((SystemClock.now() - home.clock.now()).num_seconds() + 5);
    }
}

/// A server that asks for certificates of this authority.
async fn start(home: &Home, authority: &Authority) -> Result<Server> {
    today(home);
    authority.issue("server", "1").await?.install(home)?;
    replace(&authority.certificate(), &home.dir().join("clients.pem"))?;
    let dir = home.dir().display();
    let toml = format!(
        "[server]\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\nclient_ca = \"{dir}/clients.pem\"\n"
    );
    home.start_with_tls(&toml, authority.client_tls(None)?).await
}

/// A connection on which this certificate is shown, or none.
fn showing(server: &Server, authority: &Authority, shown: Option<&Leaf>) -> Result<AuthClient<Channel>> {
    Ok(AuthClient::new(over_tls(server.address, authority.client_tls(shown)?)?.connect_lazy()))
}

/// Certificates with which nobody gets so far as to call, though two have the account's name. Of one that is too long, 64 KiB,
/// TLS itself makes nothing: not even our own client can show it.
async fn refused_in_the_handshake(
    authority: &Authority,
    stranger: &Authority,
) -> Result<[(&'static str, Leaf); 3]> {
    Ok([
        ("another authority's", stranger.client("stranger", URI, 30).await?),
        ("its own", authority.self_signed("own").await?),
        ("expired", authority.client("former", URI, -1).await?),
    ])
}

async fn a_certificate_is_refused_with_its_row(home: Home) -> Outcome {
    let (authority, stranger) = (Authority::new().await?, Authority::new().await?);
    let (brief, lasting) =
        (authority.client("brief", URI, 1).await?, authority.client("lasting", URI, 30).await?);
    let other = authority.client("other", "URI:spiffe://shop.example/other", 30).await?;
    let refused = refused_in_the_handshake(&authority, &stranger).await?;
    let server = start(&home, &authority).await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let (account, credential_id) = account_with(&registrar, "orders", by_uri()).await?;
    let ask = async |auth: &AuthClient<Channel>| {
        auth.clone().issue_service_token(asks(&account.client_id, "")).await
    };
    let on = |shown: Option<&Leaf>| showing(&server, &authority, shown);
    let (by_brief, by_other, by_none) = (on(Some(&brief))?, on(Some(&other))?, on(None)?);
    ask(&by_brief).await?;
    trail.tells(&server, &account, "another's", ask(&by_other).await, WRONG).await?;
    trail.tells(&server, &account, "none", ask(&by_none).await, WRONG).await?;
    for (what, leaf) in refused {
        let status = ask(&on(Some(&leaf))?).await.expect_err(what);
        assert_eq!(reason(&status), "", "{what}: it never became a call: {status:?}");
    }
    trail.tells_nothing(&server).await?;

    // Its connection lives longer than it.
    home.clock.advance(DAY + 60);
    let registrar = Registrar::of(&server).await?;
    trail.token.clone_from(&registrar.token);
    trail.tells(&server, &account, "expired", ask(&by_brief).await, WRONG).await?;

    let by_lasting = on(Some(&lasting))?;
    ask(&by_lasting).await?;
    registrar.revoke(&account.service_account_id, &credential_id).await?;
    trail.tells(&server, &account, "revoked", ask(&by_lasting).await, WRONG).await?;
    credential(&registrar, &account, by_uri()).await?;
    ask(&by_lasting).await?;
    registrar.bar(&account).await?;
    trail.tells(&server, &account, "disabled", ask(&by_lasting).await, DISABLED).await?;
    server.stop().await
}

async fn a_handshake_that_is_refused_stands_in_the_log(home: Home) -> Outcome {
    let (authority, stranger) = (Authority::new().await?, Authority::new().await?);
    let server = start(&home, &authority).await?;
    let refused = refused_in_the_handshake(&authority, &stranger).await?;
    for (number, (what, leaf)) in refused.into_iter().enumerate() {
        let request = asks(&uuid::Uuid::from_u128(7).to_string(), "");
        let refused = showing(&server, &authority, Some(&leaf))?.issue_service_token(request).await;
        refused.expect_err(what);
        let lines = || server.said().matches("a client's certificate is refused").count();
        eventually(what, async || Ok(lines() > number)).await?;
    }
    server.stop().await
}

/// Asks as a proxy does that tells this of its client.
fn told(client_id: &str, value: &str) -> Request<IssueServiceTokenRequest> {
    let mut request = Request::new(asks(client_id, ""));
    let value = MetadataValue::try_from(value).expect("it is ASCII");
    request.metadata_mut().insert("client-cert", value);
    request
}

fn header(leaf: &Leaf) -> Result<String> {
    Ok(format!(":{}:", STANDARD.encode(leaf.der()?)))
}

async fn a_told_certificate_is_refused_with_its_row(home: Home) -> Outcome {
    let authority = Authority::new().await?;
    let good = header(&authority.client("orders", URI, 30).await?)?;
    let other = header(&authority.client("other", "URI:spiffe://shop.example/other", 30).await?)?;
    let former = header(&authority.client("former", URI, -1).await?)?;
    today(&home);
    let toml = "[server]\ntrusted_proxies = [\"127.0.0.1\"]\nclient_cert_header = \"client-cert\"\n";
    let server = home.start_with(toml).await?;
    let registrar = Registrar::of(&server).await?;
    let mut trail = Trail::of(&registrar);
    let (account, credential_id) = account_with(&registrar, "orders", by_uri()).await?;
    let id = account.client_id.as_str();
    let ask = async |value: &str| server.auth().issue_service_token(told(id, value)).await;
    ask(&good).await?;
    for (what, value) in [
        ("another's", other.as_str()),
        ("expired", &former),
        ("none", "::"),
        ("too long", &format!(":{}:", "A".repeat(LONG))),
    ] {
        trail.tells(&server, &account, what, ask(value).await, WRONG).await?;
    }
    // What HTTP/2 itself refuses is the call's own trouble: others on its connection go on.
    let mut watching = server.watch().await?;
    let heard = watching.entries.len();
    let status = ask(&format!(":{}:", "A".repeat(100_000))).await.expect_err("far too long");
    assert_eq!(reason(&status), "", "{status:?}");
    trail.tells_nothing(&server).await?;

    registrar.revoke(&account.service_account_id, &credential_id).await?;
    trail.tells(&server, &account, "revoked", ask(&good).await, WRONG).await?;
    credential(&registrar, &account, by_uri()).await?;
    ask(&good).await?;
    registrar.bar(&account).await?;
    trail.tells(&server, &account, "disabled", ask(&good).await, DISABLED).await?;
    watching.until(|watching| watching.entries.len() > heard).await?;
    drop(watching);
    server.stop().await
}
