//! `tessera.v1.ServiceAccounts`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::{
    app::{
        App,
        credentials::{self, Created, NewProof},
        service_accounts::{self as accounts, Changes, NewAccount},
    },
    domain::{
        InvalidField,
        certificate::Named,
        service_account::{self, Allowed, Credential, Federated, Grant, Proof, ServiceAccount},
        text,
        trusted_issuer::KeySource,
    },
    proto::{
        self, create_credential_request::Kind, credential, mtls, service_accounts_server::ServiceAccounts,
    },
};

const ACCOUNT_ID: &str = "service_account_id";

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl ServiceAccounts for Service {
    async fn create_service_account(
        &self,
        request: Request<proto::CreateServiceAccountRequest>,
    ) -> Result<Response<proto::CreateServiceAccountResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let grants = Grant::parse_all("allowed_grants", &message.allowed_grants)?;
        let new = NewAccount {
            name: service_account::parse_name("name", &message.name)?,
            display_name: text::shown("display_name", &message.display_name, 128)?,
            allowed: Allowed {
                audiences: text::audiences("allowed_audiences", &message.allowed_audiences)?,
                scopes: text::scopes("allowed_scopes", &message.allowed_scopes)?,
                grants: if grants.is_empty() { vec![Grant::ClientCredentials] } else { grants },
            },
            own_audiences: service_account::parse_own_audiences("own_audiences", &message.own_audiences)?,
            token_ttl: message.token_ttl.map(parse::token_ttl).transpose()?.flatten(),
        };
        let account = accounts::create(&self.0, &caller, &message.tenant, new, &origin).await?;
        Ok(Response::new(proto::CreateServiceAccountResponse { service_account: Some(told(account)) }))
    }

    async fn get_service_account(
        &self,
        request: Request<proto::GetServiceAccountRequest>,
    ) -> Result<Response<proto::GetServiceAccountResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let (account, credentials) = accounts::get(&self.0, &caller, id).await?;
        let credentials = credentials.into_iter().map(told_credential).collect();
        let service_account = proto::ServiceAccount { credentials, ..told(account) };
        Ok(Response::new(proto::GetServiceAccountResponse { service_account: Some(service_account) }))
    }

    async fn list_service_accounts(
        &self,
        request: Request<proto::ListServiceAccountsRequest>,
    ) -> Result<Response<proto::ListServiceAccountsResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = accounts::list(&self.0, &caller, &message.tenant, page).await?;
        Ok(Response::new(proto::ListServiceAccountsResponse {
            service_accounts: found.items.into_iter().map(told).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn update_service_account(
        &self,
        request: Request<proto::UpdateServiceAccountRequest>,
    ) -> Result<Response<proto::UpdateServiceAccountResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let account = accounts::update(&self.0, &caller, id, changes(message)?, &origin).await?;
        Ok(Response::new(proto::UpdateServiceAccountResponse { service_account: Some(told(account)) }))
    }

    async fn disable_service_account(
        &self,
        request: Request<proto::DisableServiceAccountRequest>,
    ) -> Result<Response<proto::DisableServiceAccountResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let account = accounts::disable(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::DisableServiceAccountResponse { service_account: Some(told(account)) }))
    }

    async fn enable_service_account(
        &self,
        request: Request<proto::EnableServiceAccountRequest>,
    ) -> Result<Response<proto::EnableServiceAccountResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let account = accounts::enable(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::EnableServiceAccountResponse { service_account: Some(told(account)) }))
    }

    async fn delete_service_account(
        &self,
        request: Request<proto::DeleteServiceAccountRequest>,
    ) -> Result<Response<proto::DeleteServiceAccountResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        accounts::delete(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::DeleteServiceAccountResponse {}))
    }

    async fn create_credential(
        &self,
        request: Request<proto::CreateCredentialRequest>,
    ) -> Result<Response<proto::CreateCredentialResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let proof = match message.kind {
            Some(Kind::ClientSecret(_)) => NewProof::ClientSecret,
            Some(Kind::PrivateKeyJwt(keys)) => NewProof::PrivateKeyJwt(key_source(&keys)?),
            Some(Kind::Federated(proto::Federated { issuer, subject, claims })) => {
                let claims = claims.into_iter().collect();
                NewProof::Federated(Federated::parse("federated", &issuer, &subject, claims)?)
            }
            Some(Kind::Mtls(proto::Mtls { certificate })) => NewProof::Mtls(certificates(certificate)?),
            None => return Err(InvalidField::new("kind", "is not given").into()),
        };
        let expire_time = message.expire_time.map(|time| instant("expire_time", time)).transpose()?;
        let Created { credential, client_secret } =
            credentials::create(&self.0, &caller, id, proof, expire_time, &origin).await?;
        Ok(Response::new(proto::CreateCredentialResponse {
            credential: Some(told_credential(credential)),
            client_secret: client_secret.map(|it| it.expose_secret().to_owned()).unwrap_or_default(),
        }))
    }

    async fn revoke_credential(
        &self,
        request: Request<proto::RevokeCredentialRequest>,
    ) -> Result<Response<proto::RevokeCredentialResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let account_id = parse::id(ACCOUNT_ID, &message.service_account_id)?;
        let id = parse::id("credential_id", &message.credential_id)?;
        credentials::revoke(&self.0, &caller, account_id, id, &origin).await?;
        Ok(Response::new(proto::RevokeCredentialResponse {}))
    }
}

