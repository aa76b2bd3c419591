//! How a token source is made.

use std::{
    fmt,
    sync::{Arc, RwLock, atomic::AtomicBool},
};

use secrecy::SecretString;
use tokio::sync::Mutex;
use tonic::transport::Endpoint;

use super::{
    Backoff, Budget, Flight, Issuer, LONGEST_WAIT, LONGEST_WAIT_OF_REFUSED, Prover, REFUSED_AT_ONCE,
    REFUSED_EVERY, Source, TokenSource,
};
use crate::{
    clock::{Clock, SystemClock},
    verifier::HolderKey,
};

/// Who signs in, from what, for what; as `Auth.Login` takes it.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// The tenant's name; empty means `default`.
    pub tenant: String,
    /// The user's name.
    pub username: String,
    /// The password.
    pub password: SecretString,
    /// The type of the device; empty means `web`. By default a user has one session for each type: give each program
    /// its own, or they end each other's sessions.
    pub device_type: String,
    /// What this one device is called; may be empty.
    pub device_id: String,
    /// A name for people; may be empty.
    pub device_name: String,
    /// The services that the token is for.
    pub audience: Vec<String>,
    /// The scopes that it is to carry.
    pub scope: Vec<String>,
}

/// How the first token is got.
#[derive(Clone)]
pub enum SignIn {
    /// With a password.
    Password(Login),
    /// With the refresh token of a session that has begun elsewhere. It is spent by that: where its successors must
    /// outlive the program, sign in with a password instead.
    RefreshToken(SecretString),
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password(login) => f.debug_tuple("Password").field(&login.username).finish(),
            Self::RefreshToken(_) => f.write_str("RefreshToken(..)"),
        }
    }
}

/// What to do where the session is over: logged out elsewhere, expired, its refresh token used by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnSessionEnd {
    /// Sign in again, where there is a password.
    #[default]
    LogInAgain,
    /// Stop: every further call ends with [`super::TokenError::SessionEnded`]. Where somebody may have stolen the
    /// refresh token, a person should have a look first.
    GiveUp,
}

/// Says how a client signs in; [`Self::build`] makes its token source.
#[must_use]
pub struct TokenSourceBuilder {
    endpoint: Result<Endpoint, tonic::transport::Error>,
    sign_in: SignIn,
    on_session_end: OnSessionEnd,
    clock: Arc<dyn Clock>,
    key: Option<HolderKey>,
}

impl TokenSource {
    /// Signs in at the issuer at this endpoint: a URL, or an [`Endpoint`] with TLS and timeouts of its own. Over a
    /// network that others share, use TLS: the password goes there.
    pub fn sign_in<E>(endpoint: E, sign_in: SignIn) -> TokenSourceBuilder
    where
        E: TryInto<Endpoint>,
        E::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        TokenSourceBuilder {
            endpoint: Endpoint::new(endpoint),
            sign_in,
            on_session_end: OnSessionEnd::default(),
            clock: Arc::new(SystemClock),
            key: None,
        }
    }
}

impl TokenSourceBuilder {
    /// What to do where the session is over; [`OnSessionEnd::LogInAgain`] unless said otherwise.
    pub fn on_session_end(mut self, on_session_end: OnSessionEnd) -> Self {
        self.on_session_end = on_session_end;
        self
    }

    /// Asks this clock for the time, and not the machine's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Has its tokens bound to this key (DPoP, RFC 9449), and shows it with each call that it attaches them to: who takes a
    /// token, or the refresh token, can do nothing with it. A session that began elsewhere must be bound to it already.
    ///
    /// The proofs name the path of the method that is called; where the service wants its origin too, tell the generated
    /// client with `with_origin`.
    pub fn bound_to_key(mut self, key: HolderKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Makes it. Nothing is asked of the issuer before the first token is.
    ///
    /// # Errors
    /// If the endpoint is none, or its TLS settings are of no use.
    pub fn build(self) -> Result<TokenSource, tonic::transport::Error> {
        let prover = self.key.map(|key| Prover::new(key, self.clock.clone()));
        let issuer = Issuer::new(self.endpoint?, prover.as_ref());
        let refresh_token = match &self.sign_in {
            SignIn::Password(_) => None,
            SignIn::RefreshToken(token) => Some(token.clone()),
        };
        Ok(TokenSource(Arc::new(Source {
            issuer,
            sign_in: self.sign_in,
            on_session_end: self.on_session_end,
            clock: self.clock,
            prover,
            held: RwLock::default(),
            flight: Mutex::new(Flight {
                refresh_token,
                failure: None,
                backoff: Backoff::up_to(LONGEST_WAIT),
                backoff_of_refused: Backoff::up_to(LONGEST_WAIT_OF_REFUSED),
            }),
            is_renewing: AtomicBool::default(),
            refused: Budget::new(REFUSED_AT_ONCE, REFUSED_EVERY),
        })))
    }
}
