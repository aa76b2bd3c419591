//! The sessions of one user in the table `sessions`.

use chrono::{DateTime, Utc};
use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl, SelectableHelper};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::sessions,
    sessions::{Row, read_profile},
};
use crate::domain::{Inconsistent, claims::Profile, session::Session};

/// A user's sessions that have not been ended; some may have expired.
pub async fn open(conn: &mut Conn, user_id: Uuid) -> Stored<Vec<Session>> {
    let rows: Vec<Row> = on!(conn, c => {
        sessions::table
            .filter(sessions::user_id.eq(IdCol(user_id)))
            .filter(sessions::end_time.is_null())
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    rows.into_iter().map(|row| Ok(row.try_into()?)).collect()
}

/// What the next tokens of a user's sessions say that have not been ended, by the sessions' ids, each read by itself.
pub async fn open_profiles(
    conn: &mut Conn,
    user_id: Uuid,
) -> Stored<Vec<(Uuid, Result<Profile, Inconsistent>)>> {
    let rows: Vec<(IdCol, String)> = on!(conn, c => {
        sessions::table
            .filter(sessions::user_id.eq(IdCol(user_id)))
            .filter(sessions::end_time.is_null())
            .select((sessions::id, sessions::profile))
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(|(id, json)| (id.0, read_profile(&json))).collect())
}

/// A user's sessions, newest first. `live_at` leaves out those that have ended or expired by then.
pub async fn list(
    conn: &mut Conn,
    user_id: Uuid,
    live_at: Option<DateTime<Utc>>,
    slice: Slice,
) -> Stored<Vec<Session>> {
    let rows: Vec<Row> = on!(conn, c => {
        let all = sessions::table
            .filter(sessions::user_id.eq(IdCol(user_id)))
            .filter(sessions::id.lt(slice.below()))
            .order(sessions::id.desc())
            .limit(slice.limit)
            .select(Row::as_select());
        match live_at {
            None => all.load(c).await,
            Some(now) => {
                let is_live = sessions::end_time.is_null().and(sessions::idle_expire_time.gt(TimeCol(now)));
                all.filter(is_live).load(c).await
            }
        }
    })?;
    rows.into_iter().map(|row| Ok(row.try_into()?)).collect()
}
