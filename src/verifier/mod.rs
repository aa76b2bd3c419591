//! Checks access tokens in-process: the code that other services import and that Tessera itself uses.
//!
//! A [`Verifier`] holds the issuer's few keys and checks every session's token with them, through the
//! endorsement that the token carries. It asks nobody: no database, no call, no clock of its own.
//!
//! | file or folder | owns |
//! | --- | --- |
//! | `connected/` | [`Verifier::connect`]: a verifier that hears of revocations and keys as they happen |
//! | `call_token.rs` | [`CallToken`]: where such a verifier gets the token that its own calls carry |
//! | `guard/` | [`Guard`]: the tower layer in front of a service's methods |
//! | `dpop/` | [`KeyProofs`]: what a caller shows who holds a key (RFC 9449) |
//! | `signed_in/` | [`TokenSource`]: the other side, a client that keeps itself signed in |
//! | `service_identity/` | [`ServiceIdentity`]: the same for a service, which proves itself and calls on for others |
//! | `attach/` | [`WithToken`]: a channel whose calls carry the token of either |
//! | `certificate_files/` | [`CertificateFiles`]: a service's own certificate, which is replaced while it runs (feature `tls`) |
//!
//! Must not enter: anything of the server. It knows [`crate::domain`]'s claims and the generated contract.

mod attach;
mod bound;
pub(crate) mod budget;
mod call_token;
mod certificate;
#[cfg(feature = "tls")]
mod certificate_files;
mod channel;
mod checked;
mod checking;
mod claims;
mod connected;
#[cfg(feature = "encryption")]
mod decryption;
mod dpop;
mod endorsed;
mod files;
mod foreign;
mod foreign_keys;
mod guard;
mod header;
mod key;
pub(crate) mod not_begun;
mod said;
mod service_identity;
mod shared;
mod signed_in;
mod trust;
pub mod wire;

use std::sync::{Arc, PoisonError, RwLock};

use chrono::TimeDelta;
use quick_cache::sync::Cache;

pub use attach::{AccessToken, TokenLayer, WithToken};
pub use bound::Shown;
pub use call_token::{CallToken, CallTokenFuture};
pub use certificate::{ClientCertificate, certificate_thumbprint};
#[cfg(feature = "tls")]
pub use certificate_files::{CertificateFiles, CertifiedChannel};
use checked::CheckedTokens;
pub use connected::{ConnectBuilder, ConnectedVerifier, Denial, Figures, OnStale, Standing, StartError};
#[cfg(feature = "encryption")]
pub use decryption::DecryptionKey;
pub use dpop::{
    BadHolderKey, BadNonceSecret, BadOrigin, HolderKey, KeyProof, KeyProofs, NonceKey, NotTaken, ProofFor,
};
use endorsed::EndorsedKey;
pub use foreign::{ClientAssertion, ForeignIssuer, Once};
pub use foreign_keys::BadKeySet;
pub use guard::{ClaimsOf, Guard, GuardInterceptor, Guarded, Requirement, Scheme, bearer, credentials};
pub use key::{BadKey, PublicKey};
pub use service_identity::{
    Credential, IdentityError, IdentityFigures, ServiceIdentity, ServiceIdentityBuilder, ServiceTokens,
};
use shared::Shared;
pub use shared::SharedKey;
pub use signed_in::{Login, OnSessionEnd, SignIn, TokenError, TokenSource, TokenSourceBuilder};
pub use trust::{TrustState, Until};

/// Why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token at all.
    #[error("not a token")]
    Malformed,
    /// Its signature, issuer, audience or form is not what it must be; the text is for logs.
    #[error("{0}")]
    Invalid(&'static str),
    /// Neither an issuer key nor an endorsed one signed it, as far as is known here.
    #[error("unknown key")]
    UnknownKey,
    /// Its time has passed.
    #[error("the token has expired")]
    Expired,
    /// It is bound to a key or a certificate (RFC 7800) that its holder has not shown.
    #[error("the token is another one's to use")]
    NotHolder,
    /// The proof that its holder has a key is not good, or not there; the text may be told.
    #[error("the proof of the key is not good: {0}")]
    BadProof(&'static str),
    /// It ended before its time.
    #[error("the token was revoked")]
    Revoked,
}

/// What a token must be beside genuine.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The issuer, exactly.
    pub issuer: String,
    /// One audience that it must be for; `None` accepts any.
    pub audience: Option<String>,
    /// How far clocks may differ: at most five minutes where revocations count, which the issuer forgets after that.
    pub leeway: TimeDelta,
}

