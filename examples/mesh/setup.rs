//! What an operator does before: starts Tessera, and tells it of a tenant, its people, its services and what each of
//! these may ask for.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tessera::{
    app::Bootstrap,
    clock::SystemClock,
    config::{Config, Flags},
    crypto::{random::SystemRandomness, signing::NewKey},
    domain::algorithm::Algorithm,
    proto::{
        ClientSecret, CreateAudienceRequest, CreateCredentialRequest, CreateServiceAccountRequest,
        CreateTenantRequest, CreateUserRequest, Device, LoginRequest, PrivateKeyJwt,
        audiences_client::AudiencesClient, auth_client::AuthClient, create_credential_request::Kind,
        service_accounts_client::ServiceAccountsClient, tenants_client::TenantsClient,
        users_client::UsersClient,
    },
    server::{self, ServeError},
    verifier::{Credential, ServiceIdentity},
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::{
    Request,
    transport::{Channel, Endpoint},
};

use crate::{Outcome, show::Names};

/// The tenant.
pub const TENANT: &str = "shop";
const PASSWORD: &str = "a watchword for the mesh";

/// Which scopes each audience has: those of its own, and those that pass through it to the next one.
const AUDIENCES: [(&str, &[&str]); 4] = [
    ("gateway", &["orders:place", "payments:charge", "ledger:record"]),
    ("orders", &["orders:place", "payments:charge", "ledger:record"]),
    ("payments", &["payments:charge", "ledger:record"]),
    ("ledger", &["ledger:record"]),
];

