//! Makes, shows and changes service accounts, and bars them.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    App, Caller, Error, Page, Paged, caller::administered_tenant, record::By, service_cache::Changed,
};
use crate::{
    domain::{
        Inconsistent, InvalidField,
        audit::{Action, Event, Origin, Target},
        service_account::{Allowed, Credential, Grant, MOST, ServiceAccount},
        trust::Revocation,
    },
    models::{
        StoreError, audit_events,
        service_accounts::{self, Found},
        service_credentials, trust_log,
    },
};

/// What a new service account is to be.
#[derive(Debug)]
pub struct NewAccount {
    /// The name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// What it may ask for.
    pub allowed: Allowed,
    /// Audiences that it is.
    pub own_audiences: Vec<String>,
    /// How long its tokens live.
    pub token_ttl: Option<TimeDelta>,
}

/// What is to change of one. What is not given stays.
#[derive(Debug, Default)]
pub struct Changes {
    /// The name to show.
    pub display_name: Option<String>,
    /// Audiences.
    pub audiences: Option<Vec<String>>,
    /// Scopes.
    pub scopes: Option<Vec<String>>,
    /// Grants.
    pub grants: Option<Vec<Grant>>,
    /// Audiences that it is.
    pub own_audiences: Option<Vec<String>>,
    /// How long its tokens live, or as the settings say.
    pub token_ttl: Option<Option<TimeDelta>>,
}

const NOT_FOUND: Error = Error::NotFound("service account");

impl App {
    pub(super) fn account_event(
        &self,
        caller: &Caller,
        action: Action,
        account: &Found,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Event, Error> {
        let by = By { tenant_id: account.tenant_id, actor_id: Some(caller.user_id), origin };
        self.event(by, action, Target::ServiceAccount(account.id, account.name.clone()), now)
    }
}

/// The account of this id that the caller administers, whether or not it makes sense.
pub(super) async fn reachable(app: &App, caller: &Caller, id: Uuid) -> Result<Found, Error> {
    let found = app.store.read(async move |conn| service_accounts::find(conn, id).await).await?;
    found.filter(|found| caller.administers(found.tenant_id)).ok_or(NOT_FOUND)
}

fn readable(account: Result<ServiceAccount, Inconsistent>) -> Result<ServiceAccount, Error> {
    account.map_err(|error| Error::Internal(error.to_string()))
}

/// Makes a service account in a tenant, the caller's own where none is named.
pub async fn create(
    app: &App,
    caller: &Caller,
    tenant: &str,
    new: NewAccount,
    origin: &Origin,
) -> Result<ServiceAccount, Error> {
    let tenant_id = administered_tenant(app, caller, tenant).await?.id;
    let now = app.now();
    let account = ServiceAccount {
        id: app.ids.next(now)?,
        tenant_id,
        name: new.name,
        display_name: new.display_name,
        allowed: new.allowed,
        own_audiences: new.own_audiences,
        token_ttl: new.token_ttl,
        token_version: 0,
        disable_time: None,
        create_time: now,
        update_time: now,
    };
    let by = By { tenant_id, actor_id: Some(caller.user_id), origin };
    let target = Target::ServiceAccount(account.id, account.name.clone());
    let event = app.event(by, Action::CreateServiceAccount, target, now)?;
    let created = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that nobody adds another one after they were counted. Nobody knows the new one yet.
        trust_log::raise_services(conn).await?;
        if service_accounts::count(conn, tenant_id).await? >= MOST {
            let problem = format!("is one too many: the tenant has {MOST}");
            return Err(InvalidField::new("name", problem).into());
        }
        service_accounts::insert(conn, &account).await.map_err(|error| match error {
            StoreError::Taken(_) => Error::AlreadyExists("service account"),
            error => error.into(),
        })?;
        audit_events::append(conn, &event).await?;
        Ok(account)
    });
    created.await
}

/// One of them and its credentials, without those that make no sense.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<(ServiceAccount, Vec<Credential>), Error> {
    let account = readable(reachable(app, caller, id).await?.account)?;
    let credentials = app.store.read(async move |conn| service_credentials::of_account(conn, id).await);
    let credentials = credentials.await?.into_iter().filter_map(|(id, credential)| {
        credential.inspect_err(|error| tracing::error!(%id, %error, "a credential makes no sense")).ok()
    });
    Ok((account, credentials.collect()))
}

