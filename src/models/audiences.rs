//! The table `audiences`.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable,
    SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::audiences,
};
use crate::domain::{
    Inconsistent,
    audience::{Audience, Signing},
};

/// A row that is there, whether or not it makes sense.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: Uuid,
    /// What stands in the claim `aud`.
    pub name: String,
    /// What it says.
    pub audience: Result<Audience, Inconsistent>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audiences)]
struct Row {
    id: IdCol,
    name: String,
    display_name: String,
    signing: String,
    encryption_jwk: Option<String>,
    scopes: String,
    create_time: TimeCol,
    update_time: TimeCol,
}

impl From<&Audience> for Row {
    fn from(audience: &Audience) -> Self {
        Self {
            id: IdCol(audience.id),
            name: audience.name.clone(),
            display_name: audience.display_name.clone(),
            signing: audience.signing.as_str().to_owned(),
            encryption_jwk: audience.encryption_jwk.clone(),
            scopes: audience.scopes.join(" "),
            create_time: TimeCol(audience.create_time),
            update_time: TimeCol(audience.update_time),
        }
    }
}

impl TryFrom<Row> for Audience {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let signing =
            [Signing::PublicKey, Signing::Hs256].into_iter().find(|way| way.as_str() == row.signing);
        Ok(Self {
            id: row.id.0,
            name: row.name,
            display_name: row.display_name,
            signing: signing.ok_or(Inconsistent { table: "audiences", column: "signing" })?,
            encryption_jwk: row.encryption_jwk,
            scopes: row.scopes.split_ascii_whitespace().map(str::to_owned).collect(),
            create_time: row.create_time.0,
            update_time: row.update_time.0,
        })
    }
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        Self { id: row.id.0, name: row.name.clone(), audience: row.try_into() }
    }
}

/// Adds an audience; a taken name is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, audience: &Audience) -> Stored<()> {
    let row = Row::from(audience);
    on!(conn, c => Cached(diesel::insert_into(audiences::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// How many there are.
pub async fn count(conn: &mut Conn) -> Stored<i64> {
    Ok(on!(conn, c => audiences::table.count().get_result(c).await)?)
}

/// The audience with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<Audience>> {
    let row: Option<Row> = on!(conn, c => {
        audiences::table.find(IdCol(id)).select(Row::as_select()).first(c).await.optional()
    })?;
    Ok(row.map(Audience::try_from).transpose()?)
}

/// The audience with this name.
pub async fn find_by_name(conn: &mut Conn, name: &str) -> Stored<Option<Audience>> {
    let row: Option<Row> = on!(conn, c => {
        audiences::table.filter(audiences::name.eq(name)).select(Row::as_select()).first(c).await.optional()
    })?;
    Ok(row.map(Audience::try_from).transpose()?)
}

/// Audiences, newest first.
pub async fn list(conn: &mut Conn, slice: Slice) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        audiences::table
            .filter(audiences::id.lt(slice.below()))
            .order(audiences::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}

/// The audiences whose tokens are signed or encrypted in a way of their own, each read by itself.
pub async fn list_own_ways(conn: &mut Conn) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        let has_own = audiences::signing
            .ne(Signing::PublicKey.as_str())
            .or(audiences::encryption_jwk.is_not_null());
        audiences::table.filter(has_own).select(Row::as_select()).load(c).await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}

/// The names of those that have said which scopes they have, and these scopes, separated by spaces.
pub async fn list_scopes(conn: &mut Conn) -> Stored<Vec<(String, String)>> {
    Ok(on!(conn, c => {
        audiences::table
            .filter(audiences::scopes.ne(""))
            .select((audiences::name, audiences::scopes))
            .load(c)
            .await
    })?)
}

/// Writes what can be changed of an audience; says whether it is there.
pub async fn update(conn: &mut Conn, audience: &Audience) -> Stored<bool> {
    let changed = on!(conn, c => {
        let update = diesel::update(audiences::table.find(IdCol(audience.id))).set((
            audiences::display_name.eq(&audience.display_name),
            audiences::encryption_jwk.eq(&audience.encryption_jwk),
            audiences::scopes.eq(audience.scopes.join(" ")),
            audiences::update_time.eq(TimeCol(audience.update_time)),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// Removes an audience that has no secrets; gives its name, where it was there.
pub async fn delete(conn: &mut Conn, id: Uuid) -> Stored<Option<String>> {
    let deleted: Option<String> = on!(conn, c => {
        diesel::delete(audiences::table.find(IdCol(id)))
            .returning(audiences::name)
            .get_result(c)
            .await
            .optional()
    })?;
    Ok(deleted)
}
