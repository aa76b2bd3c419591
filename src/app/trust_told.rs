//! What the trust log said lately, in memory, and all that it says in one piece for who needs that.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Weak},
};

use crate::{
    crypto::digest::fingerprint,
    domain::trust::TrustChange,
    models::trust_log::Entry,
    verifier::{TrustState, Until},
};

/// Entries that a watcher which comes back can still be told without a snapshot.
const RECENT: usize = 16_384;
/// Entries that go into one message: about 100 KB.
pub(super) const PART: usize = 1000;

/// A place in the log: a revision, and what tells the entry there from another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The revision.
    pub revision: i64,
    /// The entry's mark; empty where no entry was seen there.
    pub mark: String,
}

impl Place {
    /// The place of an entry.
    pub(super) fn of(entry: &Entry) -> Self {
        let told = format!("{} {} {}", entry.revision, entry.subject, entry.create_time.timestamp_micros());
        let mut mark = fingerprint(told.as_bytes());
        mark.truncate(16);
        Self { revision: entry.revision, mark }
    }
}

/// What came to the log.
#[derive(Debug, Clone, Default)]
pub struct News {
    /// Revocations in the order of the log.
    pub entries: Vec<Until>,
    /// The issuer's keys have changed.
    pub are_keys_new: bool,
    /// The place that is reached with them.
    pub place: Place,
}

/// How many entries had been told by then, which stays true however many are forgotten.
pub(super) type Count = u64;

/// The state as a whole, as it was by then.
pub(super) struct Snapshot {
    pub entries: Vec<Until>,
    pub by: Count,
}

struct Recent {
    place: Place,
    revocation: Option<Until>,
    is_key: bool,
}

/// What was told.
#[derive(Default)]
pub(super) struct Told {
    /// Before the first of `recent`.
    base: Place,
    /// How many were told before the first of `recent`.
    forgotten: Count,
    recent: VecDeque<Recent>,
    /// The one snapshot there is: those who are being told it only know where it is, so that one who doesn't read
    /// keeps nothing.
    snapshot: Option<Arc<Snapshot>>,
}

impl From<&Entry> for Recent {
    fn from(entry: &Entry) -> Self {
        let is_key = matches!(entry.change, Some(TrustChange::IssuerKey(_)));
        Self { place: Place::of(entry), revocation: revocation(entry), is_key }
    }
}

/// The revocation that an entry is, if it is one.
pub(super) fn revocation(entry: &Entry) -> Option<Until> {
    match &entry.change {
        Some(TrustChange::Revoked(revocation)) => Some((revocation.clone(), entry.expire_time)),
        _ => None,
    }
}

impl Told {
    /// How far it has come.
    pub(super) fn place(&self) -> &Place {
        self.place_before(self.recent.len())
    }

    /// How many entries it could tell again.
    pub(super) fn len(&self) -> usize {
        self.recent.len()
    }

    /// Takes in what came to the log.
    pub(super) fn tell(&mut self, entries: &[Entry], reached: Place) -> News {
        let at = self.recent.len();
        self.recent.extend(entries.iter().map(Recent::from));
        if self.place().revision < reached.revision {
            // What lies between has died.
            self.recent.push_back(Recent { place: reached, revocation: None, is_key: false });
        }
        let news = self.news(at..self.recent.len());
        while self.recent.len() > RECENT {
            if let Some(oldest) = self.recent.pop_front() {
                self.base = oldest.place;
                self.forgotten += 1;
            }
        }
        news
    }

    /// Forgets everything: the log went back to this place.
    pub(super) fn begin_anew(&mut self, place: Place) {
        // Beyond every count that somebody may have.
        let forgotten = self.count() + 1;
        *self = Self { base: place, forgotten, ..Self::default() };
    }

    /// How many had been told at this place; `None` where it is not known, or not any more.
    pub(super) fn find(&self, place: &Place) -> Option<Count> {
        if place.mark.is_empty() {
            return None;
        }
        if *place == self.base {
            return Some(self.forgotten);
        }
        let at = self.recent.binary_search_by_key(&place.revision, |recent| recent.place.revision).ok()?;
        (self.recent.get(at)?.place == *place).then(|| self.forgotten + count(at + 1))
    }

    /// The first part of what came after so many, and how many have been told with it; `None` where that is not known
    /// any more. It is the last part where the count is [`Self::count`].
    pub(super) fn after(&self, by: Count) -> Option<(News, Count)> {
        let at = usize::try_from(by.checked_sub(self.forgotten)?).ok()?;
        let end = self.recent.len().min(at + PART);
        (at <= end).then(|| (self.news(at..end), self.forgotten + count(end)))
    }

