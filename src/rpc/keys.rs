//! `tessera.v1.Keys`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::convert;
use crate::{
    app::{App, Error, public_keys},
    proto::{self, keys_server::Keys},
};

/// How long a caller may keep the issuer's keys, in seconds: half of what a key is published before it signs.
const REFRESH_HINT: i64 = 300;

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Keys for Service {
    async fn get_jwks(
        &self,
        _request: Request<proto::GetJwksRequest>,
    ) -> Result<Response<proto::GetJwksResponse>, Status> {
        let found = public_keys::issuer_keys(&self.0);
        Ok(Response::new(proto::GetJwksResponse {
            keys: found.keys.iter().map(convert::jwk).collect(),
            jwks_json: found.json.to_owned(),
            revision: found.revision,
            refresh_hint: Some(prost_types::Duration { seconds: REFRESH_HINT, nanos: 0 }),
        }))
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
}
