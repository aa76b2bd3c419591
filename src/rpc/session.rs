//! `tessera.v1.Session`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    convert, parse,
    stream::{self, Streamed},
};
use crate::{
    app::{App, sessions, watch_session},
    proto::{self, session_server::Session},
};

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Session for Service {
    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let user_id = parse::maybe_id("user_id", &message.user_id)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let found = sessions::list(&self.0, &caller, user_id, message.include_ended, page).await?;
        let now = self.0.now();
        Ok(Response::new(proto::ListSessionsResponse {
            sessions: found.items.into_iter().map(|session| convert::session(session, now)).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let id = parse::id("session_id", &message.session_id)?;
        let session = sessions::get(&self.0, &caller, id).await?;
        let session = Some(convert::session(session, self.0.now()));
        Ok(Response::new(proto::GetSessionResponse { session }))
    }

    async fn revoke_session(
        &self,
        request: Request<proto::RevokeSessionRequest>,
    ) -> Result<Response<proto::RevokeSessionResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let id = parse::id("session_id", &message.session_id)?;
        let session = sessions::revoke(&self.0, &caller, id, &origin).await?;
        let session = Some(convert::session(session, self.0.now()));
        Ok(Response::new(proto::RevokeSessionResponse { session }))
    }

    async fn revoke_user_sessions(
        &self,
        request: Request<proto::RevokeUserSessionsRequest>,
    ) -> Result<Response<proto::RevokeUserSessionsResponse>, Status> {
        let (caller, origin, message) = parse::open_known(request)?;
        let user_id = parse::maybe_id("user_id", &message.user_id)?;
        let ended = sessions::revoke_of_user(&self.0, &caller, user_id, &origin).await?;
        Ok(Response::new(proto::RevokeUserSessionsResponse { ended_sessions: convert::count(ended) }))
    }

    type WatchSessionStream = Streamed<proto::WatchSessionResponse>;

    async fn watch_session(
        &self,
        request: Request<proto::WatchSessionRequest>,
    ) -> Result<Response<Self::WatchSessionStream>, Status> {
        let (caller, ..) = parse::open_known(request)?;
        let watcher = watch_session::watch_session(&self.0, &caller).await?;
        Ok(Response::new(stream::of_messages(watcher, |mut watcher| async {
            let standing = watcher.next().await?;
            Ok(standing.map(|standing| (stream::standing(standing), watcher)))
        })))
    }
}
