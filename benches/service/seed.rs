//! Fills the tables with users and sessions as they would be there after a while: five live sessions of each user, on
//! five types of devices. They are rows like any other, but for their keys, which are random bytes that sign nothing;
//! sessions that refresh and sign in belong to [`super::people`] or replace one of these.

use chrono::{DateTime, TimeDelta, Utc};
use tessera::{
    clock::{Clock, SystemClock},
    config::Config,
    crypto::{
        passwords::{HashSettings, PasswordHasher},
        random::SystemRandomness,
        signing::NewKey,
    },
    domain::algorithm::Algorithm,
};
use uuid::Uuid;

use super::{
    Outcome,
    home::{Home, Kind},
    support::PASSWORD,
};

/// Live sessions of each user: as many as there are types of devices.
pub const DEVICES: [&str; 5] = ["web", "android", "ios", "desktop", "cli"];
/// Rows that are written in one transaction.
const BATCH: u64 = 1_000_000;
/// What the first bits of an id say beside its time; the rest is its number.
const USER: u64 = 0x7000_8000;
const SESSION: u64 = 0x7000_8001;

/// Fills one home.
pub struct Seeder {
    pub(super) kind: Kind,
    pub(super) tenant: String,
    /// When the first session began.
    begun: DateTime<Utc>,
    password_hash: String,
    public_jwk: String,
    pub sessions: u64,
    pub(super) people: usize,
    pub hashing: HashSettings,
}

impl Seeder {
    pub async fn new(home: &Home) -> Outcome<Self> {
        let hashing = Config::default().check()?.hashing;
        let hasher = PasswordHasher::new(&hashing, std::sync::Arc::new(SystemRandomness))?;
        let id = if home.kind == Kind::Sqlite { "hex(id)" } else { "replace(id::text, '-', '')" };
        let tenants =
            home.query(&format!("SELECT {id} AS first FROM tenants WHERE name = 'default'")).await?;
        let NewKey { key, .. } = NewKey::generate(Algorithm::Es256, 2048, &SystemRandomness)?;
        Ok(Self {
            kind: home.kind,
            tenant: tenants.first().ok_or("no tenant")?.clone(),
            begun: SystemClock.now() - TimeDelta::days(1),
            password_hash: hasher.hash(PASSWORD.into()).await?,
            public_jwk: serde_json::to_string(key.jwk())?,
            sessions: 0,
            people: 0,
            hashing,
        })
    }

    /// Adds rows until there are so many sessions.
    pub async fn fill_to(&mut self, home: &Home, sessions: u64) -> Outcome {
        while self.sessions < sessions {
            let end = sessions.min(self.sessions + BATCH);
            home.write(&self.fill(self.sessions, end)).await?;
            self.sessions = end;
        }
        Ok(())
    }

    /// The id of the session of this number.
    pub fn session_id(&self, number: u64) -> Uuid {
        let time = u128::try_from(self.begun.timestamp_millis()).unwrap_or_default() + u128::from(number);
        Uuid::from_u128((time << 80) | (u128::from(SESSION) << 48) | u128::from(number))
    }

