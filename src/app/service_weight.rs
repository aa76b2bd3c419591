//! What service accounts in use take in memory, and how much of that is kept.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};
use uuid::Uuid;

use super::{
    foreign_keys::ForeignKeys,
    service_cache::{Opened, Recorded, Service},
};
use crate::domain::{
    service_account::{Federated, Proof},
    trusted_issuer::KeySource,
};

/// What is kept, in bytes.
const KEPT: u64 = 3 * 1024 * 1024;
/// Accounts that are expected to be among them: each part of the cache is to have room for 32. So few, since an account that is
/// heavier than 97 % of a part is never kept: each of the two takes the largest one, of some 1.3 MiB.
const EXPECTED: usize = 64;
/// What the fetched keys of one credential may take, in bytes: some 23 keys on curves, more with RSA.
pub(super) const MOST_FETCHED: usize = 16 * 1024;
/// What a text takes beside its letters: itself, what an allocator adds, and places for others that stay empty.
const TEXT: usize = 64;
/// What an account takes beside itself: its place in the cache, and what allocators add.
const PLACE: usize = 256;

/// A cache for them.
pub(super) fn cache() -> Cache<Uuid, Arc<Service>, ByWeight> {
    Cache::with_weighter(EXPECTED, KEPT, ByWeight)
}

/// Bounds the memory that they take.
#[derive(Clone)]
pub(super) struct ByWeight;

impl Weighter<Uuid, Arc<Service>> for ByWeight {
    fn weight(&self, _: &Uuid, service: &Arc<Service>) -> u64 {
        u64::try_from(service.size()).unwrap_or(u64::MAX)
    }
}

impl Service {
    /// What it takes in memory, in bytes. Stays the same for as long as it is kept.
    fn size(&self) -> usize {
        let account = &self.account;
        let lists = [&account.allowed.audiences, &account.allowed.scopes, &account.own_audiences];
        let words: usize = lists.into_iter().flatten().map(|word| text(word)).sum();
        let credentials: usize = self.credentials.iter().map(Opened::size).sum();
        let own = size_of::<Self>() + size_of::<Recorded>() + PLACE + account.allowed.grants.len();
        own + text(&account.name) + text(&account.display_name) + words + credentials
    }
}

impl Opened {
    fn size(&self) -> usize {
        let proof = match &self.credential.proof {
            Proof::ClientSecret(_) => 0,
            Proof::PrivateKeyJwt(KeySource::Json(source) | KeySource::Url(source)) => text(source),
            Proof::Federated(Federated { issuer, subject, claims }) => {
                let claims: usize = claims.iter().map(|(name, value)| text(name) + text(value)).sum();
                text(issuer) + text(subject) + claims
            }
            Proof::Mtls(named) => text(named.as_str()),
        };
        size_of::<Self>() + proof + self.keys.as_ref().map_or(0, ForeignKeys::size)
    }
}

const fn text(text: &str) -> usize {
    TEXT + text.len()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::{
        super::{credentials::LONGEST_JWKS, service_cache::open},
        *,
    };
    use crate::domain::{
        certificate::Named,
        service_account::{Allowed, Credential, Grant, MOST_CREDENTIALS, ServiceAccount},
    };

    /// As many words as there may be, each as long as it may be.
    fn words(most: usize, longest: usize) -> Vec<String> {
        (0..most).map(|number| format!("{number:0longest$}")).collect()
    }

    /// An account that has as much of everything as there may be, and as many credentials of this kind.
    fn largest(proof: &Proof) -> Arc<Service> {
        let time = DateTime::UNIX_EPOCH;
        let account = ServiceAccount {
            id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            name: "n".repeat(64),
            display_name: "\u{10ffff}".repeat(128),
            allowed: Allowed {
                audiences: words(64, 256),
                scopes: words(64, 128),
                grants: vec![Grant::ClientCredentials, Grant::TokenExchange, Grant::Impersonation],
            },
            own_audiences: words(64, 256),
            token_ttl: None,
            token_version: 1,
            disable_time: None,
            create_time: time,
            update_time: time,
        };
        let credential = Credential {
            id: Uuid::nil(),
            service_account_id: Uuid::nil(),
            proof: proof.clone(),
            create_time: time,
            expire_time: None,
        };
        let credentials = (0..MOST_CREDENTIALS).map(|_| open(credential.clone(), None));
        let credentials = credentials.collect::<Result<_, _>>().expect("credentials that can be used");
        Arc::new(Service { count: 0, account, credentials, recorded: Arc::default() })
    }

    /// A set of as many keys as fit into a credential.
    fn jwks() -> String {
        let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let keys = vec![key; (LONGEST_JWKS - r#"{"keys":[]}"#.len()) / (key.len() + 1)];
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    #[test]
    fn the_largest_account_weighs_what_it_holds_and_is_kept() {
        let (longest, claims) = ("t".repeat(1024), words(16, 1024));
        let federated = Federated {
            issuer: longest.clone(),
            subject: longest.clone(),
            claims: claims.into_iter().map(|name| (name, longest.clone())).collect(),
        };
        let (jwks, url) = (jwks(), format!("https://a.example/{}", "a".repeat(1006)));
        assert!((LONGEST_JWKS - 100..=LONGEST_JWKS).contains(&jwks.len()));
        let lists = 64 * (256 + 128 + 256);
        for (proof, held) in [
            (Proof::ClientSecret([7; 32]), 32),
            (Proof::Federated(federated), 2 * 1024 + 16 * 2 * 1024),
            (Proof::Mtls(Named::SanUri("u".repeat(2048))), 2048),
            (Proof::PrivateKeyJwt(KeySource::Url(url)), 1024 + MOST_FETCHED),
            // Each key is more than a point and an id.
            (Proof::PrivateKeyJwt(KeySource::Json(jwks.clone())), jwks.len() + 100 * 400),
        ] {
            let service = largest(&proof);
            let weight = ByWeight.weight(&Uuid::nil(), &service);
            let held = lists + MOST_CREDENTIALS * held;
            assert!(weight > held as u64, "{weight} of {held} bytes");
            let cache = cache();
            for number in 0..100 {
                let id = Uuid::from_u128(number);
                cache.insert(id, service.clone());
                assert!(
                    cache.get(&id).is_some(),
                    "{weight} bytes are too heavy for {}",
                    cache.shard_capacity()
                );
            }
            assert!(cache.weight() <= KEPT);
        }
    }
}
