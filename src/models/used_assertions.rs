//! The table `used_assertions`: what is good once and was used, on whichever replica.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{Cached, Conn, Stored, columns::TimeCol, conn::Either, on, schema::used_assertions};

/// Marks one as used until `expire_time`; says whether it was not before.
pub async fn insert_if_new(conn: &mut Conn, digest: &[u8], expire_time: DateTime<Utc>) -> Stored<bool> {
    let values = (used_assertions::digest.eq(digest), used_assertions::expire_time.eq(TimeCol(expire_time)));
    let inserted = on!(conn, c => {
        let insert = diesel::insert_into(used_assertions::table).values(values).on_conflict_do_nothing();
        Cached(insert).execute(c).await
    })?;
    Ok(inserted == 1)
}

/// Up to `limit` that could not be used any more by `time`, the oldest first.
pub async fn expired_by(conn: &mut Conn, time: DateTime<Utc>, limit: i64) -> Stored<Vec<Vec<u8>>> {
    Ok(on!(conn, c => {
        used_assertions::table
            .filter(used_assertions::expire_time.le(TimeCol(time)))
            .order(used_assertions::expire_time)
            .limit(limit)
            .select(used_assertions::digest)
            .load(c)
            .await
    })?)
}

/// Removes these, in the caller's transaction, but for those that somebody else removes.
pub async fn remove(conn: &mut Conn, digests: &[Vec<u8>]) -> Stored<usize> {
    let old = used_assertions::table
        .filter(used_assertions::digest.eq_any(digests))
        .select(used_assertions::digest);
    let held: Vec<Vec<u8>> = match &mut conn.inner {
        Either::Sqlite(c) => old.load(&mut **c).await,
        Either::Pg(c) => old.for_update().skip_locked().load(&mut **c).await,
    }?;
    Ok(on!(conn, c => {
        diesel::delete(used_assertions::table.filter(used_assertions::digest.eq_any(&held))).execute(c).await
    })?)
}
