//! Proofs that whoever calls holds a key (DPoP, RFC 9449): checked against the call that they came with, and good once.
//!
//! [`KeyProof`] is one that fits its call; [`KeyProofs`] remembers those that were used. The two are apart since a proof
//! costs nobody anything: it is remembered once it is known that who brought it may call, and no stranger fills the memory.
//! [`HolderKey`] makes them.

mod holder;
mod origin;
mod proof;
mod spent;

use chrono::{DateTime, TimeDelta, Utc};

use super::Refusal;
pub use holder::{BadHolderKey, HolderKey};
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
    spent: Spent,
}

impl Default for KeyProofs {
    fn default() -> Self {
        Self { origins: Vec::new(), spent: Spent::up_to(Self::REMEMBERS_AT_MOST) }
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

    /// Checks a proof, but not whether it was used before.
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