/// A tenant's, newest first, without those that make no sense.
pub async fn list(
    app: &App,
    caller: &Caller,
    tenant: &str,
    page: Page,
) -> Result<Paged<ServiceAccount>, Error> {
    let tenant_id = administered_tenant(app, caller, tenant).await?.id;
    let slice = page.slice();
    let found = app.store.read(async move |conn| service_accounts::list(conn, tenant_id, slice).await);
    let Paged { items, next } = page.cut(found.await?, |found| found.id);
    let items = items.into_iter().filter_map(|Found { id, account, .. }| {
        account.inspect_err(|error| tracing::error!(%id, %error, "a service account makes no sense")).ok()
    });
    Ok(Paged { items: items.collect(), next })
}

/// What becomes of an account that is not as it was.
enum Step {
    /// It is stored as it is now.
    Store,
    /// It is stored, and every token that it holds ends.
    EndTokens,
}

/// Takes a step with an account that the caller administers.
async fn take(
    app: &App,
    caller: &Caller,
    id: Uuid,
    action: Action,
    origin: &Origin,
    step: impl FnOnce(&mut ServiceAccount, DateTime<Utc>) -> Step + Send + 'static,
) -> Result<ServiceAccount, Error> {
    let found = reachable(app, caller, id).await?;
    let now = app.now();
    let event = app.account_event(caller, action, &found, origin, now)?;
    let taken = app.change_service(now, async move |conn| {
        let mut account = readable(service_accounts::lock(conn, id).await?.ok_or(NOT_FOUND)?.account)?;
        let former = account.clone();
        let step = step(&mut account, now);
        if account == former {
            return Ok((account, Changed::Nothing));
        }
        let changed = match step {
            Step::Store => Changed::Account,
            Step::EndTokens => {
                account.token_version += 1;
                Changed::AccountAnd(end_of_tokens(id, account.token_version))
            }
        };
        account.update_time = now;
        if !service_accounts::update(conn, &account, &former).await? {
            return Err(Error::Conflict);
        }
        audit_events::append(conn, &event).await?;
        Ok((account, changed))
    });
    taken.await
}

fn end_of_tokens(id: Uuid, version: i64) -> Revocation {
    Revocation::UserVersion { user_id: id, version }
}

/// Changes what is given. Where something is taken away, every token that the account holds ends.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    changes: Changes,
    origin: &Origin,
) -> Result<ServiceAccount, Error> {
    let step = move |account: &mut ServiceAccount, _| {
        let former = account.allowed.clone();
        let Changes { display_name, audiences, scopes, grants, own_audiences, token_ttl } = changes;
        account.display_name = display_name.unwrap_or_else(|| account.display_name.clone());
        account.allowed = Allowed {
            audiences: audiences.unwrap_or_else(|| former.audiences.clone()),
            scopes: scopes.unwrap_or_else(|| former.scopes.clone()),
            grants: grants.unwrap_or_else(|| former.grants.clone()),
        };
        account.own_audiences = own_audiences.unwrap_or_else(|| account.own_audiences.clone());
        account.token_ttl = token_ttl.unwrap_or(account.token_ttl);
        if account.allowed.is_less_than(&former) { Step::EndTokens } else { Step::Store }
    };
    take(app, caller, id, Action::UpdateServiceAccount, origin, step).await
}

/// Bars an account and ends its tokens.
pub async fn disable(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<ServiceAccount, Error> {
    let step = |account: &mut ServiceAccount, now| {
        account.disable_time.get_or_insert(now);
        Step::EndTokens
    };
    take(app, caller, id, Action::DisableServiceAccount, origin, step).await
}

/// Lets a disabled account get tokens again.
pub async fn enable(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<ServiceAccount, Error> {
    let step = |account: &mut ServiceAccount, _| {
        account.disable_time = None;
        Step::Store
    };
    take(app, caller, id, Action::EnableServiceAccount, origin, step).await
}

/// Removes an account and its credentials, and ends its tokens. One that makes no sense can be removed too.
pub async fn delete(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<(), Error> {
    let found = reachable(app, caller, id).await?;
    let now = app.now();
    let event = app.account_event(caller, Action::DeleteServiceAccount, &found, origin, now)?;
    let deleted = app.change_service(now, async move |conn| {
        let found = service_accounts::lock(conn, id).await?.ok_or(NOT_FOUND)?;
        service_credentials::delete_of(conn, id).await?;
        if !service_accounts::delete(conn, id).await? {
            return Err(Error::Conflict);
        }
        audit_events::append(conn, &event).await?;
        Ok(((), Changed::AccountAnd(end_of_tokens(id, found.token_version + 1))))
    });
    deleted.await
}
