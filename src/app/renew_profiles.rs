//! Lets the next tokens of a user's sessions say what the user is now.

use uuid::Uuid;

use super::Error;
use crate::{
    domain::user::User,
    models::{Conn, sessions, user_sessions},
};

/// Renews what they say in the caller's transaction, which holds the user's row: those of all sessions that have not
/// ended, or those of one. A session of which it makes no sense gets no tokens any more, and is passed over.
pub(super) async fn renew(conn: &mut Conn, user: &User, only: Option<Uuid>) -> Result<(), Error> {
    for (id, profile) in user_sessions::open_profiles(conn, user.id).await? {
        if only.is_some_and(|only| only != id) {
            continue;
        }
        match profile {
            Ok(profile) => sessions::set_profile(conn, id, &user.profile(profile.aud, profile.scope)).await?,
            Err(error) => tracing::error!(%id, %error, "a session makes no sense"),
        }
    }
    Ok(())
}
