//! Starts a session: what a login and a sign-up have in common.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{App, Error, IssuedTokens, key_ring, session_makers::SessionMaker, tokens::Position};
use crate::{
    crypto::signing::NewKey,
    domain::{
        algorithm::Algorithm,
        audit::{Event, Origin},
        claims::Profile,
        device::Device,
        session::{End, EndReason, Limits, Session, make_room},
        trust::Revocation,
        user::User,
    },
    models::{Conn, audit_events, session_keys, session_keys::StoredKey, sessions},
};

/// The algorithm of session keys.
const SESSION_ALGORITHM: Algorithm = Algorithm::Es256;

/// A session has begun.
#[derive(Debug)]
pub struct SignedIn {
    /// Its tokens.
    pub tokens: IssuedTokens,
    /// The session.
    pub session: Session,
    /// The password must be changed before anything else.
    pub password_change_required: bool,
}

/// What a person asks for with a session.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// The device that signs in.
    pub device: Device,
    /// The audiences; none means the default ones.
    pub audience: Vec<String>,
    /// The scopes, separated by spaces.
    pub scope: String,
}

/// A session that is ready to be stored: its key is made and sealed, so that the transaction is short.
pub(super) struct Prepared {
    session: Session,
    salt: [u8; 16],
    key: StoredKey,
    maker: Arc<SessionMaker>,
    wishes: Wishes,
    limits: Limits,
}

/// What was stored.
pub(super) struct Begun {
    session: Session,
    profile: Profile,
    maker: Arc<SessionMaker>,
}

impl App {
    /// Makes everything that a new session of this user needs outside the transaction.
    pub(super) fn prepare_session(
        &self,
        user: &User,
        mut wishes: Wishes,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Prepared, Error> {
        if wishes.audience.is_empty() {
            wishes.audience.clone_from(&self.settings.default_audience);
        }
        let limits = self.settings.limits;
        let new = NewKey::generate(SESSION_ALGORITHM, self.settings.rsa_bits, &*self.rng)?;
        let key = key_ring::seal(&new, &self.sealer)?;
        let expire_time = now + limits.absolute_ttl;
        let session = Session {
            id: self.ids.next(now)?,
            user_id: user.id,
            tenant_id: user.tenant_id,
            device: wishes.device.clone(),
            slot: 0,
            kid: key.kid.clone(),
            generation: 0,
            create_time: now,
            refresh_time: now,
            idle_expire_time: limits.idle_expire_time(now, expire_time),
            expire_time,
            end: None,
            first_address: origin.address.clone(),
            last_address: origin.address.clone(),
            user_agent: origin.user_agent.clone(),
        };
        let salt: [u8; 16] = self.rng.bytes()?;
        let maker = self.makers.make(&session, &salt, new.key)?;
        Ok(Prepared { session, salt, key, maker, wishes, limits })
    }

    /// Signs, once the session is committed.
    pub(super) fn sign_in(&self, begun: Begun) -> Result<SignedIn, Error> {
        let Begun { session, profile, maker } = begun;
        let now = session.create_time;
        self.makers.keep(&maker);
        let password_change_required = profile.password_change_required;
        let position = Position { generation: 0, idle_expire_time: session.idle_expire_time };
        let tokens = self.issue(&maker, profile, &position, now)?;
        Ok(SignedIn { tokens, session, password_change_required })
    }
}

impl Prepared {
    /// Stores the session and ends those that it takes the place of, which it names for the trust log. The
    /// user's row is held by the transaction, so that of two logins at once one sees the other's session.
    pub(super) async fn store(
        self,
        conn: &mut Conn,
        user: &User,
        event: &Event,
    ) -> Result<(Begun, Vec<Revocation>), Error> {
        let Self { mut session, salt, key, maker, wishes, limits } = self;
        let now = session.create_time;
        let open: Vec<Session> =
            sessions::open_of_user(conn, user.id).await?.into_iter().map(|(session, _)| session).collect();
        let room = make_room(&open, &session.device.kind, &limits, now);
        let mut revocations = Vec::new();
        for (id, reason) in room.ends {
            let has_ended = sessions::end(conn, id, End { time: now, reason }).await?.is_some();
            // No token outlives its session, so that one which expired left none to revoke.
            if has_ended && reason != EndReason::Expired {
                revocations.push(Revocation::Session(id));
            }
        }
        session.slot = room.slot;
        let profile = user.profile(wishes.audience, wishes.scope);
        sessions::insert(conn, &session, &salt, &profile).await?;
        session_keys::insert(conn, session.id, &key).await?;
        audit_events::append(conn, event).await?;
        Ok((Begun { session, profile, maker }, revocations))
    }
}
