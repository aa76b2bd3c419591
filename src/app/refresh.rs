//! Exchanges a refresh token for new tokens.

use std::sync::atomic::Ordering;

use chrono::{DateTime, Utc};

use super::{App, Error, IssuedTokens, record::By, session_makers::SessionMaker, tokens::Position};
use crate::{
    domain::{
        audit::{Action, Origin, Target},
        device::Device,
        refresh_token::RefreshToken,
        session::{End, EndReason, MissedRefresh},
        trust::Revocation,
    },
    models::{audit_events, sessions, sessions::Step},
};

/// Takes the next step along the session's chain, in one statement. `device` is what the client tells of
/// itself, where it tells anything.
pub async fn refresh(
    app: &App,
    token: &RefreshToken,
    device: Option<Device>,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let outcome = attempt(app, token, device, origin).await;
    app.metrics.count_refresh(outcome.as_ref().err());
    outcome
}

async fn attempt(
    app: &App,
    token: &RefreshToken,
    device: Option<Device>,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let maker = app.maker(token.session_id).await?.ok_or(Error::TokenInvalid("names no session"))?;
    if !maker.tag.is_genuine(token) {
        return Err(Error::TokenInvalid("bad tag"));
    }
    if device.is_some_and(|device| !maker.device.may_be(&device)) {
        return Err(refuse_device(app, &maker, origin).await);
    }
    // Read once, on arrival: how long we take ourselves must not make a retry a theft.
    let now = app.now();
    if app.registry().is_suspended(maker.tenant_id) {
        return Err(Error::TenantSuspended);
    }
    // Known before the token is spent.
    app.signer(maker.tenant_id, now)?;
    check_audience(app, &maker, now).await?;
    let idle_expire_time = app.settings.limits.idle_expire_time(now, maker.expire_time);
    let step = Step { generation: token.generation, now, idle_expire_time, address: origin.address.clone() };
    let id = maker.session_id;
    let done = app.store.write(async |conn| sessions::advance(conn, id, &step).await).await?;
    match done.value {
        Some(profile) => {
            let position = Position { generation: token.generation + 1, idle_expire_time };
            app.issue(&maker, profile, &position, now)
        }
        None => missed(app, &maker, &step, done.is_repeated, origin).await,
    }
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

/// The statement changed no row: finds out why.
async fn missed(
    app: &App,
    maker: &SessionMaker,
    step: &Step,
    is_repeated: bool,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let id = maker.session_id;
    let found = app.store.read(async move |conn| sessions::find_with_profile(conn, id).await).await?;
    let (session, profile) = found.ok_or(Error::TokenInvalid("names no session"))?;
    let now = step.now;
    let missed = session.missed_refresh(step.generation, app.settings.limits.refresh_grace, now);
    // The statement was done, and the connection died with the answer.
    let is_own = is_repeated && session.generation == step.generation + 1 && session.refresh_time == now;
    match missed {
        MissedRefresh::Reuse if !is_own => Err(end_reused(app, maker, origin).await),
        MissedRefresh::Retry | MissedRefresh::Reuse => {
            let position =
                Position { generation: session.generation, idle_expire_time: session.idle_expire_time };
            app.issue(maker, profile, &position, now)
        }
        MissedRefresh::Ended => Err(Error::TokenRevoked),
        MissedRefresh::Expired => Err(Error::TokenExpired),
        MissedRefresh::Ahead => Err(Error::TokenInvalid("is newer than its session")),
    }
}

/// Recorded once for each session that is in memory: whoever has the token could fill the trail with it.
async fn refuse_device(app: &App, maker: &SessionMaker, origin: &Origin) -> Error {
    let refusal = Error::TokenInvalid("comes from another device");
    if maker.is_device_refused.swap(true, Ordering::Relaxed) {
        return refusal;
    }
    match app.event(
        by_holder(maker, origin),
        Action::RefreshDevice,
        Target::Session(maker.session_id),
        app.now(),
    ) {
        Ok(event) => app.record_refusal(event, refusal).await,
        Err(error) => error,
    }
}

/// Whoever holds a refresh token; that it is the user is what is in doubt.
fn by_holder<'o>(maker: &SessionMaker, origin: &'o Origin) -> By<'o> {
    By { tenant_id: maker.tenant_id, actor_id: None, origin }
}

/// Ends a session whose refresh token came a second time: one of its two holders stole it.
async fn end_reused(app: &App, maker: &SessionMaker, origin: &Origin) -> Error {
    match try_end_reused(app, maker, origin).await {
        Ok(()) => Error::TokenReused,
        Err(error) => error,
    }
}

async fn try_end_reused(app: &App, maker: &SessionMaker, origin: &Origin) -> Result<(), Error> {
    let now = app.now();
    let id = maker.session_id;
    let mut event = app.event(by_holder(maker, origin), Action::RefreshReuse, Target::Session(id), now)?;
    event.refusal = Some(Error::TokenReused.reason().to_owned());
    let ended = app.change(now, async move |conn| {
        let mut revocations = Vec::new();
        if sessions::end(conn, id, End { time: now, reason: EndReason::Reuse }).await?.is_some() {
            audit_events::append(conn, &event).await?;
            revocations.push(Revocation::Session(id));
        }
        Ok(((), revocations))
    });
    ended.await?;
    tracing::warn!(session_id = %id, address = origin.address, "a refresh token was used again; its session has ended");
    Ok(())
}
