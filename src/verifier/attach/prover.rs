//! Shows the key that tokens are bound to (RFC 9449), with what the service told last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderMap, HeaderValue, Method};
use tonic::Status;

use crate::{
    clock::Clock,
    verifier::{HolderKey, ProofFor, signed_in::reason},
};

const PROOF: &str = "dpop";
/// Where a server tells what the next proof is to carry.
pub(in crate::verifier) const NONCE: &str = "dpop-nonce";

/// Makes the proofs for one service. Cheap to clone.
#[derive(Clone)]
pub struct Prover {
    key: HolderKey,
    clock: Arc<dyn Clock>,
    nonce: Arc<Mutex<Option<String>>>,
}

impl Prover {
    pub(in crate::verifier) fn new(key: HolderKey, clock: Arc<dyn Clock>) -> Self {
        Self { key, clock, nonce: Arc::default() }
    }

    /// One for another service.
    pub(in crate::verifier) fn apart(&self) -> Self {
        Self::new(self.key.clone(), self.clock.clone())
    }

    /// Its key.
    pub(in crate::verifier) fn key(&self) -> &HolderKey {
        &self.key
    }

    /// Adds a proof to the headers of a call of this path or URL.
    pub(in crate::verifier) fn show(&self, headers: &mut HeaderMap, path: &str, token: Option<&str>) {
        let made_for = ProofFor { method: Method::POST.as_str(), path, token };
        let nonce = self.nonce().clone();
        let proof = self.key.prove(&made_for, nonce.as_deref(), self.clock.now()).ok();
        let Some(mut proof) = proof.and_then(|proof| HeaderValue::try_from(proof).ok()) else {
            tracing::error!("can't prove that it has its key");
            return;
        };
        // It comes once: in HPACK's table it would only push others out.
        proof.set_sensitive(true);
        headers.insert(PROOF, proof);
    }

    /// Takes up what an answer tells; says whether it tells anything.
    pub(in crate::verifier) fn hear(&self, headers: &HeaderMap) -> bool {
        let told = headers.get(NONCE).and_then(|told| told.to_str().ok());
        if let Some(told) = told {
            *self.nonce() = Some(told.to_owned());
        }
        told.is_some()
    }

    /// The same of a refusal; says whether that is what the proof lacked.
    pub(in crate::verifier) fn hear_refusal(&self, status: &Status) -> bool {
        let is_told = self.hear(status.metadata().as_ref());
        is_told && reason(status).as_deref() == Some("USE_DPOP_NONCE")
    }

    fn nonce(&self) -> MutexGuard<'_, Option<String>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
