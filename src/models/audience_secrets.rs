//! The table `audience_secrets`: what HS256 audiences share with Tessera, sealed.

use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::audience_secrets,
};
use crate::domain::audience::Secret;

/// A secret as it is stored.
#[derive(Debug, Clone)]
pub struct SealedSecret {
    /// The audience that it belongs to.
    pub audience_id: Uuid,
    /// Its id and its times.
    pub secret: Secret,
    /// Its bytes, sealed.
    pub sealed: Vec<u8>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audience_secrets)]
struct Row {
    kid: String,
    audience_id: IdCol,
    sealed: Vec<u8>,
    create_time: TimeCol,
    activate_time: TimeCol,
}

impl From<&SealedSecret> for Row {
    fn from(stored: &SealedSecret) -> Self {
        Self {
            kid: stored.secret.kid.clone(),
            audience_id: IdCol(stored.audience_id),
            sealed: stored.sealed.clone(),
            create_time: TimeCol(stored.secret.create_time),
            activate_time: TimeCol(stored.secret.activate_time),
        }
    }
}

impl From<Row> for SealedSecret {
    fn from(row: Row) -> Self {
        let (create_time, activate_time) = (row.create_time.0, row.activate_time.0);
        Self {
            audience_id: row.audience_id.0,
            secret: Secret { kid: row.kid, create_time, activate_time },
            sealed: row.sealed,
        }
    }
}

/// Adds a secret.
pub async fn insert(conn: &mut Conn, secret: &SealedSecret) -> Stored<()> {
    let row = Row::from(secret);
    on!(conn, c => Cached(diesel::insert_into(audience_secrets::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// The secrets of these audiences.
pub async fn of_audiences(conn: &mut Conn, ids: &[Uuid]) -> Stored<Vec<SealedSecret>> {
    let ids: Vec<IdCol> = ids.iter().copied().map(IdCol).collect();
    let rows: Vec<Row> = on!(conn, c => {
        audience_secrets::table
            .filter(audience_secrets::audience_id.eq_any(&ids))
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(SealedSecret::from).collect())
}

/// All secrets.
pub async fn list(conn: &mut Conn) -> Stored<Vec<SealedSecret>> {
    let rows: Vec<Row> = on!(conn, c => audience_secrets::table.select(Row::as_select()).load(c).await)?;
    Ok(rows.into_iter().map(SealedSecret::from).collect())
}

/// Removes a secret; says whether it was there.
pub async fn delete(conn: &mut Conn, kid: &str) -> Stored<bool> {
    let deleted = on!(conn, c => Cached(diesel::delete(audience_secrets::table.find(kid))).execute(c).await)?;
    Ok(deleted == 1)
}

/// Removes all secrets of an audience.
pub async fn delete_of(conn: &mut Conn, audience_id: Uuid) -> Stored<()> {
    on!(conn, c => {
        let its = audience_secrets::table.filter(audience_secrets::audience_id.eq(IdCol(audience_id)));
        Cached(diesel::delete(its)).execute(c).await
    })?;
    Ok(())
}
