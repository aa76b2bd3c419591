//! The settings: one typed [`Config`] from defaults, a TOML file, the environment and flags, in this
//! order. A wrong one is named with where it came from.

mod check;
mod load;
mod values;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::domain::{algorithm::Algorithm, session_rules::Reaction};
pub use check::{Checked, Keks};
pub use load::{Flags, Loaded};

/// Everything that an operator can choose.
#[derive(Clone, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[database]`
    pub database: Database,
    /// `[tokens]`
    pub tokens: Tokens,
    /// `[sessions]`
    pub sessions: Sessions,
    /// `[signing]`
    pub signing: Signing,
    /// `[sealing]`
    pub sealing: Sealing,
    /// `[accounts]`
    pub accounts: Accounts,
    /// `[passwords]`
    pub passwords: Passwords,
    /// `[audit]`
    pub audit: Audit,
    /// `[log]`
    pub log: Log,
}

/// Where it listens and keeps its files.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Server {
    /// The address and port.
    pub listen: SocketAddr,
    /// The directory of the embedded database and of the key-encryption key.
    pub data_dir: PathBuf,
    /// The certificate chain, PEM.
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authorities that vouch for clients', PEM.
    pub client_ca: Option<PathBuf>,
    /// Serve without TLS beyond loopback.
    pub allow_plaintext: bool,
    /// Addresses and networks of proxies whose word for a caller's address counts.
    #[serde(deserialize_with = "values::list")]
    pub trusted_proxies: Vec<String>,
    /// The header in which they tell the certificate of their client.
    pub client_cert_header: Option<String>,
    /// Serve gRPC reflection.
    pub reflection: bool,
    /// Verifiers that may follow the trust log here, and clients that may wait for the end of their session.
    pub max_watchers: u32,
    /// Verifiers of them that may be at one address.
    pub max_watchers_per_address: u32,
    /// Who may follow the trust log.
    pub watch: OpenTo,
    /// How long calls in flight may take after the signal to stop.
    #[serde(with = "values::duration")]
    pub drain_timeout: Duration,
}

/// The database.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Database {
    /// `sqlite://PATH` or `postgres://…`; without it, SQLite in the data directory.
    #[serde(serialize_with = "untold")]
    pub url: Option<SecretString>,
    /// Connections at most.
    pub max_connections: u32,
    /// Replicas tell each other of revocations with LISTEN and NOTIFY; off for databases that have none.
    pub listen_notify: bool,
    /// How often the trust log is read.
    #[serde(with = "values::duration")]
    pub poll_interval: Duration,
    /// How often what is over is looked for and removed.
    #[serde(with = "values::duration")]
    pub cleanup_interval: Duration,
}

/// Access tokens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Tokens {
    /// The claim `iss`.
    pub issuer: String,
    /// The audiences of a token for which none was asked.
    #[serde(deserialize_with = "values::list")]
    pub default_audience: Vec<String>,
    /// How long an access token lives.
    #[serde(with = "values::duration")]
    pub access_ttl: Duration,
    /// How long a service's token lives.
    #[serde(with = "values::duration")]
    pub service_ttl: Duration,
    /// How far clocks may differ.
    #[serde(with = "values::duration")]
    pub leeway: Duration,
    /// Whether proofs of keys must carry a nonce.
    pub dpop_nonce: DpopNonce,
    /// What they must name beside the method; where there is none, the method alone counts.
    #[serde(deserialize_with = "values::list")]
    pub dpop_origins: Vec<String>,
    /// Who may ask whether a token is good.
    pub introspection: OpenTo,
}

/// Whom a method is open to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpenTo {
    /// Anyone.
    Anyone,
    /// Service accounts alone.
    Services,
}

/// Whether proofs of keys (RFC 9449) must carry a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpopNonce {
    /// They need none.
    Off,
    /// Each carries one that this service gave out of late.
    Required,
}

/// Sessions and their refresh tokens.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Sessions {
    /// Live sessions of a user on each type of device.
    pub per_device_type: u32,
    /// Live sessions of a user.
    pub per_user: u32,
    /// A session that isn't refreshed for so long expires.
    #[serde(with = "values::duration")]
    pub idle_ttl: Duration,
    /// A session expires so long after its login.
    #[serde(with = "values::duration")]
    pub absolute_ttl: Duration,
    /// How long a spent refresh token is taken for a retry; 0 turns it off.
    #[serde(with = "values::duration")]
    pub refresh_grace: Duration,
    /// What is done about a refresh from another network.
    pub on_address_change: Reaction,
    /// What is done about a refresh from another device.
    pub on_device_change: Reaction,
    /// Leading bits that IPv4 addresses of one network have in common.
    pub address_prefix_v4: u8,
    /// Leading bits that IPv6 addresses of one network have in common.
    pub address_prefix_v6: u8,
    /// How long a session is kept after it ended or expired.
    #[serde(with = "values::duration")]
    pub keep_ended: Duration,
}

