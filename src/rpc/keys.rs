//! `tessera.v1.Keys`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert, parse,
    stream::{self, Streamed},
    trusted_issuers as told,
};
use crate::{
    app::{
        App, Error, check_foreign_token, issuer_keys, public_keys, trusted_issuers,
        watch::{self, Place},
    },
    proto::{self, keys_server::Keys},
};

/// The field that names a trusted issuer.
const ISSUER_ID: &str = "trusted_issuer_id";

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Keys for Service {
    async fn get_jwks(
        &self,
        request: Request<proto::GetJwksRequest>,
    ) -> Result<Response<proto::GetJwksResponse>, Status> {
        let known_revision = request.into_inner().known_revision;
        let found = public_keys::issuer_keys(&self.0);
        let mut reply = proto::GetJwksResponse {
            revision: found.revision,
            refresh_hint: prost_types::Duration::try_from(found.refresh_hint).ok(),
            unchanged: known_revision > 0 && found.are_known_since(known_revision),
            ..Default::default()
        };
        if !reply.unchanged {
            reply.keys = found.ring.published().iter().map(convert::jwk).collect();
            found.ring.json().clone_into(&mut reply.jwks_json);
        }
        Ok(Response::new(reply))
    }

    async fn get_jwk(
        &self,
        request: Request<proto::GetJwkRequest>,
    ) -> Result<Response<proto::GetJwkResponse>, Status> {
        let found = public_keys::find_key(&self.0, &request.into_inner().kid).await?;
        let jwk_json = serde_json::to_string(&found.jwk).map_err(|e| Error::Internal(e.to_string()))?;
        let (endorsement, expire_time) = public_keys::endorsement(&self.0, &found).await?.unzip();
        Ok(Response::new(proto::GetJwkResponse {
            key: Some(convert::jwk(&found.jwk)),
            jwk_json,
            endorsement: endorsement.unwrap_or_default(),
            endorsement_expire_time: expire_time.and_then(convert::timestamp),
        }))
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        let (caller, ..) = parse::open_known(request)?;
        let keys = issuer_keys::list(&self.0, &caller).await?;
        Ok(Response::new(proto::ListKeysResponse {
            keys: keys.into_iter().map(convert::issuer_key).collect(),
        }))
    }

    async fn prepare_key(
        &self,
        request: Request<proto::PrepareKeyRequest>,
    ) -> Result<Response<proto::PrepareKeyResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let algorithm = parse::maybe_algorithm("algorithm", &message.algorithm)?;
        let key = issuer_keys::prepare(&self.0, &caller, algorithm, &origin).await?;
        Ok(Response::new(proto::PrepareKeyResponse { key: Some(convert::issuer_key(key)) }))
    }

    async fn activate_key(
        &self,
        request: Request<proto::ActivateKeyRequest>,
    ) -> Result<Response<proto::ActivateKeyResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let key = issuer_keys::activate(&self.0, &caller, &message.kid, &origin).await?;
        Ok(Response::new(proto::ActivateKeyResponse { key: Some(convert::issuer_key(key)) }))
    }

    async fn revoke_key(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<Response<proto::RevokeKeyResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let (key, successor) = issuer_keys::revoke(&self.0, &caller, &message.kid, &origin).await?;
        Ok(Response::new(proto::RevokeKeyResponse {
            key: Some(convert::issuer_key(key)),
            successor: successor.map(convert::issuer_key),
        }))
    }

    async fn create_trusted_issuer(
        &self,
        request: Request<proto::CreateTrustedIssuerRequest>,
    ) -> Result<Response<proto::CreateTrustedIssuerResponse>, Status> {
        let (caller, origin, message) = parse::open_root(request)?;
        let new = told::new(&message)?;
        let made = trusted_issuers::create(&self.0, &caller, new, &origin).await?;
        let trusted_issuer = Some(told::told(made));
        Ok(Response::new(proto::CreateTrustedIssuerResponse { trusted_issuer }))
    }

    async fn get_trusted_issuer(
        &self,
        request: Request<proto::GetTrustedIssuerRequest>,
    ) -> Result<Response<proto::GetTrustedIssuerResponse>, Status> {
        let (caller, _, message) = parse::open_root(request)?;
        let id = parse::id(ISSUER_ID, &message.trusted_issuer_id)?;
        let trusted_issuer = Some(told::told(trusted_issuers::get(&self.0, &caller, id).await?));
        Ok(Response::new(proto::GetTrustedIssuerResponse { trusted_issuer }))
    }

    async fn list_trusted_issuers(
        &self,
        request: Request<proto::ListTrustedIssuersRequest>,
    ) -> Result<Response<proto::ListTrustedIssuersResponse>, Status> {
        let (caller, _, message) = parse::open_root(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = trusted_issuers::list(&self.0, &caller, page).await?;
        Ok(Response::new(proto::ListTrustedIssuersResponse {
            trusted_issuers: found.items.into_iter().map(told::told_in_list).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn update_trusted_issuer(
        &self,
        request: Request<proto::UpdateTrustedIssuerRequest>,
    ) -> Result<Response<proto::UpdateTrustedIssuerResponse>, Status> {
        let (caller, origin, message) = parse::open_root(request)?;
        let id = parse::id(ISSUER_ID, &message.trusted_issuer_id)?;
        let changes = told::changes(&message)?;
        let changed = trusted_issuers::update(&self.0, &caller, id, changes, &origin).await?;
        let trusted_issuer = Some(told::told(changed));
        Ok(Response::new(proto::UpdateTrustedIssuerResponse { trusted_issuer }))
    }

    async fn delete_trusted_issuer(
        &self,
        request: Request<proto::DeleteTrustedIssuerRequest>,
    ) -> Result<Response<proto::DeleteTrustedIssuerResponse>, Status> {
        let (caller, origin, message) = parse::open_root(request)?;
        let id = parse::id(ISSUER_ID, &message.trusted_issuer_id)?;
        trusted_issuers::delete(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::DeleteTrustedIssuerResponse {}))
    }

    async fn check_foreign_token(
        &self,
        request: Request<proto::CheckForeignTokenRequest>,
    ) -> Result<Response<proto::CheckForeignTokenResponse>, Status> {
        let (caller, _, message) = parse::open_root(request)?;
        let answer = check_foreign_token::check_foreign_token(&self.0, &caller, &message.token).await?;
        Ok(Response::new(told::answer(answer)?))
    }

    type WatchStream = Streamed<proto::WatchResponse>;

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (caller, origin, asked) = parse::open_maybe_service(request);
        let from = Place { revision: asked.resume_revision, mark: asked.resume_mark };
        let watcher = watch::watch(&self.0, &from, caller, &origin.address).await?;
        Ok(Response::new(stream::of_messages(watcher, |mut watcher| async {
            let message = watcher.next().await?;
            Ok(Some((stream::watched(message), watcher)))
        })))
    }
}
