//! `tessera.v1.Audiences`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::{
    app::{
        App,
        audiences::{self, Changes, NewAudience, Rotation, Which},
    },
    domain::{
        InvalidField,
        audience::{self, LONGEST_WAIT, Signing, Ways},
        text,
    },
    proto::{self, AudienceSigning, audiences_server::Audiences},
};

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Audiences for Service {
    async fn create_audience(
        &self,
        request: Request<proto::CreateAudienceRequest>,
    ) -> Result<Response<proto::CreateAudienceResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let signing = signing(message.signing)?;
        let new = NewAudience {
            name: audience::parse_name("name", &message.name)?,
            display_name: text::shown("display_name", &message.display_name, 128)?,
            signing,
            encryption_jwk: Some(message.encryption_jwk).filter(|jwk| !jwk.is_empty()).map(Into::into),
            scopes: text::scopes("scopes", &message.scopes)?,
            ways: Ways::parse("allowed_grants", &message.allowed_grants)?,
            token_ttl: message.token_ttl.map(parse::token_ttl).transpose()?.flatten(),
        };
        let (info, secret) = audiences::create(&self.0, &caller, new, &origin).await?;
        Ok(Response::new(proto::CreateAudienceResponse {
            audience: Some(convert::audience(info)),
            secret: secret.as_ref().map(convert::new_secret),
        }))
    }

    async fn get_audience(
        &self,
        request: Request<proto::GetAudienceRequest>,
    ) -> Result<Response<proto::GetAudienceResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let info = audiences::get(&self.0, &caller, &which(message)?).await?;
        Ok(Response::new(proto::GetAudienceResponse { audience: Some(convert::audience(info)) }))
    }

    async fn list_audiences(
        &self,
        request: Request<proto::ListAudiencesRequest>,
    ) -> Result<Response<proto::ListAudiencesResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = audiences::list(&self.0, &caller, page).await?;
        Ok(Response::new(proto::ListAudiencesResponse {
            audiences: found.items.into_iter().map(convert::audience).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn update_audience(
        &self,
        request: Request<proto::UpdateAudienceRequest>,
    ) -> Result<Response<proto::UpdateAudienceResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("audience_id", &message.audience_id)?;
        let rotation = rotation(&message)?;
        let display_name = message.display_name.as_deref();
        let changes = Changes {
            display_name: display_name.map(|name| text::shown("display_name", name, 128)).transpose()?,
            encryption_jwk: message
                .encryption_jwk
                .map(|jwk| Some(jwk).filter(|jwk| !jwk.is_empty()).map(Into::into)),
            scopes: message.scopes.map(|set| text::scopes("scopes.words", &set.words)).transpose()?,
            ways: message
                .allowed_grants
                .map(|set| Ways::parse("allowed_grants.words", &set.words))
                .transpose()?,
            token_ttl: message.token_ttl.map(parse::token_ttl).transpose()?,
            rotation,
        };
        let (info, secret) = audiences::update(&self.0, &caller, id, changes, &origin).await?;
        Ok(Response::new(proto::UpdateAudienceResponse {
            audience: Some(convert::audience(info)),
            secret: secret.as_ref().map(convert::new_secret),
        }))
    }

    async fn delete_audience(
        &self,
        request: Request<proto::DeleteAudienceRequest>,
    ) -> Result<Response<proto::DeleteAudienceResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("audience_id", &message.audience_id)?;
        audiences::delete(&self.0, &caller, id, &origin).await?;
        Ok(Response::new(proto::DeleteAudienceResponse {}))
    }
}

fn signing(told: i32) -> Result<Signing, InvalidField> {
    match AudienceSigning::try_from(told) {
        Ok(AudienceSigning::Unspecified | AudienceSigning::PublicKey) => Ok(Signing::PublicKey),
        Ok(AudienceSigning::Hs256) => Ok(Signing::Hs256),
        Err(_) => Err(InvalidField::new("signing", "is not known here")),
    }
}

fn rotation(message: &proto::UpdateAudienceRequest) -> Result<Option<Rotation>, InvalidField> {
    let activate_after = match (message.rotate_secret, message.activate_after) {
        (false, Some(_)) => {
            return Err(InvalidField::new("activate_after", "is for a secret that is rotated"));
        }
        (false, None) => return Ok(None),
        (true, wait) => wait.map(|wait| parse::duration("activate_after", wait, LONGEST_WAIT)).transpose()?,
    };
    Ok(Some(Rotation { activate_after }))
}

fn which(message: proto::GetAudienceRequest) -> Result<Which, InvalidField> {
    match (message.audience_id.is_empty(), message.name.is_empty()) {
        (false, true) => Ok(Which::Id(parse::id("audience_id", &message.audience_id)?)),
        (true, false) => Ok(Which::Name(message.name)),
        _ => Err(InvalidField::new("audience_id", "or `name` is to be given, and not both")),
    }
}
