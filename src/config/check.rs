//! The checks that a type alone can't make. What passes is obeyed as it stands.

use std::{fs, num::NonZero, path::PathBuf, thread::available_parallelism, time::Duration};

use chrono::TimeDelta;
use secrecy::{ExposeSecret, SecretString};
use tracing_subscriber::EnvFilter;

use super::{BadSetting, Config, DpopNonce, OpenTo, SignUp, UserTokens};
use crate::{
    app::{KeyProofSettings, Settings, SigningSettings, cleanup::CleanupSettings, longest_life},
    crypto::{passwords::HashSettings, sealing::Sealer},
    domain::{
        certificate_header::CertificateHeader,
        claims::{MAX_ACCESS_TTL_SECONDS, MAX_LEEWAY_SECONDS},
        network::Prefixes,
        password::PasswordPolicy,
        proxy::{self, TrustedProxies},
        session::Limits,
        session_rules::{LEAST_TTL_SECONDS, MOST_TTL_SECONDS, SessionRules},
        text,
    },
    models::Database,
};

/// Settings that can be obeyed.
pub struct Checked {
    /// As they were read.
    pub config: Config,
    /// What the verbs are told.
    pub app: Settings,
    /// How passwords are hashed.
    pub hashing: HashSettings,
    /// What a new password must be.
    pub policy: PasswordPolicy,
    /// Which database.
    pub database: Database,
    /// Where key-encryption keys come from.
    pub keks: Keks,
}

/// Where key-encryption keys come from.
pub enum Keks {
    /// They were given.
    Given(Sealer),
    /// They are in a file that must be there.
    File(PathBuf),
    /// They are in the data directory, made there if need be.
    Own(PathBuf),
}

/// Says where a setting came from.
type SourceOf<'s> = &'s dyn Fn(&str) -> String;

struct Check<'s>(SourceOf<'s>);

const SECOND: Duration = Duration::from_secs(LEAST_TTL_SECONDS.unsigned_abs());
const HOUR: Duration = Duration::from_secs(MAX_ACCESS_TTL_SECONDS.unsigned_abs());
const MOST_LEEWAY: Duration = Duration::from_secs(MAX_LEEWAY_SECONDS.unsigned_abs());
const CENTURY: Duration = Duration::from_secs(MOST_TTL_SECONDS.unsigned_abs());

impl Check<'_> {
    fn refuse<T>(&self, setting: &str, problem: impl Into<String>) -> Result<T, BadSetting> {
        Err(BadSetting {
            setting: setting.to_owned(),
            problem: problem.into(),
            source_name: (self.0)(setting),
        })
    }

    fn require(&self, holds: bool, setting: &str, problem: &str) -> Result<(), BadSetting> {
        if holds { Ok(()) } else { self.refuse(setting, problem) }
    }

    fn duration(
        &self,
        setting: &str,
        value: Duration,
        least: Duration,
        most: Duration,
    ) -> Result<TimeDelta, BadSetting> {
        if !(least..=most).contains(&value) {
            let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
            return self.refuse(setting, format!("is not between {least} and {most}"));
        }
        TimeDelta::from_std(value).or_else(|_| self.refuse(setting, "is too long"))
    }

    fn file(&self, setting: &str, path: &PathBuf) -> Result<String, BadSetting> {
        fs::read_to_string(path).or_else(|error| self.refuse(setting, format!("{}: {error}", path.display())))
    }
}

impl Checked {
    /// Checks each setting; `source_of` says where one came from.
    pub fn new(config: Config, source_of: SourceOf<'_>) -> Result<Self, BadSetting> {
        let check = Check(source_of);
        check_server(&check, &config)?;
        check_log(&check, &config)?;
        let check_connections = config.database.max_connections >= 1;
        check.require(check_connections, "database.max_connections", "is 0")?;
        Ok(Self {
            app: app_settings(&check, &config)?,
            hashing: hash_settings(&check, &config)?,
            policy: password_policy(&check, &config)?,
            database: database(&check, &config)?,
            keks: keks(&check, &config)?,
            config,
        })
    }
}

