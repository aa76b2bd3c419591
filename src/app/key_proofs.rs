//! Proofs that callers hold a key (DPoP, RFC 9449), and the nonces that these may have to carry.

use secrecy::{ExposeSecret, SecretSlice};

use super::{App, Error};
use crate::verifier::{BadOrigin, KeyProof, KeyProofs, NonceKey, ProofFor};

/// Used proofs that are remembered, some 100 bytes each, for one to two minutes: 500 a second.
const REMEMBERED: usize = 65_536;

/// What proofs of keys must be.
#[derive(Debug, Clone)]
pub struct KeyProofSettings {
    /// Each carries a nonce of ours.
    pub nonce_required: bool,
    /// What they must name beside the path; where there is none, the path alone counts.
    pub origins: Vec<String>,
}

impl KeyProofSettings {
    /// Refuses what names no origin.
    pub fn check(&self) -> Result<(), BadOrigin> {
        self.proofs().map(drop)
    }

    fn proofs(&self) -> Result<KeyProofs, BadOrigin> {
        KeyProofs::default().with_memory(REMEMBERED).only_at(&self.origins)
    }
}

/// What proofs are checked with.
pub(super) struct Proving {
    pub proofs: KeyProofs,
}

impl Proving {
    pub(super) fn new(settings: &KeyProofSettings, refresh_secret: &SecretSlice<u8>) -> Result<Self, Error> {
        let mut proofs = settings.proofs().map_err(|error| Error::Internal(error.to_string()))?;
        if settings.nonce_required {
            let key = NonceKey::derive(refresh_secret.expose_secret());
            proofs = proofs.with_nonces(key.map_err(|error| Error::Internal(error.to_string()))?);
        }
        Ok(Self { proofs })
    }
}

/// A proof that fits its call.
#[derive(Debug)]
pub struct Proved {
    /// The proof.
    pub proof: KeyProof,
    /// What the next one is to carry, where that is something else.
    pub next_nonce: Option<String>,
}

impl App {
    /// Checks the proof that came with a call, but not whether it came with an earlier one: for that it is taken, once it is
    /// known that the caller may call.
    pub fn check_key_proof(&self, proof: &str, made_for: &ProofFor<'_>) -> Result<Proved, Error> {
        let outcome = self.check_proof_and_nonce(proof, made_for);
        if let Err(refusal) = &outcome {
            self.metrics.count_key_proof(Some(refusal));
        }
        outcome
    }

    fn check_proof_and_nonce(&self, proof: &str, made_for: &ProofFor<'_>) -> Result<Proved, Error> {
        let proofs = &self.proving.proofs;
        let (now, leeway) = (self.now(), self.settings.leeway);
        let proof = proofs.check(proof, made_for, now, leeway)?;
        let next_nonce = proofs.check_nonce(&proof, now, leeway).map_err(Error::UseNonce)?;
        Ok(Proved { proof, next_nonce })
    }

    /// Uses a proof, once for the call that it came with. Whether another replica saw it is not known here: what that is
    /// worth is bounded by the proof's age, its call and its token.
    pub fn take_key_proof(&self, proof: &KeyProof) -> Result<(), Error> {
        let taken = self.proving.proofs.take(proof, self.now()).map_err(Error::from);
        self.metrics.count_key_proof(taken.as_ref().err());
        taken
    }
}
