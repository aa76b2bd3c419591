//! The issuer's calls.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{Login, Prover, TokenError};
use crate::{
    proto::{Device, LoginRequest, RefreshRequest, Tokens, auth_client::AuthClient},
    verifier::{
        attach::Showing,
        channel::{connect_lazily, in_time, patient},
    },
};

/// How long a login may take: longer than a password waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a refresh is tried, and how long each time. A refresh token that was sent is spent, whether the answer
/// comes or not, and is accepted again for 10 s only (`sessions.refresh_grace`): so the attempts are over by then.
const ATTEMPTS: u32 = 3;
const ATTEMPT: Duration = Duration::from_millis(2500);

const LOGIN: &str = "/tessera.v1.Auth/Login";
const REFRESH: &str = "/tessera.v1.Auth/Refresh";

pub(super) struct Issuer {
    endpoint: Endpoint,
    /// Shows it the key that tokens are to be bound to.
    pub(super) showing: Showing,
}

impl Issuer {
    pub(super) fn new(endpoint: Endpoint, prover: Option<&Prover>) -> Self {
        let showing = Showing::new(prover, Some(endpoint.uri()));
        Self { endpoint, showing }
    }

    /// A connection of its own for each attempt: it is needed rarely, and one from before may lead nowhere by now.
    fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(connect_lazily(self.endpoint.clone()))
    }

    /// Exchanges a refresh token. Where no answer comes, it is sent again.
    pub(super) async fn refresh(&self, refresh_token: &SecretString) -> Result<Tokens, TokenError> {
        let mut attempt = 1;
        loop {
            let next = sleep(ATTEMPT);
            let answer = self.refresh_once(refresh_token).await;
            match answer {
                Err(status) if attempt < ATTEMPTS && is_lost(&status) => {
                    tracing::warn!(attempt, %status, "no answer to a refresh; it is sent again");
                }
                Err(status) => return Err(TokenError::of_refresh(&status)),
                Ok(tokens) => return tokens.ok_or(TokenError::Interrupted),
            }
            next.await;
            attempt += 1;
        }
    }

    async fn refresh_once(&self, refresh_token: &SecretString) -> Result<Option<Tokens>, Status> {
        let message =
            RefreshRequest { refresh_token: refresh_token.expose_secret().to_owned(), device: None };
        let request = || self.showing.shown(REFRESH, None, patient(ATTEMPT, message.clone()));
        let mut answer = in_time(ATTEMPT, self.auth().refresh(request())).await;
        if self.showing.is_told(&answer) {
            answer = in_time(ATTEMPT, self.auth().refresh(request())).await;
        }
        Ok(answer?.into_inner().tokens)
    }

    /// Signs in.
    pub(super) async fn log_in(&self, login: &Login) -> Result<Tokens, TokenError> {
        let request = LoginRequest {
            tenant: login.tenant.clone(),
            username: login.username.clone(),
            password: login.password.expose_secret().to_owned(),
            device: Some(Device {
                r#type: login.device_type.clone(),
                id: login.device_id.clone(),
                name: login.device_name.clone(),
            }),
            audience: login.audience.clone(),
            scope: login.scope.clone(),
        };
        let shown = || self.showing.shown(LOGIN, None, patient(PATIENCE, request.clone()));
        let mut answer = in_time(PATIENCE, self.auth().login(shown())).await;
        if self.showing.is_told(&answer) {
            answer = in_time(PATIENCE, self.auth().login(shown())).await;
        }
        let answer = answer.map_err(|status| TokenError::of_login(&status))?.into_inner();
        if answer.password_change_required {
            return Err(TokenError::Refused("PASSWORD_CHANGE_REQUIRED".to_owned()));
        }
        tracing::info!(username = login.username, "signed in");
        answer.tokens.ok_or(TokenError::Interrupted)
    }
}

/// Whether the issuer may have done what it was asked without being able to say so.
fn is_lost(status: &Status) -> bool {
    let code = status.code();
    matches!(code, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown)
}
