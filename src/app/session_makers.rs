//! What a session's tokens are made with, kept in memory so that a refresh reads and parses nothing.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, TimeDelta, Utc};
use quick_cache::{Weighter, sync::Cache};
use secrecy::SecretSlice;
use uuid::Uuid;

use super::{App, Error, key_ring, refresh_mismatch::Recorded};
use crate::{
    crypto::{
        refresh_tag::TagKey,
        signing::{EncodedHeader, SigningKey},
    },
    domain::{
        claims::{ACCESS_TOKEN_TYPE, ENDORSEMENT_TYPE, Endorsement, KeyConfirmation},
        device::Device,
        session::Session,
    },
    models::sessions,
};

/// Sessions that are kept, if their keys are on elliptic curves: about 6 MiB of them.
const KEPT: usize = 2560;
/// What an RSA key weighs among them: its parsed form is so many times as large.
const RSA_WEIGHT: u64 = 8;
/// How long an endorsement vouches, at most.
const ENDORSEMENT_TTL: TimeDelta = TimeDelta::hours(1);

/// What one session's tokens are made with. Nothing of it changes in the session's life.
pub(super) struct SessionMaker {
    pub session_id: Uuid,
    pub user_id: Uuid,
    pub tenant_id: Uuid,
    pub device: Device,
    /// The key that its tokens are bound to.
    pub dpop_jkt: Option<String>,
    pub auth_time: DateTime<Utc>,
    pub expire_time: DateTime<Utc>,
    /// The audiences that were asked for.
    pub aud: Vec<String>,
    pub tag: TagKey,
    /// The session's own key, unless the issuer's signs for it.
    pub key: Option<SigningKey>,
    /// Refreshes from other devices that were recorded.
    pub device_recorded: Recorded,
    /// Refreshes from other networks that were recorded.
    pub address_recorded: Recorded,
    /// Refreshes without the key that were recorded.
    pub key_recorded: Recorded,
    endorsement: Mutex<Option<Arc<SignedEndorsement>>>,
}

/// An endorsement and its end.
pub(super) struct SignedEndorsement {
    /// The header of the access tokens that carry it.
    pub header: EncodedHeader,
    pub expire_time: DateTime<Utc>,
    /// The issuer key that vouches.
    by: String,
}

/// Bounds the memory that the makers take.
#[derive(Clone)]
struct ByKey;

impl Weighter<Uuid, Arc<SessionMaker>> for ByKey {
    fn weight(&self, _: &Uuid, maker: &Arc<SessionMaker>) -> u64 {
        let is_rsa = maker.key.as_ref().is_some_and(|key| key.algorithm().is_rsa());
        if is_rsa { RSA_WEIGHT } else { 1 }
    }
}

/// The makers in use, and the secret that their tags need.
pub(super) struct SessionMakers {
    cache: Cache<Uuid, Arc<SessionMaker>, ByKey>,
    refresh_secret: SecretSlice<u8>,
}

impl SessionMakers {
    pub(super) fn new(refresh_secret: SecretSlice<u8>) -> Self {
        Self { cache: Cache::with_weighter(KEPT, KEPT as u64, ByKey), refresh_secret }
    }

    pub(super) fn len(&self) -> usize {
        self.cache.len()
    }

    /// The maker of a new session.
    pub(super) fn make(
        &self,
        session: &Session,
        aud: &[String],
        salt: &[u8],
        key: Option<SigningKey>,
    ) -> Result<Arc<SessionMaker>, Error> {
        Ok(Arc::new(SessionMaker {
            session_id: session.id,
            user_id: session.user_id,
            tenant_id: session.tenant_id,
            device: session.device.clone(),
            dpop_jkt: session.dpop_jkt.clone(),
            auth_time: session.create_time,
            expire_time: session.expire_time,
            aud: aud.to_owned(),
            tag: TagKey::derive(&self.refresh_secret, salt)?,
            key,
            device_recorded: Recorded::default(),
            address_recorded: Recorded::default(),
            key_recorded: Recorded::default(),
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
        // Of many that ask at once for a session that is not in memory, one opens its key.
        let opening = async {
            let read = self.store.read(async move |conn| sessions::find_maker(conn, session_id).await);
            let stored = read.await.map_err(|error| Some(error.into()))?;
            self.open_maker(stored.ok_or(None)?).map_err(Some)
        };
        match self.makers.cache.get_or_insert_async(&session_id, opening).await {
            Ok(maker) => Ok(Some(maker)),
            Err(None) => Ok(None),
            Err(Some(error)) => Err(error),
        }
    }

    /// Opens what the database holds of a maker.
    pub(super) fn open_maker(&self, stored: sessions::Maker) -> Result<Arc<SessionMaker>, Error> {
        let sessions::Maker { session, salt, key, aud } = stored;
        let open = |sealed: sessions::SealedKey| {
            let private = key_ring::unseal(&session.kid, &sealed.sealed_private_key, &self.sealer)?;
            Ok::<_, Error>(SigningKey::from_pkcs8(sealed.algorithm, &private)?)
        };
        self.makers.make(&session, &aud, &salt, key.map(open).transpose()?)
    }

    /// The issuer's word for a session's key, good for at least as long as an access token of now, and given by
    /// the issuer key that signs now: one that was withdrawn vouches for nothing.
    pub(super) fn endorsement(
        &self,
        maker: &SessionMaker,
        key: &SigningKey,
        now: DateTime<Utc>,
    ) -> Result<Arc<SignedEndorsement>, Error> {
        let signer = self.signer(maker.tenant_id, now)?;
        let longest_needed = (now + self.settings.access_ttl).min(maker.expire_time);
        let mut kept = maker.endorsement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) =
            kept.as_ref().filter(|signed| signed.expire_time >= longest_needed && signed.by == signer.kid())
        {
            return Ok(signed.clone());
        }
        let expire_time = maker.expire_time.min(now + ENDORSEMENT_TTL);
        let claims = Endorsement {
            iss: self.settings.issuer.clone(),
            sid: maker.session_id,
            sub: maker.user_id,
            exp: expire_time.timestamp(),
            cnf: KeyConfirmation { jwk: key.jwk().clone() },
        };
        let endorsement = signer.sign_jwt(ENDORSEMENT_TYPE, None, &claims)?;
        let header = key.header(ACCESS_TOKEN_TYPE, Some(&endorsement))?;
        let signed = Arc::new(SignedEndorsement { header, expire_time, by: signer.kid().to_owned() });
        *kept = Some(signed.clone());
        Ok(signed)
    }
}
