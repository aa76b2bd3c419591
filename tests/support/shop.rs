//! Services that have certificates, and a server that asks for them.

use std::error::Error;

use tessera::{
    clock::{Clock, SystemClock},
    proto::auth_client::AuthClient,
};
use tonic::transport::Channel;

use super::{Authority, Home, Kind, Leaf, Server, over_tls, replace};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The name that is in the certificate of `orders`.
pub const ORDERS_URI: &str = "spiffe://shop.example/orders";

/// They, and whoever vouches for them.
pub struct Shop {
    /// Vouches for them, and for the server.
    pub authority: Authority,
    /// Has a URI.
    pub orders: Leaf,
    /// Has the name of a host, for a day.
    pub billing: Leaf,
}

impl Shop {
    /// One whose certificates are good now, by the home's clock.
    pub async fn new(home: &Home) -> Result<Self> {
        let authority = Authority::new().await?;
        let orders = authority.client("orders", &format!("URI:{ORDERS_URI}"), 30).await?;
        let billing =
            authority.client("billing", "DNS:Billing.shop.example, DNS:*.shop.example, URI:a:b", 1).await?;
        authority.issue("server", "1").await?.install(home)?;
        replace(&authority.certificate(), &home.dir().join("clients.pem"))?;
        if matches!(home.kind, Kind::Sqlite | Kind::Postgres) {
            home.clock.advance((SystemClock.now() - home.clock.now()).num_seconds() + 5);
        }
        Ok(Self { authority, orders, billing })
    }

    /// Starts a server that asks for their certificates, and with these settings of its section.
    pub async fn start(&self, home: &Home, more: &str) -> Result<Server> {
        let dir = home.dir().display();
        let toml = format!(
            "[server]\ntls_cert = \"{dir}/cert.pem\"\ntls_key = \"{dir}/key.pem\"\n\
             client_ca = \"{dir}/clients.pem\"\n{more}\n"
        );
        home.start_with_tls(&toml, self.authority.client_tls(None)?).await
    }

    /// A connection on which this certificate is shown, or none.
    pub fn channel(&self, server: &Server, shown: Option<&Leaf>) -> Result<Channel> {
        Ok(over_tls(server.address, self.authority.client_tls(shown)?)?.connect_lazy())
    }

    /// `Auth` over such a connection.
    pub fn auth(&self, server: &Server, shown: Option<&Leaf>) -> Result<AuthClient<Channel>> {
        Ok(AuthClient::new(self.channel(server, shown)?))
    }
}
