//! Makes what an empty installation lacks, and opens the rest.

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    App, Error, Metrics, Settings, key_proofs::Proving, key_ring::Keys, last_seen::LastSeen, record::By,
    registry::Registered, session_makers::SessionMakers, trust_feed::TrustFeed, users::NewUser,
};
use crate::{
    clock::Clock,
    crypto::{
        passwords::{HashSettings, PasswordHasher},
        random::{OrderedIds, Randomness},
        sealing::Sealer,
    },
    domain::{
        audit::{Action, Origin, Target},
        claims::ADMIN_ROLE,
        password::PasswordPolicy,
        session_rules::TenantSessions,
        tenant::{DEFAULT_TENANT, Tenant, TenantSigning},
        text,
        user::User,
    },
    fetch::Fetcher,
    models::{Conn, Store, audit_events, server_secrets, tenants, users},
    verifier::Verifier,
};

/// The first admin.
const ADMIN: &str = "admin";
/// What refresh tokens' tags are derived from.
const REFRESH_SECRET: &str = "refresh";

/// Checked tokens that are remembered, at about 1 KiB each, and keys of sessions, at about 1.5 KiB.
const REMEMBERED_TOKENS: usize = 2048;
const REMEMBERED_KEYS: usize = 2560;

/// What an [`App`] is made of.
pub struct Parts {
    /// What the verbs are told to do.
    pub settings: Settings,
    /// How passwords are hashed.
    pub hashing: HashSettings,
    /// What a new password must be.
    pub policy: PasswordPolicy,
    /// The database.
    pub store: Store,
    /// Opens what is sealed in it.
    pub sealer: Sealer,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub rng: Arc<dyn Randomness>,
    /// What to do on an empty machine.
    pub bootstrap: Bootstrap,
}

/// How the first admin gets its password.
pub struct Bootstrap {
    /// A password given by the operator, which is kept.
    pub admin_password: Option<SecretString>,
    /// Shows a generated password, once, to the operator.
    pub announce: Box<dyn FnOnce(&str) + Send>,
}

fn remembering() -> Verifier {
    Verifier::default().with_session_keys(REMEMBERED_KEYS).with_token_cache(REMEMBERED_TOKENS)
}

impl App {
    /// Opens an installation, and makes it first where the database is empty. Of any number of servers
    /// that start on one empty database, one makes each part and the others use it.
    pub async fn start(parts: Parts) -> Result<Self, Error> {
        let Parts { settings, hashing, policy, store, sealer, clock, rng, bootstrap } = parts;
        let hasher = PasswordHasher::new(&hashing, rng.clone())?;
        let refresh_secret = open_refresh_secret(&store, &sealer, &*rng).await?;
        let proving = Proving::new(&settings.key_proofs, &refresh_secret)?;
        let patience = settings.patience_with_keys().to_std().unwrap_or(Duration::MAX);
        let feed = Arc::new(TrustFeed::new(settings.max_watchers, settings.max_watchers_per_address));
        let mut app = Self {
            settings,
            store,
            clock,
            metrics: Metrics::default(),
            ids: Arc::new(OrderedIds::new(rng.clone())),
            rng,
            hasher,
            policy,
            sealer: Arc::new(sealer),
            makers: SessionMakers::new(refresh_secret),
            proving,
            services: Arc::default(),
            last_seen: LastSeen::default(),
            verifier: Arc::new(remembering()),
            keys: Keys::new(patience),
            feed,
            registered: Registered::default(),
            fetcher: Fetcher::new().map_err(|error| Error::Internal(error.to_string()))?,
            spare_key_taken: Notify::new(),
            opened_spare_keys: Arc::default(),
            default_tenant_id: Uuid::nil(),
        };
        app.default_tenant_id = app.bootstrap(bootstrap).await?;
        app.reload_keys().await?;
        app.reload_registry().await?;
        app.begin_signing().await?;
        app.prime_rsa_pool().await?;
        app.catch_up().await?;
        // Until somebody signs in.
        app.hasher.rest();
        if let Err(error) = app.check_signing() {
            tracing::error!(%error, "no token can be signed");
        }
        Ok(app)
    }

