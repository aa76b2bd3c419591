//! How far the feed has come, for whoever writes it down.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Where the log is to be gone on with, and what is known beside its revocations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) revision: i64,
    pub(super) mark: String,
    /// The revision up to which all is known. Beyond the one to go on with where that is of a replica that is behind.
    pub(super) known: i64,
    /// The issuer's keys there.
    pub(super) jwks_json: String,
}

/// Tells whoever writes it down how far the feed has come.
#[derive(Default)]
pub(super) struct News {
    place: Mutex<Place>,
    came: Notify,
}

impl News {
    /// The place. While it is held nothing is taken in, so that all that is known is of one message.
    pub(super) fn hold(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was taken in.
    pub(super) fn tell(&self) {
        self.came.notify_one();
    }

    /// Waits until there is more; of several messages, until the newest is taken in.
    pub(super) async fn came(&self) {
        self.came.notified().await;
    }
}