/// Keys and signatures.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Signing {
    /// The algorithm of issuer keys.
    pub algorithm: Algorithm,
    /// The algorithm of the keys of new sessions; without it, the same.
    pub session_algorithm: Option<Algorithm>,
    /// Which key signs users' tokens.
    pub user_tokens: UserTokens,
    /// Access tokens carry the endorsement of their session's key.
    pub endorse_in_header: bool,
    /// An issuer key signs for so long, then the next one does.
    #[serde(with = "values::duration")]
    pub rotate_every: Duration,
    /// An issuer key is published for so long before it signs.
    #[serde(with = "values::duration")]
    pub publish_before: Duration,
    /// Bits of an RSA key.
    pub rsa_bits: usize,
    /// RSA keys that are made ahead of need, where sessions have such keys.
    pub rsa_pool: u32,
}

/// Which key signs users' tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserTokens {
    /// The session's own.
    Session,
    /// The issuer's, for verifiers that know no endorsements.
    Issuer,
}

/// Key-encryption keys.
#[derive(Clone, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Sealing {
    /// A file of key-encryption keys; without it, `kek` in the data directory, which is made where it is missing.
    pub kek_file: Option<PathBuf>,
    /// The keys themselves, `id:base64,…`, instead of a file; the first one seals.
    #[serde(serialize_with = "untold")]
    pub keks: Option<SecretString>,
}

/// User accounts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Accounts {
    /// Whether people can make themselves users.
    pub signup: SignUp,
}

/// Whether people can make themselves users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignUp {
    /// Only admins make users.
    Closed,
    /// Anyone can.
    Open,
}

/// Passwords and their hashing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Passwords {
    /// The shortest new password, in characters.
    pub min_length: usize,
    /// The longest password, in characters.
    pub max_length: usize,
    /// A file of refused passwords, one in a line, beside the built-in list.
    pub blocklist_file: Option<PathBuf>,
    /// Memory of one argon2id hash, in KiB.
    pub argon2_memory_kib: u32,
    /// Passes.
    pub argon2_time: u32,
    /// Lanes.
    pub argon2_lanes: u32,
    /// Hashes at the same time; without it, one for each core.
    pub hash_threads: Option<usize>,
    /// Hashes that may wait.
    pub hash_queue: usize,
    /// How long one may wait.
    #[serde(with = "values::duration")]
    pub hash_deadline: Duration,
}

/// The audit trail.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// How long an event is kept; 0 keeps it for ever.
    #[serde(with = "values::duration")]
    pub keep: Duration,
}

/// The log.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Log {
    /// `text` or `json`; without it, text on a terminal and JSON elsewhere.
    pub format: Option<LogFormat>,
    /// What is logged, as `info` or `tessera=debug,info`.
    pub filter: String,
}

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 50051).into(),
            data_dir: "./data".into(),
            tls_cert: None,
            tls_key: None,
            client_ca: None,
            allow_plaintext: false,
            trusted_proxies: Vec::new(),
            client_cert_header: None,
            reflection: true,
            max_watchers: 20_000,
            max_watchers_per_address: 100,
            watch: OpenTo::Anyone,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
            listen_notify: true,
            poll_interval: Duration::from_secs(1),
            cleanup_interval: Duration::from_secs(60),
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            issuer: "http://127.0.0.1:50051".to_owned(),
            default_audience: vec!["tessera".to_owned()],
            access_ttl: Duration::from_secs(15 * 60),
            service_ttl: Duration::from_secs(5 * 60),
            leeway: Duration::from_secs(30),
            dpop_nonce: DpopNonce::Off,
            dpop_origins: Vec::new(),
            introspection: OpenTo::Anyone,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let days = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        Self {
            per_device_type: 1,
            per_user: 20,
            idle_ttl: days(14),
            absolute_ttl: days(90),
            refresh_grace: Duration::from_secs(10),
            on_address_change: Reaction::Record,
            on_device_change: Reaction::Reauthenticate,
            address_prefix_v4: 24,
            address_prefix_v6: 64,
            keep_ended: days(7),
        }
    }
}

impl Default for Signing {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::Es256,
            session_algorithm: None,
            user_tokens: UserTokens::Session,
            endorse_in_header: true,
            rotate_every: Duration::from_secs(30 * 24 * 60 * 60),
            publish_before: Duration::from_secs(10 * 60),
            rsa_bits: 2048,
            rsa_pool: 64,
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self { signup: SignUp::Closed }
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self {
            min_length: 8,
            max_length: 128,
            blocklist_file: None,
            argon2_memory_kib: 19_456,
            argon2_time: 2,
            argon2_lanes: 1,
            hash_threads: None,
            hash_queue: 256,
            hash_deadline: Duration::from_secs(5),
        }
    }
}

impl Default for Audit {
    fn default() -> Self {
        Self { keep: Duration::from_secs(400 * 24 * 60 * 60) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: None, filter: "info".to_owned() }
    }
}

/// A secret's place in the list of known settings, without the secret.
fn untold<S: serde::Serializer>(_: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_none()
}

/// A setting that can't be obeyed, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem} (from {source_name})")]
pub struct BadSetting {
    /// The setting, as `tokens.access_ttl`.
    pub setting: String,
    /// What is wrong with it. Never the value of a secret.
    pub problem: String,
    /// Where it came from.
    pub source_name: String,
}

impl Config {
    /// Checks settings that a program made itself.
    pub fn check(self) -> Result<Checked, BadSetting> {
        Checked::new(self, &|_| "the program".to_owned())
    }
}
