//! Lists in pages, newest first.

use uuid::Uuid;

use crate::models::Slice;

/// What part of a list is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// How many at most.
    pub size: u16,
    /// The last id of the page before.
    pub after: Option<Uuid>,
}

/// A part of a list.
#[derive(Debug)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// The last id of this page, where there is another one.
    pub next: Option<Uuid>,
}

impl Page {
    /// What to ask the database: one more than the page holds, to see whether there is another.
    pub(super) fn slice(self) -> Slice {
        Slice { before: self.after, limit: i64::from(self.size) + 1 }
    }

    pub(super) fn cut<T>(self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Paged<T> {
        let has_more = items.len() > self.size.into();
        items.truncate(self.size.into());
        let next = items.last().filter(|_| has_more).map(id);
        Paged { items, next }
    }
}
