//! Sessions: what a login starts, how it lives, how it ends.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::device::Device;

/// A session: one user, one device, one chain of refresh tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id; the claim `sid`.
    pub id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The user's tenant.
    pub tenant_id: Uuid,
    /// The device that signed in.
    pub device: Device,
    /// Which of the places for sessions on this type of device it holds, from 0.
    pub slot: i32,
    /// The id of its key.
    pub kid: String,
    /// The newest generation of its chain.
    pub generation: i64,
    /// When it began, which is when the person authenticated.
    pub create_time: DateTime<Utc>,
    /// When its generation last moved.
    pub refresh_time: DateTime<Utc>,
    /// When it expires unless it is refreshed before.
    pub idle_expire_time: DateTime<Utc>,
    /// When it expires whatever happens.
    pub expire_time: DateTime<Utc>,
    /// When and why it ended.
    pub end: Option<End>,
    /// The network address that signed in.
    pub first_address: String,
    /// The network address that refreshed last.
    pub last_address: String,
    /// The network of that; empty where it is not known.
    pub last_network: String,
    /// When and where it was seen other than by a refresh.
    pub seen: Option<Seen>,
    /// The `user-agent` that signed in.
    pub user_agent: String,
    /// The thumbprint of the key that its tokens are bound to (RFC 9449), where they are.
    pub dpop_jkt: Option<String>,
}

/// A session was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub time: DateTime<Utc>,
    /// The network address that it was seen at.
    pub address: String,
}

/// The end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// When.
    pub time: DateTime<Utc>,
    /// Why.
    pub reason: EndReason,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndReason {
    /// Its user signed out.
    Logout,
    /// Its user signed out everywhere.
    LogoutAll,
    /// A newer login on the same type of device took its place.
    Replaced,
    /// The user had more sessions than `sessions.per_user`.
    Limit,
    /// The password was changed.
    PasswordChanged,
    /// Its user or an admin ended it.
    Revoked,
    /// The user was disabled.
    UserDisabled,
    /// A refresh token was used a second time.
    Reuse,
    /// A refresh came from another network, and this ends sessions.
    AddressChanged,
    /// A refresh came from another device, and this ends sessions.
    DeviceChanged,
    /// It had expired when a newer login needed its place.
    Expired,
    /// For a reason that only a newer release knows.
    Other,
}

impl EndReason {
    const ALL: [Self; 12] = [
        Self::Logout,
        Self::LogoutAll,
        Self::Replaced,
        Self::Limit,
        Self::PasswordChanged,
        Self::Revoked,
        Self::UserDisabled,
        Self::Reuse,
        Self::AddressChanged,
        Self::DeviceChanged,
        Self::Expired,
        Self::Other,
    ];

    /// The word in the database and the contract.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::LogoutAll => "logout_all",
            Self::Replaced => "replaced",
            Self::Limit => "limit",
            Self::PasswordChanged => "password_changed",
            Self::Revoked => "revoked",
            Self::UserDisabled => "user_disabled",
            Self::Reuse => "reuse",
            Self::AddressChanged => "address_changed",
            Self::DeviceChanged => "device_changed",
            Self::Expired => "expired",
            Self::Other => "other",
        }
    }

    /// The reason that the word stands for. Whatever the reason was, the session has ended.
    pub fn from_word(word: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Self::Other)
    }
}

/// Where a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be refreshed.
    Active,
    /// It was ended.
    Ended,
    /// One of its limits has passed.
    Expired,
}

/// How long sessions live and how many there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Live sessions on each type of device.
    pub per_device_type: u32,
    /// Live sessions of one user.
    pub per_user: u32,
    /// A session that isn't refreshed for so long expires.
    pub idle_ttl: TimeDelta,
    /// A session expires so long after its login.
    pub absolute_ttl: TimeDelta,
    /// How long a spent refresh token is taken for a retry.
    pub refresh_grace: TimeDelta,
}

impl Limits {
    /// When a session expires that is used now and ends at `expire_time` at the latest.
    pub fn idle_expire_time(&self, now: DateTime<Utc>, expire_time: DateTime<Utc>) -> DateTime<Utc> {
        (now + self.idle_ttl).min(expire_time)
    }
}