/// Checks tokens of one issuer.
pub struct Verifier {
    issuer_keys: RwLock<Arc<[PublicKey]>>,
    endorsed: Cache<String, Arc<EndorsedKey>>,
    trust: TrustState,
    shared: Shared,
    checked: CheckedTokens,
    #[cfg(feature = "encryption")]
    decryption: decryption::Decryption,
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl Verifier {
    /// Checked session keys that are remembered: what bounds its memory, however many sessions there are.
    pub const REMEMBERS_AT_MOST: usize = 10_000;

    /// A verifier that holds these issuer keys and knows of no revocation yet.
    pub fn new(issuer_keys: Vec<PublicKey>) -> Self {
        Self {
            issuer_keys: RwLock::new(issuer_keys.into()),
            endorsed: Cache::new(Self::REMEMBERS_AT_MOST),
            trust: TrustState::default(),
            shared: Shared::default(),
            checked: CheckedTokens::default(),
            #[cfg(feature = "encryption")]
            decryption: decryption::Decryption::default(),
        }
    }

    /// A verifier that holds the keys of a JWK set, as `Keys.GetJwks` and `/.well-known/jwks.json` give it.
    pub fn from_jwks(json: &str) -> Result<Self, BadKey> {
        Ok(Self::new(PublicKey::from_jwks(json)?))
    }

    /// Also takes tokens signed with these secrets, which the issuer shares with this audience: only where
    /// [`Expected`] names it, and the token is for it alone.
    #[must_use]
    pub fn with_shared_secrets(mut self, audience: &str, secrets: Vec<SharedKey>) -> Self {
        self.shared = Shared { audience: audience.to_owned(), secrets };
        self
    }

    /// Decrypts tokens that come encrypted to one of these keys, and still takes those that are only signed.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn with_decryption_keys(mut self, keys: Vec<DecryptionKey>) -> Self {
        self.decryption.keys = keys;
        self
    }

    /// Refuses tokens that are only signed.
    #[cfg(feature = "encryption")]
    #[must_use]
    pub fn require_encryption(mut self) -> Self {
        self.decryption.is_required = true;
        self
    }

    /// Remembers up to so many checked session keys, instead of [`Self::REMEMBERS_AT_MOST`].
    #[must_use]
    pub fn with_session_keys(mut self, keys: usize) -> Self {
        self.endorsed = Cache::new(keys);
        self
    }

    /// Remembers up to so many tokens that were good, at about 1 KiB each, so that the next check of one costs no
    /// signature. Its end, its revocation and the withdrawal of the key behind it still count at once.
    #[must_use]
    pub fn with_token_cache(mut self, tokens: usize) -> Self {
        self.checked = CheckedTokens::up_to(tokens);
        self
    }

    /// Takes other issuer keys from now on.
    pub fn set_issuer_keys(&self, keys: Vec<PublicKey>) {
        *self.issuer_keys.write().unwrap_or_else(PoisonError::into_inner) = keys.into();
    }

    /// The revocations that it knows of.
    pub fn trust(&self) -> &TrustState {
        &self.trust
    }

    /// How many checked session keys it remembers.
    pub fn remembered_keys(&self) -> usize {
        self.endorsed.len()
    }

    /// How many checked tokens it remembers.
    pub fn remembered_tokens(&self) -> usize {
        self.checked.len()
    }

    /// How many checks found their token among those.
    pub fn remembered_token_hits(&self) -> u64 {
        self.checked.hits()
    }

    /// Its issuer keys.
    pub(crate) fn issuer_keys(&self) -> Arc<[PublicKey]> {
        self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The token inside one that came encrypted; any other as it is.
    pub(crate) fn signed<'t>(&self, token: &'t str) -> Result<std::borrow::Cow<'t, str>, Refusal> {
        #[cfg(feature = "encryption")]
        return self.decryption.signed(token);
        #[cfg(not(feature = "encryption"))]
        Ok(token.into())
    }

    fn issuer_key(&self, kid: &str) -> Option<PublicKey> {
        let keys = self.issuer_keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find(|key| key.kid() == kid).cloned()
    }
}
