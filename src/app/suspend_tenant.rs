//! Suspends and resumes tenants.

use uuid::Uuid;

use super::{App, Caller, Error, record::By};
use crate::{
    domain::{
        InvalidField,
        audit::{Action, Origin, Target},
        tenant::Tenant,
        trust::Revocation,
    },
    models::{audit_events, tenants, trust_log},
};

/// Lets nobody of the tenant sign in, refresh or be accepted.
pub async fn suspend(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<Tenant, Error> {
    caller.require_root()?;
    if id == app.default_tenant_id {
        return Err(
            InvalidField::new("tenant_id", "is the tenant `default`, which nobody could resume").into()
        );
    }
    set(app, caller, id, true, origin).await
}

/// Accepts them again.
pub async fn resume(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<Tenant, Error> {
    caller.require_root()?;
    set(app, caller, id, false, origin).await
}

async fn set(
    app: &App,
    caller: &Caller,
    id: Uuid,
    is_suspended: bool,
    origin: &Origin,
) -> Result<Tenant, Error> {
    let now = app.now();
    let by = By { tenant_id: id, actor_id: Some(caller.user_id), origin };
    let action = if is_suspended { Action::SuspendTenant } else { Action::ResumeTenant };
    let event = app.event(by, action, Target::Tenant(id), now)?;
    let changed = app.change(now, async move |conn| {
        // Held first, so that of two changes at once the later one sees the earlier.
        trust_log::raise_registry(conn).await?;
        // One of which something makes no sense is suspended like any other.
        let found = tenants::look_up(conn, id).await?.ok_or(Error::NotFound("tenant"))?;
        let mut tenant = found.readable();
        if tenant.is_suspended() == is_suspended {
            return Ok((tenant, Vec::new()));
        }
        tenant.suspend_time = is_suspended.then_some(now);
        tenant.standing += 1;
        if !tenants::set_standing(conn, &tenant).await? {
            return Err(Error::Conflict);
        }
        audit_events::append(conn, &event).await?;
        let standing = tenant.standing();
        Ok((tenant, vec![Revocation::Tenant { tenant_id: id, standing }]))
    });
    let tenant = changed.await?;
    app.reload_registry().await?;
    Ok(tenant)
}