/// What a refresh meets whose one statement changed no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissedRefresh {
    /// The successor was made moments ago and nobody has used it: hand out the same one again.
    Retry,
    /// The session has ended.
    Ended,
    /// The session has expired.
    Expired,
    /// The token was spent: the session must end.
    Reuse,
    /// The token is the newest and unspent: where it comes from kept it from being taken.
    Unspent,
    /// The token is newer than the session, as after the database was restored from a backup.
    Ahead,
}

impl Session {
    /// Where it stands.
    pub fn state(&self, now: DateTime<Utc>) -> State {
        if let Some(end) = self.end {
            if end.reason == EndReason::Expired { State::Expired } else { State::Ended }
        } else if self.idle_expire_time <= now || self.expire_time <= now {
            State::Expired
        } else {
            State::Active
        }
    }

    /// When and where it was seen last.
    pub fn last_seen(&self) -> (DateTime<Utc>, &str) {
        match &self.seen {
            Some(seen) if seen.time > self.refresh_time => (seen.time, &seen.address),
            _ => (self.refresh_time, &self.last_address),
        }
    }

    /// Decides about a true refresh token of this session that the refresh statement did not accept.
    pub fn missed_refresh(&self, generation: i64, grace: TimeDelta, now: DateTime<Utc>) -> MissedRefresh {
        match self.state(now) {
            State::Ended => MissedRefresh::Ended,
            State::Expired => MissedRefresh::Expired,
            State::Active if generation == self.generation => MissedRefresh::Unspent,
            State::Active if generation > self.generation => MissedRefresh::Ahead,
            State::Active if self.generation == generation + 1 && now < self.refresh_time + grace => {
                MissedRefresh::Retry
            }
            State::Active => MissedRefresh::Reuse,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds)
    }

    pub fn session(id: u128, kind: &str, slot: i32, created: i64) -> Session {
        Session {
            id: Uuid::from_u128(id),
            user_id: Uuid::nil(),
            tenant_id: Uuid::nil(),
            device: Device { kind: kind.to_owned(), id: String::new(), name: String::new() },
            slot,
            kid: String::new(),
            generation: 0,
            create_time: at(created),
            refresh_time: at(created),
            idle_expire_time: at(created + 100),
            expire_time: at(created + 1000),
            end: None,
            first_address: String::new(),
            last_address: String::new(),
            last_network: String::new(),
            seen: None,
            user_agent: String::new(),
            dpop_jkt: None,
        }
    }

    #[test]
    fn only_the_newest_spent_token_within_grace_is_a_retry() {
        let grace = TimeDelta::seconds(10);
        let mut session = session(1, "web", 0, 0);
        (session.generation, session.refresh_time) = (5, at(50));
        let missed = |generation, now| session.missed_refresh(generation, grace, at(now));
        assert_eq!(missed(4, 59), MissedRefresh::Retry);
        assert_eq!(missed(4, 60), MissedRefresh::Reuse);
        assert_eq!(missed(3, 51), MissedRefresh::Reuse);
        assert_eq!(missed(5, 51), MissedRefresh::Unspent);
        assert_eq!(missed(6, 51), MissedRefresh::Ahead);
        assert_eq!(missed(4, 100), MissedRefresh::Expired);
        assert_eq!(session.missed_refresh(4, TimeDelta::zero(), at(50)), MissedRefresh::Reuse);
    }

    #[test]
    fn it_was_last_seen_at_its_refresh_or_later() {
        let mut session = session(1, "web", 0, 0);
        (session.refresh_time, session.last_address) = (at(50), "192.0.2.1".to_owned());
        assert_eq!(session.last_seen(), (at(50), "192.0.2.1"));
        session.seen = Some(Seen { time: at(40), address: "192.0.2.2".to_owned() });
        assert_eq!(session.last_seen(), (at(50), "192.0.2.1"));
        session.seen = Some(Seen { time: at(60), address: "192.0.2.2".to_owned() });
        assert_eq!(session.last_seen(), (at(60), "192.0.2.2"));
    }
}
