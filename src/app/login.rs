//! Signs a person in.

pub use super::start_session::Wishes;
use super::{App, Error, SignedIn, record::By};
use crate::{
    crypto::passwords::Verdict,
    domain::{
        audit::{Action, Event, Origin, Target},
        tenant,
    },
    models::users::{self, Credentials, Named},
};
use secrecy::{ExposeSecret, SecretString};

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
    app.policy.check_length("password", login.password.expose_secret())?;
    match compare_and_begin(app, &login, origin).await {
        // Another login renewed the hash, or the password was changed: it is to be compared with the new one.
        Err(Error::Conflict) => compare_and_begin(app, &login, origin).await,
        outcome => outcome,
    }
}

async fn compare_and_begin(app: &App, login: &Login, origin: &Origin) -> Result<SignedIn, Error> {
    let Named { tenant_id, is_suspended, credentials } = find(app, &login.tenant, &login.username).await?;
    let target = credentials.as_ref().map_or(Target::None, |credentials| Target::User(credentials.user.id));
    let by = By { tenant_id, actor_id: None, origin };
    let mut event = app.event(by, Action::Login, target, app.now())?;

    let stored = credentials.as_ref().map(|credentials| credentials.password_hash.clone());
    let verdict = app.hasher.verify(login.password.clone(), stored).await?;
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
    // Nobody is known to have acted before the password was right.
    event.actor_id = Some(credentials.user.id);
    if is_suspended {
        return Err(app.record_refusal(event, Error::TenantSuspended).await);
    }
    if credentials.user.disable_time.is_some() {
        return Err(app.record_refusal(event, Error::AccountDisabled).await);
    }
    begin(app, credentials, new_hash, login.wishes.clone(), event).await
}

/// Whom a login names, and in which tenant. The trail of the tenant `default` shows attempts at tenants that
/// don't exist.
async fn find(app: &App, tenant: &str, username: &str) -> Result<Named, Error> {
    let nobody = Named { tenant_id: app.default_tenant_id, ..Named::default() };
    if tenant::parse_name("tenant", tenant).is_err() {
        return Ok(nobody);
    }
    let found = app.store.read(async |conn| users::find_by_name(conn, tenant, username).await).await?;
    Ok(found.unwrap_or(nobody))
}

async fn begin(
    app: &App,
    credentials: Credentials,
    new_hash: String,
    wishes: Wishes,
    event: Event,
) -> Result<SignedIn, Error> {
    let Credentials { user, password_hash } = credentials;
    let now = app.now();
    let prepared = match app.prepare_session(&user, wishes, &event.origin, now) {
        // Whoever has guessed the password leaves a trace, whatever else was wrong.
        Err(refusal) => return Err(app.record_refusal(event, refusal).await),
        Ok(prepared) => prepared,
    };
    let begun = app.change(now, async move |conn| {
        let user = users::admit(conn, user.id, &password_hash, &new_hash).await?.ok_or(Error::Conflict)?;
        prepared.store(conn, &user, &event).await
    });
    app.sign_in(begun.await?)
}
