//! Starts a session: what a login and a sign-up have in common.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{
    App, Error, IssuedTokens, key_ring,
    rsa_pool::{self, OpenedKeys},
    tokens::Position,
};
use crate::{
    crypto::{
        sealing::Sealer,
        signing::{NewKey, SigningKey},
    },
    domain::{
        algorithm::Algorithm,
        audience::Way,
        audit::{Event, Origin},
        claims::Profile,
        device::Device,
        room::make_room,
        session::{End, EndReason, Limits, Session},
        trust::Revocation,
        user::User,
    },
    models::{Conn, audit_events, session_keys, session_keys::StoredKey, sessions, user_sessions},
    verifier::KeyProof,
};

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
    /// A key that the tokens are to be bound to.
    pub key: Option<Arc<KeyProof>>,
}

/// A session that is ready to be stored: its key is made and sealed, so that the transaction is short.
pub(super) struct Prepared {
    session: Session,
    salt: [u8; 16],
    key: KeySource,
    sealer: Arc<Sealer>,
    wishes: Wishes,
    limits: Limits,
}

/// Where a session's key comes from.
enum KeySource {
    /// It gets none: the issuer's key signs for it.
    None,
    /// It was made for it.
    Made(Box<(StoredKey, SigningKey)>),
    /// One that was made ahead of need.
    Pool { algorithm: Algorithm, bits: i32, opened: Arc<OpenedKeys> },
}

/// What was stored.
pub(super) struct Begun {
    session: Session,
    profile: Profile,
    salt: [u8; 16],
    key: Option<SigningKey>,
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
        let registry = self.registry();
        registry.check_tenant(user.tenant_id)?;
        registry.check_audiences(&wishes.audience)?;
        if wishes.audience.is_empty() {
            wishes.audience.clone_from(&self.settings.default_audience);
        }
        let scopes: Vec<&str> = wishes.scope.split_ascii_whitespace().collect();
        if !registry.allow(&wishes.audience, Way::Login) || !registry.have_scopes(&wishes.audience, &scopes) {
            return Err(Error::InsufficientScope);
        }
        // Known before anything is changed, so that nobody loses a session to a login that gets no token.
        self.signer(user.tenant_id, now)?;
        if let Some(keys) =
            registry.only_audience(&wishes.audience).filter(|_| !user.password_change_required)
        {
            keys.check(now)?;
        }
        if let Some(proof) = &wishes.key {
            self.take_key_proof(proof)?;
        }
        let limits = self.session_rules(user.tenant_id).limits;
        let key = self.key_source(self.session_algorithm(user.tenant_id))?;
        let expire_time = now + limits.absolute_ttl;
        let session = Session {
            id: self.ids.next(now)?,
            user_id: user.id,
            tenant_id: user.tenant_id,
            device: wishes.device.clone(),
            slot: 0,
            kid: String::new(),
            generation: 0,
            create_time: now,
            refresh_time: now,
            idle_expire_time: limits.idle_expire_time(now, expire_time),
            expire_time,
            end: None,
            first_address: origin.address.clone(),
            last_address: origin.address.clone(),
            last_network: self.settings.prefixes.network(&origin.address),
            seen: None,
            user_agent: origin.user_agent.clone(),
            dpop_jkt: wishes.key.as_ref().map(|proof| proof.key().to_owned()),
        };
        Ok(Prepared { session, salt: self.rng.bytes()?, key, sealer: self.sealer.clone(), wishes, limits })
    }

    fn key_source(&self, algorithm: Algorithm) -> Result<KeySource, Error> {
        if self.settings.signing.by_issuer_key {
            return Ok(KeySource::None);
        }
        if algorithm.is_rsa() {
            let opened = self.opened_spare_keys.clone();
            return Ok(KeySource::Pool { algorithm, bits: self.rsa_bits()?, opened });
        }
        let new = NewKey::generate(algorithm, self.settings.signing.rsa_bits, &*self.rng)?;
        let stored = key_ring::seal(&new, &self.sealer)?;
        Ok(KeySource::Made(Box::new((stored, new.key))))
    }

    /// Signs, once the session is committed.
    pub(super) fn sign_in(&self, begun: Begun) -> Result<SignedIn, Error> {
        let Begun { session, profile, salt, key } = begun;
        let now = session.create_time;
        if key.as_ref().is_some_and(|key| key.algorithm().is_rsa()) {
            self.spare_key_taken.notify_one();
        }
        let maker = self.makers.make(&session, &profile.aud, &salt, key)?;
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
        let Self { mut session, salt, key, sealer, wishes, limits } = self;
        let key = key.take(conn, &sealer).await?;
        let now = session.create_time;
        let open = user_sessions::open(conn, user.id).await?;
        let room = make_room(&open, &session.device.kind, &limits, now);
        let mut revocations = Vec::new();
        for (id, reason) in room.ends {
            let was_live = sessions::end(conn, id, End { time: now, reason }).await?;
            // No token outlives its session, so that one which expired left none to revoke: unless it was refreshed
            // since it was read.
            if was_live == Some(true) || was_live.is_some() && reason != EndReason::Expired {
                revocations.push(Revocation::Session(id));
            }
        }
        session.slot = room.slot;
        if let Some((stored, _)) = &key {
            session.kid.clone_from(&stored.kid);
        }
        let profile = user.profile(wishes.audience, wishes.scope);
        sessions::insert(conn, &session, &salt, &profile).await?;
        if let Some((stored, _)) = &key {
            session_keys::insert(conn, session.id, stored).await?;
        }
        audit_events::append(conn, event).await?;
        Ok((Begun { session, profile, salt, key: key.map(|(_, key)| key) }, revocations))
    }
}

impl KeySource {
    async fn take(self, conn: &mut Conn, sealer: &Sealer) -> Result<Option<(StoredKey, SigningKey)>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Made(key) => Ok(Some(*key)),
            Self::Pool { algorithm, bits, opened } => {
                rsa_pool::take(conn, algorithm, bits, sealer, &opened).await.map(Some)
            }
        }
    }
}
