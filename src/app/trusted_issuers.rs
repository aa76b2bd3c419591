//! Registers other issuers whose tokens are believed.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    App, Caller, Error, Page, Paged,
    foreign_keys::{FetchState, Trusted},
    record::By,
};
use crate::{
    domain::{
        InvalidField,
        algorithm::Algorithm,
        audit::{Action, Event, Origin, Target},
        trusted_issuer::{ClaimMapping, KeySource, MOST, TrustedIssuer},
    },
    models::{StoreError, audit_events, trust_log, trusted_issuers},
    verifier::PublicKey,
};

/// What is to be registered.
#[derive(Debug)]
pub struct NewIssuer {
    /// The claim `iss` of its tokens.
    pub issuer: String,
    /// The name to show.
    pub display_name: String,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Audiences of which a token must carry one.
    pub audiences: Vec<String>,
    /// Algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// What its claims are called here.
    pub claim_mapping: ClaimMapping,
}

/// What is to change of one. What is not given stays.
#[derive(Debug, Default)]
pub struct Changes {
    /// The name to show.
    pub display_name: Option<String>,
    /// Where its keys come from.
    pub keys: Option<KeySource>,
    /// Audiences of which a token must carry one.
    pub audiences: Option<Vec<String>>,
    /// Algorithms that are accepted.
    pub algorithms: Option<Vec<Algorithm>>,
    /// What its claims are called here.
    pub claim_mapping: Option<ClaimMapping>,
}

/// A trusted issuer as an admin sees it.
#[derive(Debug)]
pub struct IssuerInfo {
    /// What is registered.
    pub issuer: TrustedIssuer,
    /// How this server fares with fetching its keys.
    pub fetch: FetchState,
}

impl App {
    fn of_trusted_issuer(
        &self,
        caller: &Caller,
        origin: &Origin,
        action: Action,
        target: Target,
    ) -> Result<Event, Error> {
        let by = By { tenant_id: self.default_tenant_id, actor_id: Some(caller.user_id), origin };
        self.event(by, action, target, self.now())
    }

    /// The one that is in use, of those that make sense.
    fn trusted(&self, issuer: &TrustedIssuer) -> Option<Arc<Trusted>> {
        self.registry().trusted_issuer(&issuer.issuer).filter(|trusted| trusted.record.id == issuer.id)
    }

    fn issuer_info(&self, issuer: TrustedIssuer) -> IssuerInfo {
        let fetch = self.trusted(&issuer).map(|trusted| trusted.keys.fetch_state()).unwrap_or_default();
        IssuerInfo { issuer, fetch }
    }

    /// Takes it up. Its keys are fetched at once, and it is registered whether or not that succeeds.
    async fn take_up(self: &Arc<Self>, issuer: TrustedIssuer) -> Result<IssuerInfo, Error> {
        self.reload_registry().await?;
        if let Some(trusted) = self.trusted(&issuer) {
            self.fetch_first(&trusted.keys).await?;
        }
        Ok(self.issuer_info(issuer))
    }
}

/// Refuses a registered set without a key that can be used, or with one that must not be here.
fn check_keys(keys: &KeySource, algorithms: &[Algorithm]) -> Result<(), InvalidField> {
    if let KeySource::Json(json) = keys {
        PublicKey::from_foreign_jwks(json.as_bytes(), algorithms)
            .map_err(|bad| InvalidField::new("jwks_json", bad.to_string()))?;
    }
    Ok(())
}

/// Registers an issuer.
pub async fn create(
    app: &Arc<App>,
    caller: &Caller,
    new: NewIssuer,
    origin: &Origin,
) -> Result<IssuerInfo, Error> {
    caller.require_root()?;
    if new.issuer == app.settings.issuer {
        return Err(InvalidField::new("issuer", "is our own; a foreign key must not sign as us").into());
    }
    check_keys(&new.keys, &new.algorithms)?;
    let now = app.now();
    let issuer = TrustedIssuer {
        id: app.ids.next(now)?,
        issuer: new.issuer,
        display_name: new.display_name,
        keys: new.keys,
        audiences: new.audiences,
        algorithms: new.algorithms,
        claim_mapping: new.claim_mapping,
        create_time: now,
        update_time: now,
    };
    let target = Target::TrustedIssuer(issuer.id, issuer.issuer.clone());
    let event = app.of_trusted_issuer(caller, origin, Action::CreateTrustedIssuer, target)?;
    let created = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that nobody adds another one after they were counted.
        trust_log::raise_registry(conn).await?;
        if trusted_issuers::count(conn).await? >= MOST {
            return Err(InvalidField::new("issuer", format!("is one too many: {MOST} are registered")).into());
        }
        trusted_issuers::insert(conn, &issuer).await.map_err(|error| match error {
            StoreError::Taken(_) => Error::AlreadyExists("trusted issuer"),
            error => error.into(),
        })?;
        audit_events::append(conn, &event).await?;
        Ok(issuer)
    });
    app.take_up(created.await?).await
}