    /// Users, sessions and keys of the sessions from `first` up to `end`.
    fn fill(&self, first: u64, end: u64) -> String {
        let devices = DEVICES.len() as u64;
        let (tenant, hash, jwk) = (self.id_literal(&self.tenant), &self.password_hash, &self.public_jwk);
        let (user_id, session_id) = (self.id("i", USER), self.id("i", SESSION));
        let of_user = self.id(&format!("(i / {devices})"), USER);
        let (begun, idle_end, last_end) = (self.time("i", 0), self.time("i", 14), self.time("i", 90));
        let device = format!("CASE i % {devices} {} END", self.device_cases());
        let (salt, kid, sealed) = (self.bytes("i", 16), self.kid("i"), self.bytes("kid", 176));
        let (no, users) = (self.no(), self.series(first / devices, end.div_ceil(devices)));
        let (from, to) = (self.id(&first.to_string(), SESSION), self.id(&end.to_string(), SESSION));
        format!(
            "{users} INSERT INTO users (id, tenant_id, username, password_hash, password_change_required,
                display_name, roles, token_version, create_time, update_time)
             SELECT {user_id}, {tenant}, 'u-' || i, '{hash}', {no}, 'User ' || i, '', 0, {begun}, {begun} FROM n
             WHERE true ON CONFLICT DO NOTHING;
             {} INSERT INTO sessions (id, tenant_id, user_id, device_type, device_id, device_name, slot, kid, salt,
                profile, generation, create_time, refresh_time, idle_expire_time, expire_time, first_address,
                last_address, user_agent)
             SELECT {session_id}, {tenant}, {of_user}, {device}, '', 'Device ' || i, 0, {kid}, {salt},
                '{PROFILE}', 0, {begun}, {begun}, {idle_end}, {last_end}, '127.0.0.1', '127.0.0.1', 'seeder/1' FROM n;
             INSERT INTO session_keys (kid, session_id, algorithm, public_jwk, sealed_private_key)
             SELECT kid, id, 'ES256', '{jwk}', {sealed} FROM sessions WHERE id >= {from} AND id < {to}",
            self.series(first, end),
        )
    }

    fn device_cases(&self) -> String {
        let cases =
            DEVICES.iter().enumerate().map(|(number, device)| format!("WHEN {number} THEN '{device}'"));
        cases.collect::<Vec<_>>().join(" ")
    }

    /// The numbers from `first` up to `end`, in a table `n` with the column `i`.
    fn series(&self, first: u64, end: u64) -> String {
        let last = end - 1;
        match self.kind {
            Kind::Sqlite => format!(
                "WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
            ),
            Kind::Postgres => {
                format!("WITH n(i) AS (SELECT generate_series({first}::bigint, {last}::bigint))")
            }
        }
    }

    /// The id of this kind and number: a UUIDv7 whose time grows with its number.
    fn id(&self, number: &str, kind: u64) -> String {
        let begun = self.begun.timestamp_millis();
        match self.kind {
            Kind::Sqlite => format!("unhex(printf('%012x{kind:08x}%012x', {begun} + {number}, {number}))"),
            Kind::Postgres => format!(
                "(lpad(to_hex({begun}::bigint + {number}), 12, '0') || '{kind:08x}'
                    || lpad(to_hex({number}::bigint), 12, '0'))::uuid"
            ),
        }
    }

    pub(super) fn id_literal(&self, hex: &str) -> String {
        match self.kind {
            Kind::Sqlite => format!("X'{hex}'"),
            Kind::Postgres => format!("'{hex}'::uuid"),
        }
    }

    /// When the session of this number began, and so many days later.
    fn time(&self, number: &str, days: i64) -> String {
        let begun = (self.begun + TimeDelta::days(days)).timestamp_millis();
        match self.kind {
            Kind::Sqlite => format!("({begun} + {number}) * 1000"),
            Kind::Postgres => format!("to_timestamp(({begun}::bigint + {number}) / 1000.0)"),
        }
    }

    /// So many bytes that look random.
    fn bytes(&self, number: &str, count: usize) -> String {
        match self.kind {
            Kind::Sqlite => format!("randomblob({count})"),
            Kind::Postgres => format!("decode(repeat(md5({number}::text), {}), 'hex')", count / 16),
        }
    }

    /// What looks like a key's thumbprint: in no order, as these are.
    fn kid(&self, number: &str) -> String {
        match self.kind {
            Kind::Sqlite => "substr(hex(randomblob(22)), 1, 43)".to_owned(),
            Kind::Postgres => format!(
                "substr(translate(encode(sha256(convert_to('k' || {number}, 'UTF8')), 'base64'), '+/=', '-_'), 1, 43)"
            ),
        }
    }

    fn no(&self) -> &'static str {
        if self.kind == Kind::Sqlite { "0" } else { "false" }
    }
}

/// What tokens of a session say, as a login without wishes writes it.
pub(super) const PROFILE: &str = r#"{"aud":["tessera"],"scope":"","roles":[],"ver":0,"amr":["pwd"]}"#;
