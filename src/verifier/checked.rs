//! Tokens whose signature was checked already, by digest.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;

use super::{endorsed::EndorsedKey, header::MAX_TOKEN_LEN};
use crate::domain::claims::Claims;

/// A digest that nobody can find another token to.
pub(super) type TokenDigest = [u8; 32];

/// A genuine token, and what that rests on.
pub(super) struct Checked {
    pub(super) claims: Claims,
    /// The issuer key that signed it, or that endorsed the key that did.
    pub(super) vouched_by: String,
    /// When the endorsement ends, seconds since 1970.
    pub(super) vouched_until: i64,
}

impl Checked {
    pub(super) fn by_issuer(claims: Claims, kid: &str) -> Self {
        Self { claims, vouched_by: kid.to_owned(), vouched_until: i64::MAX }
    }

    pub(super) fn by_session(claims: Claims, key: &EndorsedKey) -> Self {
        Self { claims, vouched_by: key.endorsed_by.clone(), vouched_until: key.expire_time }
    }
}

/// A bounded number of them; none, unless it is asked for. Tokens signed with a shared secret never enter: which
/// secrets count is told anew with each check.
#[derive(Default)]
pub(super) struct CheckedTokens {
    cache: Option<Cache<TokenDigest, Arc<Checked>>>,
    hits: AtomicU64,
}

impl CheckedTokens {
    pub(super) fn up_to(tokens: usize) -> Self {
        Self { cache: (tokens > 0).then(|| Cache::new(tokens)), hits: AtomicU64::default() }
    }

    /// Where the token may be remembered; nowhere, where nothing is.
    pub(super) fn digest(&self, token: &str) -> Option<TokenDigest> {
        self.cache.as_ref().filter(|_| token.len() <= MAX_TOKEN_LEN)?;
        digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
    }

    pub(super) fn get(&self, digest: &TokenDigest) -> Option<Arc<Checked>> {
        let known = self.cache.as_ref()?.get(digest)?;
        self.hits.fetch_add(1, Ordering::Relaxed);
        Some(known)
    }

    pub(super) fn remember(&self, digest: TokenDigest, checked: Checked) {
        if let Some(cache) = &self.cache {
            cache.insert(digest, Arc::new(checked));
        }
    }

    pub(super) fn forget(&self, digest: &TokenDigest) {
        if let Some(cache) = &self.cache {
            cache.remove(digest);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.as_ref().map_or(0, Cache::len)
    }

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}
