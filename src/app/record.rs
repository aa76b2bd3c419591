//! Writes the audit trail.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{App, Error};
use crate::{
    crypto::random::OrderedIds,
    domain::audit::{Action, Event, Origin, Target},
    models::audit_events,
};

/// What a transaction that decides by itself what it does needs for its events.
pub(super) struct Trail {
    pub now: DateTime<Utc>,
    ids: Arc<OrderedIds>,
    tenant_id: Uuid,
    actor_id: Option<Uuid>,
    origin: Origin,
}

impl Trail {
    pub(super) fn event(&self, action: Action, target: Target) -> Result<Event, Error> {
        let by = By { tenant_id: self.tenant_id, actor_id: self.actor_id, origin: &self.origin };
        event(&self.ids, by, action, target, self.now)
    }
}

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
        event(&self.ids, by, action, target, now)
    }

    pub(super) fn trail(
        &self,
        tenant_id: Uuid,
        actor_id: Option<Uuid>,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Trail {
        Trail { now, ids: self.ids.clone(), tenant_id, actor_id, origin: origin.clone() }
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

fn event(
    ids: &OrderedIds,
    by: By<'_>,
    action: Action,
    target: Target,
    now: DateTime<Utc>,
) -> Result<Event, Error> {
    Ok(Event {
        id: ids.next(now)?,
        tenant_id: by.tenant_id,
        create_time: now,
        action: action.as_str().to_owned(),
        refusal: None,
        actor_id: by.actor_id,
        target_type: target.kind().to_owned(),
        target_id: target.id(),
        target_name: target.name(),
        origin: by.origin.clone(),
    })
}
