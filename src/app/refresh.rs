//! Exchanges a refresh token for new tokens.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    App, Error, IssuedTokens, refresh_mismatch::Mismatch, session_makers::SessionMaker, tokens::Position,
};
use crate::{
    domain::{
        audience::Way,
        audit::Origin,
        claims::Profile,
        device::Device,
        network,
        refresh_token::RefreshToken,
        session::{MissedRefresh, Session},
        session_rules::{Reaction, SessionRules},
    },
    models::{
        audit_events, sessions,
        steps::{self, Step},
    },
    verifier::KeyProof,
};

/// Takes the next step along the session's chain, in one statement. `device` is what the client tells of
/// itself, where it tells anything; `key` is what it shows, and counts where the session is bound to one.
pub async fn refresh(
    app: &App,
    token: &RefreshToken,
    device: Option<Device>,
    key: Option<&KeyProof>,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let outcome = attempt(app, token, device, key, origin).await;
    app.metrics.count_refresh(outcome.as_ref().err());
    outcome
}

async fn attempt(
    app: &App,
    token: &RefreshToken,
    device: Option<Device>,
    key: Option<&KeyProof>,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let maker = app.maker(token.session_id).await?.ok_or(Error::TokenInvalid("names no session"))?;
    if !maker.tag.is_genuine(token) {
        return Err(Error::TokenInvalid("bad tag"));
    }
    let rules = app.session_rules(maker.tenant_id);
    let is_other_device = device.is_some_and(|device| !maker.device.may_be(&device));
    let on_device = if is_other_device { rules.on_device_change } else { Reaction::Ignore };
    // Read once, on arrival: how long we take ourselves must not make a retry a theft.
    let now = app.now();
    app.registry().check_tenant(maker.tenant_id)?;
    // Known before the token is spent.
    if !app.registry().allow(&maker.aud, Way::Login) {
        return Err(Error::InsufficientScope);
    }
    app.signer(maker.tenant_id, now)?;
    check_audience(app, &maker, now).await?;
    let network = app.settings.prefixes.network(&origin.address);
    let step = Step {
        generation: token.generation,
        now,
        idle_expire_time: rules.limits.idle_expire_time(now, maker.expire_time),
        address: origin.address.clone(),
        is_from_anywhere: network.is_empty() || rules.on_address_change == Reaction::Ignore,
        network,
    };
    let refresh = Refresh { app, maker, rules, on_device, step, origin };
    refresh.require_key(key).await?;
    refresh.run().await
}

/// Refuses a session whose one audience's keys can't be used. Asks the database only where there are such keys.
async fn check_audience(app: &App, maker: &SessionMaker, now: DateTime<Utc>) -> Result<(), Error> {
    let registry = app.registry();
    if !registry.is_damaged {
        return Ok(());
    }
    let id = maker.session_id;
    let found = app.store.read(async move |conn| sessions::find_with_profile(conn, id).await).await?;
    let aud = found.map(|(_, profile)| profile.effective().aud).unwrap_or_default();
    registry.only_audience(&aud).map_or(Ok(()), |keys| keys.check(now))
}

/// A refresh with a true token.
pub(super) struct Refresh<'a> {
    pub app: &'a App,
    pub maker: Arc<SessionMaker>,
    pub step: Step,
    pub origin: &'a Origin,
    rules: SessionRules,
    /// What is done about the device that it comes from.
    on_device: Reaction,
}

