//! Sessions that can do all that sessions do: their keys are real and sealed as the server seals them. They are put
//! into the tables instead of signed in, since a server hashes a hundred passwords a second and these are thousands.

use std::{error::Error, fs, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretSlice;
use tessera::{
    clock::{Clock, SystemClock},
    crypto::{
        random::{OrderedIds, Randomness, SystemRandomness},
        refresh_tag::TagKey,
        sealing::Sealer,
        signing::{NewKey, SigningKey},
    },
    domain::{
        algorithm::Algorithm,
        claims::{ACCESS_TOKEN_TYPE, Claims, UserClaims},
    },
    proto::{GetJwkRequest, keys_client::KeysClient},
};
use uuid::Uuid;

use super::{
    Outcome, ahead,
    home::{Home, Kind},
    process::Process,
    seed::{DEVICES, PROFILE, Seeder},
};

/// How many take turns in a case.
pub const IN_TURN: usize = 1_000;
/// More than any cache of sessions holds.
pub const MANY: usize = 8_500;
/// Rows in one statement.
const ROWS: usize = 500;
/// The settings' default.
const ISSUER: &str = "http://127.0.0.1:50051";

/// Somebody with a session.
pub struct Person {
    user_id: Uuid,
    pub session_id: Uuid,
    tenant_id: Uuid,
    key: SigningKey,
    sealed_key: Vec<u8>,
    salt: [u8; 16],
    pub refresh_token: String,
    /// What the server vouches for its key with; there once that was introduced.
    endorsement: String,
    /// There since then too.
    pub access_token: String,
}

impl Seeder {
    /// Adds so many people, each with one session.
    pub async fn add_people(&mut self, home: &Home, count: usize) -> Outcome<Vec<Person>> {
        let sealer: Sealer = fs::read_to_string(home.dir.path().join("data/kek"))?.parse()?;
        let encoded = if self.kind == Kind::Sqlite { "hex(sealed)" } else { "encode(sealed, 'hex')" };
        let stored = format!("SELECT {encoded} AS first FROM server_secrets WHERE name = 'refresh'");
        let stored = home.query(&stored).await?;
        // What the server binds its secrets and keys to; with anything else it would open none of them.
        let secret = sealer.open("secret:refresh", &from_hex(stored.first().ok_or("no secret")?)?)?;
        let (now, ids) = (SystemClock.now(), OrderedIds::new(Arc::new(SystemRandomness)));
        let tenant_id: Uuid = self.tenant.parse()?;
        let mut people = Vec::new();
        for _ in 0..count {
            people.push(Person::new(&sealer, &secret, &ids, tenant_id, now)?);
        }
        for some in people.chunks(ROWS) {
            home.write(&self.insert(some, now)).await?;
        }
        self.people += count;
        Ok(people)
    }

    fn insert(&self, people: &[Person], now: DateTime<Utc>) -> String {
        let (tenant, now, idle, end) = (
            self.id_literal(&self.tenant),
            self.instant(now),
            self.instant(now + TimeDelta::days(14)),
            self.instant(now + TimeDelta::days(90)),
        );
        let no = if self.kind == Kind::Sqlite { "0" } else { "false" };
        let (mut users, mut sessions, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for person in people {
            let (user, session) = (self.uuid(person.user_id), self.uuid(person.session_id));
            let (kid, salt, sealed) =
                (person.key.kid(), self.blob(&person.salt), self.blob(&person.sealed_key));
            let jwk = serde_json::to_string(person.key.jwk()).unwrap_or_default();
            let name = person.user_id.simple();
            users.push(format!("({user}, {tenant}, '{name}', '-', {no}, '{name}', '', 0, {now}, {now})"));
            sessions.push(format!(
                "({session}, {tenant}, {user}, '{}', '', '', 0, '{kid}', {salt}, '{PROFILE}', 0, {now}, {now}, \
                 {idle}, {end}, '127.0.0.1', '127.0.0.1', '')",
                DEVICES[0]
            ));
            keys.push(format!("('{kid}', {session}, 'ES256', '{jwk}', {sealed})"));
        }
        format!(
            "INSERT INTO users (id, tenant_id, username, password_hash, password_change_required, display_name,
                roles, token_version, create_time, update_time) VALUES {};
             INSERT INTO sessions (id, tenant_id, user_id, device_type, device_id, device_name, slot, kid, salt,
                profile, generation, create_time, refresh_time, idle_expire_time, expire_time, first_address,
                last_address, user_agent) VALUES {};
             INSERT INTO session_keys (kid, session_id, algorithm, public_jwk, sealed_private_key) VALUES {}",
            users.join(", "),
            sessions.join(", "),
            keys.join(", "),
        )
    }

    fn uuid(&self, id: Uuid) -> String {
        self.id_literal(&id.simple().to_string())
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.kind == Kind::Sqlite { format!("X'{hex}'") } else { format!("'\\x{hex}'::bytea") }
    }

    fn instant(&self, time: DateTime<Utc>) -> String {
        if self.kind == Kind::Sqlite {
            time.timestamp_micros().to_string()
        } else {
            format!("'{}'", time.to_rfc3339())
        }
    }
}

impl Person {
    fn new(
        sealer: &Sealer,
        secret: &SecretSlice<u8>,
        ids: &OrderedIds,
        tenant_id: Uuid,
        now: DateTime<Utc>,
    ) -> Outcome<Self> {
        let NewKey { key, pkcs8 } = NewKey::generate(Algorithm::Es256, 2048, &SystemRandomness)?;
        let (user_id, session_id) = (ids.next(now)?, ids.next(now)?);
        let salt = session_id.into_bytes();
        let refresh_token = TagKey::derive(secret, &salt)?.token(session_id, 0)?.to_text();
        let sealed_key = sealer.seal(&format!("key:{}", key.kid()), &pkcs8)?;
        let (endorsement, access_token) = Default::default();
        Ok(Self {
            user_id,
            session_id,
            tenant_id,
            key,
            sealed_key,
            salt,
            refresh_token,
            endorsement,
            access_token,
        })
    }

    /// Another access token, as the server would have made it.
    fn sign(&self) -> Outcome<String> {
        let (rng, now): (&dyn Randomness, _) = (&SystemRandomness, SystemClock.now());
        let claims = Claims {
            iss: ISSUER.to_owned(),
            sub: self.user_id,
            aud: vec!["tessera".to_owned()],
            exp: (now + TimeDelta::minutes(55)).timestamp(),
            iat: now.timestamp(),
            nbf: now.timestamp(),
            jti: rng.random_id()?.to_string(),
            client_id: "tessera".to_owned(),
            scope: String::new(),
            user: Some(UserClaims {
                sid: self.session_id,
                generation: 0,
                ver: 0,
                tenant_id: self.tenant_id,
                device_type: DEVICES[0].to_owned(),
                auth_time: now.timestamp(),
                amr: vec!["pwd".to_owned()],
                roles: Vec::new(),
                email: None,
                preferred_username: None,
            }),
            service: None,
            act: None,
            via: Vec::new(),
            cnf: None,
        };
        Ok(self.key.sign_jwt(ACCESS_TOKEN_TYPE, Some(&self.endorsement), &claims)?)
    }
}

/// Makes each one's access token. The server reads each one's key for that, and has it in memory from then on.
pub async fn introduce(server: &Process, people: &mut [Person]) -> Outcome {
    let mut keys = KeysClient::new(server.channel().await?);
    for person in people {
        let request = GetJwkRequest { kid: person.key.kid().to_owned() };
        person.endorsement = keys.get_jwk(request).await?.into_inner().endorsement;
        person.access_token = person.sign()?;
    }
    Ok(())
}

/// So many tokens that nobody has seen yet, of one after the other of these people, whose keys were introduced.
pub fn sign_ahead(people: &[Person], count: usize) -> Outcome<Vec<String>> {
    ahead::make(count, |number| people[number % people.len()].sign())
}

fn from_hex(hex: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let digits: Vec<char> = hex.chars().collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16);
    Ok(digits.chunks(2).map(byte).collect::<Result<_, _>>()?)
}
