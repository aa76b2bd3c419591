//! The tables `trust_log` and `trust_head`: every revocation in the order of its commit.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{
    Cached, Conn, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::{trust_head, trust_log},
};
use crate::domain::trust::Revocation;

const SESSION: &str = "session";
const USER_VERSION: &str = "user_version";

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = trust_log)]
struct Row {
    revision: i64,
    kind: String,
    subject: IdCol,
    version: Option<i64>,
    create_time: TimeCol,
    expire_time: TimeCol,
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the log.
    pub revision: i64,
    /// What it says; `None` where a newer release says what this one doesn't understand.
    pub revocation: Option<Revocation>,
    /// When nothing that it concerns can be alive any more.
    pub expire_time: DateTime<Utc>,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        let revocation = match (row.kind.as_str(), row.version) {
            (SESSION, None) => Some(Revocation::Session(row.subject.0)),
            (USER_VERSION, Some(version)) => {
                Some(Revocation::UserVersion { user_id: row.subject.0, version })
            }
            _ => None,
        };
        Self { revision: row.revision, revocation, expire_time: row.expire_time.0 }
    }
}

/// Appends entries. Holds the head of the log until the transaction ends: nothing slow may follow.
pub async fn append(
    conn: &mut Conn,
    revocations: &[Revocation],
    now: DateTime<Utc>,
    expire_time: DateTime<Utc>,
) -> Stored<()> {
    let count = i64::try_from(revocations.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(());
    }
    let head: i64 = on!(conn, c => {
        let update = diesel::update(trust_head::table)
            .set(trust_head::revision.eq(trust_head::revision + count));
        Cached(update.returning(trust_head::revision)).get_result(c).await
    })?;
    for (revision, revocation) in (head - count + 1..).zip(revocations) {
        let (kind, subject, version) = match *revocation {
            Revocation::Session(id) => (SESSION, id, None),
            Revocation::UserVersion { user_id, version } => (USER_VERSION, user_id, Some(version)),
        };
        let row = Row {
            revision,
            kind: kind.to_owned(),
            subject: IdCol(subject),
            version,
            create_time: TimeCol(now),
            expire_time: TimeCol(expire_time),
        };
        on!(conn, c => Cached(diesel::insert_into(trust_log::table).values(&row)).execute(c).await)?;
    }
    Ok(())
}

/// The newest revision.
pub async fn head(conn: &mut Conn) -> Stored<i64> {
    Ok(on!(conn, c => trust_head::table.select(trust_head::revision).first(c).await)?)
}

/// Up to `limit` entries after `revision`, in their order; only those that concern what may be alive `now`.
pub async fn after(conn: &mut Conn, revision: i64, now: DateTime<Utc>, limit: i64) -> Stored<Vec<Entry>> {
    let rows: Vec<Row> = on!(conn, c => {
        trust_log::table
            .filter(trust_log::revision.gt(revision))
            .filter(trust_log::expire_time.gt(TimeCol(now)))
            .order(trust_log::revision)
            .limit(limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Entry::from).collect())
}
