//! Makes and shows tenants.

use uuid::Uuid;

use super::{App, Caller, Error, Page, Paged, caller::administered_tenant, record::By};
use crate::{
    domain::{
        audit::{Action, Origin, Target},
        session_rules::TenantSessions,
        tenant::{Tenant, TenantSigning},
    },
    models::{StoreError, audit_events, tenants, trust_log},
};

/// Makes a tenant.
pub async fn create(
    app: &App,
    caller: &Caller,
    name: String,
    display_name: String,
    origin: &Origin,
) -> Result<Tenant, Error> {
    caller.require_root()?;
    let now = app.now();
    let tenant = Tenant {
        id: app.ids.next(now)?,
        name,
        display_name,
        create_time: now,
        signing: TenantSigning::default(),
        sessions: TenantSessions::default(),
        suspend_time: None,
        standing: 0,
    };
    let by = By { tenant_id: tenant.id, actor_id: Some(caller.user_id), origin };
    let event = app.event(by, Action::CreateTenant, Target::Tenant(tenant.id), now)?;
    let created = app.store.tx::<_, Error, _>(async move |conn| {
        tenants::insert(conn, &tenant).await.map_err(|error| match error {
            StoreError::Taken(_) => Error::AlreadyExists("tenant"),
            error => error.into(),
        })?;
        audit_events::append(conn, &event).await?;
        Ok(tenant)
    });
    created.await
}

/// What is to change of a tenant.
#[derive(Debug, Default)]
pub struct Changes {
    /// The name to show.
    pub display_name: Option<String>,
    /// How its tokens are signed.
    pub signing: Option<TenantSigning>,
    /// What its sessions keep to.
    pub sessions: Option<TenantSessions>,
}

/// Changes what is given. New tokens and sessions follow, on other replicas within the poll interval.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    changes: Changes,
    origin: &Origin,
) -> Result<Tenant, Error> {
    caller.require_root()?;
    let by = By { tenant_id: id, actor_id: Some(caller.user_id), origin };
    let event = app.event(by, Action::UpdateTenant, Target::Tenant(id), app.now())?;
    let updated = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that of two changes at once the later one sees the earlier.
        trust_log::raise_registry(conn).await?;
        let mut found = tenants::look_up(conn, id).await?.ok_or(Error::NotFound("tenant"))?;
        // What makes no sense is mended by what takes its place.
        found.signing = changes.signing.map_or(found.signing, Ok);
        found.sessions = changes.sessions.map_or(found.sessions, Ok);
        let mut tenant = found.whole()?;
        tenant.display_name = changes.display_name.unwrap_or(tenant.display_name);
        if !tenants::update(conn, &tenant).await? {
            return Err(Error::Conflict);
        }
        audit_events::append(conn, &event).await?;
        Ok(tenant)
    });
    let tenant = updated.await?;
    app.reload_registry().await?;
    Ok(tenant)
}

/// What a tenant is asked for by.
#[derive(Debug)]
pub enum Which {
    /// Its id.
    Id(Uuid),
    /// Its name.
    Name(String),
}

/// One tenant, with what makes sense of it.
pub async fn get(app: &App, caller: &Caller, which: &Which) -> Result<Tenant, Error> {
    match which {
        Which::Name(name) => administered_tenant(app, caller, name).await,
        Which::Id(id) => {
            let id = *id;
            let found = app.store.read(async move |conn| tenants::look_up(conn, id).await).await?;
            let tenant = found.map(tenants::Found::readable);
            tenant.filter(|tenant| caller.administers(tenant.id)).ok_or(Error::NotFound("tenant"))
        }
    }
}

/// The tenants, newest first, each with what makes sense of it.
pub async fn list(app: &App, caller: &Caller, page: Page) -> Result<Paged<Tenant>, Error> {
    caller.require_root()?;
    let slice = page.slice();
    let found = app.store.read(async move |conn| tenants::list(conn, slice).await).await?;
    let Paged { items, next } = page.cut(found, tenants::Found::id);
    Ok(Paged { items: items.into_iter().map(tenants::Found::readable).collect(), next })
}
