//! The tables `trust_log` and `trust_head`: every revocation in the order of its commit.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, Insertable, JoinOnDsl, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Stored,
    columns::{IdCol, TimeCol},
    conn::Either,
    on,
    schema::{trust_head, trust_log},
};
use crate::domain::trust::{Revocation, Standing, TrustChange};

const SESSION: &str = "session";
const USER_VERSION: &str = "user_version";
const TOKEN: &str = "token";
const TENANT_SUSPENDED: &str = "tenant_suspended";
const TENANT_RESUMED: &str = "tenant_resumed";
const ISSUER_KEY: &str = "issuer_key";

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = trust_log)]
struct Row {
    revision: i64,
    kind: String,
    subject: IdCol,
    version: Option<i64>,
    create_time: TimeCol,
    expire_time: TimeCol,
    kid: Option<String>,
    owner: Option<IdCol>,
}

/// How far the log and what admins register have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The newest revision.
    pub revision: i64,
    /// Greater with each change of what admins register.
    pub registry: i64,
    /// Greater with each change of a service account or a credential.
    pub services: i64,
}

/// An entry of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the log.
    pub revision: i64,
    /// What it is about; with `create_time`, what tells it from another entry at this place.
    pub subject: Uuid,
    /// When it was written.
    pub create_time: DateTime<Utc>,
    /// What it says; `None` where a newer release says what this one doesn't understand.
    pub change: Option<TrustChange>,
    /// When nothing that it concerns can be alive any more.
    pub expire_time: DateTime<Utc>,
}

impl From<Row> for Entry {
    fn from(row: Row) -> Self {
        let revoked = |revocation| Some(TrustChange::Revoked(revocation));
        let subject = row.subject.0;
        let tenant = |is_suspended, version| {
            revoked(Revocation::Tenant { tenant_id: subject, standing: Standing { is_suspended, version } })
        };
        let change = match (row.kind.as_str(), row.version, row.kid, row.owner) {
            (SESSION, None, None, None) => revoked(Revocation::Session(subject)),
            (USER_VERSION, Some(version), None, None) => {
                revoked(Revocation::UserVersion { user_id: subject, version })
            }
            (TOKEN, None, None, Some(owner)) => {
                revoked(Revocation::Token { jti: subject, owner_id: owner.0 })
            }
            (TENANT_SUSPENDED, Some(version), None, None) => tenant(true, version),
            (TENANT_RESUMED, Some(version), None, None) => tenant(false, version),
            (ISSUER_KEY, None, Some(kid), None) => Some(TrustChange::IssuerKey(kid)),
            _ => None,
        };
        Self {
            revision: row.revision,
            subject,
            create_time: row.create_time.0,
            change,
            expire_time: row.expire_time.0,
        }
    }
}

