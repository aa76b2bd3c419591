//! Brings the figures that are not counted but looked up into the metrics.

use super::App;

impl App {
    /// Looks all of them up.
    pub fn observe(&self) {
        let hasher = &self.hasher;
        self.metrics.observe_hashing(hasher.waiting(), hasher.free_threads(), hasher.kept_bytes());
        for pool in self.store.pools() {
            self.metrics.observe_pool(pool);
        }
        for (cache, entries) in self.memories().into_iter().chain(self.registry().sizes()) {
            self.metrics.observe_cache(cache, entries);
        }
        self.metrics.observe_keys(self.ring().keys(), self.now());
        self.metrics.observe_revision(self.verifier.trust().revision());
        self.metrics.observe_followers(self.feed.followers());
        self.metrics.observe_trust_age(self.feed.age());
    }

    /// What is remembered, and how much of it.
    fn memories(&self) -> [(&'static str, usize); 10] {
        let (opened, damaged) = self.opened_spare_keys.sizes();
        [
            ("session_makers", self.makers.len()),
            ("service_accounts", self.services.len()),
            ("sessions_seen", self.last_seen.len()),
            ("key_proofs", self.proving.proofs.remembered(self.now())),
            ("endorsed_keys", self.verifier.remembered_keys()),
            ("checked_tokens", self.verifier.remembered_tokens()),
            ("revocations", self.verifier.trust().len()),
            ("trust_log", self.feed.remembered()),
            ("opened_spare_keys", opened),
            ("damaged_spare_keys", damaged),
        ]
    }
}
