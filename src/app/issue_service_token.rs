//! Gives a service a token for others (RFC 6749 section 4.4).

use std::sync::Arc;

use uuid::Uuid;

pub use super::prove::Presented;
use super::{App, Error, ServiceToken, record::By, service_cache::Service};
use crate::domain::{
    audience::Way,
    audit::{Action, Origin, Target},
    service_account::Grant,
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
    let by = By { tenant_id: service.account.tenant_id, actor_id: None, origin };
    let target = Target::ServiceAccount(service.account.id, service.account.name.clone());
    let mut event = app.event(by, Action::IssueServiceToken, target, app.now())?;
    if let Err(refusal) = app.prove(&service, &asked.proof).await {
        return Err(match refusal {
            // A client id is no secret: whoever knows one could fill the trail. The metrics count every refusal.
            Error::InvalidCredentials if service.recorded.take() => app.record_refusal(event, refusal).await,
            refusal => refusal,
        });
    }
    // Nobody is known to have acted before it was proved.
    event.actor_id = Some(service.account.id);
    match permit(app, &service, &asked) {
        Ok(audience) => app.issue_to_service(&service.account, audience, asked.scope, app.now()),
        Err(refusal) => Err(app.record_refusal(event, refusal).await),
    }
}

/// What the token will be for, where it may be asked for.
fn permit(app: &App, service: &Service, asked: &IssueServiceToken) -> Result<Vec<String>, Error> {
    let account = &service.account;
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