/// The entry's columns `kind`, `subject`, `version`, `owner` and `kid`.
type Written = (&'static str, Uuid, Option<i64>, Option<Uuid>, Option<String>);

fn written(change: &TrustChange) -> Written {
    match change {
        TrustChange::Revoked(Revocation::Session(id)) => (SESSION, *id, None, None, None),
        TrustChange::Revoked(Revocation::UserVersion { user_id, version }) => {
            (USER_VERSION, *user_id, Some(*version), None, None)
        }
        TrustChange::Revoked(Revocation::Token { jti, owner_id }) => {
            (TOKEN, *jti, None, Some(*owner_id), None)
        }
        TrustChange::Revoked(Revocation::Tenant { tenant_id, standing }) => {
            let kind = if standing.is_suspended { TENANT_SUSPENDED } else { TENANT_RESUMED };
            (kind, *tenant_id, Some(standing.version), None, None)
        }
        TrustChange::IssuerKey(kid) => (ISSUER_KEY, Uuid::nil(), None, None, Some(kid.clone())),
    }
}

/// Keeps others from changing issuer keys, and from appending, until the transaction ends.
pub async fn hold(conn: &mut Conn) -> Stored<()> {
    on!(conn, c => {
        diesel::update(trust_head::table).set(trust_head::revision.eq(trust_head::revision)).execute(c).await
    })?;
    Ok(())
}

/// Says that something which admins register has changed.
pub async fn raise_registry(conn: &mut Conn) -> Stored<()> {
    on!(conn, c => {
        diesel::update(trust_head::table).set(trust_head::registry.eq(trust_head::registry + 1)).execute(c).await
    })?;
    Ok(())
}

/// Says that a service account or a credential has changed; gives the new count.
pub async fn raise_services(conn: &mut Conn) -> Stored<i64> {
    Ok(on!(conn, c => {
        diesel::update(trust_head::table)
            .set(trust_head::services.eq(trust_head::services + 1))
            .returning(trust_head::services)
            .get_result(c)
            .await
    })?)
}

/// Appends entries. Holds the head of the log until the transaction ends: nothing slow may follow.
pub async fn append(
    conn: &mut Conn,
    changes: &[TrustChange],
    now: DateTime<Utc>,
    expire_time: DateTime<Utc>,
) -> Stored<()> {
    let count = i64::try_from(changes.len()).unwrap_or(i64::MAX);
    if count == 0 {
        return Ok(());
    }
    let head: i64 = on!(conn, c => {
        let update = diesel::update(trust_head::table)
            .set(trust_head::revision.eq(trust_head::revision + count));
        Cached(update.returning(trust_head::revision)).get_result(c).await
    })?;
    for (revision, change) in (head - count + 1..).zip(changes) {
        let (kind, subject, version, owner, kid) = written(change);
        let row = Row {
            revision,
            kind: kind.to_owned(),
            subject: IdCol(subject),
            version,
            create_time: TimeCol(now),
            expire_time: TimeCol(expire_time),
            kid,
            owner: owner.map(IdCol),
        };
        on!(conn, c => Cached(diesel::insert_into(trust_log::table).values(&row)).execute(c).await)?;
    }
    Ok(())
}

type HeadRow = (i64, i64, i64);

/// The columns of [`Head`], in its order.
const HEAD: (trust_head::revision, trust_head::registry, trust_head::services) =
    (trust_head::revision, trust_head::registry, trust_head::services);

const fn head_of((revision, registry, services): HeadRow) -> Head {
    Head { revision, registry, services }
}

/// How far it has come.
pub async fn head(conn: &mut Conn) -> Stored<Head> {
    let head: HeadRow = on!(conn, c => trust_head::table.select(HEAD).get_result(c).await)?;
    Ok(head_of(head))
}

/// The same, and the entry at this revision, if it is there still.
pub async fn head_and_at(conn: &mut Conn, revision: i64) -> Stored<(Head, Option<Entry>)> {
    let (head, row): (HeadRow, Option<Row>) = on!(conn, c => {
        trust_head::table
            .left_join(trust_log::table.on(trust_log::revision.eq(revision)))
            .select((HEAD, Option::<Row>::as_select()))
            .get_result(c)
            .await
    })?;
    Ok((head_of(head), row.map(Entry::from)))
}

/// How many tokens of this owner's were revoked by their id alone and may be alive `now`.
pub async fn count_tokens_of(conn: &mut Conn, owner_id: Uuid, now: DateTime<Utc>) -> Stored<i64> {
    Ok(on!(conn, c => {
        trust_log::table
            .filter(trust_log::owner.eq(Some(IdCol(owner_id))))
            .filter(trust_log::expire_time.gt(TimeCol(now)))
            .count()
            .get_result(c)
            .await
    })?)
}

/// Whether the log ends this token, of any of these owners, by itself.
pub async fn has_token(conn: &mut Conn, jti: Uuid, owners: &[Uuid]) -> Stored<bool> {
    let found: Vec<Option<IdCol>> = on!(conn, c => {
        trust_log::table
            .filter(trust_log::subject.eq(IdCol(jti)))
            .filter(trust_log::kind.eq(TOKEN))
            .select(trust_log::owner)
            .load(c)
            .await
    })?;
    Ok(found.into_iter().flatten().any(|owner| owners.contains(&owner.0)))
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

/// Up to `limit` entries that concern nothing alive at `time`, the oldest first, but never the newest entry: who
/// follows the log compares it.
pub async fn expired_by(conn: &mut Conn, time: DateTime<Utc>, limit: i64) -> Stored<Vec<i64>> {
    let head = head(conn).await?.revision;
    Ok(on!(conn, c => {
        trust_log::table
            .filter(trust_log::expire_time.le(TimeCol(time)))
            .filter(trust_log::revision.lt(head))
            .order(trust_log::expire_time)
            .limit(limit)
            .select(trust_log::revision)
            .load(c)
            .await
    })?)
}

/// Removes these entries, in the caller's transaction, but for those that somebody else removes.
pub async fn remove(conn: &mut Conn, revisions: &[i64]) -> Stored<usize> {
    let old = trust_log::table.filter(trust_log::revision.eq_any(revisions)).select(trust_log::revision);
    let held: Vec<i64> = match &mut conn.inner {
        Either::Sqlite(c) => old.load(&mut **c).await,
        Either::Pg(c) => old.for_update().skip_locked().load(&mut **c).await,
    }?;
    Ok(on!(conn, c => {
        diesel::delete(trust_log::table.filter(trust_log::revision.eq_any(&held))).execute(c).await
    })?)
}
