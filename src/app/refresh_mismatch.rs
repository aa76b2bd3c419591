//! What becomes of a refresh that its session contradicts: it is recorded, refused, or ends the session.

use std::sync::atomic::{AtomicI64, Ordering};

use super::{App, Error, record::By, refresh::Refresh};
use crate::{
    domain::{
        audit::{Action, Event, Target},
        session::{End, EndReason},
        session_rules::Reaction,
        trust::Revocation,
    },
    models::{audit_events, sessions},
};

/// What of a refresh is not as its session knows it.
pub(super) enum Mismatch {
    /// The device.
    Device,
    /// The network.
    Address {
        /// The address that refreshed last.
        before: String,
    },
    /// The key.
    Key,
}

/// The newest generation of which something was recorded. Whoever holds a token could fill the trail with it: once
/// for each generation, and each replica, is enough.
pub(super) struct Recorded(AtomicI64);

impl Default for Recorded {
    fn default() -> Self {
        Self(AtomicI64::new(-1))
    }
}

impl Recorded {
    fn is_first(&self, generation: i64) -> bool {
        self.0.fetch_max(generation, Ordering::Relaxed) < generation
    }
}

impl Refresh<'_> {
    /// Records that it went on all the same.
    pub(super) async fn record(&self, mismatch: &Mismatch) -> Result<(), Error> {
        if !self.is_first(mismatch) {
            return Ok(());
        }
        let event = self.event(mismatch)?;
        Ok(self.app.store.tx(async move |conn| audit_events::append(conn, &event).await).await?)
    }

    /// Refuses it, and ends its session where the reaction is that.
    pub(super) async fn refuse(&self, reaction: Reaction, mismatch: &Mismatch) -> Error {
        if reaction == Reaction::Revoke {
            let reason = match mismatch {
                Mismatch::Device => EndReason::DeviceChanged,
                Mismatch::Address { .. } => EndReason::AddressChanged,
                // Whoever lacks it ends nothing.
                Mismatch::Key => return self.refuse_stranger().await,
            };
            return self.end(reason, self.event(mismatch), Error::TokenRevoked).await;
        }
        self.refuse_with(mismatch, Error::ReauthenticationRequired).await
    }

    /// Refuses who does not hold the session's key. Nothing is spent by that, and nothing ends: its owner goes on.
    pub(super) async fn refuse_stranger(&self) -> Error {
        let refusal = Error::TokenInvalid("its session is bound to a key that was not shown");
        self.refuse_with(&Mismatch::Key, refusal).await
    }

    async fn refuse_with(&self, mismatch: &Mismatch, refusal: Error) -> Error {
        if !self.is_first(mismatch) {
            return refusal;
        }
        match self.event(mismatch) {
            Ok(event) => self.app.record_refusal(event, refusal).await,
            Err(error) => error,
        }
    }

    /// Ends a session whose refresh token came a second time: one of its two holders stole it. `before` is where the
    /// other one refreshed last.
    pub(super) async fn end_reused(&self, before: String) -> Error {
        let target = Target::SessionAt(self.maker.session_id, before);
        let event = event(self, Action::RefreshReuse, target);
        self.end(EndReason::Reuse, event, Error::TokenReused).await
    }

    /// An event of what is wrong with it.
    pub(super) fn event(&self, mismatch: &Mismatch) -> Result<Event, Error> {
        let id = self.maker.session_id;
        match mismatch {
            Mismatch::Device => event(self, Action::RefreshDevice, Target::Session(id)),
            Mismatch::Key => event(self, Action::RefreshKey, Target::Session(id)),
            Mismatch::Address { before } => {
                event(self, Action::RefreshAddress, Target::SessionAt(id, before.clone()))
            }
        }
    }

    fn is_first(&self, mismatch: &Mismatch) -> bool {
        let recorded = match mismatch {
            Mismatch::Device => &self.maker.device_recorded,
            Mismatch::Address { .. } => &self.maker.address_recorded,
            Mismatch::Key => &self.maker.key_recorded,
        };
        recorded.is_first(self.step.generation)
    }

    /// Ends the session, tells the trail of it, and answers with the refusal.
    async fn end(&self, reason: EndReason, event: Result<Event, Error>, refusal: Error) -> Error {
        match try_end(self, reason, event, refusal.reason()).await {
            Ok(()) => refusal,
            Err(error) => error,
        }
    }
}

/// By whoever holds the refresh token; that it is the user is what is in doubt.
fn event(refresh: &Refresh<'_>, action: Action, target: Target) -> Result<Event, Error> {
    let Refresh { app, maker, origin, .. } = refresh;
    let by = By { tenant_id: maker.tenant_id, actor_id: None, origin };
    app.event(by, action, target, app.now())
}

async fn try_end(
    refresh: &Refresh<'_>,
    reason: EndReason,
    event: Result<Event, Error>,
    refusal: &'static str,
) -> Result<(), Error> {
    let app: &App = refresh.app;
    let (now, id, address) = (app.now(), refresh.maker.session_id, &refresh.origin.address);
    let mut event = event?;
    event.refusal = Some(refusal.to_owned());
    let ended = app.change(now, async move |conn| {
        let mut revocations = Vec::new();
        if sessions::end(conn, id, End { time: now, reason }).await?.is_some() {
            audit_events::append(conn, &event).await?;
            revocations.push(Revocation::Session(id));
        }
        Ok(((), revocations))
    });
    ended.await?;
    tracing::warn!(session_id = %id, address, reason = reason.as_str(), "a refresh ended its session");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_recorded_once_and_no_older_one_after_it() {
        let recorded = Recorded::default();
        let first = [0, 0, 3, 2, 3, 4].map(|generation| recorded.is_first(generation));
        assert_eq!(first, [true, false, true, false, false, true]);
    }
}
