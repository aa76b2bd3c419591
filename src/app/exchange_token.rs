//! Gives a service a token with which it acts for another one (RFC 8693).

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use uuid::Uuid;

use super::{App, Error, ServiceCaller, ServiceToken, record::By, service_cache::Service};
use crate::{
    domain::{
        InvalidField,
        audience::Way,
        audit::{Action, Origin, Target},
        claims::{Actor, Claims, Confirmation, OWN_AUDIENCE, PASSWORD_CHANGE_SCOPE},
        service_account::{Grant, ServiceAccount},
    },
    verifier::{KeyProof, budget::Budget},
};

/// The longest chain of those who act, the newest among them.
const LONGEST_CHAIN: usize = 8;

/// What is asked for.
#[derive(Debug)]
pub struct ExchangeToken {
    /// The token that the service was handed.
    pub subject_token: String,
    /// The service's own, where it says that it acts itself.
    pub actor_token: Option<String>,
    /// Audiences.
    pub audience: Vec<String>,
    /// Scopes.
    pub scope: Vec<String>,
    /// A key that the caller has shown, which the token is to be bound to.
    pub key: Option<Arc<KeyProof>>,
}

/// Checks the subject's token and what the caller may ask for, and signs. Warm, it asks the database nothing.
pub async fn exchange_token(
    app: &App,
    caller: &ServiceCaller,
    asked: ExchangeToken,
    origin: &Origin,
) -> Result<ServiceToken, Error> {
    let outcome = attempt(app, caller, asked, origin).await;
    app.metrics.count_exchange(outcome.as_ref().err());
    outcome
}

async fn attempt(
    app: &App,
    caller: &ServiceCaller,
    asked: ExchangeToken,
    origin: &Origin,
) -> Result<ServiceToken, Error> {
    // Its token was good a moment ago; what it may do is what its account says now.
    let service = app.service(caller.account_id).await?.ok_or(Error::TokenRevoked)?;
    match exchange(app, caller, &service, asked).await {
        Err(refusal) => Err(match budget(&service, &refusal) {
            Some(budget) if budget.take() => record(app, &service, origin, refusal).await,
            _ => refusal,
        }),
        outcome => outcome,
    }
}

/// What a refusal takes its room in the trail from; nothing where the request can't be read, or this server is to blame.
fn budget<'s>(service: &'s Service, refusal: &Error) -> Option<&'s Budget> {
    match refusal {
        Error::InsufficientScope
        | Error::AccountDisabled
        | Error::TenantSuspended
        | Error::InvalidKeyProof(_) => Some(&service.recorded.refused),
        Error::TokenInvalid(_) | Error::TokenExpired | Error::TokenRevoked => Some(&service.recorded.handed),
        _ => None,
    }
}

async fn record(app: &App, service: &Service, origin: &Origin, refusal: Error) -> Error {
    let account = &service.account;
    let by = By { tenant_id: account.tenant_id, actor_id: Some(account.id), origin };
    let target = Target::ServiceAccount(account.id, account.name.clone());
    match app.event(by, Action::ExchangeToken, target, app.now()) {
        Ok(event) => app.record_refusal(event, refusal).await,
        Err(error) => error,
    }
}

async fn exchange(
    app: &App,
    caller: &ServiceCaller,
    service: &Service,
    mut asked: ExchangeToken,
) -> Result<ServiceToken, Error> {
    let account = &service.account;
    if let Some(proof) = &asked.key {
        app.take_key_proof(proof)?;
    }
    if account.disable_time.is_some() {
        return Err(Error::AccountDisabled);
    }
    let is_delegated = check_actor(app, account, asked.actor_token.as_deref()).await?;
    let subject = app.check(&asked.subject_token, &[], None).await?;
    if asked.audience.is_empty() {
        asked.audience = audience_of(&subject)?;
    }
    permit(app, account, &subject, &asked, is_delegated)?;
    // Whoever has to show something with its own token has to show it with this one. A key it has shown with this call.
    let cnf = Confirmation::of(asked.key.as_deref().map(KeyProof::key), caller.certificate());
    let claims = acting(app, account, subject, asked, is_delegated, app.now())?;
    // It is of no use without that certificate, so it ends with it; that the caller's own token ends sooner is no matter.
    let exp = caller.certificate_end().map_or(claims.exp, |end| end.timestamp().min(claims.exp));
    let claims = Claims { cnf, exp, ..claims };
    app.sign_for_service(account, claims, app.now())
}