fn changes(message: proto::UpdateServiceAccountRequest) -> Result<Changes, InvalidField> {
    let proto::UpdateServiceAccountRequest {
        display_name,
        allowed_audiences,
        allowed_scopes,
        allowed_grants,
        own_audiences,
        token_ttl,
        ..
    } = message;
    let display_name = display_name.map(|name| text::shown("display_name", &name, 128)).transpose()?;
    let audiences =
        allowed_audiences.map(|set| text::audiences("allowed_audiences.words", &set.words)).transpose()?;
    let scopes = allowed_scopes.map(|set| text::scopes("allowed_scopes.words", &set.words)).transpose()?;
    let grants =
        allowed_grants.map(|set| Grant::parse_all("allowed_grants.words", &set.words)).transpose()?;
    let own_audiences = own_audiences
        .map(|set| service_account::parse_own_audiences("own_audiences.words", &set.words))
        .transpose()?;
    let token_ttl = token_ttl.map(parse::token_ttl).transpose()?;
    Ok(Changes { display_name, audiences, scopes, grants, own_audiences, token_ttl })
}

fn key_source(keys: &proto::PrivateKeyJwt) -> Result<KeySource, InvalidField> {
    match (keys.jwks_json.is_empty(), keys.jwks_uri.is_empty()) {
        (false, true) => KeySource::json("private_key_jwt.jwks_json", &keys.jwks_json),
        (true, false) => KeySource::url("private_key_jwt.jwks_uri", &keys.jwks_uri),
        _ => Err(InvalidField::new("private_key_jwt", "needs either `jwks_json` or `jwks_uri`")),
    }
}

fn certificates(told: Option<mtls::Certificate>) -> Result<Named, InvalidField> {
    match told {
        Some(mtls::Certificate::SanDns(name)) => Named::san_dns("mtls", &name),
        Some(mtls::Certificate::SanUri(uri)) => Named::san_uri("mtls", &uri),
        Some(mtls::Certificate::CertificateThumbprint(it)) => Named::thumbprint("mtls", &it),
        None => Err(InvalidField::new("mtls", "says of no certificate which it is")),
    }
}

fn instant(field: &'static str, told: prost_types::Timestamp) -> Result<DateTime<Utc>, InvalidField> {
    let nanos = u32::try_from(told.nanos).ok();
    let time = nanos.and_then(|nanos| DateTime::from_timestamp(told.seconds, nanos));
    time.ok_or_else(|| InvalidField::new(field, "is not an instant"))
}

fn told(account: ServiceAccount) -> proto::ServiceAccount {
    let state = match account.disable_time {
        None => proto::ServiceAccountState::Active,
        Some(_) => proto::ServiceAccountState::Disabled,
    };
    let Allowed { audiences, scopes, grants } = account.allowed;
    proto::ServiceAccount {
        service_account_id: account.id.to_string(),
        client_id: account.id.to_string(),
        tenant_id: account.tenant_id.to_string(),
        name: account.name,
        display_name: account.display_name,
        allowed_audiences: audiences,
        allowed_scopes: scopes,
        allowed_grants: grants.into_iter().map(|grant| grant.as_str().to_owned()).collect(),
        token_ttl: account
            .token_ttl
            .map(|ttl| prost_types::Duration { seconds: ttl.num_seconds(), nanos: 0 }),
        own_audiences: account.own_audiences,
        state: state.into(),
        create_time: convert::timestamp(account.create_time),
        update_time: convert::timestamp(account.update_time),
        credentials: Vec::new(),
    }
}

fn told_credential(credential: Credential) -> proto::Credential {
    let kind = match credential.proof {
        Proof::ClientSecret(_) => credential::Kind::ClientSecret(proto::ClientSecret {}),
        Proof::PrivateKeyJwt(KeySource::Json(jwks_json)) => {
            credential::Kind::PrivateKeyJwt(proto::PrivateKeyJwt { jwks_json, ..Default::default() })
        }
        Proof::PrivateKeyJwt(KeySource::Url(jwks_uri)) => {
            credential::Kind::PrivateKeyJwt(proto::PrivateKeyJwt { jwks_uri, ..Default::default() })
        }
        Proof::Federated(Federated { issuer, subject, claims }) => {
            credential::Kind::Federated(proto::Federated {
                issuer,
                subject,
                claims: claims.into_iter().collect(),
            })
        }
        Proof::Mtls(named) => {
            let certificate = Some(match named {
                Named::SanDns(name) => mtls::Certificate::SanDns(name),
                Named::SanUri(uri) => mtls::Certificate::SanUri(uri),
                Named::CertificateThumbprint(it) => mtls::Certificate::CertificateThumbprint(it),
            });
            credential::Kind::Mtls(proto::Mtls { certificate })
        }
    };
    proto::Credential {
        credential_id: credential.id.to_string(),
        create_time: convert::timestamp(credential.create_time),
        expire_time: credential.expire_time.and_then(convert::timestamp),
        kind: Some(kind),
    }
}
