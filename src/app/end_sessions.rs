//! Ends all sessions of a user, and every token issued to it so far.

use chrono::{DateTime, Utc};

use super::Error;
use crate::{
    domain::{
        session::{End, EndReason},
        trust::Revocation,
        user::User,
    },
    models::{Conn, sessions, user_sessions, users},
};

/// Ends them in the caller's transaction, which holds the user's row. Gives how many were live, and what
/// has to go into the trust log: one entry, however many sessions there were.
pub(super) async fn end_all(
    conn: &mut Conn,
    user: &mut User,
    reason: EndReason,
    now: DateTime<Utc>,
) -> Result<(u32, Revocation), Error> {
    user.token_version += 1;
    user.update_time = now;
    if !users::update(conn, user).await? {
        return Err(Error::Conflict);
    }
    let mut ended = 0;
    for session in user_sessions::open(conn, user.id).await? {
        let was_live = sessions::end(conn, session.id, End { time: now, reason }).await?;
        ended += u32::from(was_live == Some(true));
    }
    Ok((ended, Revocation::UserVersion { user_id: user.id, version: user.token_version }))
}
