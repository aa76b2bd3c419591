//! The authorities that vouch for clients' certificates (`server.client_ca`), as they lie on disk.

use tessera::proto::{auth_client::AuthClient, mtls::Certificate as Which};
use tonic::transport::Channel;

use super::mutual_tls::{Result, bare, credential, token};
use crate::support::{
    Authority, Home, Kind, ORDERS_URI, Outcome, Registrar, Shop, eventually, orders, over_tls, replace, run,
};

/// Also where a client could resume a session of before.
#[tokio::test(flavor = "multi_thread")]
async fn authorities_are_exchanged_without_a_restart() -> Outcome {
    let home = Home::new(Kind::BinarySqlite).await?;
    let shop = Shop::new(&home).await?;
    let server = shop.start(&home, "").await?;
    let registrar = Registrar::of(&server).await?;
    let account = registrar.create(orders()).await?;
    let id = account.client_id.as_str();
    credential(&registrar, &account, Which::SanUri(ORDERS_URI.to_owned())).await?;
    let former = over_tls(server.address, shop.authority.client_tls(Some(&shop.orders))?)?;
    let before = AuthClient::new(former.connect().await?);
    token(&before, bare(id)).await?;
    token(&AuthClient::new(former.connect().await?), bare(id)).await?;

    let clients = home.dir().join("clients.pem");
    let next = Authority::new().await?;
    let renewed = next.client("orders", &format!("URI:{ORDERS_URI}"), 30).await?;
    let by_renewed = || -> Result<AuthClient<Channel>> {
        let tls = shop.authority.client_tls(None)?.identity(renewed.identity()?);
        Ok(AuthClient::new(over_tls(server.address, tls)?.connect_lazy()))
    };
    assert!(token(&by_renewed()?, bare(id)).await.is_err());
    for (index, nonsense) in ["", "-----BEGIN CERTIFICATE-----\nnonsense\n"].into_iter().enumerate() {
        std::fs::write(&clients, nonsense)?;
        let refusals = || server.said().matches("the new certificate is not taken up").count();
        eventually("the server has seen the file", async || Ok(refusals() > index)).await?;
        token(&AuthClient::new(former.connect().await?), bare(id)).await?;
    }
    replace(&next.certificate(), &clients)?;
    eventually("the new authority is believed", async || Ok(token(&by_renewed()?, bare(id)).await.is_ok()))
        .await?;
    let after = AuthClient::new(former.connect_lazy());
    assert!(token(&after, bare(id)).await.is_err(), "the former one is not");
    // As the README says, a connection keeps the certificate that it began with.
    token(&before, bare(id)).await?;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_start_with_authorities_that_make_no_sense() -> Outcome {
    let home = Home::new(Kind::BinarySqlite).await?;
    let shop = Shop::new(&home).await?;
    let serve = || {
        let mut command = home.binary();
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        command.env("TESSERA_SERVER__TLS_CERT", "cert.pem").env("TESSERA_SERVER__TLS_KEY", "key.pem");
        command.env("TESSERA_SERVER__CLIENT_CA", "clients.pem");
        command
    };
    let clients = home.dir().join("clients.pem");
    std::fs::remove_file(&clients)?;
    let ended = run(serve()).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("clients.pem: No such file"), "{ended:?}");
    std::fs::write(&clients, "")?;
    let ended = run(serve()).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("clients.pem: there is no certificate in it"), "{ended:?}");
    std::fs::write(&clients, "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n")?;
    let ended = run(serve()).await?;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("clients.pem: "), "{ended:?}");
    drop(shop);
    Ok(())
}