/// Changes what is given. Tokens are checked by it at once, by other replicas within the poll interval.
pub async fn update(
    app: &Arc<App>,
    caller: &Caller,
    id: Uuid,
    changes: Changes,
    origin: &Origin,
) -> Result<IssuerInfo, Error> {
    caller.require_root()?;
    let issuer = app.store.read(async move |conn| trusted_issuers::find(conn, id).await).await?;
    let name = issuer.ok_or(Error::NotFound("trusted issuer"))?.issuer;
    let target = Target::TrustedIssuer(id, name);
    let event = app.of_trusted_issuer(caller, origin, Action::UpdateTrustedIssuer, target)?;
    let now = app.now();
    let updated = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that of two changes at once the later one sees the earlier.
        trust_log::raise_registry(conn).await?;
        let mut issuer = trusted_issuers::find(conn, id).await?.ok_or(Error::NotFound("trusted issuer"))?;
        issuer.display_name = changes.display_name.unwrap_or(issuer.display_name);
        issuer.keys = changes.keys.unwrap_or(issuer.keys);
        issuer.audiences = changes.audiences.unwrap_or(issuer.audiences);
        issuer.algorithms = changes.algorithms.unwrap_or(issuer.algorithms);
        issuer.claim_mapping = changes.claim_mapping.unwrap_or(issuer.claim_mapping);
        issuer.update_time = now;
        check_keys(&issuer.keys, &issuer.algorithms)?;
        if !trusted_issuers::update(conn, &issuer).await? {
            return Err(Error::Conflict);
        }
        audit_events::append(conn, &event).await?;
        Ok(issuer)
    });
    app.take_up(updated.await?).await
}

/// Removes an issuer: its tokens are refused from now on, by other replicas within the poll interval.
pub async fn delete(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<(), Error> {
    caller.require_root()?;
    // Named once it is known; one that makes no sense can be removed too.
    let target = Target::TrustedIssuer(id, String::new());
    let mut event = app.of_trusted_issuer(caller, origin, Action::DeleteTrustedIssuer, target)?;
    let deleted = app.store.tx::<_, Error, _>(async move |conn| {
        trust_log::raise_registry(conn).await?;
        let name = trusted_issuers::delete(conn, id).await?.ok_or(Error::NotFound("trusted issuer"))?;
        event.target_name = Some(name);
        audit_events::append(conn, &event).await?;
        Ok(())
    });
    deleted.await?;
    app.reload_registry().await
}

/// One of them.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<IssuerInfo, Error> {
    caller.require_root()?;
    let issuer = app.store.read(async move |conn| trusted_issuers::find(conn, id).await).await?;
    Ok(app.issuer_info(issuer.ok_or(Error::NotFound("trusted issuer"))?))
}

/// The trusted issuers, newest first, without those that make no sense.
pub async fn list(app: &App, caller: &Caller, page: Page) -> Result<Paged<IssuerInfo>, Error> {
    caller.require_root()?;
    let slice = page.slice();
    let found = app.store.read(async move |conn| trusted_issuers::list(conn, slice).await).await?;
    let Paged { items, next } = page.cut(found, |found| found.id);
    let items = items.into_iter().filter_map(|found| match found.issuer {
        Ok(issuer) => Some(app.issuer_info(issuer)),
        Err(error) => {
            tracing::error!(id = %found.id, %error, "a trusted issuer makes no sense");
            None
        }
    });
    Ok(Paged { items: items.collect(), next })
}
