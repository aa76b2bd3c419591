//! What there is to measure.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{Core, contact::Standing};

/// What a service exports of its verifier. Counts begin at its start.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// How old what is known is; `None` if the issuer was never heard of. Worth an alarm beyond some 15 s.
    pub staleness: Option<Duration>,
    /// Whether the issuer is heard.
    pub is_connected: bool,
    /// The revision of the trust log that was reached.
    pub revision: i64,
    /// Revocations that are held.
    pub revocations: usize,
    /// Issuer keys that are held.
    pub issuer_keys: usize,
    /// Checked session keys that are remembered.
    pub remembered_keys: usize,
    /// Checked tokens that are remembered.
    pub remembered_tokens: usize,
    /// Checks that found their token among those.
    pub remembered_token_hits: u64,
    /// Unknown keys that the issuer was asked for.
    pub key_lookups: u64,
    /// Its answers to that which are remembered, ten thousand at most.
    pub remembered_lookups: usize,
    /// Unknown keys that it was not asked for, since too many were unknown.
    pub key_lookups_spared: u64,
    /// Tokens that the issuer was asked about.
    pub tokens_asked: u64,
    /// Tokens that were refused since what is known was too old.
    pub stale_refusals: u64,
    /// Times that contact was lost.
    pub disconnects: u64,
    /// Entries of the trust log that this release doesn't understand: update it.
    pub unknown_entries: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) lookups: AtomicU64,
    pub(super) spared: AtomicU64,
    pub(super) asked: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) disconnects: AtomicU64,
    pub(super) unknown_entries: AtomicU64,
}

impl Core {
    pub(super) fn figures(&self) -> Figures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { lookups, spared, asked, stale, disconnects, unknown_entries } = &self.counters;
        Figures {
            staleness: self.contact.staleness(),
            is_connected: *self.contact.standing().borrow() == Standing::Connected,
            revision: self.verifier.trust().revision(),
            revocations: self.verifier.trust().len(),
            issuer_keys: self.verifier.issuer_keys().len(),
            remembered_keys: self.verifier.remembered_keys(),
            remembered_tokens: self.verifier.remembered_tokens(),
            remembered_token_hits: self.verifier.remembered_token_hits(),
            key_lookups: count(lookups),
            remembered_lookups: self.lookups.remembered(),
            key_lookups_spared: count(spared),
            tokens_asked: count(asked),
            stale_refusals: count(stale),
            disconnects: count(disconnects),
            unknown_entries: count(unknown_entries),
        }
    }
}
