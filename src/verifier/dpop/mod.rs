//! Proofs that whoever calls holds a key (DPoP, RFC 9449): checked against the call that they came with, and good once.
//!
//! [`KeyProof`] is one that fits its call; [`KeyProofs`] remembers those that were used. The two are apart since a proof
//! costs nobody anything: it is remembered once it is known that who brought it may call, and no stranger fills the memory.
//! [`HolderKey`] makes them. A [`NonceKey`] makes what they may have to carry.

mod holder;
mod nonce;
mod origin;
mod proof;
mod spent;

use chrono::{DateTime, TimeDelta, Utc};

use super::Refusal;
pub use holder::{BadHolderKey, HolderKey};
pub use nonce::{BadNonceSecret, NonceKey};
pub use origin::BadOrigin;
use origin::Origin;
pub use proof::{KeyProof, ProofFor};
use spent::Spent;

/// Why a proof that fits is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It was used before.
    #[error("the proof was used before")]
    Again,
    /// So many were used of late that another one can't be remembered. Worth another try.
    #[error("too many proofs of keys at once")]
    Full,
}

/// What proofs must be here, and those that were used: each is good once, at each `KeyProofs`.
#[derive(Debug)]
pub struct KeyProofs {
    origins: Vec<Origin>,
    nonces: Option<NonceKey>,
    spent: Spent,
}

impl Default for KeyProofs {
    fn default() -> Self {
        Self { origins: Vec::new(), nonces: None, spent: Spent::up_to(Self::REMEMBERS_AT_MOST) }
    }
}

impl KeyProofs {
    /// Used proofs that are remembered until they are too old, at about 100 bytes each. Further ones are refused until then:
    /// to forget one earlier would let it be used again. Once half of them are taken, of one key there may be a twentieth.
    pub const REMEMBERS_AT_MOST: usize = 500_000;

    /// Remembers up to so many, instead of [`Self::REMEMBERS_AT_MOST`].
    #[must_use]
    pub fn with_memory(mut self, proofs: usize) -> Self {
        self.spent = Spent::up_to(proofs);
        self
    }

    /// Takes only proofs that name one of these, as `https://orders.example.com`, beside the path. Unless this is said, the
    /// path alone counts: behind a proxy a service doesn't know by which name it was called.
    ///
    /// # Errors
    /// If one of them is no http or https URL without a path.
    pub fn only_at<I: IntoIterator<Item: AsRef<str>>>(mut self, origins: I) -> Result<Self, BadOrigin> {
        let origins = origins.into_iter().map(|text| text.as_ref().parse());
        self.origins = origins.collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Takes only proofs that carry a nonce of this key, and so were made within the last two minutes, whatever their client's
    /// clock says. A [`Guard`](super::Guard) tells it with `USE_DPOP_NONCE`, and the next one with the answers; so does whoever
    /// checks by hand with what [`Self::check_nonce`] gives.
    #[must_use]
    pub fn with_nonces(mut self, key: NonceKey) -> Self {
        self.nonces = Some(key);
        self
    }

    /// Checks the nonce of a proof, where one is demanded; gives what the next one is to carry instead, if anything.
    ///
    /// # Errors
    /// The nonce that the proof should have carried.
    pub fn check_nonce(
        &self,
        proof: &KeyProof,
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<Option<String>, String> {
        self.nonces.as_ref().map_or(Ok(None), |nonces| nonces.check(proof.nonce(), now, leeway))
    }

    /// Checks a proof, but neither its nonce nor whether it was used before.
    ///
    /// # Errors
    /// [`Refusal::BadProof`], with the reason.
    pub fn check(
        &self,
        proof: &str,
        made_for: &ProofFor<'_>,
        now: DateTime<Utc>,
        leeway: TimeDelta,
    ) -> Result<KeyProof, Refusal> {
        KeyProof::check(proof, made_for, &self.origins, now, leeway)
    }

    /// Uses it, once for the call that it came with.
    ///
    /// # Errors
    /// If it came with an earlier call, or if no more can be remembered.
    pub fn take(&self, proof: &KeyProof, now: DateTime<Utc>) -> Result<(), NotTaken> {
        if !proof.is_taken() {
            self.spent.take(proof.key(), proof.id(), proof.end(), now.timestamp())?;
            proof.set_taken();
        }
        Ok(())
    }

    /// How many are remembered, once those are forgotten that are too old now.
    pub fn remembered(&self, now: DateTime<Utc>) -> usize {
        self.spent.len(now.timestamp())
    }
}
