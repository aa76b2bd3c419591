//! The trust log as the contract carries it.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use uuid::Uuid;

use super::trust::Until;
use crate::{
    domain::trust::{Revocation, Standing},
    proto::{self, trust_entry::Subject},
};

/// A revocation as a message.
pub fn entry((revocation, until): &Until) -> proto::TrustEntry {
    let subject = match revocation {
        Revocation::Session(id) => Subject::SessionId(id.to_string()),
        Revocation::UserVersion { user_id, version } => {
            Subject::User(proto::UserVersion { user_id: user_id.to_string(), version: *version })
        }
        Revocation::Token { jti, owner_id } => Subject::Token(proto::RevokedToken {
            jti: jti.to_string(),
            owner_id: if owner_id.is_nil() { String::new() } else { owner_id.to_string() },
        }),
        Revocation::Tenant { tenant_id, standing } => Subject::Tenant(proto::TenantStanding {
            tenant_id: tenant_id.to_string(),
            suspended: standing.is_suspended,
            version: standing.version,
        }),
    };
    // Below a second, so it fits.
    let nanos = until.timestamp_subsec_nanos().try_into().unwrap_or_default();
    let expire_time = Some(Timestamp { seconds: until.timestamp(), nanos });
    proto::TrustEntry { expire_time, subject: Some(subject) }
}

/// The revocation in a message; `None` where a newer issuer says what this release doesn't understand.
pub fn revocation(entry: &proto::TrustEntry) -> Option<Until> {
    let id = |text: &str| Uuid::try_parse(text).ok();
    let revocation = match entry.subject.as_ref()? {
        Subject::SessionId(text) => Revocation::Session(id(text)?),
        Subject::User(user) => Revocation::UserVersion { user_id: id(&user.user_id)?, version: user.version },
        Subject::Token(token) if token.owner_id.is_empty() => {
            Revocation::Token { jti: id(&token.jti)?, owner_id: Uuid::nil() }
        }
        Subject::Token(token) => Revocation::Token { jti: id(&token.jti)?, owner_id: id(&token.owner_id)? },
        Subject::Tenant(tenant) => Revocation::Tenant {
            tenant_id: id(&tenant.tenant_id)?,
            standing: Standing { is_suspended: tenant.suspended, version: tenant.version },
        },
    };
    let until = entry.expire_time.as_ref()?;
    Some((revocation, DateTime::<Utc>::from_timestamp(until.seconds, until.nanos.try_into().ok()?)?))
}
