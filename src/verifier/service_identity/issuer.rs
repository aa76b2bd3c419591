//! The issuer's calls, each in two ways: for the service itself, and for whom it acts for.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::{Extensions, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use tonic::{Code, Request, Response, Status, transport::Channel};

use super::{
    Core, IdentityError,
    cache::Purpose,
    slot::{Kept, Obtain, Obtained},
};
use crate::{
    domain::claims::OWN_AUDIENCE,
    proto::{
        ExchangeTokenRequest, ExchangeTokenResponse, IssueServiceTokenRequest, IssueServiceTokenResponse,
        Tokens, auth_client::AuthClient,
    },
    verifier::{
        attach::{AccessToken, UNBOUND},
        channel::{in_time, patient},
        not_begun,
        signed_in::reason,
    },
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const ISSUE: &str = "/tessera.v1.Auth/IssueServiceToken";
const EXCHANGE: &str = "/tessera.v1.Auth/ExchangeToken";
/// What the token of whom to act for is (RFC 8693 section 3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

/// A token of the service's own.
#[derive(Clone)]
pub(super) struct Issue {
    pub(super) core: Arc<Core>,
    pub(super) purpose: Arc<Purpose>,
}

impl Obtain for Issue {
    fn now(&self) -> DateTime<Utc> {
        self.core.clock.now()
    }

    async fn obtain(&self) -> Result<Obtained, IdentityError> {
        let Purpose { audience, scope, .. } = &*self.purpose;
        let got = self.issue().await;
        match &got {
            Ok(_) => tracing::debug!(?audience, ?scope, "has a new token"),
            Err(error) => tracing::warn!(?audience, ?scope, %error, "has no new token"),
        }
        got
    }
}

impl Issue {
    async fn issue(&self) -> Result<Obtained, IdentityError> {
        let (auth, beside) = self.core.reach.anew().await?;
        let mut answer = self.ask(&auth).await?;
        if answer.as_ref().is_err_and(is_broken) {
            answer = self.ask(&auth).await?;
        }
        // The proof of the key lacked what the issuer tells only now.
        if self.core.showing.is_told(&answer) {
            answer = self.ask(&auth).await?;
        }
        let answer = answer.map_err(|status| IdentityError::of(&status))?;
        self.core.obtained(answer.into_inner().tokens, beside)
    }

    /// Asks once, with a proof that is made for that.
    async fn ask(
        &self,
        auth: &AuthClient<Channel>,
    ) -> Result<Result<Response<IssueServiceTokenResponse>, Status>, IdentityError> {
        let Core { client_id, credential, showing, clock, .. } = &*self.core;
        let request = IssueServiceTokenRequest {
            audience: self.purpose.audience.clone(),
            scope: self.purpose.scope.clone(),
            ..credential.present(client_id, clock.now()).await?
        };
        let request = showing.shown(ISSUE, None, patient(PATIENCE, request));
        let mut auth = auth.clone();
        Ok(in_time(PATIENCE, auth.issue_service_token(request)).await)
    }
}

impl Core {
    /// Takes tokens, but for those that are good in anybody's hands where they were to be bound to a key.
    fn obtained(&self, tokens: Option<Tokens>, beside: Extensions) -> Result<Obtained, IdentityError> {
        let tokens = tokens.ok_or(IdentityError::Interrupted)?;
        if self.showing.has_bound(&tokens) {
            Ok(Obtained { tokens, beside })
        } else {
            Err(IdentityError::Refused(UNBOUND.to_owned()))
        }
    }
}

/// A token with which the service acts for whom it was handed one of.
#[derive(Clone)]
pub(super) struct Exchange {
    pub(super) own: Kept<Issue>,
    pub(super) purpose: Arc<Purpose>,
    pub(super) subject_token: Arc<SecretString>,
}

/// What came of an attempt to exchange.
enum Answer {
    Tokens(Option<Tokens>),
    /// The service's own token was not let in.
    NotLetIn(Status),
    Refused(Status),
}

impl Obtain for Exchange {
    fn now(&self) -> DateTime<Utc> {
        self.own.way.now()
    }

    async fn obtain(&self) -> Result<Obtained, IdentityError> {
        let Purpose { audience, scope, .. } = &*self.purpose;
        let got = self.exchange().await;
        match &got {
            Ok(_) => tracing::debug!(?audience, ?scope, "has a new token to act with"),
            // People log out.
            Err(error @ IdentityError::SubjectRefused(_)) => {
                tracing::info!(?audience, ?scope, %error, "has no token to act with");
            }
            Err(error) => tracing::warn!(?audience, ?scope, %error, "has no token to act with"),
        }
        got
    }
}

impl Exchange {
    async fn exchange(&self) -> Result<Obtained, IdentityError> {
        let mut own = self.own.token().await?;
        let first = self.ask(&own).await?;
        let answer = match first {
            Answer::NotLetIn(_) => {
                own = self.own.replace(own).await?;
                self.ask(&own).await?
            }
            Answer::Refused(status) if is_broken(&status) => self.ask(&own).await?,
            answer => answer,
        };
        match answer {
            // It is bound to the certificate that the service's own is bound to.
            Answer::Tokens(tokens) => self.core().obtained(tokens, own.beside().clone()),
            Answer::NotLetIn(status) => Err(IdentityError::of(&status)),
            Answer::Refused(status) => Err(IdentityError::of_exchange(&status)),
        }
    }

    async fn ask(&self, own: &AccessToken) -> Result<Answer, IdentityError> {
        let auth = self.core().reach.with(own)?;
        let call = not_begun::new_call();
        let mut answer = self.send(&auth, own, &call).await;
        // The service's own token is good, and the proof of its key lacked what the issuer tells only now.
        if self.core().showing.is_told(&answer) {
            answer = self.send(&auth, own, &call).await;
        }
        Ok(match answer {
            Ok(answer) => Answer::Tokens(answer.into_inner().tokens),
            Err(status) => {
                let is_not_begun = not_begun::was_refused(status.metadata().as_ref(), &call);
                if is_not_begun && status.code() == Code::Unauthenticated {
                    Answer::NotLetIn(status)
                } else {
                    Answer::Refused(status)
                }
            }
        })
    }

    async fn send(
        &self,
        auth: &AuthClient<Channel>,
        own: &AccessToken,
        call: &HeaderValue,
    ) -> Result<Response<ExchangeTokenResponse>, Status> {
        let request = ExchangeTokenRequest {
            subject_token: self.subject_token.expose_secret().to_owned(),
            subject_token_type: ACCESS_TOKEN.to_owned(),
            audience: self.purpose.audience.clone(),
            scope: self.purpose.scope.clone(),
            ..ExchangeTokenRequest::default()
        };
        let request = named(patient(PATIENCE, request), own, call);
        let request = self.core().showing.shown(EXCHANGE, Some(own), request);
        let mut auth = auth.clone();
        in_time(PATIENCE, auth.exchange_token(request)).await
    }

    fn core(&self) -> &Core {
        &self.own.way.core
    }
}

/// The service's own token for Tessera, with which it exchanges others.
pub(super) fn own_purpose() -> Purpose {
    Purpose::of(&[OWN_AUDIENCE], &[])
}

fn named<T>(mut request: Request<T>, own: &AccessToken, call: &HeaderValue) -> Request<T> {
    let headers = request.metadata_mut().as_mut();
    not_begun::name(headers, call);
    if let Some(value) = own.header() {
        headers.insert(http::header::AUTHORIZATION, value);
    }
    request
}

/// Whether the connection is what failed, and not the issuer: one from before may lead nowhere by now.
fn is_broken(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::Unavailable | Code::Cancelled | Code::Unknown) && reason(status).is_none()
}