/// A server of Tessera's, in a folder that goes with it.
pub struct Tessera {
    /// Where it is, and what it calls itself in tokens.
    pub url: String,
    /// Where services keep what they prove themselves with.
    pub dir: TempDir,
    channel: Channel,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Tessera {
    /// Starts it, as `tessera serve` does.
    pub async fn start() -> Outcome<Self> {
        let (dir, listener) = (TempDir::new()?, TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let url = format!("http://{}", listener.local_addr()?);
        let path = |name: &str| dir.path().join(name).display().to_string();
        let flags = Flags(vec![
            ("tokens.issuer", url.clone()),
            ("server.data_dir", path("data")),
            ("database.url", format!("sqlite://{}", path("tessera.db"))),
        ]);
        let settings = Config::load(None, flags)?.check()?;
        let bootstrap = Bootstrap { admin_password: Some(PASSWORD.into()), announce: Box::new(|_| {}) };
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let (clock, rng) = (Arc::new(SystemClock), Arc::new(SystemRandomness));
        let task = tokio::spawn(server::run(settings, listener, clock, rng, bootstrap, shutdown));
        let channel = Endpoint::from_shared(url.clone())?.connect_lazy();
        Ok(Self { url, dir, channel, stop, task })
    }

    /// Stops it, and waits until it has.
    pub async fn stop(self) -> Outcome {
        drop(self.channel);
        let _ = self.stop.send(());
        Ok(self.task.await??)
    }

    /// `Auth`.
    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    /// Signs somebody in, and gives the access token and the user's id.
    pub async fn log_in(
        &self,
        tenant: &str,
        username: &str,
        device_type: &str,
        audience: &[&str],
        scope: &[&str],
    ) -> Outcome<(String, String)> {
        let login = LoginRequest {
            tenant: tenant.to_owned(),
            username: username.to_owned(),
            password: PASSWORD.to_owned(),
            device: Some(Device { r#type: device_type.to_owned(), ..Device::default() }),
            audience: words(audience),
            scope: words(scope),
        };
        let reply = self.auth().login(login).await?.into_inner();
        let user_id = reply.session.ok_or("no session")?.user_id;
        Ok((reply.tokens.ok_or("no tokens")?.access_token, user_id))
    }
}

/// A service that calls others.
pub struct Account {
    pub client_id: String,
    pub identity: ServiceIdentity,
}

/// The services that call others, and who has which id.
pub struct Shop {
    pub gateway: Account,
    pub orders: Account,
    pub payments: Account,
    pub names: Names,
    /// Anna's token, for the gateway and for logging out.
    pub anna: String,
}

/// Tells Tessera of all that.
pub async fn shop(tessera: &Tessera) -> Outcome<Shop> {
    let (admin, _) = tessera.log_in("", "admin", "cli", &[], &[]).await?;
    let tenant = CreateTenantRequest { name: TENANT.to_owned(), ..Default::default() };
    TenantsClient::new(tessera.channel.clone()).create_tenant(authorized(&admin, tenant)?).await?;
    for (name, scopes) in AUDIENCES {
        let audience =
            CreateAudienceRequest { name: name.to_owned(), scopes: words(scopes), ..Default::default() };
        AudiencesClient::new(tessera.channel.clone()).create_audience(authorized(&admin, audience)?).await?;
    }
    make_user(tessera, &admin, "keeper", &["admin"]).await?;

    // From here on the tenant's own admin goes on.
    let (keeper, _) = tessera.log_in(TENANT, "keeper", "cli", &[], &[]).await?;
    make_user(tessera, &keeper, "anna", &[]).await?;
    let [gateway, orders, payments] = [("gateway", "orders"), ("orders", "payments"), ("payments", "ledger")]
        .map(|(name, calls)| make_service(tessera, &keeper, name, calls));
    let (gateway, orders, payments) = (gateway.await?, orders.await?, payments.await?);
    let scopes = ["orders:place", "payments:charge", "ledger:record"];
    let (anna, anna_id) = tessera.log_in(TENANT, "anna", "web", &["gateway", "tessera"], &scopes).await?;
    let names = [
        (anna_id, "anna"),
        (gateway.clone(), "gateway"),
        (orders.clone(), "orders"),
        (payments.clone(), "payments"),
    ];

    let secret = Credential::client_secret_file(secret_file(tessera, &keeper, &gateway).await?);
    let gateway = account(tessera, gateway, secret)?;
    let key = Credential::private_key_file(key_file(tessera, &keeper, &orders).await?, &tessera.url);
    let orders = account(tessera, orders, key)?;
    let secret = Credential::client_secret_file(secret_file(tessera, &keeper, &payments).await?);
    let payments = account(tessera, payments, secret)?;
    Ok(Shop { gateway, orders, payments, names: names.into(), anna })
}

fn account(tessera: &Tessera, client_id: String, credential: Credential) -> Outcome<Account> {
    let identity = ServiceIdentity::at(tessera.url.clone(), &client_id, credential).build()?;
    Ok(Account { client_id, identity })
}

async fn make_user(tessera: &Tessera, admin: &str, username: &str, roles: &[&str]) -> Outcome {
    let user = CreateUserRequest {
        tenant: TENANT.to_owned(),
        username: username.to_owned(),
        password: PASSWORD.to_owned(),
        roles: words(roles),
        ..Default::default()
    };
    UsersClient::new(tessera.channel.clone()).create_user(authorized(admin, user)?).await?;
    Ok(())
}

/// An account that may act, at this one audience and no other, for those who call it, with what scopes that has.
async fn make_service(tessera: &Tessera, admin: &str, name: &str, calls: &str) -> Outcome<String> {
    let (_, scopes) =
        AUDIENCES.into_iter().find(|(audience, _)| *audience == calls).ok_or("no such audience")?;
    let account = CreateServiceAccountRequest {
        tenant: TENANT.to_owned(),
        name: name.to_owned(),
        allowed_scopes: words(scopes),
        allowed_audiences: words(&["tessera", calls]),
        allowed_grants: words(&["client_credentials", "token_exchange"]),
        ..Default::default()
    };
    let mut accounts = ServiceAccountsClient::new(tessera.channel.clone());
    let made = accounts.create_service_account(authorized(admin, account)?).await?.into_inner();
    Ok(made.service_account.ok_or("no account")?.client_id)
}

/// Has a secret made for a service, which finds it in this file.
async fn secret_file(tessera: &Tessera, admin: &str, client_id: &str) -> Outcome<PathBuf> {
    let secret = make_credential(tessera, admin, client_id, Kind::ClientSecret(ClientSecret {})).await?;
    let path = tessera.dir.path().join(client_id);
    tokio::fs::write(&path, secret).await?;
    Ok(path)
}

/// Makes a key for a service, which finds it in this file; its public half is all that Tessera is told.
async fn key_file(tessera: &Tessera, admin: &str, client_id: &str) -> Outcome<PathBuf> {
    let NewKey { key, pkcs8 } = NewKey::generate(Algorithm::Es256, 0, &SystemRandomness)?;
    let set = serde_json::json!({"keys": [key.jwk()]});
    let keys = PrivateKeyJwt { jwks_json: set.to_string(), ..Default::default() };
    make_credential(tessera, admin, client_id, Kind::PrivateKeyJwt(keys)).await?;
    let pkcs8 = STANDARD.encode(pkcs8.expose_secret());
    let path = tessera.dir.path().join("orders.pem");
    tokio::fs::write(&path, format!("-----BEGIN PRIVATE KEY-----\n{pkcs8}\n-----END PRIVATE KEY-----\n"))
        .await?;
    Ok(path)
}

async fn make_credential(tessera: &Tessera, admin: &str, client_id: &str, kind: Kind) -> Outcome<String> {
    let service_account_id = client_id.to_owned();
    let request = CreateCredentialRequest { service_account_id, kind: Some(kind), ..Default::default() };
    let mut accounts = ServiceAccountsClient::new(tessera.channel.clone());
    Ok(accounts.create_credential(authorized(admin, request)?).await?.into_inner().client_secret)
}

/// A request with a bearer token.
pub fn authorized<T>(token: &str, message: T) -> Outcome<Request<T>> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse()?);
    Ok(request)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
