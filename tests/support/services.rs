//! Services that have accounts.

use std::error::Error;

use tessera::proto::{
    ClientSecret, CreateAudienceRequest, CreateCredentialRequest, CreateCredentialResponse,
    CreateServiceAccountRequest, CreateServiceAccountResponse, DisableServiceAccountRequest,
    IssueServiceTokenRequest, IssueServiceTokenResponse, RevokeCredentialRequest, ServiceAccount, Tokens,
    create_credential_request::Kind, service_accounts_client::ServiceAccountsClient,
};
use tonic::{Response, Status, transport::Channel};

use super::{ADMIN_PASSWORD, Person, Server, authorized, login_as};

/// A list of words.
pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// An account that may ask tokens for `ledger` with the scopes `read` and `write`.
pub fn orders() -> CreateServiceAccountRequest {
    CreateServiceAccountRequest {
        name: "orders".to_owned(),
        allowed_audiences: words(&["ledger"]),
        allowed_scopes: words(&["read", "write"]),
        ..Default::default()
    }
}

/// The same account, which may also ask tokens for Tessera itself and exchange those of whoever called it.
pub fn deputy() -> CreateServiceAccountRequest {
    CreateServiceAccountRequest {
        allowed_audiences: words(&["tessera", "ledger"]),
        allowed_grants: words(&["client_credentials", "token_exchange"]),
        ..orders()
    }
}

/// A request for a token for `ledger`, proved with a secret.
pub fn asks(client_id: &str, client_secret: &str) -> IssueServiceTokenRequest {
    IssueServiceTokenRequest {
        client_id: client_id.to_owned(),
        client_secret: client_secret.to_owned(),
        audience: words(&["ledger"]),
        ..Default::default()
    }
}

/// An admin's hands.
pub struct Registrar<'s> {
    /// The server.
    pub server: &'s Server,
    /// Its access token.
    pub token: String,
}

impl<'s> Registrar<'s> {
    /// Those of the first admin.
    pub async fn of(server: &'s Server) -> Result<Self, Box<dyn Error>> {
        let login = login_as("admin", ADMIN_PASSWORD, "registrar");
        let admin: Person = server.auth().login(login).await?.into_inner().into();
        Ok(Self { server, token: admin.access_token })
    }

    /// Tries to make an account.
    pub async fn try_create(
        &self,
        request: CreateServiceAccountRequest,
    ) -> Result<Response<CreateServiceAccountResponse>, Status> {
        self.server.service_accounts().create_service_account(authorized(&self.token, request)).await
    }

    /// Makes one.
    pub async fn create(
        &self,
        request: CreateServiceAccountRequest,
    ) -> Result<ServiceAccount, Box<dyn Error>> {
        let reply = self.try_create(request).await?.into_inner();
        Ok(reply.service_account.ok_or("no account")?)
    }

    /// Makes one that may also ask for tokens for Tessera's own API; gives it, and what it asks for one with.
    pub async fn service(
        &self,
        mut request: CreateServiceAccountRequest,
    ) -> Result<(ServiceAccount, IssueServiceTokenRequest), Box<dyn Error>> {
        request.allowed_audiences.push("tessera".to_owned());
        let account = self.create(request).await?;
        let (secret, _) = self.secret(&account).await?;
        let asks =
            IssueServiceTokenRequest { audience: words(&["tessera"]), ..asks(&account.client_id, &secret) };
        Ok((account, asks))
    }

    /// Bars one.
    pub async fn bar(&self, account: &ServiceAccount) -> Result<(), Status> {
        let request = DisableServiceAccountRequest { service_account_id: account.service_account_id.clone() };
        self.server.service_accounts().disable_service_account(authorized(&self.token, request)).await?;
        Ok(())
    }

    /// Tries to give an account a credential.
    pub async fn try_credential(
        &self,
        request: CreateCredentialRequest,
    ) -> Result<Response<CreateCredentialResponse>, Status> {
        self.server.service_accounts().create_credential(authorized(&self.token, request)).await
    }

    /// Gives an account a credential of this kind; gives the secret that the server made up, and the credential's id.
    async fn make(&self, account: &ServiceAccount, kind: Kind) -> Result<(String, String), Box<dyn Error>> {
        let request = CreateCredentialRequest {
            service_account_id: account.service_account_id.clone(),
            kind: Some(kind),
            ..Default::default()
        };
        let reply = self.try_credential(request).await?.into_inner();
        Ok((reply.client_secret, reply.credential.ok_or("no credential")?.credential_id))
    }

    /// Gives an account a secret; gives that and the credential's id.
    pub async fn secret(&self, account: &ServiceAccount) -> Result<(String, String), Box<dyn Error>> {
        self.make(account, Kind::ClientSecret(ClientSecret {})).await
    }

    /// Gives an account a credential that is no secret; gives its id.
    pub async fn credential(&self, account: &ServiceAccount, kind: Kind) -> Result<String, Box<dyn Error>> {
        let (secret, id) = self.make(account, kind).await?;
        assert_eq!(secret, "");
        Ok(id)
    }

    /// Ends a credential.
    pub async fn revoke(&self, account_id: &str, credential_id: &str) -> Result<(), Status> {
        let request = RevokeCredentialRequest {
            service_account_id: account_id.to_owned(),
            credential_id: credential_id.to_owned(),
        };
        self.server.service_accounts().revoke_credential(authorized(&self.token, request)).await?;
        Ok(())
    }

    /// Registers an audience that has these scopes.
    pub async fn audience(&self, name: &str, scopes: &[&str]) -> Result<(), Box<dyn Error>> {
        let request =
            CreateAudienceRequest { name: name.to_owned(), scopes: words(scopes), ..Default::default() };
        self.server.audiences().create_audience(authorized(&self.token, request)).await?;
        Ok(())
    }
}

impl Server {
    /// `ServiceAccounts`.
    pub fn service_accounts(&self) -> ServiceAccountsClient<Channel> {
        ServiceAccountsClient::new(self.channel())
    }

    /// Asks for a service's token.
    pub async fn issue(
        &self,
        request: IssueServiceTokenRequest,
    ) -> Result<Response<IssueServiceTokenResponse>, Status> {
        self.auth().issue_service_token(request).await
    }

    /// Gets a service's token.
    pub async fn service_token(&self, request: IssueServiceTokenRequest) -> Result<Tokens, Box<dyn Error>> {
        Ok(self.issue(request).await?.into_inner().tokens.ok_or("no tokens")?)
    }
}
