//! Makes a user of a person who asks for it, and signs it in.

use secrecy::SecretString;

use super::{App, Error, SignedIn, login::Wishes, record::By, users::NewUser};
use crate::{
    domain::{
        InvalidField,
        audit::{Action, Origin, Target},
        tenant,
    },
    models::{tenants, users},
};

/// Who wants to be a user.
#[derive(Debug)]
pub struct SignUp {
    /// The tenant's name.
    pub tenant: String,
    /// The user; without roles.
    pub user: NewUser,
    /// The password in its one form.
    pub password: SecretString,
    /// What is asked for.
    pub wishes: Wishes,
}

/// Makes the user and starts its first session, both or neither.
pub async fn sign_up(app: &App, sign_up: SignUp, origin: &Origin) -> Result<SignedIn, Error> {
    if !app.settings.signup_open {
        return Err(Error::SignupClosed);
    }
    let SignUp { tenant, user, password, wishes } = sign_up;
    app.check_new_password("password", &password, &user.username)?;
    let no_tenant = || InvalidField::new("tenant", "names no tenant");
    let tenant = tenant::parse_name("tenant", &tenant).map_err(|_| no_tenant())?;
    let tenant = app.store.read(async |conn| tenants::find_by_name(conn, &tenant).await).await?;
    let tenant = tenant.ok_or_else(no_tenant)?;
    if tenant.is_suspended() {
        return Err(Error::TenantSuspended);
    }
    let hash = app.hasher.hash(password).await?;

    let now = app.now();
    let user = user.into_user(app.ids.next(now)?, tenant.id, now);
    let prepared = app.prepare_session(&user, wishes, origin, now)?;
    let by = By { tenant_id: tenant.id, actor_id: Some(user.id), origin };
    let event = app.event(by, Action::SignUp, Target::User(user.id), now)?;
    let begun = app.change(now, async move |conn| {
        users::insert(conn, &user, &hash).await.map_err(super::users::name_taken)?;
        prepared.store(conn, &user, &event).await
    });
    app.sign_in(begun.await?)
}
