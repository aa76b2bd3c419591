//! Writes the audit trail.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{App, Error};
use crate::{
    domain::audit::{Action, Event, Origin, Target},
    models::audit_events,
};

/// Who did something, where, from where.
pub(super) struct By<'o> {
    pub tenant_id: Uuid,
    pub actor_id: Option<Uuid>,
    pub origin: &'o Origin,
}

impl App {
    /// An event of what is done; appended in the same transaction as the deed.
    pub(super) fn event(
        &self,
        by: By<'_>,
        action: Action,
        target: Target,
        now: DateTime<Utc>,
    ) -> Result<Event, Error> {
        Ok(Event {
            id: self.ids.next(now)?,
            tenant_id: by.tenant_id,
            create_time: now,
            action: action.as_str().to_owned(),
            refusal: None,
            actor_id: by.actor_id,
            target_type: target.kind().to_owned(),
            target_id: target.id(),
            origin: by.origin.clone(),
        })
    }

    /// Records that something was refused, and gives the refusal back.
    pub(super) async fn record_refusal(&self, mut event: Event, refusal: Error) -> Error {
        event.refusal = Some(refusal.reason().to_owned());

        match self.store.tx(async move |conn| audit_events::append(conn, &event).await).await {
            Ok(()) => refusal,
            Err(error) => error.into(),
        }
    }
}
