//! Registers audiences, shows them, and exchanges their keys.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{App, Caller, Error, Page, Paged, audience_keys, record::By};
use crate::{
    crypto::{encryption::EncryptionKey, mac},
    domain::{
        InvalidField,
        audience::{self, Audience, NotNow, Secret, Signing, Ways},
        audit::{Action, Event, Origin, Target},
    },
    models::{
        Conn, StoreError, audience_secrets, audience_secrets::SealedSecret, audiences, audit_events,
        trust_log,
    },
};

/// An audience that is to be registered.
#[derive(Debug)]
pub struct NewAudience {
    /// Its name.
    pub name: String,
    /// The name to show.
    pub display_name: String,
    /// How tokens for it are signed.
    pub signing: Signing,
    /// The public key to encrypt to, where it has one.
    pub encryption_jwk: Option<SecretString>,
    /// The scopes that it has.
    pub scopes: Vec<String>,
    /// How tokens for it may be got.
    pub ways: Ways,
    /// How long they live at most.
    pub token_ttl: Option<TimeDelta>,
}

/// What is to change of an audience.
#[derive(Debug, Default)]
pub struct Changes {
    /// The name to show.
    pub display_name: Option<String>,
    /// The key to encrypt to; `Some(None)` removes it.
    pub encryption_jwk: Option<Option<SecretString>>,
    /// The scopes, instead of all former ones.
    pub scopes: Option<Vec<String>>,
    /// How tokens for it may be got.
    pub ways: Option<Ways>,
    /// How long they live at most; `Some(None)` removes that.
    pub token_ttl: Option<Option<TimeDelta>>,
    /// Begin to exchange the secret.
    pub rotation: Option<Rotation>,
}

/// An exchange of secrets.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// How long after now the new one begins to sign; by default as long as an issuer key is published before.
    pub activate_after: Option<TimeDelta>,
}

/// An audience as an admin sees it.
#[derive(Debug)]
pub struct AudienceInfo {
    /// The audience.
    pub audience: Audience,
    /// Its secrets that are accepted, the one that began to sign first before the other.
    pub secrets: Vec<SecretInfo>,
}

/// A secret as an admin sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretInfo {
    /// Its id and its times.
    pub secret: Secret,
    /// When it is no longer accepted.
    pub expire_time: Option<DateTime<Utc>>,
}

/// A secret that nobody is told a second time.
#[derive(Debug)]
pub struct NewSecret {
    /// Its id.
    pub kid: String,
    /// It, in base64url.
    pub text: SecretString,
    /// It as a JWK.
    pub jwk: SecretString,
    /// When it begins to sign.
    pub activate_time: DateTime<Utc>,
}

/// A secret before it is known when it begins to sign.
struct Made {
    secret: Secret,
    sealed: Vec<u8>,
    text: SecretString,
    jwk: SecretString,
}

impl Made {
    fn new(app: &App, now: DateTime<Utc>) -> Result<Self, Error> {
        let bytes = mac::new_secret(&*app.rng)?;
        let kid = app.rng.random_id()?.to_string();
        let secret = Secret { kid, create_time: now, activate_time: now };
        let sealed = audience_keys::seal(&secret, &bytes, &app.sealer)?;
        Ok(Self { text: mac::to_text(&bytes), jwk: mac::to_jwk(&secret.kid, &bytes), secret, sealed })
    }

    async fn store(self, conn: &mut Conn, audience_id: Uuid) -> Result<NewSecret, Error> {
        let Self { secret, sealed, text, jwk } = self;
        let stored = SealedSecret { audience_id, secret, sealed };
        audience_secrets::insert(conn, &stored).await?;
        let Secret { kid, activate_time, .. } = stored.secret;
        Ok(NewSecret { kid, text, jwk, activate_time })
    }
}

/// The key in the form that is stored.
fn encryption_key(jwk: &SecretString) -> Result<String, Error> {
    let key = EncryptionKey::from_jwk(jwk.expose_secret());
    let key = key.map_err(|bad| InvalidField::new("encryption_jwk", bad.to_string()))?;
    Ok(key.to_jwk_json()?)
}

