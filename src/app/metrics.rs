//! What is counted, for Prometheus.

use std::{sync::atomic::AtomicU64, time::Duration};

use chrono::{DateTime, Utc};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::Error;
use crate::{
    domain::issuer_key::{IssuerKey, Life},
    models::PoolState,
};

/// One RPC and the code that it ended with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CallLabels {
    /// Its path, as `/tessera.v1.Auth/Login`.
    pub method: &'static str,
    /// The name of the gRPC code.
    pub code: &'static str,
}

/// One RPC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabel {
    /// Its path.
    pub method: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolLabels {
    pool: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    algorithm: &'static str,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AlgorithmLabel {
    algorithm: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TableLabel {
    table: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CacheLabel {
    cache: &'static str,
}

type Latencies = Family<MethodLabel, Histogram, fn() -> Histogram>;

/// The counters of one server.
pub struct Metrics {
    registry: Registry,
    /// RPCs by path and code.
    pub calls: Family<CallLabels, Counter>,
    /// Seconds that RPCs took, by path.
    pub latencies: Latencies,
    logins: Family<Outcome, Counter>,
    refreshes: Family<Outcome, Counter>,
    service_tokens: Family<Outcome, Counter>,
    exchanges: Family<Outcome, Counter>,
    key_proofs: Family<Outcome, Counter>,
    verifications: Family<Outcome, Counter>,
    reuses: Counter,
    tail_failures: Counter,
    unknown_entries: Counter,
    hash_waiting: Gauge,
    hash_free: Gauge,
    hash_memory: Gauge,
    pools: Family<PoolLabels, Gauge>,
    caches: Family<CacheLabel, Gauge>,
    revision: Gauge,
    followers: Gauge,
    trust_age: Gauge<f64, AtomicU64>,
    spare_keys: Gauge,
    spare_keys_made: Counter,
    rotation_failures: Counter,
    issuer_keys: Family<KeyLabels, Gauge>,
    issuer_key_age: Family<AlgorithmLabel, Gauge>,
    foreign_fetches: Family<Outcome, Counter>,
    cleaned: Family<TableLabel, Counter>,
    cleanup_rounds: Counter,
    cleanup_failures: Counter,
}

/// Upper bounds in seconds.
const LATENCIES: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

fn latency_histogram() -> Histogram {
    Histogram::new(LATENCIES)
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("tessera"),
            calls: Family::default(),
            latencies: Family::new_with_constructor(latency_histogram),
            logins: Family::default(),
            refreshes: Family::default(),
            service_tokens: Family::default(),
            exchanges: Family::default(),
            key_proofs: Family::default(),
            verifications: Family::default(),
            reuses: Counter::default(),
            tail_failures: Counter::default(),
            unknown_entries: Counter::default(),
            hash_waiting: Gauge::default(),
            hash_free: Gauge::default(),
            hash_memory: Gauge::default(),
            pools: Family::default(),
            caches: Family::default(),
            revision: Gauge::default(),
            followers: Gauge::default(),
            trust_age: Gauge::default(),
            spare_keys: Gauge::default(),
            spare_keys_made: Counter::default(),
            rotation_failures: Counter::default(),
            issuer_keys: Family::default(),
            issuer_key_age: Family::default(),
            foreign_fetches: Family::default(),
            cleaned: Family::default(),
            cleanup_rounds: Counter::default(),
            cleanup_failures: Counter::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("grpc_calls", "RPCs by path and code", self.calls.clone());
        let latency = "How long RPCs took";
        r.register_with_unit("grpc_latency", latency, Unit::Seconds, self.latencies.clone());
        r.register("logins", "Logins by outcome", self.logins.clone());
        r.register("refreshes", "Refreshes by outcome", self.refreshes.clone());
        let service_tokens = "Tokens that services asked for by outcome";
        r.register("service_tokens", service_tokens, self.service_tokens.clone());
        let exchanges = "Tokens that services asked to exchange by outcome";
        r.register("token_exchanges", exchanges, self.exchanges.clone());
        r.register("key_proofs", "Proofs of keys (DPoP) by outcome", self.key_proofs.clone());
        r.register("verifications", "Checks of tokens by outcome", self.verifications.clone());
        r.register("refresh_reuses", "Refresh tokens that were used again", self.reuses.clone());
        let tail_failures = "Failed attempts to read the trust log";
        r.register("trust_tail_failures", tail_failures, self.tail_failures.clone());
        let unknown_entries = "Entries of the trust log that this release doesn't understand";
        r.register("trust_unknown_entries", unknown_entries, self.unknown_entries.clone());
        r.register("hash_waiting", "Passwords that wait to be hashed", self.hash_waiting.clone());
        r.register("hash_threads_free", "Hashing threads that are free", self.hash_free.clone());
        let hash_memory = "Memory that is kept for the next passwords";
        r.register_with_unit("hash_memory", hash_memory, Unit::Bytes, self.hash_memory.clone());
        r.register("pool_connections", "Database connections by pool and state", self.pools.clone());
        r.register("cache_entries", "Entries of each cache and memory", self.caches.clone());
        r.register("trust_revision", "Revision of the trust log that was reached", self.revision.clone());
        r.register("watchers", "Verifiers and clients that follow the trust log", self.followers.clone());
        let age = "How long ago the trust log was read to its end";
        r.register_with_unit("trust_age", age, Unit::Seconds, self.trust_age.clone());
        r.register("rsa_pool_keys", "RSA keys that wait for sessions", self.spare_keys.clone());
        r.register("rsa_pool_made", "RSA keys that were made for sessions", self.spare_keys_made.clone());
        let rotation_failures = "Failed attempts to keep the schedule of the issuer's keys";
        r.register("key_rotation_failures", rotation_failures, self.rotation_failures.clone());
        r.register("issuer_keys", "Issuer keys by algorithm and state", self.issuer_keys.clone());
        let age = "How long the active issuer key has signed";
        r.register_with_unit("issuer_key_age", age, Unit::Seconds, self.issuer_key_age.clone());
        let foreign_fetches = "Fetches of trusted issuers' keys by outcome";
        r.register("foreign_key_fetches", foreign_fetches, self.foreign_fetches.clone());
        r.register("cleaned_rows", "Rows that were removed since they were over", self.cleaned.clone());
        let cleanup_rounds = "Times that it was looked for what is over";
        r.register("cleanup_rounds", cleanup_rounds, self.cleanup_rounds.clone());
        let cleanup_failures = "Failed attempts to remove what is over";
        r.register("cleanup_failures", cleanup_failures, self.cleanup_failures.clone());
    }

    /// All of it in the OpenMetrics text format.
    pub fn to_text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    pub(super) fn count_login(&self, refusal: Option<&Error>) {
        self.logins.get_or_create(&outcome(refusal)).inc();
    }

    pub(super) fn count_refresh(&self, refusal: Option<&Error>) {
        self.refreshes.get_or_create(&outcome(refusal)).inc();
        if matches!(refusal, Some(Error::TokenReused)) {
            self.reuses.inc();
        }
    }

    pub(super) fn count_service_token(&self, refusal: Option<&Error>) {
        self.service_tokens.get_or_create(&outcome(refusal)).inc();
    }

    pub(super) fn count_exchange(&self, refusal: Option<&Error>) {
        self.exchanges.get_or_create(&outcome(refusal)).inc();
    }

    pub(super) fn count_key_proof(&self, refusal: Option<&Error>) {
        self.key_proofs.get_or_create(&outcome(refusal)).inc();
    }

    pub(super) fn count_verification(&self, outcome: &'static str) {
        self.verifications.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn count_tail_failure(&self) {
        self.tail_failures.inc();
    }

    pub(super) fn count_unknown_entry(&self) {
        self.unknown_entries.inc();
    }

    pub(super) fn observe_hashing(&self, waiting: usize, free: usize, kept_bytes: usize) {
        self.hash_waiting.set(gauge(waiting));
        self.hash_free.set(gauge(free));
        self.hash_memory.set(gauge(kept_bytes));
    }

    pub(super) fn observe_pool(&self, pool: PoolState) {
        let PoolState { name, connections, idle } = pool;
        let idle = i64::from(idle);
        self.pools.get_or_create(&PoolLabels { pool: name, state: "idle" }).set(idle);
        let busy = i64::from(connections) - idle;
        self.pools.get_or_create(&PoolLabels { pool: name, state: "busy" }).set(busy);
    }

    pub(super) fn observe_cache(&self, cache: &'static str, entries: usize) {
        self.caches.get_or_create(&CacheLabel { cache }).set(gauge(entries));
    }

    pub(super) fn count_spare_key(&self) {
        self.spare_keys_made.inc();
    }

    pub(super) fn observe_spare_keys(&self, depth: i64) {
        self.spare_keys.set(depth);
    }

    pub(super) fn count_rotation_failure(&self) {
        self.rotation_failures.inc();
    }

    pub(super) fn observe_keys(&self, keys: &[IssuerKey], now: DateTime<Utc>) {
        self.issuer_keys.clear();
        self.issuer_key_age.clear();
        for key in keys {
            let algorithm = key.algorithm.as_str();
            let state = key.state().as_str();
            self.issuer_keys.get_or_create(&KeyLabels { algorithm, state }).inc();
            if let Life::Active { since, .. } = key.life {
                self.issuer_key_age
                    .get_or_create(&AlgorithmLabel { algorithm })
                    .set((now - since).num_seconds());
            }
        }
    }

    pub(super) fn count_foreign_fetch(&self, outcome: &'static str) {
        self.foreign_fetches.get_or_create(&Outcome { outcome }).inc();
    }

    pub(super) fn count_cleaned(&self, table: &'static str, rows: usize) {
        self.cleaned.get_or_create(&TableLabel { table }).inc_by(u64::try_from(rows).unwrap_or(u64::MAX));
    }

    pub(super) fn count_cleanup_round(&self) {
        self.cleanup_rounds.inc();
    }

    pub(super) fn count_cleanup_failure(&self) {
        self.cleanup_failures.inc();
    }

    pub(super) fn observe_revision(&self, revision: i64) {
        self.revision.set(revision);
    }

    pub(super) fn observe_followers(&self, count: usize) {
        self.followers.set(gauge(count));
    }

    pub(super) fn observe_trust_age(&self, age: Duration) {
        self.trust_age.set(age.as_secs_f64());
    }
}

fn outcome(refusal: Option<&Error>) -> Outcome {
    Outcome { outcome: refusal.map_or("OK", Error::reason) }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
