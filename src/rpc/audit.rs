//! `tessera.v1.Audit`.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{convert, parse};
use crate::{
    app::{
        App,
        list_events::{self, ListEvents},
    },
    domain::audit,
    proto::{self, audit_server::Audit},
};

pub(super) struct Service(pub(super) Arc<App>);

#[tonic::async_trait]
impl Audit for Service {
    async fn list_events(
        &self,
        request: Request<proto::ListEventsRequest>,
    ) -> Result<Response<proto::ListEventsResponse>, Status> {
        let (caller, _, message) = parse::open_known(request)?;
        let page = parse::page(message.page_size, &message.page_token)?;
        let which = ListEvents {
            tenant: message.tenant,
            action: Some(audit::parse_action("action", &message.action)?).filter(|action| !action.is_empty()),
            actor_id: parse::maybe_id("actor_id", &message.actor_id)?,
        };
        let found = list_events::list_events(&self.0, &caller, &which, page).await?;
        Ok(Response::new(proto::ListEventsResponse {
            events: found.items.into_iter().map(convert::event).collect(),
            next_page_token: parse::next_page_token(found.next),
        }))
    }
}
