//! Signs a person in.

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

pub use super::start_session::Wishes;
use super::{App, Error, SignedIn, record::By};
use crate::{
    crypto::passwords::Verdict,
    domain::audit::{Action, Event, Origin, Target},
    models::users::{self, Credentials},
};

/// Who wants to sign in, and with what.
#[derive(Debug)]
pub struct Login {
    /// The tenant's name.
    pub tenant: String,
    /// The user's name in its one form.
    pub username: String,
    /// The password in its one form.
    pub password: SecretString,
    /// What is asked for.
    pub wishes: Wishes,
}

/// Compares the password and starts a session. An unknown tenant, an unknown user and a wrong password get
/// the same answer after the same work.
pub async fn login(app: &App, login: Login, origin: &Origin) -> Result<SignedIn, Error> {
    let outcome = attempt(app, login, origin).await;
    app.metrics.count_login(outcome.as_ref().err());
    outcome
}

async fn attempt(app: &App, login: Login, origin: &Origin) -> Result<SignedIn, Error> {
    let Login { tenant, username, password, wishes } = login;
    app.policy.check_length("password", password.expose_secret())?;
    let found = app.store.read(async |conn| users::find_by_name(conn, &tenant, &username).await).await?;
    let (tenant_id, credentials) = match found {
        Some((tenant_id, credentials)) => (tenant_id, credentials),
        // The trail of the tenant `default` shows attempts at tenants that don't exist.
        None => (app.default_tenant_id, None),
    };
    let user_id = credentials.as_ref().map(|credentials| credentials.user.id);
    let event = login_event(app, tenant_id, user_id, origin)?;

    let stored = credentials.as_ref().map(|credentials| credentials.password_hash.clone());
    let verdict = app.hasher.verify(password, stored).await?;
    let (credentials, new_hash) = match (credentials, verdict) {
        (None, _) | (_, Verdict::Wrong) => {
            return Err(app.record_refusal(event, Error::InvalidCredentials).await);
        }
        (Some(credentials), Verdict::RightRehashed(hash)) => (credentials, hash),
        (Some(credentials), Verdict::Right) => {
            let hash = credentials.password_hash.clone();
            (credentials, hash)
        }
    };
    if credentials.user.disable_time.is_some() {
        return Err(app.record_refusal(event, Error::AccountDisabled).await);
    }
    begin(app, credentials, new_hash, wishes, event).await
}

async fn begin(
    app: &App,
    credentials: Credentials,
    new_hash: String,
    wishes: Wishes,
    event: Event,
) -> Result<SignedIn, Error> {
    let Credentials { user, password_hash } = credentials;
    let prepared = app.prepare_session(&user, wishes, &event.origin, app.now())?;
    let begun = app.store.tx(async move |conn| {
        let user = users::admit(conn, user.id, &password_hash, &new_hash).await?.ok_or(Error::Conflict)?;
        prepared.store(conn, &user, &event).await
    });
    app.sign_in(begun.await?)
}

fn login_event(app: &App, tenant_id: Uuid, user_id: Option<Uuid>, origin: &Origin) -> Result<Event, Error> {
    let target = user_id.map_or(Target::None, Target::User);
    app.event(By { tenant_id, actor_id: user_id, origin }, Action::Login, target, app.now())
}
