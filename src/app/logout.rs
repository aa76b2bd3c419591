//! Signs a person out, here or everywhere.

use super::{App, Caller, Error, sessions};
use crate::domain::{
    audit::{Action, Origin},
    session::EndReason,
};

/// Ends the caller's session.
pub async fn logout(app: &App, caller: &Caller, origin: &Origin) -> Result<(), Error> {
    sessions::end_one(app, caller, caller.session_id, EndReason::Logout, Action::Logout, origin).await?;
    Ok(())
}

/// Ends all sessions of the caller and every token issued to it so far; says how many were live.
pub async fn logout_all(app: &App, caller: &Caller, origin: &Origin) -> Result<u32, Error> {
    sessions::end_of_user(app, caller, caller.user_id, EndReason::LogoutAll, Action::LogoutAll, origin).await
}