fn check_server(check: &Check<'_>, config: &Config) -> Result<(), BadSetting> {
    let server = &config.server;
    let has_tls = match (&server.tls_cert, &server.tls_key) {
        (Some(_), Some(_)) => true,
        (None, None) => false,
        (Some(_), None) => return check.refuse("server.tls_cert", "needs server.tls_key beside it"),
        (None, Some(_)) => return check.refuse("server.tls_key", "needs server.tls_cert beside it"),
    };
    check.require(
        has_tls || server.allow_plaintext || server.listen.ip().is_loopback(),
        "server.listen",
        "is beyond loopback, where tokens and passwords must not travel in plain text: \
         set server.tls_cert and server.tls_key, or allow it with --allow-plaintext",
    )?;
    let has_both = has_tls || server.client_ca.is_none();
    check.require(has_both, "server.client_ca", "needs server.tls_cert and server.tls_key beside it")?;
    check.duration("server.drain_timeout", server.drain_timeout, Duration::ZERO, HOUR)?;
    Ok(())
}

fn check_log(check: &Check<'_>, config: &Config) -> Result<(), BadSetting> {
    match EnvFilter::try_new(&config.log.filter) {
        Ok(_) => Ok(()),
        Err(error) => check.refuse("log.filter", error.to_string()),
    }
}

fn app_settings(check: &Check<'_>, config: &Config) -> Result<Settings, BadSetting> {
    let Config { database, tokens, accounts, .. } = config;
    let is_issuer = text::is_issuer(&tokens.issuer);
    check.require(is_issuer, "tokens.issuer", "is not an http or https URL without a query (RFC 8414)")?;
    let default_audience = match text::audience("tokens.default_audience", &tokens.default_audience) {
        Ok(audience) if !audience.is_empty() => audience,
        Ok(_) => return check.refuse("tokens.default_audience", "is empty"),
        Err(invalid) => return check.refuse("tokens.default_audience", invalid.problem),
    };
    let millisecond = Duration::from_millis(1);
    check.duration("database.poll_interval", database.poll_interval, millisecond, HOUR)?;
    Ok(Settings {
        issuer: tokens.issuer.clone(),
        default_audience,
        access_ttl: check.duration("tokens.access_ttl", tokens.access_ttl, SECOND, HOUR)?,
        service_ttl: check.duration("tokens.service_ttl", tokens.service_ttl, SECOND, HOUR)?,
        leeway: check.duration("tokens.leeway", tokens.leeway, Duration::ZERO, MOST_LEEWAY)?,
        key_proofs: key_proof_settings(check, config)?,
        sessions: session_rules(check, config)?,
        prefixes: prefixes(check, config)?,
        trusted_proxies: trusted_proxies(check, config)?,
        asks_for_certificates: config.server.client_ca.is_some(),
        certificate_header: certificate_header(check, config)?,
        signup_open: accounts.signup == SignUp::Open,
        signing: signing_settings(check, config)?,
        poll_interval: database.poll_interval,
        listen_notify: database.listen_notify,
        max_watchers: config.server.max_watchers as usize,
        max_watchers_per_address: config.server.max_watchers_per_address as usize,
        is_watch_for_services: config.server.watch == OpenTo::Services,
        is_introspection_for_services: tokens.introspection == OpenTo::Services,
        cleanup: cleanup_settings(check, config)?,
    })
}

fn key_proof_settings(check: &Check<'_>, config: &Config) -> Result<KeyProofSettings, BadSetting> {
    let tokens = &config.tokens;
    let settings = KeyProofSettings {
        nonce_required: tokens.dpop_nonce == DpopNonce::Required,
        origins: tokens.dpop_origins.clone(),
    };
    match settings.check() {
        Ok(()) => Ok(settings),
        Err(bad) => check.refuse("tokens.dpop_origins", bad.to_string()),
    }
}