/// The audience of a token that only gets fewer scopes. At Tessera's own API nobody acts for another one.
fn audience_of(subject: &Claims) -> Result<Vec<String>, InvalidField> {
    let audience: Vec<String> = subject.aud.iter().filter(|name| *name != OWN_AUDIENCE).cloned().collect();
    if audience.is_empty() { Err(InvalidField::new("audience", "is empty")) } else { Ok(audience) }
}

/// Whether the caller is to stand in the token.
async fn check_actor(app: &App, account: &ServiceAccount, token: Option<&str>) -> Result<bool, Error> {
    let Some(token) = token else { return Ok(!account.allowed.grants.contains(&Grant::Impersonation)) };
    let actor = app.check(token, &[], None).await?;
    let is_caller = actor.sub == account.id && actor.service.is_some() && actor.act.is_none();
    if is_caller { Ok(true) } else { Err(InvalidField::new("actor_token", "is not the caller's own").into()) }
}

fn permit(
    app: &App,
    account: &ServiceAccount,
    subject: &Claims,
    asked: &ExchangeToken,
    is_delegated: bool,
) -> Result<(), Error> {
    let grant = if is_delegated { Grant::TokenExchange } else { Grant::Impersonation };
    let scopes: Vec<&str> = asked.scope.iter().map(String::as_str).collect();
    let registry = app.registry();
    registry.check_audiences(&asked.audience)?;
    let (_, tenant_id) = subject.standing().ok_or(Error::TokenInvalid("says nothing of its tenant"))?;
    for tenant_id in [account.tenant_id, tenant_id] {
        registry.check_tenant(tenant_id)?;
    }
    let is_of_tenant = tenant_id == account.tenant_id || account.tenant_id == app.default_tenant_id;
    // Nobody acts for another one at Tessera's own API.
    let is_elsewhere = !asked.audience.iter().any(|audience| audience == OWN_AUDIENCE);
    // Good for changing the password, and for nothing else anywhere.
    let is_whole = !subject.has_scope(PASSWORD_CHANGE_SCOPE);
    // Where it is not said what is meant for it, it is trusted with whatever it was handed: but what is bound is of use to
    // those alone whom its holder calls.
    let is_free = account.own_audiences.is_empty() && subject.cnf.is_none();
    let is_its_own = is_free || account.owns(subject);
    // That is no more than a token for itself.
    let is_for_itself = subject.sub == account.id && subject.hands().all(|hand| hand.sub == account.id);
    let is_allowed = is_of_tenant
        && is_its_own
        && is_whole
        && is_elsewhere
        && account.allowed.allows(grant, &asked.audience, &scopes)
        && registry.allow(&asked.audience, Way::Service(grant))
        && (!is_for_itself || registry.allow(&asked.audience, Way::Service(Grant::ClientCredentials)))
        && scopes.iter().all(|scope| subject.has_scope(scope))
        && registry.have_scopes(&asked.audience, &scopes)
        && subject.hands().count() < LONGEST_CHAIN;
    if is_allowed { Ok(()) } else { Err(Error::InsufficientScope) }
}

/// The subject's claims as the new token has them: never for longer, never wider.
fn acting(
    app: &App,
    account: &ServiceAccount,
    subject: Claims,
    asked: ExchangeToken,
    is_delegated: bool,
    now: DateTime<Utc>,
) -> Result<Claims, Error> {
    let ttl = account.token_ttl.unwrap_or(app.settings.service_ttl);
    let end = app.registry().end_of_token(&asked.audience, now + ttl, now);
    let has = |scope: &str| asked.scope.iter().any(|asked| asked == scope);
    let mut user = subject.user;
    if let Some(user) = &mut user {
        user.email = user.email.take().filter(|_| has("email"));
        user.preferred_username = user.preferred_username.take().filter(|_| has("profile"));
    }
    let (mut act, mut via) = (subject.act, subject.via);
    let actor = Actor { sub: account.id, ver: account.token_version, act: None };
    if is_delegated {
        act = Some(Box::new(Actor { act, ..actor }));
    } else {
        via.push(actor);
    }
    let id: Uuid = app.rng.random_id()?;
    Ok(Claims {
        iss: subject.iss,
        sub: subject.sub,
        aud: asked.audience,
        exp: end.trunc_subsecs(0).timestamp().min(subject.exp),
        iat: now.timestamp(),
        nbf: now.timestamp(),
        jti: id.to_string(),
        client_id: account.id.to_string(),
        scope: asked.scope.join(" "),
        user,
        service: subject.service,
        act,
        via,
        // The subject's own key stays with the subject.
        cnf: None,
    })
}