impl Refresh<'_> {
    /// Of a session that is bound to a key, refuses whoever does not show that (RFC 9449 section 5), before anything else
    /// is said of the token.
    async fn require_key(&self, shown: Option<&KeyProof>) -> Result<(), Error> {
        let Some(bound) = &self.maker.dpop_jkt else { return Ok(()) };
        match shown.filter(|proof| proof.key() == bound) {
            Some(proof) => self.app.take_key_proof(proof),
            None => Err(self.refuse_stranger().await),
        }
    }

    async fn run(&self) -> Result<IssuedTokens, Error> {
        // Whether the token is a spent one comes first, also from another device.
        if self.on_device.refuses() {
            return self.settle(false).await;
        }
        if self.on_device == Reaction::Record {
            self.record(&Mismatch::Device).await?;
        }
        let (id, step) = (self.maker.session_id, &self.step);
        let done = self.app.store.advance(id, step).await?;
        match done.value {
            Some(profile) => self.issue_next(profile),
            None => self.settle(done.is_repeated).await,
        }
    }

    /// The statement changed no row, or must not be tried: finds out why, and what follows. Of two at once that come
    /// from elsewhere the later one looks again, and finds what the earlier one left.
    async fn settle(&self, is_repeated: bool) -> Result<IssuedTokens, Error> {
        for _ in 0..2 {
            if let Some(tokens) = self.look(is_repeated).await? {
                return Ok(tokens);
            }
        }
        Err(Error::Conflict)
    }

    /// `None` where the session changed while it was looked at.
    async fn look(&self, is_repeated: bool) -> Result<Option<IssuedTokens>, Error> {
        let (id, step) = (self.maker.session_id, &self.step);
        let found =
            self.app.store.read(async move |conn| sessions::find_with_profile(conn, id).await).await?;
        let (session, profile) = found.ok_or(Error::TokenInvalid("names no session"))?;
        let missed = session.missed_refresh(step.generation, self.rules.limits.refresh_grace, step.now);
        // The statement was done, and the connection died with the answer.
        let is_own =
            is_repeated && session.generation == step.generation + 1 && session.refresh_time == step.now;
        match missed {
            MissedRefresh::Reuse if !is_own => return Err(self.end_reused(session.last_address).await),
            MissedRefresh::Ended => return Err(Error::TokenRevoked),
            MissedRefresh::Expired => return Err(Error::TokenExpired),
            MissedRefresh::Ahead => return Err(Error::TokenInvalid("is newer than its session")),
            MissedRefresh::Unspent | MissedRefresh::Retry | MissedRefresh::Reuse => {}
        }
        let on_address = self.on_address(&session);
        let moved = Mismatch::Address { before: session.last_address };
        if self.on_device.refuses() {
            return Err(self.refuse(self.on_device, &Mismatch::Device).await);
        }
        if on_address.refuses() {
            return Err(self.refuse(on_address, &moved).await);
        }
        let is_recorded = on_address == Reaction::Record;
        if missed == MissedRefresh::Unspent {
            return self.step_from_elsewhere(is_recorded.then_some(moved)).await;
        }
        if is_recorded {
            self.record(&moved).await?;
        }
        let position =
            Position { generation: session.generation, idle_expire_time: session.idle_expire_time };
        self.app.issue(&self.maker, profile, &position, step.now).map(Some)
    }

    /// What is done about the network that it comes from. The network beside the last address is what the one statement
    /// compares; it may be of an earlier refresh where an older release did the last one, or cut to another prefix.
    fn on_address(&self, session: &Session) -> Reaction {
        let before = self.app.settings.prefixes.network(&session.last_address);
        if network::may_be_same(&before, &self.step.network) {
            Reaction::Ignore
        } else {
            self.rules.on_address_change
        }
    }

    /// Takes the step from another network, and records it where that is wanted: both or neither.
    async fn step_from_elsewhere(&self, moved: Option<Mismatch>) -> Result<Option<IssuedTokens>, Error> {
        let step = Step { is_from_anywhere: true, ..self.step.clone() };
        let event = moved.map(|moved| self.event(&moved)).transpose()?;
        let id = self.maker.session_id;
        let taken = self.app.store.tx::<_, Error, _>(async move |conn| {
            let profile = steps::advance(conn, id, &step).await?;
            if let (Some(_), Some(event)) = (&profile, &event) {
                audit_events::append(conn, event).await?;
            }
            Ok(profile)
        });
        taken.await?.map(|profile| self.issue_next(profile)).transpose()
    }

    /// The tokens of the step that was taken.
    fn issue_next(&self, profile: Profile) -> Result<IssuedTokens, Error> {
        let Step { generation, now, idle_expire_time, .. } = self.step;
        let position = Position { generation: generation + 1, idle_expire_time };
        self.app.issue(&self.maker, profile, &position, now)
    }
}
