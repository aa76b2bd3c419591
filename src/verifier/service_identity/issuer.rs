//! The issuer's calls, each in two ways: for the service itself, and for whom it acts for.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use tonic::{Code, Request, Status};

use super::{
    Core, IdentityError,
    cache::Purpose,
    slot::{Kept, Obtain},
};
use crate::{
    domain::claims::OWN_AUDIENCE,
    proto::{ExchangeTokenRequest, IssueServiceTokenRequest, Tokens},
    verifier::{
        attach::AccessToken,
        channel::{in_time, patient},
        not_begun,
        signed_in::reason,
    },
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
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

    async fn obtain(&self) -> Result<Tokens, IdentityError> {
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
    async fn issue(&self) -> Result<Tokens, IdentityError> {
        let answer = match self.ask().await? {
            Err(status) if is_broken(&status) => self.ask().await?,
            answer => answer,
        };
        answer.map_err(|status| IdentityError::of(&status))?.ok_or(IdentityError::Interrupted)
    }

    /// Asks once, with a proof that is made for that.
    async fn ask(&self) -> Result<Result<Option<Tokens>, Status>, IdentityError> {
        let Core { client_id, credential, auth, clock, .. } = &*self.core;
        let request = IssueServiceTokenRequest {
            audience: self.purpose.audience.clone(),
            scope: self.purpose.scope.clone(),
            ..credential.present(client_id, clock.now()).await?
        };
        let mut auth = auth.clone();
        let answer = in_time(PATIENCE, auth.issue_service_token(patient(PATIENCE, request))).await;
        Ok(answer.map(|answer| answer.into_inner().tokens))
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

    async fn obtain(&self) -> Result<Tokens, IdentityError> {
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
    async fn exchange(&self) -> Result<Tokens, IdentityError> {
        let own = self.own.token().await?;
        let answer = match self.ask(&own).await {
            Answer::NotLetIn(_) => self.ask(&self.own.replace(own).await?).await,
            Answer::Refused(status) if is_broken(&status) => self.ask(&own).await,
            answer => answer,
        };
        match answer {
            Answer::Tokens(tokens) => tokens.ok_or(IdentityError::Interrupted),
            Answer::NotLetIn(status) => Err(IdentityError::of(&status)),
            Answer::Refused(status) => Err(IdentityError::of_exchange(&status)),
        }
    }

    async fn ask(&self, own: &AccessToken) -> Answer {
        let request = ExchangeTokenRequest {
            subject_token: self.subject_token.expose_secret().to_owned(),
            subject_token_type: ACCESS_TOKEN.to_owned(),
            audience: self.purpose.audience.clone(),
            scope: self.purpose.scope.clone(),
            ..ExchangeTokenRequest::default()
        };
        let call = not_begun::new_call();
        let request = named(patient(PATIENCE, request), own, &call);
        let mut auth = self.own.way.core.auth.clone();
        match in_time(PATIENCE, auth.exchange_token(request)).await {
            Ok(answer) => Answer::Tokens(answer.into_inner().tokens),
            Err(status) => {
                let is_not_begun = not_begun::was_refused(status.metadata().as_ref(), &call);
                if is_not_begun && status.code() == Code::Unauthenticated {
                    Answer::NotLetIn(status)
                } else {
                    Answer::Refused(status)
                }
            }
        }
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