impl App {
    fn audience_event(
        &self,
        caller: &Caller,
        action: Action,
        target: Target,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Event, Error> {
        let by = By { tenant_id: self.default_tenant_id, actor_id: Some(caller.user_id), origin };
        self.event(by, action, target, now)
    }

    fn audience_info(&self, audience: Audience, stored: &[SealedSecret], now: DateTime<Utc>) -> AudienceInfo {
        let its = stored.iter().filter(|stored| stored.audience_id == audience.id);
        let secrets: Vec<Secret> = its.map(|stored| stored.secret.clone()).collect();
        let longest_life = self.settings.longest_life();
        let alive = secrets.iter().filter(|secret| audience::is_alive(secret, &secrets, longest_life, now));
        let mut shown: Vec<SecretInfo> = alive
            .map(|secret| SecretInfo {
                secret: secret.clone(),
                expire_time: audience::expire_time(secret, &secrets, longest_life),
            })
            .collect();
        shown.sort_by_key(|shown| shown.secret.activate_time);
        AudienceInfo { audience, secrets: shown }
    }
}

/// Registers an audience. New tokens follow, on other replicas within the poll interval.
pub async fn create(
    app: &App,
    caller: &Caller,
    new: NewAudience,
    origin: &Origin,
) -> Result<(AudienceInfo, Option<NewSecret>), Error> {
    caller.require_root()?;
    let now = app.now();
    let audience = Audience {
        id: app.ids.next(now)?,
        name: new.name,
        display_name: new.display_name,
        signing: new.signing,
        encryption_jwk: new.encryption_jwk.as_ref().map(encryption_key).transpose()?,
        scopes: new.scopes,
        ways: new.ways,
        token_ttl: new.token_ttl,
        create_time: now,
        update_time: now,
    };
    let made = match audience.signing {
        Signing::PublicKey => None,
        Signing::Hs256 => Some(Made::new(app, now)?),
    };
    let target = Target::Audience(audience.id, audience.name.clone());
    let event = app.audience_event(caller, Action::CreateAudience, target, origin, now)?;
    let created = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that nobody else registers one too many.
        trust_log::raise_registry(conn).await?;
        if usize::try_from(audiences::count(conn).await?).unwrap_or(usize::MAX) >= audience::MOST {
            return Err(NotNow::Full.into());
        }
        audiences::insert(conn, &audience).await.map_err(|error| match error {
            StoreError::Taken(_) => Error::AlreadyExists("audience"),
            error => error.into(),
        })?;
        let id = audience.id;
        let secret = match made {
            Some(made) => Some(made.store(conn, id).await?),
            None => None,
        };
        audit_events::append(conn, &event).await?;
        Ok((audience, audience_secrets::of_audiences(conn, &[id]).await?, secret))
    });
    let (audience, stored, secret) = created.await?;
    app.reload_registry().await?;
    Ok((app.audience_info(audience, &stored, now), secret))
}

/// Changes what is given. New tokens follow, on other replicas within the poll interval.
pub async fn update(
    app: &App,
    caller: &Caller,
    id: Uuid,
    changes: Changes,
    origin: &Origin,
) -> Result<(AudienceInfo, Option<NewSecret>), Error> {
    caller.require_root()?;
    let Changes { display_name, encryption_jwk, scopes, ways, token_ttl, rotation } = changes;
    let encryption_jwk = match encryption_jwk {
        Some(Some(jwk)) => Some(Some(encryption_key(&jwk)?)),
        Some(None) => Some(None),
        None => None,
    };
    let now = app.now();
    let made = match rotation {
        Some(rotation) => Some((Made::new(app, now)?, rotation)),
        None => None,
    };
    let known = app.store.read(async move |conn| audiences::find(conn, id).await).await?;
    let name = known.ok_or(Error::NotFound("audience"))?.name;
    let target = Target::Audience(id, name);
    let event = app.audience_event(caller, Action::UpdateAudience, target, origin, now)?;
    let default_wait = app.settings.signing.publish_before;
    let longest_life = app.settings.longest_life();
    let updated = app.store.tx::<_, Error, _>(async move |conn| {
        // Held first, so that of two changes at once the later one sees the earlier.
        trust_log::raise_registry(conn).await?;
        let former = audiences::find(conn, id).await?.ok_or(Error::NotFound("audience"))?;
        let mut audience = former.clone();
        audience.display_name = display_name.unwrap_or(audience.display_name);
        audience.encryption_jwk = encryption_jwk.unwrap_or(audience.encryption_jwk);
        audience.scopes = scopes.unwrap_or(audience.scopes);
        audience.ways = ways.unwrap_or(audience.ways);
        audience.token_ttl = token_ttl.unwrap_or(audience.token_ttl);
        audience.update_time = now;
        if !audiences::update(conn, &audience, &former).await? {
            return Err(Error::Conflict);
        }
        let alive = bury_dead(conn, id, longest_life, now).await?;
        let secret = match made {
            None => None,
            Some(_) if audience.signing != Signing::Hs256 => {
                return Err(InvalidField::new("rotate_secret", "the audience has no secret").into());
            }
            Some((mut made, rotation)) => {
                let wait = rotation.activate_after.unwrap_or(default_wait);
                made.secret.activate_time = audience::next_activate_time(&alive, wait, longest_life, now)?;
                Some(made.store(conn, id).await?)
            }
        };
        audit_events::append(conn, &event).await?;
        Ok((audience, audience_secrets::of_audiences(conn, &[id]).await?, secret))
    });
    let (audience, stored, secret) = updated.await?;
    app.reload_registry().await?;
    Ok((app.audience_info(audience, &stored, now), secret))
}

