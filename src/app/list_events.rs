//! Shows the audit trail.

use uuid::Uuid;

use super::{App, Caller, Error, Page, Paged, caller::administered_tenant};
use crate::{domain::audit::Event, models::audit_events};

/// Which events; `None` and the empty tenant choose nothing.
#[derive(Debug)]
pub struct ListEvents {
    /// The tenant's name; empty means the caller's own.
    pub tenant: String,
    /// Only this action.
    pub action: Option<String>,
    /// Only by this user.
    pub actor_id: Option<Uuid>,
}

/// The events of a tenant, newest first.
pub async fn list_events(
    app: &App,
    caller: &Caller,
    which: &ListEvents,
    page: Page,
) -> Result<Paged<Event>, Error> {
    let tenant_id = administered_tenant(app, caller, &which.tenant).await?.id;
    let slice = page.slice();
    let events = app.store.read(async |conn| {
        audit_events::list(conn, tenant_id, which.action.as_deref(), which.actor_id, slice).await
    });
    Ok(page.cut(events.await?, |event| event.id))
}
