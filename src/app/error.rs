//! What a verb can refuse or fail with. The words of `reason` are the contract's.

use crate::{
    crypto::{CryptoError, passwords::HashError, sealing::CannotOpen},
    domain::{Inconsistent, InvalidField, audience::NotNow, issuer_key::OutOfOrder},
    models::{StoreError, TxError},
    verifier::{NotTaken, Refusal},
};

/// Why a verb did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is not what it must be.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// What should be a token is none.
    #[error("that is not a token")]
    TokenMalformed,
    /// There is no token.
    #[error("a bearer token is needed")]
    TokenMissing,
    /// The token is not one of ours, or not for here. The text is for logs.
    #[error("the token is not valid here: {0}")]
    TokenInvalid(&'static str),
    /// The token's time, or its session's, has passed.
    #[error("the token has expired")]
    TokenExpired,
    /// The token, or its session, was ended.
    #[error("the token was revoked")]
    TokenRevoked,
    /// The proof that the caller holds a key is not good.
    #[error("the proof of the key is not good: {0}")]
    InvalidKeyProof(&'static str),
    /// The proof that the caller holds a key must carry this.
    #[error("the proof of the key must carry the nonce that comes with this answer")]
    UseNonce(String),
    /// The refresh token was spent before.
    #[error("the refresh token was used before; its session has ended")]
    TokenReused,
    /// A refresh comes from elsewhere than its session does.
    #[error("the refresh comes from another network or device; sign in again")]
    ReauthenticationRequired,
    /// There is no such user, or the password is wrong.
    #[error("unknown user or wrong password")]
    InvalidCredentials,
    /// The user was disabled.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The token is good for changing the password only.
    #[error("the password must be changed first")]
    PasswordChangeRequired,
    /// Nobody can sign up.
    #[error("sign-up is closed")]
    SignupClosed,
    /// The caller may not do this.
    #[error("this needs a role or scope that the token does not carry")]
    InsufficientScope,
    /// It is not there, or not for this caller to see.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Its name is taken.
    #[error("there is such a {0} already")]
    AlreadyExists(&'static str),
    /// Something changed meanwhile; trying again may help.
    #[error("something changed meanwhile")]
    Conflict,
    /// Too many passwords wait to be hashed.
    #[error("too many logins at once")]
    Overloaded,
    /// No RSA key is left for a new session.
    #[error("no key is left for a new session; more are being made")]
    NoSpareKey,
    /// Too many verifiers or clients follow the trust log.
    #[error("too many watch already")]
    TooManyWatchers,
    /// Too many proofs of keys were used of late.
    #[error("too many proofs of keys at once")]
    TooManyKeyProofs,
    /// The caller did this too often.
    #[error("too often; try again later")]
    RateLimited,
    /// The tenant was suspended.
    #[error("the tenant is suspended")]
    TenantSuspended,
    /// The server is about to stop: another one, or a later one, will answer.
    #[error("the server stops; try again")]
    Stopping,
    /// What is asked of an issuer key does not follow from where it stands.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// What is asked of an audience can't be done now.
    #[error(transparent)]
    NotNow(#[from] NotNow),
    /// There is no issuer key that may sign. The text is for logs.
    #[error("nothing can be signed: {0}")]
    CannotSign(String),
    /// The database is away.
    #[error("the database is away: {0}")]
    StoreUnavailable(String),
    /// What lies sealed in the database can't be opened.
    #[error(transparent)]
    Sealed(#[from] CannotOpen),
    /// Our own fault. The text is for logs and for nobody else.
    #[error("internal: {0}")]
    Internal(String),
}

impl Error {
    /// The contract's word for it.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_FIELD",
            Self::TokenMalformed => "TOKEN_MALFORMED",
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid(_) => "TOKEN_INVALID",
            Self::TokenExpired => "TOKEN_EXPIRED",
            Self::TokenRevoked => "TOKEN_REVOKED",
            Self::InvalidKeyProof(_) => "INVALID_DPOP_PROOF",
            Self::UseNonce(_) => "USE_DPOP_NONCE",
            Self::TokenReused => "TOKEN_REUSED",
            Self::ReauthenticationRequired => "REAUTHENTICATION_REQUIRED",
            Self::InvalidCredentials => "INVALID_CREDENTIALS",
            Self::AccountDisabled => "ACCOUNT_DISABLED",
            Self::PasswordChangeRequired => "PASSWORD_CHANGE_REQUIRED",
            Self::SignupClosed => "SIGNUP_CLOSED",
            Self::InsufficientScope => "INSUFFICIENT_SCOPE",
            Self::NotFound(_) => "NOT_FOUND",
            Self::AlreadyExists(_) => "ALREADY_EXISTS",
            Self::Conflict => "CONFLICT",
            Self::TenantSuspended => "TENANT_SUSPENDED",
            Self::Overloaded | Self::NoSpareKey | Self::TooManyWatchers | Self::TooManyKeyProofs => {
                "OVERLOADED"
            }
            Self::RateLimited => "RATE_LIMITED",
            Self::Stopping => "STOPPING",
            Self::OutOfOrder(_) | Self::NotNow(_) => "OUT_OF_ORDER",
            Self::CannotSign(_) => "SIGNING_UNAVAILABLE",
            Self::StoreUnavailable(_) => "STORE_UNAVAILABLE",
            Self::Sealed(_) | Self::Internal(_) => "INTERNAL",
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(text) | StoreError::Lost(text) => Self::StoreUnavailable(text),
            StoreError::Taken(_) | StoreError::Conflict(_) => Self::Conflict,
            StoreError::Inconsistent(_) | StoreError::Query(_) => Self::Internal(error.to_string()),
        }
    }
}

impl TxError for Error {
    fn is_away(&self) -> bool {
        matches!(self, Self::StoreUnavailable(_))
    }
}

impl From<Inconsistent> for Error {
    fn from(error: Inconsistent) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<CryptoError> for Error {
    fn from(error: CryptoError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<HashError> for Error {
    fn from(error: HashError) -> Self {
        match error {
            HashError::Overloaded => Self::Overloaded,
            HashError::Crypto(error) => error.into(),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed => Self::TokenMalformed,
            Refusal::Invalid(why) => Self::TokenInvalid(why),
            Refusal::UnknownKey => Self::TokenInvalid("signed with a key that is not known"),
            Refusal::NotHolder => Self::TokenInvalid("bound to what the caller has not shown"),
            Refusal::BadProof(why) => Self::InvalidKeyProof(why),
            Refusal::Expired => Self::TokenExpired,
            Refusal::Revoked => Self::TokenRevoked,
        }
    }
}

impl From<NotTaken> for Error {
    fn from(not_taken: NotTaken) -> Self {
        match not_taken {
            NotTaken::Again => Self::InvalidKeyProof("it was used before"),
            NotTaken::Full => Self::TooManyKeyProofs,
        }
    }
}
