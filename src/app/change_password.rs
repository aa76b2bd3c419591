//! Changes the caller's password.

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{App, Caller, Error, end_sessions::end_all, record::By, renew_profiles::renew};
use crate::{
    crypto::passwords::Verdict,
    domain::{
        InvalidField,
        audit::{Action, Origin, Target},
        session::{End, EndReason},
        trust::Revocation,
        user::User,
    },
    models::{Conn, audit_events, sessions, user_sessions, users, users::Credentials},
};

/// The passwords in their one form, and what else ends.
#[derive(Debug)]
pub struct ChangePassword {
    /// The password until now.
    pub current: SecretString,
    /// The password from now on.
    pub new: SecretString,
    /// End the calling session and every token too.
    pub end_all_sessions: bool,
}

/// Sets the new password and ends the user's other sessions, or all; says how many were live.
pub async fn change_password(
    app: &App,
    caller: &Caller,
    change: ChangePassword,
    origin: &Origin,
) -> Result<u32, Error> {
    let ChangePassword { current, new, end_all_sessions } = change;
    app.policy.check_length("current_password", current.expose_secret())?;
    let user_id = caller.user_id;
    let found = app.store.read(async move |conn| users::find_credentials(conn, user_id).await).await?;
    let Credentials { user, password_hash } = found.ok_or(Error::TokenInvalid("names no user"))?;
    app.check_new_password("new_password", &new, &user.username)?;

    let by = By { tenant_id: user.tenant_id, actor_id: Some(user_id), origin };
    let event = app.event(by, Action::ChangePassword, Target::User(user_id), app.now())?;
    let is_same = current.expose_secret() == new.expose_secret();
    if app.hasher.verify(current, Some(password_hash.clone())).await? == Verdict::Wrong {
        return Err(app.record_refusal(event, Error::InvalidCredentials).await);
    }
    if is_same {
        return Err(InvalidField::new("new_password", "is the current one").into());
    }
    let new_hash = app.hasher.hash(new).await?;

    let now = app.now();
    let kept = (!end_all_sessions).then_some(caller.session_id);
    let done = app.change(now, async move |conn| {
        let user = users::set_password(conn, user_id, &password_hash, &new_hash, now).await?;
        let mut user = user.ok_or(Error::Conflict)?;
        let (ended, revocations) = end_sessions(conn, &mut user, kept).await?;
        audit_events::append(conn, &event).await?;
        Ok((ended, revocations))
    });
    done.await
}

/// Ends all sessions, or all but `kept`, whose next tokens then say what the user is now.
async fn end_sessions(
    conn: &mut Conn,
    user: &mut User,
    kept: Option<Uuid>,
) -> Result<(u32, Vec<Revocation>), Error> {
    let now = user.update_time;
    let Some(kept) = kept else {
        let (ended, revocation) = end_all(conn, user, EndReason::PasswordChanged, now).await?;
        return Ok((ended, vec![revocation]));
    };
    let mut ended = 0;
    let mut revocations = Vec::new();
    renew(conn, user, Some(kept)).await?;
    for session in user_sessions::open(conn, user.id).await? {
        if session.id == kept {
            continue;
        }
        let end = End { time: now, reason: EndReason::PasswordChanged };
        if let Some(was_live) = sessions::end(conn, session.id, end).await? {
            ended += u32::from(was_live);
            revocations.push(Revocation::Session(session.id));
        }
    }
    Ok((ended, revocations))
}
