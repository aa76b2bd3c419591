//! Entries of the trust log as the contract writes them.

use chrono::{DateTime, Utc};

use crate::{
    domain::trust::Revocation,
    proto::{TrustEntry, UserVersion, trust_entry::Subject},
};

/// What an entry revokes, and until when that matters. `None` where this release doesn't understand it.
pub fn revocation(entry: &TrustEntry) -> Option<(Revocation, DateTime<Utc>)> {
    let revocation = match entry.subject.as_ref()? {
        Subject::SessionId(id) => Revocation::Session(id.parse().ok()?),
        Subject::User(user) => {
            Revocation::UserVersion { user_id: user.user_id.parse().ok()?, version: user.version }
        }
        _ => return None,
    };
    let until = entry.expire_time.as_ref()?;
    Some((revocation, DateTime::from_timestamp(until.seconds, u32::try_from(until.nanos).ok()?)?))
}

/// The entry that says so.
pub fn entry(revocation: &Revocation, until: DateTime<Utc>) -> TrustEntry {
    let subject = match revocation {
        Revocation::Session(id) => Subject::SessionId(id.to_string()),
        Revocation::UserVersion { user_id, version } => {
            Subject::User(UserVersion { user_id: user_id.to_string(), version: *version })
        }
    };
    let nanos = i32::try_from(until.timestamp_subsec_nanos()).unwrap_or_default();
    let expire_time = prost_types::Timestamp { seconds: until.timestamp(), nanos };
    TrustEntry { subject: Some(subject), expire_time: Some(expire_time) }
}
