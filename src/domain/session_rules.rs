//! What sessions must keep to: the settings, and what a tenant has instead of them.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use super::{InvalidField, session::Limits};

/// The shortest time that a session may live, idle or in all.
pub const LEAST_TTL_SECONDS: i64 = 1;
/// The longest one: a century.
pub const MOST_TTL_SECONDS: i64 = 100 * 365 * 24 * 60 * 60;

/// What is done about a refresh that comes from elsewhere than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reaction {
    /// Nothing.
    Ignore,
    /// It goes on and is recorded.
    Record,
    /// It is refused, and the session stays where it was.
    Reauthenticate,
    /// The session ends.
    Revoke,
}

/// What a session must keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRules {
    /// How long sessions live and how many there are.
    pub limits: Limits,
    /// What is done about another network.
    pub on_address_change: Reaction,
    /// What is done about another device.
    pub on_device_change: Reaction,
}

/// What a tenant's sessions have instead of the settings; `None` follows them. What a newer release added is not
/// obeyed by this one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSessions {
    /// Live sessions on each type of device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_device_type: Option<u32>,
    /// Live sessions of one user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_user: Option<u32>,
    /// A session that isn't refreshed for so long expires.
    #[serde(rename = "idle_ttl_us", with = "micros", skip_serializing_if = "Option::is_none")]
    pub idle_ttl: Option<TimeDelta>,
    /// A session expires so long after its login.
    #[serde(rename = "absolute_ttl_us", with = "micros", skip_serializing_if = "Option::is_none")]
    pub absolute_ttl: Option<TimeDelta>,
    /// What is done about another network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_address_change: Option<Reaction>,
    /// What is done about another device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_device_change: Option<Reaction>,
}

impl Reaction {
    /// Whether the refresh gets no tokens.
    pub const fn refuses(self) -> bool {
        matches!(self, Self::Reauthenticate | Self::Revoke)
    }
}

impl TenantSessions {
    /// What holds for the tenant where the settings are these.
    pub fn over(self, settings: SessionRules) -> SessionRules {
        let limits = settings.limits;
        SessionRules {
            limits: Limits {
                per_device_type: self.per_device_type.unwrap_or(limits.per_device_type),
                per_user: self.per_user.unwrap_or(limits.per_user),
                idle_ttl: self.idle_ttl.unwrap_or(limits.idle_ttl),
                absolute_ttl: self.absolute_ttl.unwrap_or(limits.absolute_ttl),
                refresh_grace: limits.refresh_grace,
            },
            on_address_change: self.on_address_change.unwrap_or(settings.on_address_change),
            on_device_change: self.on_device_change.unwrap_or(settings.on_device_change),
        }
    }

    /// Checks the bounds, which are those of the settings.
    pub fn check(self) -> Result<Self, InvalidField> {
        for (field, count) in [
            ("session_policy.per_device_type", self.per_device_type),
            ("session_policy.per_user", self.per_user),
        ] {
            if count == Some(0) {
                return Err(InvalidField::new(field, "is 0"));
            }
        }
        let bounds = TimeDelta::seconds(LEAST_TTL_SECONDS)..=TimeDelta::seconds(MOST_TTL_SECONDS);
        for (field, ttl) in
            [("session_policy.idle_ttl", self.idle_ttl), ("session_policy.absolute_ttl", self.absolute_ttl)]
        {
            if ttl.is_some_and(|ttl| !bounds.contains(&ttl)) {
                let problem = format!("is not between {LEAST_TTL_SECONDS} and {MOST_TTL_SECONDS} s");
                return Err(InvalidField::new(field, problem));
            }
        }
        Ok(self)
    }
}

/// A duration as a whole number of microseconds, as precise as every time that is stored.
mod micros {
    use chrono::TimeDelta;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(ttl: &Option<TimeDelta>, serializer: S) -> Result<S::Ok, S::Error> {
        ttl.and_then(|ttl| ttl.num_microseconds()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TimeDelta>, D::Error> {
        Ok(Option::<i64>::deserialize(deserializer)?.map(TimeDelta::microseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> SessionRules {
        SessionRules {
            limits: Limits {
                per_device_type: 1,
                per_user: 20,
                idle_ttl: TimeDelta::days(14),
                absolute_ttl: TimeDelta::days(90),
                refresh_grace: TimeDelta::seconds(10),
            },
            on_address_change: Reaction::Record,
            on_device_change: Reaction::Reauthenticate,
        }
    }

    #[test]
    fn what_a_tenant_leaves_out_follows_the_settings() {
        assert_eq!(TenantSessions::default().over(settings()), settings());
        let own = TenantSessions {
            per_user: Some(2),
            idle_ttl: Some(TimeDelta::hours(1)),
            on_address_change: Some(Reaction::Revoke),
            ..TenantSessions::default()
        };
        let rules = own.over(settings());
        assert_eq!((rules.limits.per_user, rules.limits.per_device_type), (2, 1));
        assert_eq!(
            (rules.limits.idle_ttl, rules.limits.absolute_ttl),
            (TimeDelta::hours(1), TimeDelta::days(90))
        );
        assert_eq!(
            (rules.on_address_change, rules.on_device_change),
            (Reaction::Revoke, Reaction::Reauthenticate)
        );
    }

    #[test]
    fn it_is_written_and_read_also_where_a_newer_release_says_more() {
        let own = TenantSessions {
            per_device_type: Some(3),
            idle_ttl: Some(TimeDelta::milliseconds(1500)),
            on_device_change: Some(Reaction::Record),
            ..TenantSessions::default()
        };
        let json = serde_json::to_string(&own).unwrap();
        assert_eq!(json, r#"{"per_device_type":3,"idle_ttl_us":1500000,"on_device_change":"record"}"#);
        assert_eq!(serde_json::from_str::<TenantSessions>(&json).unwrap(), own);
        let newer = r#"{"per_moon":3,"per_user":2}"#;
        assert_eq!(serde_json::from_str::<TenantSessions>(newer).unwrap().per_user, Some(2));
        for wrong in [r#"{"per_user":-1}"#, r#"{"on_device_change":"shrug"}"#, "[]x", ""] {
            assert!(serde_json::from_str::<TenantSessions>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn its_bounds_are_those_of_the_settings() {
        let with_idle = |ttl| TenantSessions { idle_ttl: Some(ttl), ..TenantSessions::default() };
        assert!(with_idle(TimeDelta::seconds(1)).check().is_ok());
        assert!(with_idle(TimeDelta::milliseconds(999)).check().is_err());
        assert!(with_idle(TimeDelta::seconds(MOST_TTL_SECONDS + 1)).check().is_err());
        let none = TenantSessions { per_user: Some(0), ..TenantSessions::default() };
        assert_eq!(none.check().unwrap_err().field, "session_policy.per_user");
    }
}
