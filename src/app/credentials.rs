//! Gives service accounts what they prove themselves with, and takes it away.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use super::{App, Caller, Error, record::By, service_accounts::reachable, service_cache::Changed};
use crate::{
    crypto::client_secret::ClientSecret,
    domain::{
        InvalidField,
        algorithm::Algorithm,
        audit::{Action, Event, Origin, Target},
        certificate::Named,
        service_account::{Credential, Federated, MOST_CREDENTIALS, Proof},
        trusted_issuer::KeySource,
    },
    models::{audit_events, service_accounts, service_accounts::Found, service_credentials},
    verifier::PublicKey,
};

/// What a new credential is to be.
#[derive(Debug)]
pub enum NewProof {
    /// A secret that is made here.
    ClientSecret,
    /// A key whose owner signs assertions.
    PrivateKeyJwt(KeySource),
    /// Tokens of a trusted issuer.
    Federated(Federated),
    /// A certificate.
    Mtls(Named),
}

/// A new credential, and its secret where it is one.
#[derive(Debug)]
pub struct Created {
    /// The credential.
    pub credential: Credential,
    /// Told this once.
    pub client_secret: Option<SecretString>,
}

/// The longest JWK set of a credential, in bytes: every server holds those that are in use.
pub(super) const LONGEST_JWKS: usize = 8 * 1024;

const NOT_FOUND: Error = Error::NotFound("service account");

fn event(
    app: &App,
    caller: &Caller,
    action: Action,
    credential_id: Uuid,
    account: &Found,
    origin: &Origin,
) -> Result<Event, Error> {
    let by = By { tenant_id: account.tenant_id, actor_id: Some(caller.user_id), origin };
    app.event(by, action, Target::Credential(credential_id, account.name.clone()), app.now())
}

/// Gives an account another credential.
pub async fn create(
    app: &App,
    caller: &Caller,
    account_id: Uuid,
    proof: NewProof,
    expire_time: Option<DateTime<Utc>>,
    origin: &Origin,
) -> Result<Created, Error> {
    let account = reachable(app, caller, account_id).await?;
    let now = app.now();
    if expire_time.is_some_and(|time| time <= now) {
        return Err(InvalidField::new("expire_time", "has passed").into());
    }
    let (proof, client_secret) = match proof {
        NewProof::ClientSecret => {
            let secret = ClientSecret::new(&*app.rng)?;
            (Proof::ClientSecret(secret.digest()), Some(secret.to_text()))
        }
        NewProof::PrivateKeyJwt(keys) => {
            check_keys(caller, &keys)?;
            (Proof::PrivateKeyJwt(keys), None)
        }
        NewProof::Federated(federated) => {
            if app.registry().trusted_issuer(&federated.issuer).is_none() {
                return Err(InvalidField::new("federated", "has an `issuer` that is not trusted here").into());
            }
            (Proof::Federated(federated), None)
        }
        NewProof::Mtls(named) => (Proof::Mtls(named), None),
    };
    let credential = Credential {
        id: app.ids.next(now)?,
        service_account_id: account_id,
        proof,
        create_time: now,
        expire_time,
    };
    let event = event(app, caller, Action::CreateCredential, credential.id, &account, origin)?;
    let created = app.change_service(now, async move |conn| {
        // Held, so that of two at once the later one counts the earlier, and nobody removes the account.
        service_accounts::lock(conn, account_id).await?.ok_or(NOT_FOUND)?;
        let others = service_credentials::of_account(conn, account_id).await?;
        let is_over = |other: &Credential| !other.is_good(now);
        let (over, good): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, other)| other.as_ref().is_ok_and(is_over));
        if good.len() >= MOST_CREDENTIALS {
            let problem = format!("has {MOST_CREDENTIALS} credentials, and no more can be good at once");
            return Err(InvalidField::new("service_account_id", problem).into());
        }
        for (id, _) in over {
            service_credentials::delete(conn, account_id, id).await?;
        }
        service_credentials::insert(conn, &credential).await?;
        audit_events::append(conn, &event).await?;
        Ok((credential, Changed::Account))
    });
    let credential = created.await?;
    Ok(Created { credential, client_secret })
}

/// Refuses a registered set without a key that can be used, or with one that must not be here. An address is for admins of
/// the tenant `default` to give: this server asks it, from where it stands.
fn check_keys(caller: &Caller, keys: &KeySource) -> Result<(), Error> {
    let KeySource::Json(json) = keys else { return caller.require_root() };
    let refuse = |problem: String| Error::from(InvalidField::new("private_key_jwt.jwks_json", problem));
    if json.len() > LONGEST_JWKS {
        return Err(refuse(format!("is longer than {} KiB", LONGEST_JWKS / 1024)));
    }
    let keys = PublicKey::from_foreign_jwks(json.as_bytes(), &Algorithm::ALL);
    keys.map(drop).map_err(|bad| refuse(bad.to_string()))
}

/// Ends a credential: no token is got with it any more.
pub async fn revoke(
    app: &App,
    caller: &Caller,
    account_id: Uuid,
    id: Uuid,
    origin: &Origin,
) -> Result<(), Error> {
    let account = reachable(app, caller, account_id).await?;
    let event = event(app, caller, Action::RevokeCredential, id, &account, origin)?;
    let revoked = app.change_service(app.now(), async move |conn| {
        if !service_credentials::delete(conn, account_id, id).await? {
            return Err(Error::NotFound("credential"));
        }
        audit_events::append(conn, &event).await?;
        Ok(((), Changed::Account))
    });
    revoked.await
}