fn session_rules(check: &Check<'_>, config: &Config) -> Result<SessionRules, BadSetting> {
    let sessions = &config.sessions;
    check.require(sessions.per_device_type >= 1, "sessions.per_device_type", "is 0")?;
    check.require(sessions.per_user >= 1, "sessions.per_user", "is 0")?;
    let grace = sessions.refresh_grace;
    Ok(SessionRules {
        limits: Limits {
            per_device_type: sessions.per_device_type,
            per_user: sessions.per_user,
            idle_ttl: check.duration("sessions.idle_ttl", sessions.idle_ttl, SECOND, CENTURY)?,
            absolute_ttl: check.duration("sessions.absolute_ttl", sessions.absolute_ttl, SECOND, CENTURY)?,
            refresh_grace: check.duration("sessions.refresh_grace", grace, Duration::ZERO, HOUR)?,
        },
        on_address_change: sessions.on_address_change,
        on_device_change: sessions.on_device_change,
    })
}

fn cleanup_settings(check: &Check<'_>, config: &Config) -> Result<CleanupSettings, BadSetting> {
    let Config { database, tokens, sessions, audit, .. } = config;
    let (interval, millisecond) = (database.cleanup_interval, Duration::from_millis(1));
    check.duration("database.cleanup_interval", interval, millisecond, 24 * HOUR)?;
    // While a token of a session may be alive, the session is there to be asked for.
    let leeway = check.duration("tokens.leeway", tokens.leeway, Duration::ZERO, MOST_LEEWAY)?;
    let least = longest_life(leeway).to_std().unwrap_or(HOUR);
    let keep_events = match audit.keep {
        Duration::ZERO => None,
        keep => Some(check.duration("audit.keep", keep, HOUR, CENTURY)?),
    };
    Ok(CleanupSettings {
        interval,
        keep_ended: check.duration("sessions.keep_ended", sessions.keep_ended, least, CENTURY)?,
        keep_events,
    })
}

fn prefixes(check: &Check<'_>, config: &Config) -> Result<Prefixes, BadSetting> {
    let (v4, v6) = (config.sessions.address_prefix_v4, config.sessions.address_prefix_v6);
    check.require((1..=32).contains(&v4), "sessions.address_prefix_v4", "is not 1 to 32")?;
    check.require((1..=128).contains(&v6), "sessions.address_prefix_v6", "is not 1 to 128")?;
    Ok(Prefixes { v4, v6 })
}

fn trusted_proxies(check: &Check<'_>, config: &Config) -> Result<TrustedProxies, BadSetting> {
    let parse = |text: &String| {
        let problem = || format!("`{text}` is neither an address nor a network as 10.0.0.0/8");
        proxy::parse_network(text).map_or_else(|| check.refuse("server.trusted_proxies", problem()), Ok)
    };
    config.server.trusted_proxies.iter().map(parse).collect()
}

fn certificate_header(check: &Check<'_>, config: &Config) -> Result<Option<CertificateHeader>, BadSetting> {
    let setting = "server.client_cert_header";
    let name = config.server.client_cert_header.as_deref();
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let has_proxies = !config.server.trusted_proxies.is_empty();
    check.require(has_proxies, setting, "needs server.trusted_proxies beside it: nobody else is believed")?;
    let header = CertificateHeader::named(name);
    header.map_or_else(|| check.refuse(setting, "is not the name of a header"), |header| Ok(Some(header)))
}

