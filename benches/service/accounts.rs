//! Service accounts, made over gRPC.

use serde_json::json;
use tessera::{
    crypto::{random::SystemRandomness, signing::NewKey},
    domain::algorithm::Algorithm,
    proto::{
        ClientSecret, CreateCredentialRequest, CreateServiceAccountRequest, IssueServiceTokenRequest,
        PrivateKeyJwt, auth_client::AuthClient, create_credential_request::Kind,
        service_accounts_client::ServiceAccountsClient,
    },
};
use tonic::transport::Channel;

use super::{
    Outcome,
    process::Process,
    support::{ADMIN_PASSWORD, authorized, login_as},
};

const AUDIENCE: &str = "ledger";
/// The longest key set that is taken.
const LONGEST_JWKS: usize = 8 * 1024;

/// An admin's hands.
#[derive(Clone)]
pub struct Registrar {
    accounts: ServiceAccountsClient<Channel>,
    token: String,
}

impl Registrar {
    pub async fn of(server: &Process) -> Outcome<Self> {
        let channel = server.channel().await?;
        let login = login_as("admin", ADMIN_PASSWORD, "bench");
        let admin =
            AuthClient::new(channel.clone()).login(login).await?.into_inner().tokens.ok_or("no tokens")?;
        Ok(Self { accounts: ServiceAccountsClient::new(channel), token: admin.access_token })
    }

    /// Makes an account and its secret; gives what it asks with.
    pub async fn create(&mut self, name: String) -> Outcome<IssueServiceTokenRequest> {
        let new = CreateServiceAccountRequest {
            name,
            allowed_audiences: vec![AUDIENCE.to_owned()],
            allowed_scopes: vec!["write".to_owned()],
            ..Default::default()
        };
        let made = self.accounts.create_service_account(authorized(&self.token, new)).await?.into_inner();
        let client_id = made.service_account.ok_or("no account")?.client_id;
        let client_secret = self.add(&client_id, Kind::ClientSecret(ClientSecret {})).await?;
        Ok(IssueServiceTokenRequest {
            client_id,
            client_secret,
            audience: vec![AUDIENCE.to_owned()],
            scope: vec!["write".to_owned()],
            ..Default::default()
        })
    }

    /// Lets it prove itself with these keys too.
    pub async fn add_keys(&mut self, client_id: &str, jwks_json: String) -> Outcome {
        let keys = PrivateKeyJwt { jwks_json, ..Default::default() };
        self.add(client_id, Kind::PrivateKeyJwt(keys)).await?;
        Ok(())
    }

    async fn add(&mut self, client_id: &str, kind: Kind) -> Outcome<String> {
        let request = CreateCredentialRequest {
            service_account_id: client_id.to_owned(),
            kind: Some(kind),
            ..Default::default()
        };
        let made = self.accounts.create_credential(authorized(&self.token, request)).await?;
        Ok(made.into_inner().client_secret)
    }
}

/// A set with as many keys as are taken.
pub fn largest_jwks() -> Outcome<String> {
    let mut set = r#"{"keys":["#.to_owned();
    for number in 0.. {
        let NewKey { key, .. } = NewKey::generate(Algorithm::Es256, 2048, &SystemRandomness)?;
        let jwk = serde_json::to_value(key.jwk())?;
        let kid = format!("k{number}");
        let jwk =
            json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": jwk["x"], "y": jwk["y"] }).to_string();
        // With a comma before it and the end behind it.
        if set.len() + jwk.len() + 3 > LONGEST_JWKS {
            break;
        }
        if number > 0 {
            set.push(',');
        }
        set.push_str(&jwk);
    }
    Ok(set + "]}")
}
