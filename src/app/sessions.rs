//! Shows and ends sessions.

use uuid::Uuid;

use super::{App, Caller, Error, Page, Paged, caller::reachable_user, end_sessions::end_all, record::By};
use crate::{
    domain::{
        audit::{Action, Origin, Target},
        session::{End, EndReason, Session},
        trust::Revocation,
    },
    models::{audit_events, sessions, user_sessions, users},
};

/// A user's sessions, newest first; the caller's own where no user is named.
pub async fn list(
    app: &App,
    caller: &Caller,
    user_id: Option<Uuid>,
    include_ended: bool,
    page: Page,
) -> Result<Paged<Session>, Error> {
    let user_id = user_id.unwrap_or(caller.user_id);
    if user_id != caller.user_id {
        reachable_user(app, caller, user_id).await?;
    }
    let live_at = (!include_ended).then(|| app.now());
    let slice = page.slice();
    let found =
        app.store.read(async move |conn| user_sessions::list(conn, user_id, live_at, slice).await).await?;
    Ok(page.cut(found, |session| session.id))
}

/// One session.
pub async fn get(app: &App, caller: &Caller, id: Uuid) -> Result<Session, Error> {
    let session = app.store.read(async move |conn| sessions::find(conn, id).await).await?;
    session
        .filter(|session| caller.reaches(session.user_id, session.tenant_id))
        .ok_or(Error::NotFound("session"))
}

/// Ends one session; one that has ended stays as it is.
pub async fn revoke(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<Session, Error> {
    end_one(app, caller, id, EndReason::Revoked, Action::RevokeSession, origin).await
}

/// Ends all sessions of a user, the caller's own where none is named; says how many were live.
pub async fn revoke_of_user(
    app: &App,
    caller: &Caller,
    user_id: Option<Uuid>,
    origin: &Origin,
) -> Result<u32, Error> {
    let user_id = user_id.unwrap_or(caller.user_id);
    end_of_user(app, caller, user_id, EndReason::Revoked, Action::RevokeUserSessions, origin).await
}

pub(super) async fn end_one(
    app: &App,
    caller: &Caller,
    id: Uuid,
    reason: EndReason,
    action: Action,
    origin: &Origin,
) -> Result<Session, Error> {
    let session = get(app, caller, id).await?;
    let now = app.now();
    let by = By { tenant_id: session.tenant_id, actor_id: Some(caller.user_id), origin };
    let event = app.event(by, action, Target::Session(id), now)?;
    let ended = app.change(now, async move |conn| {
        let mut revocations = Vec::new();
        if sessions::end(conn, id, End { time: now, reason }).await?.is_some() {
            audit_events::append(conn, &event).await?;
            revocations.push(Revocation::Session(id));
        }
        let session = sessions::find(conn, id).await?.ok_or(Error::Conflict)?;
        Ok((session, revocations))
    });
    ended.await
}

pub(super) async fn end_of_user(
    app: &App,
    caller: &Caller,
    user_id: Uuid,
    reason: EndReason,
    action: Action,
    origin: &Origin,
) -> Result<u32, Error> {
    let user = reachable_user(app, caller, user_id).await?;
    let now = app.now();
    let by = By { tenant_id: user.tenant_id, actor_id: Some(caller.user_id), origin };
    let event = app.event(by, action, Target::User(user_id), now)?;
    let ended = app.change(now, async move |conn| {
        let mut user = users::lock(conn, user_id).await?.ok_or(Error::NotFound("user"))?;
        let (ended, revocation) = end_all(conn, &mut user, reason, now).await?;
        audit_events::append(conn, &event).await?;
        Ok((ended, vec![revocation]))
    });
    ended.await
}
