//! Exchanges a refresh token for new tokens.

use super::{App, Error, IssuedTokens, record::By, session_makers::SessionMaker, tokens::Position};
use crate::{
    domain::{
        audit::{Action, Origin, Target},
        device::Device,
        refresh_token::RefreshToken,
        session::{End, EndReason, MissedRefresh},
        trust::Revocation,
    },
    models::{audit_events, sessions, sessions::Step, trust_log},
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
        let by = By { tenant_id: maker.tenant_id, actor_id: Some(maker.user_id), origin };
        let event = app.event(by, Action::RefreshDevice, Target::Session(maker.session_id), app.now())?;
        return Err(app.record_refusal(event, Error::TokenInvalid("comes from another device")).await);
    }
    let now = app.now();
    let idle_expire_time = app.settings.limits.idle_expire_time(now, maker.expire_time);
    let step = Step { generation: token.generation, now, idle_expire_time, address: origin.address.clone() };
    let id = maker.session_id;
    match app.store.write(async |conn| sessions::advance(conn, id, &step).await).await? {
        Some(profile) => {
            let position = Position { generation: token.generation + 1, idle_expire_time };
            app.issue(&maker, profile, &position, now)
        }
        None => missed(app, &maker, token.generation, origin).await,
    }
}

/// The statement changed no row: finds out why.
async fn missed(
    app: &App,
    maker: &SessionMaker,
    generation: i64,
    origin: &Origin,
) -> Result<IssuedTokens, Error> {
    let id = maker.session_id;
    let found = app.store.read(async move |conn| sessions::find_with_profile(conn, id).await).await?;
    let (session, profile) = found.ok_or(Error::TokenInvalid("names no session"))?;
    let now = app.now();
    match session.missed_refresh(generation, app.settings.limits.refresh_grace, now) {
        MissedRefresh::Retry => {
            let position =
                Position { generation: session.generation, idle_expire_time: session.idle_expire_time };
            app.issue(maker, profile, &position, now)
        }
        MissedRefresh::Ended => Err(Error::TokenRevoked),
        MissedRefresh::Expired => Err(Error::TokenExpired),
        MissedRefresh::Ahead => Err(Error::TokenInvalid("is newer than its session")),
        MissedRefresh::Reuse => Err(end_reused(app, maker, origin).await),
    }
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
    let by = By { tenant_id: maker.tenant_id, actor_id: Some(maker.user_id), origin };
    let mut event = app.event(by, Action::RefreshReuse, Target::Session(id), now)?;
    event.refusal = Some(Error::TokenReused.reason().to_owned());
    let revocation = Revocation::Session(id);
    let expire_time = app.revocation_expire_time(now);
    app.store
        .tx::<_, Error, _>({
            let revocation = revocation.clone();
            async move |conn| {
                if sessions::end(conn, id, End { time: now, reason: EndReason::Reuse }).await?.is_some() {
                    audit_events::append(conn, &event).await?;
                    trust_log::append(conn, &[revocation], now, expire_time).await?;
                }
                Ok(())
            }
        })
        .await?;
    app.obey(&[revocation], now);
    tracing::warn!(session_id = %id, address = origin.address, "a refresh token was used again; its session has ended");
    Ok(())
}
