//! The tokens of a service, by what they are for. Bounded: those that nobody asks for make place for others.

use std::{convert::Infallible, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use quick_cache::sync::Cache;

use super::slot::Slot;

/// What a token is for.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    pub(super) audience: Vec<String>,
    pub(super) scope: Vec<String>,
    /// The digest of the token of whom it is to act for.
    subject: Option<[u8; 32]>,
}

impl Purpose {
    /// In whichever order they are named.
    pub(super) fn of(audience: &[&str], scope: &[&str]) -> Self {
        Self { audience: sorted(audience), scope: sorted(scope), subject: None }
    }

    /// The same for whom this token stands.
    pub(super) fn acting_for(subject_token: &str, audience: &[&str], scope: &[&str]) -> Self {
        let subject = digest(&SHA256, subject_token.as_bytes()).as_ref().try_into().ok();
        Self { subject, ..Self::of(audience, scope) }
    }
}

fn sorted(words: &[&str]) -> Vec<String> {
    let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The places of tokens.
pub(super) struct Slots(Cache<Arc<Purpose>, Arc<Slot>>);

impl Slots {
    pub(super) fn up_to(most: usize) -> Self {
        Self(Cache::new(most))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one place of such a token.
    pub(super) fn of(&self, purpose: &Arc<Purpose>) -> Arc<Slot> {
        let Ok(slot) = self.0.get_or_insert_with(purpose, || Ok::<_, Infallible>(Arc::default()));
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_place_for_each_purpose_and_no_more_than_so_many() {
        let slots = Slots::up_to(100);
        let of = |purpose| slots.of(&Arc::new(purpose));
        let one = of(Purpose::of(&["a", "b"], &["r", "w"]));
        assert!(Arc::ptr_eq(&one, &of(Purpose::of(&["b", "a", "a"], &["w", "r"]))), "in any order");
        for other in [
            Purpose::of(&["a"], &["r", "w"]),
            Purpose::of(&["a", "b"], &["r"]),
            Purpose::of(&["a", "b", "r"], &["w"]),
            Purpose::acting_for("", &["a", "b"], &["r", "w"]),
        ] {
            assert!(!Arc::ptr_eq(&one, &of(other)));
        }
        let anna = of(Purpose::acting_for("anna's", &["a"], &[]));
        assert!(Arc::ptr_eq(&anna, &of(Purpose::acting_for("anna's", &["a"], &[]))));
        assert!(!Arc::ptr_eq(&anna, &of(Purpose::acting_for("bob's", &["a"], &[]))));
        for number in 0..1000 {
            of(Purpose::acting_for(&number.to_string(), &["a"], &[]));
        }
        assert!(slots.0.len() <= 100);
    }
}