fn signing_settings(check: &Check<'_>, config: &Config) -> Result<SigningSettings, BadSetting> {
    let signing = &config.signing;
    let is_length = [2048, 3072, 4096].contains(&signing.rsa_bits);
    check.require(is_length, "signing.rsa_bits", "is not 2048, 3072 or 4096")?;
    check.require((1..=10_000).contains(&signing.rsa_pool), "signing.rsa_pool", "is not 1 to 10000")?;
    let publish_before =
        check.duration("signing.publish_before", signing.publish_before, SECOND, 30 * 24 * HOUR)?;
    // Else the next key would have to be published before this one signs.
    let least = 2 * signing.publish_before;
    Ok(SigningSettings {
        algorithm: signing.algorithm,
        session_algorithm: signing.session_algorithm.unwrap_or(signing.algorithm),
        by_issuer_key: signing.user_tokens == UserTokens::Issuer,
        endorse_in_header: signing.endorse_in_header,
        rotate_every: check.duration("signing.rotate_every", signing.rotate_every, least, CENTURY)?,
        publish_before,
        rsa_bits: signing.rsa_bits,
        rsa_pool: signing.rsa_pool,
    })
}

fn hash_settings(check: &Check<'_>, config: &Config) -> Result<HashSettings, BadSetting> {
    let passwords = &config.passwords;
    let settings = HashSettings {
        memory_kib: passwords.argon2_memory_kib,
        time: passwords.argon2_time,
        lanes: passwords.argon2_lanes,
        threads: passwords.hash_threads.unwrap_or_else(|| available_parallelism().map_or(1, NonZero::get)),
        queue: passwords.hash_queue,
        deadline: passwords.hash_deadline,
    };
    check.require((1..=1024).contains(&settings.threads), "passwords.hash_threads", "is not 1 to 1024")?;
    check.require(settings.lanes >= 1, "passwords.argon2_lanes", "is 0")?;
    check.require(settings.lanes <= 255, "passwords.argon2_lanes", "is more than 255")?;
    check.require(settings.time >= 1, "passwords.argon2_time", "is 0")?;
    let least = 8 * settings.lanes;
    check.require(
        settings.memory_kib >= least,
        "passwords.argon2_memory_kib",
        "is less than 8 for each lane",
    )?;
    check.duration("passwords.hash_deadline", settings.deadline, Duration::ZERO, HOUR)?;
    Ok(settings)
}

fn password_policy(check: &Check<'_>, config: &Config) -> Result<PasswordPolicy, BadSetting> {
    let passwords = &config.passwords;
    check.require(passwords.min_length >= 8, "passwords.min_length", "is less than 8")?;
    let holds = (64..=4096).contains(&passwords.max_length) && passwords.max_length >= passwords.min_length;
    check.require(holds, "passwords.max_length", "is not 64 to 4096 and at least passwords.min_length")?;
    let more = match &passwords.blocklist_file {
        Some(path) => check.file("passwords.blocklist_file", path)?,
        None => String::new(),
    };
    Ok(PasswordPolicy::new(passwords.min_length, passwords.max_length, &more))
}

fn database(check: &Check<'_>, config: &Config) -> Result<Database, BadSetting> {
    match &config.database.url {
        None => Ok(Database::Sqlite(config.server.data_dir.join("tessera.db"))),
        Some(url) => {
            let parsed = url.expose_secret().parse();
            parsed.or_else(|error| check.refuse("database.url", format!("{error}")))
        }
    }
}

fn keks(check: &Check<'_>, config: &Config) -> Result<Keks, BadSetting> {
    let sealing = &config.sealing;
    let parse = |setting: &str, text: &SecretString| {
        text.expose_secret().parse::<Sealer>().or_else(|error| check.refuse(setting, error.to_string()))
    };
    match (&sealing.keks, &sealing.kek_file) {
        (Some(_), Some(_)) => check.refuse("sealing.keks", "is given beside sealing.kek_file; one is enough"),
        (Some(keks), None) => Ok(Keks::Given(parse("sealing.keks", keks)?)),
        (None, Some(path)) => {
            let text = check.file("sealing.kek_file", path)?.into();
            parse("sealing.kek_file", &text)?;
            Ok(Keks::File(path.clone()))
        }
        (None, None) => Ok(Keks::Own(config.server.data_dir.join("kek"))),
    }
}