    /// How many were told.
    pub(super) fn count(&self) -> Count {
        self.forgotten + count(self.recent.len())
    }

    /// The state as a whole, from which on it is known what came.
    pub(super) fn snapshot(&mut self, trust: &TrustState) -> Weak<Snapshot> {
        self.forget_old_snapshot();
        let by = self.count();
        // It may hold newer entries too; taking those in again changes nothing.
        let made = || Arc::new(Snapshot { entries: trust.snapshot(), by });
        Arc::downgrade(self.snapshot.get_or_insert_with(made))
    }

    /// Forgets a snapshot that nobody is being told. It is kept until then, so that whoever comes and goes all the
    /// time does not have one made each time.
    pub(super) fn rest(&mut self) {
        self.forget_old_snapshot();
        self.snapshot.take_if(|snapshot| Arc::weak_count(snapshot) == 0);
    }

    /// Nobody can go on from it.
    fn forget_old_snapshot(&mut self) {
        let forgotten = self.forgotten;
        self.snapshot.take_if(|snapshot| snapshot.by < forgotten);
    }

    fn place_before(&self, at: usize) -> &Place {
        let before = at.checked_sub(1).and_then(|before| self.recent.get(before));
        before.map_or(&self.base, |recent| &recent.place)
    }

    fn news(&self, range: Range<usize>) -> News {
        let place = self.place_before(range.end).clone();
        let recent = || self.recent.range(range.clone());
        News {
            entries: recent().filter_map(|recent| recent.revocation.clone()).collect(),
            are_keys_new: recent().any(|recent| recent.is_key),
            place,
        }
    }
}

fn count(len: usize) -> Count {
    Count::try_from(len).unwrap_or(Count::MAX)
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::trust::Revocation;

    /// Tells of so many ended sessions.
    fn tell(told: &mut Told, sessions: usize) {
        let first = told.place().revision + 1;
        let entries: Vec<_> = (first..)
            .take(sessions)
            .map(|revision| Entry {
                revision,
                subject: Uuid::nil(),
                create_time: DateTime::UNIX_EPOCH,
                change: Some(TrustChange::Revoked(Revocation::Session(Uuid::nil()))),
                expire_time: DateTime::UNIX_EPOCH,
            })
            .collect();
        let reached = entries.last().map(Place::of).unwrap_or_default();
        assert_eq!(told.tell(&entries, reached).entries.len(), sessions);
    }

    #[test]
    fn who_does_not_read_keeps_no_snapshot() {
        let (mut told, trust) = (Told::default(), TrustState::default());
        let mut stuck = Vec::new();
        for _ in 0..3 {
            stuck.push(told.snapshot(&trust));
            tell(&mut told, RECENT);
            assert!(told.snapshot(&trust).ptr_eq(&stuck[stuck.len() - 1]), "it is still good for who comes");
            tell(&mut told, 1);
        }
        stuck.push(told.snapshot(&trust));
        let alive = |stuck: &[Weak<Snapshot>]| stuck.iter().filter(|one| one.strong_count() > 0).count();
        assert_eq!(alive(&stuck), 1);
        told.rest();
        assert_eq!(alive(&stuck), 1, "it is being told");
        tell(&mut told, RECENT + 1);
        told.rest();
        assert_eq!(alive(&stuck), 0, "nobody can go on from it");
        drop(told.snapshot(&trust));
        assert!(told.snapshot.is_some(), "whoever comes next shares it");
        told.rest();
        assert!(told.snapshot.is_none(), "nobody is being told it");
    }

    #[test]
    fn what_came_is_told_part_by_part() {
        let mut told = Told::default();
        tell(&mut told, 1);
        let place = told.place().clone();
        tell(&mut told, 2 * PART + 1);
        let mut by = told.find(&place).expect("a place that is known");
        let mut lengths = Vec::new();
        while by < told.count() {
            let (news, next) = told.after(by).expect("what is known");
            assert_eq!(told.find(&news.place), Some(next));
            lengths.push(news.entries.len());
            by = next;
        }
        assert_eq!(lengths, [PART, PART, 1]);
        assert!(told.after(by).is_some_and(|(news, next)| news.entries.is_empty() && next == by));
        told.begin_anew(Place::default());
        assert!(told.after(by).is_none() && told.find(&place).is_none());
        assert!(told.after(told.count()).is_some());
    }
}