/// Removes an audience's secrets that are accepted no more, and gives the others.
async fn bury_dead(
    conn: &mut Conn,
    audience_id: Uuid,
    longest_life: TimeDelta,
    now: DateTime<Utc>,
) -> Result<Vec<Secret>, Error> {
    let stored = audience_secrets::of_audiences(conn, &[audience_id]).await?;
    let secrets: Vec<Secret> = stored.into_iter().map(|stored| stored.secret).collect();
    let is_alive = |secret: &Secret| audience::is_alive(secret, &secrets, longest_life, now);
    let (alive, dead): (Vec<_>, Vec<_>) = secrets.iter().cloned().partition(is_alive);
    for secret in dead {
        if !audience_secrets::delete(conn, &secret.kid).await? {
            return Err(Error::Conflict);
        }
    }
    Ok(alive)
}

/// Removes an audience: its secrets count no more, and tokens that are asked for it are made like any other.
pub async fn delete(app: &App, caller: &Caller, id: Uuid, origin: &Origin) -> Result<(), Error> {
    caller.require_root()?;
    // Named once it is known; one that makes no sense can be removed too.
    let target = Target::Audience(id, String::new());
    let mut event = app.audience_event(caller, Action::DeleteAudience, target, origin, app.now())?;
    let deleted = app.store.tx::<_, Error, _>(async move |conn| {
        trust_log::raise_registry(conn).await?;
        audience_secrets::delete_of(conn, id).await?;
        let name = audiences::delete(conn, id).await?.ok_or(Error::NotFound("audience"))?;
        event.target_name = Some(name);
        audit_events::append(conn, &event).await?;
        Ok(())
    });
    deleted.await?;
    app.reload_registry().await
}

/// What an audience is asked for by.
#[derive(Debug)]
pub enum Which {
    /// Its id.
    Id(Uuid),
    /// Its name.
    Name(String),
}

/// One audience.
pub async fn get(app: &App, caller: &Caller, which: &Which) -> Result<AudienceInfo, Error> {
    caller.require_root()?;
    let found = app.store.read(async |conn| {
        let audience = match which {
            Which::Id(id) => audiences::find(conn, *id).await?,
            Which::Name(name) => audiences::find_by_name(conn, name).await?,
        };
        let Some(audience) = audience else { return Ok(None) };
        let stored = audience_secrets::of_audiences(conn, &[audience.id]).await?;
        Ok(Some((audience, stored)))
    });
    let (audience, stored) = found.await?.ok_or(Error::NotFound("audience"))?;
    Ok(app.audience_info(audience, &stored, app.now()))
}

/// The audiences, newest first, without those that make no sense.
pub async fn list(app: &App, caller: &Caller, page: Page) -> Result<Paged<AudienceInfo>, Error> {
    caller.require_root()?;
    let slice = page.slice();
    let found = app.store.read(async move |conn| {
        let found = audiences::list(conn, slice).await?;
        let ids: Vec<Uuid> = found.iter().map(|found| found.id).collect();
        let stored = audience_secrets::of_audiences(conn, &ids).await?;
        Ok((found, stored))
    });
    let (found, stored) = found.await?;
    let now = app.now();
    let Paged { items, next } = page.cut(found, |found| found.id);
    let items = items.into_iter().filter_map(|found| match found.audience {
        Ok(audience) => Some(app.audience_info(audience, &stored, now)),
        Err(error) => {
            tracing::error!(id = %found.id, %error, "an audience makes no sense");
            None
        }
    });
    Ok(Paged { items: items.collect(), next })
}
