//! What nobody needs any more of the tables `sessions` and `session_keys`.

use chrono::{DateTime, Utc};
use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Conn, Stored,
    columns::{IdCol, TimeCol},
    conn::Either,
    on,
    schema::{session_keys, sessions},
};

/// A part of all sessions, in the order of their ids, which is that of their logins.
pub struct Page {
    /// Those of it that were never ended and expired by the time that was asked for.
    pub expired: Vec<Uuid>,
    /// Where the next part begins; `None` where there is none.
    pub next: Option<Uuid>,
}

/// How many rows were removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Of `sessions`.
    pub sessions: usize,
    /// Of `session_keys`.
    pub keys: usize,
}

/// Up to `limit` sessions that ended by `time`, the oldest end first.
pub async fn ended_by(conn: &mut Conn, time: DateTime<Utc>, limit: i64) -> Stored<Vec<Uuid>> {
    let ids: Vec<IdCol> = on!(conn, c => {
        sessions::table
            .filter(sessions::end_time.le(TimeCol(time)))
            .order(sessions::end_time)
            .limit(limit)
            .select(sessions::id)
            .load(c)
            .await
    })?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// Goes through `limit` sessions between two ids. No index leads to those that have expired: each refresh
/// would have to write it.
pub async fn expired_by(
    conn: &mut Conn,
    time: DateTime<Utc>,
    after: Uuid,
    before: Uuid,
    limit: i64,
) -> Stored<Page> {
    let rows: Vec<(IdCol, TimeCol, Option<TimeCol>)> = on!(conn, c => {
        sessions::table
            .filter(sessions::id.gt(IdCol(after)))
            .filter(sessions::id.lt(IdCol(before)))
            .order(sessions::id)
            .limit(limit)
            .select((sessions::id, sessions::idle_expire_time, sessions::end_time))
            .load(c)
            .await
    })?;
    let is_full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| is_full).map(|row| row.0.0);
    let is_expired = |(id, idle_expire_time, end_time): (IdCol, TimeCol, Option<TimeCol>)| {
        (end_time.is_none() && idle_expire_time.0 <= time).then_some(id.0)
    };
    Ok(Page { expired: rows.into_iter().filter_map(is_expired).collect(), next })
}

/// Removes those of these sessions that ended or expired by `time`, each with its key, in the caller's
/// transaction. One that somebody else works on stays for now: nobody waits for the other while it holds rows
/// itself.
pub async fn remove(conn: &mut Conn, ids: &[Uuid], time: DateTime<Utc>) -> Stored<Removed> {
    let ids = ids.iter().copied().map(IdCol);
    let is_over = sessions::end_time
        .le(TimeCol(time))
        .or(sessions::end_time.is_null().and(sessions::idle_expire_time.le(TimeCol(time))));
    let old = sessions::table.filter(sessions::id.eq_any(ids)).filter(is_over).select(sessions::id);
    // Held until the commit, so that it is the same rows whose keys go and that go themselves.
    let held: Vec<IdCol> = match &mut conn.inner {
        Either::Sqlite(c) => old.load(&mut **c).await,
        Either::Pg(c) => old.for_update().skip_locked().load(&mut **c).await,
    }?;
    let keys = on!(conn, c => {
        let keys = session_keys::table.filter(session_keys::session_id.eq_any(&held));
        diesel::delete(keys).execute(c).await
    })?;
    let sessions = on!(conn, c => {
        diesel::delete(sessions::table.filter(sessions::id.eq_any(&held))).execute(c).await
    })?;
    Ok(Removed { sessions, keys })
}