    /// Makes the tenant `default` and its admin where there is no such tenant; gives the tenant's id.
    async fn bootstrap(&self, bootstrap: Bootstrap) -> Result<Uuid, Error> {
        let find = async || {
            self.store.read(async move |conn| tenants::look_up_by_name(conn, DEFAULT_TENANT).await).await
        };
        if let Some(tenant) = find().await? {
            return Ok(tenant.id());
        }
        let Bootstrap { admin_password, announce } = bootstrap;
        let is_generated = admin_password.is_none();
        let password = match admin_password {
            Some(password) => password,
            None => generate_password(&*self.rng)?,
        };
        // As a login reads it.
        let password = SecretString::from(text::one_form(password.expose_secret()));
        self.check_new_password("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", &password, ADMIN)?;
        let hash = self.hasher.hash(password.clone()).await?;
        let now = self.now();
        let tenant = Tenant {
            id: self.ids.next(now)?,
            name: DEFAULT_TENANT.to_owned(),
            display_name: String::new(),
            create_time: now,
            signing: TenantSigning::default(),
            suspend_time: None,
            standing: 0,
            sessions: TenantSessions::default(),
        };
        let admin = NewUser {
            username: ADMIN.to_owned(),
            email: None,
            display_name: String::new(),
            roles: vec![ADMIN_ROLE.to_owned()],
            password_change_required: is_generated,
        };
        let admin = admin.into_user(self.ids.next(now)?, tenant.id, now);
        let by = By { tenant_id: tenant.id, actor_id: None, origin: &Origin::default() };
        let event = self.event(by, Action::Bootstrap, Target::User(admin.id), now)?;
        self.store
            .tx::<_, Error, _>(async move |conn| {
                if !make_default(conn, &tenant, &admin, &hash).await? {
                    return Ok(());
                }
                audit_events::append(conn, &event).await?;
                if is_generated {
                    // Before the commit: a password that is stored but was never shown would lock
                    // everybody out.
                    announce(password.expose_secret());
                }
                Ok(())
            })
            .await?;
        find().await?.map(|tenant| tenant.id()).ok_or(Error::Conflict)
    }
}

async fn make_default(conn: &mut Conn, tenant: &Tenant, admin: &User, hash: &str) -> Result<bool, Error> {
    if !tenants::insert_if_new(conn, tenant).await? {
        return Ok(false);
    }
    users::insert(conn, admin, hash).await?;
    Ok(true)
}

/// 144 bits in 24 characters that can be typed and selected with a double click.
fn generate_password(rng: &dyn Randomness) -> Result<SecretString, Error> {
    let text = URL_SAFE_NO_PAD.encode(rng.bytes::<18>()?);
    Ok(text.replace(['-', '_'], "x").into())
}

/// What a sealed secret opens for: its own name and no other.
pub(super) fn secret_bound_to(name: &str) -> String {
    format!("secret:{name}")
}

async fn open_refresh_secret(
    store: &Store,
    sealer: &Sealer,
    rng: &dyn Randomness,
) -> Result<SecretSlice<u8>, Error> {
    let find = async || store.read(async |conn| server_secrets::find(conn, REFRESH_SECRET).await).await;
    let bound_to = secret_bound_to(REFRESH_SECRET);
    let mut sealed = find().await?;
    if sealed.is_none() {
        let new = sealer.seal(&bound_to, &rng.bytes::<32>()?.to_vec().into())?;
        store
            .tx::<_, Error, _>(async move |conn| {
                Ok(server_secrets::insert_if_new(conn, REFRESH_SECRET, &new).await?)
            })
            .await?;
        sealed = find().await?;
    }
    let sealed = sealed.ok_or(Error::Conflict)?;
    Ok(sealer.open(&bound_to, &sealed)?)
}
