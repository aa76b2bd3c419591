//! Gives a service a token for others (RFC 6749 section 4.4).

use std::sync::Arc;

use uuid::Uuid;

pub use super::prove::Presented;
use super::{App, Error, ServiceToken, record::By};
use crate::{
    domain::{
        audience::Way,
        audit::{Action, Origin, Target},
        claims::Confirmation,
        service_account::{Grant, ServiceAccount},
    },
    verifier::KeyProof,
};

/// What is asked for.
#[derive(Debug)]
pub struct IssueServiceToken {
    /// Who asks. The nil id is nobody's.
    pub client_id: Uuid,
    /// What it proves that with.
    pub proof: Presented,
    /// Audiences; none means the configured ones.
    pub audience: Vec<String>,
    /// Scopes, separated by spaces.
    pub scope: String,
    /// A key that the token is to be bound to.
    pub key: Option<Arc<KeyProof>>,
}

/// Checks who asks and what it may ask for, and signs. Warm, it asks the database nothing; it writes only that an
/// assertion is used, or why it refused.
pub async fn issue_service_token(
    app: &Arc<App>,
    asked: IssueServiceToken,
    origin: &Origin,
) -> Result<ServiceToken, Error> {
    let outcome = attempt(app, asked, origin).await;
    app.metrics.count_service_token(outcome.as_ref().err());
    outcome
}

async fn attempt(app: &Arc<App>, asked: IssueServiceToken, origin: &Origin) -> Result<ServiceToken, Error> {
    let service = app.service(asked.client_id).await?.ok_or(Error::InvalidCredentials)?;
    if let Err(refusal) = app.prove(&service, &asked.proof).await {
        return Err(match refusal {
            // A client id is no secret: whoever knows one could fill the trail. The metrics count every refusal.
            Error::InvalidCredentials if service.recorded.guessed.take() => {
                // Nobody is known to have acted.
                record(app, &service.account, None, origin, refusal).await
            }
            refusal => refusal,
        });
    }
    let account = &service.account;
    let permitted = permit(app, account, &asked).and_then(|audience| {
        asked.key.as_deref().map_or(Ok(()), |proof| app.take_key_proof(proof))?;
        Ok(audience)
    });
    match permitted {
        Ok(audience) => {
            let key = asked.key.as_deref().map(KeyProof::key);
            let cnf = Confirmation::of(key, asked.proof.certificate());
            app.issue_to_service(account, audience, asked.scope, cnf, asked.proof.expire_time(), app.now())
        }
        // That there is no room for it says nothing of the account.
        Err(Error::TooManyKeyProofs) => Err(Error::TooManyKeyProofs),
        Err(refusal) if service.recorded.refused.take() => {
            Err(record(app, account, Some(account.id), origin, refusal).await)
        }
        Err(refusal) => Err(refusal),
    }
}

async fn record(
    app: &App,
    account: &ServiceAccount,
    actor_id: Option<Uuid>,
    origin: &Origin,
    refusal: Error,
) -> Error {
    let by = By { tenant_id: account.tenant_id, actor_id, origin };
    let target = Target::ServiceAccount(account.id, account.name.clone());
    match app.event(by, Action::IssueServiceToken, target, app.now()) {
        // In a box: so rare that no call should carry the room for it.
        Ok(event) => Box::pin(app.record_refusal(event, refusal)).await,
        Err(error) => error,
    }
}

/// What the token will be for, where it may be asked for.
fn permit(app: &App, account: &ServiceAccount, asked: &IssueServiceToken) -> Result<Vec<String>, Error> {
    if account.disable_time.is_some() {
        return Err(Error::AccountDisabled);
    }
    let registry = app.registry();
    registry.check_tenant(account.tenant_id)?;
    let audience = if asked.audience.is_empty() { &app.settings.default_audience } else { &asked.audience };
    registry.check_audiences(audience)?;
    let scopes: Vec<&str> = asked.scope.split_ascii_whitespace().collect();
    let grant = Grant::ClientCredentials;
    let is_allowed = account.allowed.allows(grant, audience, &scopes)
        && registry.allow(audience, Way::Service(grant))
        && registry.have_scopes(audience, &scopes);
    if is_allowed { Ok(audience.clone()) } else { Err(Error::InsufficientScope) }
}
