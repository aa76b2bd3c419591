//! What a session's tokens are made with, kept in memory so that a refresh reads and parses nothing.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::sync::Cache;
use secrecy::SecretSlice;
use uuid::Uuid;

use super::{App, Error, key_ring};
use crate::{
    crypto::{refresh_tag::TagKey, signing::SigningKey},
    domain::{
        Inconsistent,
        algorithm::Algorithm,
        claims::{Confirmation, ENDORSEMENT_TYPE, Endorsement},
        device::Device,
        session::Session,
    },
    models::sessions,
};

/// Sessions whose keys are kept parsed: about 20 MiB of them.
const KEPT: usize = 16_384;
/// How long an endorsement vouches, at most.
const ENDORSEMENT_TTL: TimeDelta = TimeDelta::hours(1);

/// What one session's tokens are made with. Nothing of it changes in the session's life.
pub(super) struct SessionMaker {
    pub session_id: Uuid,
    pub user_id: Uuid,
    pub tenant_id: Uuid,
    pub device: Device,
    pub auth_time: DateTime<Utc>,
    pub expire_time: DateTime<Utc>,
    pub tag: TagKey,
    pub key: SigningKey,
    /// A refresh from another device was recorded.
    pub is_device_refused: AtomicBool,
    endorsement: Mutex<Option<Arc<SignedEndorsement>>>,
}

/// An endorsement and its end.
pub(super) struct SignedEndorsement {
    pub jwt: String,
    pub expire_time: DateTime<Utc>,
}

/// The makers in use, and the secret that their tags need.
pub(super) struct SessionMakers {
    cache: Cache<Uuid, Arc<SessionMaker>>,
    refresh_secret: SecretSlice<u8>,
}

impl SessionMakers {
    pub(super) fn new(refresh_secret: SecretSlice<u8>) -> Self {
        Self { cache: Cache::new(KEPT), refresh_secret }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// The maker of a new session.
    pub(super) fn make(
        &self,
        session: &Session,
        salt: &[u8],
        key: SigningKey,
    ) -> Result<Arc<SessionMaker>, Error> {
        Ok(Arc::new(SessionMaker {
            session_id: session.id,
            user_id: session.user_id,
            tenant_id: session.tenant_id,
            device: session.device.clone(),
            auth_time: session.create_time,
            expire_time: session.expire_time,
            tag: TagKey::derive(&self.refresh_secret, salt)?,
            key,
            is_device_refused: AtomicBool::new(false),
            endorsement: Mutex::default(),
        }))
    }

    pub(super) fn keep(&self, maker: &Arc<SessionMaker>) {
        self.cache.insert(maker.session_id, maker.clone());
    }
}

impl App {
    /// The maker of a session, from memory or from the database; `None` where there is no such session.
    pub(super) async fn maker(&self, session_id: Uuid) -> Result<Option<Arc<SessionMaker>>, Error> {
        if let Some(maker) = self.makers.cache.get(&session_id) {
            return Ok(Some(maker));
        }
        let stored = self.store.read(async move |conn| sessions::find_maker(conn, session_id).await).await?;
        let Some(stored) = stored else { return Ok(None) };
        let maker = self.open_maker(stored)?;
        self.makers.keep(&maker);
        Ok(Some(maker))
    }

    /// Opens what the database holds of a maker.
    pub(super) fn open_maker(&self, stored: sessions::Maker) -> Result<Arc<SessionMaker>, Error> {
        let sessions::Maker { session, salt, algorithm, sealed_private_key } = stored;
        let algorithm = Algorithm::from_str(&algorithm)
            .map_err(|_| Inconsistent { table: "session_keys", column: "algorithm" })?;
        let private = key_ring::unseal(&session.kid, &sealed_private_key, &self.sealer)?;
        self.makers.make(&session, &salt, SigningKey::from_pkcs8(algorithm, &private)?)
    }

    /// The issuer's word for a session's key, good for at least as long as an access token of now.
    pub(super) fn endorsement(
        &self,
        maker: &SessionMaker,
        now: DateTime<Utc>,
    ) -> Result<Arc<SignedEndorsement>, Error> {
        let longest_needed = (now + self.settings.access_ttl).min(maker.expire_time);
        let mut kept = maker.endorsement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = kept.as_ref().filter(|signed| signed.expire_time >= longest_needed) {
            return Ok(signed.clone());
        }
        let expire_time = maker.expire_time.min(now + ENDORSEMENT_TTL);
        let claims = Endorsement {
            iss: self.settings.issuer.clone(),
            sid: maker.session_id,
            sub: maker.user_id,
            exp: expire_time.timestamp(),
            cnf: Confirmation { jwk: maker.key.jwk().clone() },
        };
        let jwt = self.keys.active().sign_jwt(ENDORSEMENT_TYPE, None, &claims)?;
        let signed = Arc::new(SignedEndorsement { jwt, expire_time });
        *kept = Some(signed.clone());
        Ok(signed)
    }
}
