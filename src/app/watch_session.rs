//! Tells a signed-in client that its session has ended.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tokio::{
    sync::broadcast,
    time::{Interval, interval},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{App, Caller, Error, trust_feed::Heard, watch_places::Admitted};
use crate::{
    domain::session::{EndReason, State},
    models::{sessions, users},
};

/// How soon a session whose time has passed is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Where it stands.
    pub state: State,
    /// Why it ended, where it was ended.
    pub reason: Option<EndReason>,
}

/// Watches one session.
pub struct SessionWatcher {
    app: Arc<App>,
    session_id: Uuid,
    user_id: Uuid,
    /// The user's token version that is known to be good for the session.
    version: i64,
    /// When the session expires, as far as is known.
    idle_expire_time: DateTime<Utc>,
    /// It was said that the session is watched.
    is_told: bool,
    has_ended: bool,
    heard: broadcast::Receiver<Heard>,
    looks: Interval,
    closing: CancellationToken,
    _admitted: Admitted<Uuid>,
}

/// Begins to watch the caller's session.
pub async fn watch_session(app: &Arc<App>, caller: &Caller) -> Result<SessionWatcher, Error> {
    let admitted = app.feed.admit_session(caller.session_id)?;
    // Before it is looked at, so that nothing is missed between.
    let heard = app.feed.hear();
    let mut watcher = SessionWatcher {
        app: app.clone(),
        session_id: caller.session_id,
        user_id: caller.user_id,
        version: 0,
        idle_expire_time: app.now(),
        is_told: false,
        has_ended: false,
        heard,
        looks: interval(LOOK),
        closing: app.feed.closing(),
        _admitted: admitted,
    };
    if watcher.look().await?.state != State::Active {
        return Err(Error::TokenRevoked);
    }
    Ok(watcher)
}

impl SessionWatcher {
    /// Waits for what is next to say: that the session is watched, then that it has ended, then nothing more.
    pub async fn next(&mut self) -> Result<Option<Standing>, Error> {
        if self.has_ended {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.is_told, true) {
            return Ok(Some(Standing { state: State::Active, reason: None }));
        }
        loop {
            let may_have_ended = tokio::select! {
                biased;
                () = self.closing.cancelled() => return Err(Error::Stopping),
                heard = self.heard.recv() => match heard {
                    Err(broadcast::error::RecvError::Closed) => return Err(Error::Stopping),
                    _ => self.is_revoked(),
                },
                _ = self.looks.tick() => self.idle_expire_time <= self.app.now(),
            };
            if may_have_ended {
                let standing = self.look().await?;
                if standing.state != State::Active {
                    self.has_ended = true;
                    return Ok(Some(standing));
                }
            }
        }
    }

    fn is_revoked(&self) -> bool {
        self.app.verifier.trust().is_session_revoked(self.session_id, self.user_id, self.version)
    }

    /// Asks the database, since a raised version alone ends tokens and not the session, and each refresh moves the
    /// session's end.
    async fn look(&mut self) -> Result<Standing, Error> {
        let (session_id, user_id) = (self.session_id, self.user_id);
        let found = self.app.store.read(async move |conn| {
            let user = users::find(conn, user_id).await?;
            Ok(user.zip(sessions::find(conn, session_id).await?))
        });
        let Some((user, session)) = found.await? else {
            return Ok(Standing { state: State::Ended, reason: None });
        };
        self.version = user.token_version;
        self.idle_expire_time = session.idle_expire_time;
        let state = session.state(self.app.now());
        Ok(Standing { state, reason: session.end.map(|end| end.reason) })
    }
}
