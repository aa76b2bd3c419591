//! A tenant's rules for sessions, in and out.

use chrono::TimeDelta;
use prost_types::Duration;

use super::parse;
use crate::{
    domain::{
        InvalidField,
        session_rules::{MOST_TTL_SECONDS, Reaction, TenantSessions},
    },
    proto,
};

/// Reads and checks them.
pub(super) fn parse(told: &proto::TenantSessions) -> Result<TenantSessions, InvalidField> {
    TenantSessions {
        per_device_type: count("session_policy.per_device_type", told.per_device_type)?,
        per_user: count("session_policy.per_user", told.per_user)?,
        idle_ttl: ttl("session_policy.idle_ttl", told.idle_ttl)?,
        absolute_ttl: ttl("session_policy.absolute_ttl", told.absolute_ttl)?,
        on_address_change: reaction("session_policy.on_address_change", told.on_address_change)?,
        on_device_change: reaction("session_policy.on_device_change", told.on_device_change)?,
    }
    .check()
}

fn count(field: &'static str, told: Option<i32>) -> Result<Option<u32>, InvalidField> {
    told.map(|count| u32::try_from(count).map_err(|_| InvalidField::new(field, "is negative"))).transpose()
}

fn ttl(field: &'static str, told: Option<Duration>) -> Result<Option<TimeDelta>, InvalidField> {
    told.map(|ttl| parse::duration(field, ttl, TimeDelta::seconds(MOST_TTL_SECONDS))).transpose()
}

fn reaction(field: &'static str, told: Option<i32>) -> Result<Option<Reaction>, InvalidField> {
    use proto::SessionReaction as Told;
    let Some(told) = told else { return Ok(None) };
    match Told::try_from(told) {
        Ok(Told::Ignore) => Ok(Some(Reaction::Ignore)),
        Ok(Told::Record) => Ok(Some(Reaction::Record)),
        Ok(Told::Reauthenticate) => Ok(Some(Reaction::Reauthenticate)),
        Ok(Told::Revoke) => Ok(Some(Reaction::Revoke)),
        Ok(Told::Unspecified) | Err(_) => Err(InvalidField::new(field, "is none of the reactions")),
    }
}

/// Writes them, where there are any.
pub(super) fn told(sessions: TenantSessions) -> Option<proto::TenantSessions> {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    (sessions != TenantSessions::default()).then(|| proto::TenantSessions {
        per_device_type: sessions.per_device_type.map(count),
        per_user: sessions.per_user.map(count),
        idle_ttl: sessions.idle_ttl.map(duration),
        absolute_ttl: sessions.absolute_ttl.map(duration),
        on_address_change: sessions.on_address_change.map(reaction_told),
        on_device_change: sessions.on_device_change.map(reaction_told),
    })
}

fn duration(ttl: TimeDelta) -> Duration {
    Duration { seconds: ttl.num_seconds(), nanos: ttl.subsec_nanos() }
}

fn reaction_told(reaction: Reaction) -> i32 {
    use proto::SessionReaction as Told;
    let told = match reaction {
        Reaction::Ignore => Told::Ignore,
        Reaction::Record => Told::Record,
        Reaction::Reauthenticate => Told::Reauthenticate,
        Reaction::Revoke => Told::Revoke,
    };
    told.into()
}
