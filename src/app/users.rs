//! Makes, shows and changes users, and bars them.

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{
    App, Caller, Error, Page, Paged,
    caller::{administered_tenant, reachable_user},
    end_sessions::end_all,
    record::By,
    renew_profiles::renew,
};
use crate::{
    domain::{
        InvalidField,
        audit::{Action, Event, Origin, Target},
        claims::ADMIN_ROLE,
        session::EndReason,
        trust::Revocation,
        user::User,
    },
    models::{Conn, StoreError, audit_events, users},
};

/// What a new user is to be.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// The name in its one form.
    pub username: String,
    /// The e-mail address.
    pub email: Option<String>,
    /// The name to show.
    pub display_name: String,
    /// The roles.
    pub roles: Vec<String>,
    /// The password must be changed at the first login.
    pub password_change_required: bool,
}

/// What is to change of a user.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// The e-mail address, or none.
    pub email: Option<Option<String>>,
    /// The name to show.
    pub display_name: Option<String>,
    /// The roles, instead of all former ones.
    pub roles: Option<Vec<String>>,
}

impl NewUser {
    pub(super) fn into_user(self, id: Uuid, tenant_id: Uuid, now: DateTime<Utc>) -> User {
        User {
            id,
            tenant_id,
            username: self.username,
            email: self.email,
            display_name: self.display_name,
            roles: self.roles,
            disable_time: None,
            password_change_required: self.password_change_required,
            token_version: 0,
            create_time: now,
            update_time: now,
        }
    }
}

impl App {
    pub(super) fn check_new_password(
        &self,
        field: &'static str,
        password: &SecretString,
        username: &str,
    ) -> Result<(), InvalidField> {
        self.policy.check_new(field, password.expose_secret(), username)
    }
}

pub(super) fn name_taken(error: StoreError) -> Error {
    match error {
        StoreError::Taken(_) => Error::AlreadyExists("user"),
        error => error.into(),
    }
}

/// Makes a user in a tenant, the caller's own where none is named.
pub async fn create(
    app: &App,
    caller: &Caller,
    tenant: &str,
    new: NewUser,
    password: SecretString,
    origin: &Origin,
) -> Result<User, Error> {
    app.check_new_password("password", &password, &new.username)?;
    let tenant_id = administered_tenant(app, caller, tenant).await?.id;
    let hash = app.hasher.hash(password).await?;
    let now = app.now();
    let user = new.into_user(app.ids.next(now)?, tenant_id, now);
    let event = app.user_event(caller, Action::CreateUser, &user, origin, now)?;
    let created = app.store.tx::<_, Error, _>(async move |conn| {
        users::insert(conn, &user, &hash).await.map_err(name_taken)?;
        audit_events::append(conn, &event).await?;
        Ok(user)
    });
    created.await
}

/// One user.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<User, Error> {
    reachable_user(app, caller, id).await
}

/// A tenant's users, newest first.
pub async fn list(app: &App, caller: &Caller, tenant: &str, page: Page) -> Result<Paged<User>, Error> {
    let tenant_id = administered_tenant(app, caller, tenant).await?.id;
    let slice = page.slice();
    let found = app.store.read(async move |conn| users::list(conn, tenant_id, slice).await).await?;
    Ok(page.cut(found, |user| user.id))
}

/// Changes what is given. Where roles are taken away, the tokens that carry them end at once; the sessions
/// live on, and their next tokens say what the user is now.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    changes: Changes,
    origin: &Origin,
) -> Result<User, Error> {
    let user = reachable_user(app, caller, id).await?;
    let drops_admin =
        changes.roles.as_ref().is_some_and(|roles| !roles.iter().any(|role| role == ADMIN_ROLE));
    if drops_admin && caller.user_id == id {
        return Err(InvalidField::new("roles", "would take the role `admin` from yourself").into());
    }
    let now = app.now();
    let event = app.user_event(caller, Action::UpdateUser, &user, origin, now)?;
    let changed = app.change(now, async move |conn| {
        let user = users::lock(conn, id).await?.ok_or(Error::NotFound("user"))?;
        let (user, revocations) = apply(conn, user, changes, now).await?;
        audit_events::append(conn, &event).await?;
        Ok((user, revocations))
    });
    changed.await
}

async fn apply(
    conn: &mut Conn,
    mut user: User,
    changes: Changes,
    now: DateTime<Utc>,
) -> Result<(User, Vec<Revocation>), Error> {
    let mut revocations = Vec::new();
    if let Some(roles) = changes.roles {
        if user.roles.iter().any(|role| !roles.contains(role)) {
            user.token_version += 1;
            revocations.push(Revocation::UserVersion { user_id: user.id, version: user.token_version });
        }
        user.roles = roles;
    }
    if let Some(email) = changes.email {
        user.email = email;
    }
    if let Some(display_name) = changes.display_name {
        user.display_name = display_name;
    }
    user.update_time = now;
    if !users::update(conn, &user).await? {
        return Err(Error::Conflict);
    }
    renew(conn, &user, None).await?;
    Ok((user, revocations))
}

/// Bars a user and ends its sessions and tokens; says how many sessions were live.
pub async fn disable(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<(User, u32), Error> {
    let user = reachable_user(app, caller, id).await?;
    if caller.user_id == id {
        return Err(InvalidField::new("user_id", "is your own").into());
    }
    let now = app.now();
    let event = app.user_event(caller, Action::DisableUser, &user, origin, now)?;
    let disabled = app.change(now, async move |conn| {
        let mut user = users::lock(conn, id).await?.ok_or(Error::NotFound("user"))?;
        if user.disable_time.is_some() {
            return Ok(((user, 0), Vec::new()));
        }
        user.disable_time = Some(now);
        let (ended, revocation) = end_all(conn, &mut user, EndReason::UserDisabled, now).await?;
        audit_events::append(conn, &event).await?;
        Ok(((user, ended), vec![revocation]))
    });
    disabled.await
}

/// Lets a disabled user sign in again.
pub async fn enable(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<User, Error> {
    let user = reachable_user(app, caller, id).await?;
    let now = app.now();
    let event = app.user_event(caller, Action::EnableUser, &user, origin, now)?;
    let enabled = app.store.tx::<_, Error, _>(async move |conn| {
        let mut user = users::lock(conn, id).await?.ok_or(Error::NotFound("user"))?;
        if user.disable_time.take().is_some() {
            user.update_time = now;
            if !users::update(conn, &user).await? {
                return Err(Error::Conflict);
            }
            audit_events::append(conn, &event).await?;
        }
        Ok(user)
    });
    enabled.await
}

impl App {
    fn user_event(
        &self,
        caller: &Caller,
        action: Action,
        user: &User,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Event, Error> {
        let by = By { tenant_id: user.tenant_id, actor_id: Some(caller.user_id), origin };
        self.event(by, action, Target::User(user.id), now)
    }
}
