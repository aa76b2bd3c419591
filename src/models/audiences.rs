//! The table `audiences`.

use chrono::TimeDelta;
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
    audience::{Audience, Signing, Ways},
    claims::MAX_ACCESS_TTL_SECONDS,
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
    allowed_grants: String,
    token_ttl: Option<i64>,
    create_time: TimeCol,
    update_time: TimeCol,
}

/// What an audience says of tokens for it, beside how they are made.
#[derive(Debug)]
pub struct Rules {
    /// What stands in the claim `aud`.
    pub name: String,
    /// The scopes that it has; none where it has not said.
    pub scopes: Vec<String>,
    /// How they may be got.
    pub ways: Ways,
    /// How long they live at most, where that is less than elsewhere.
    pub token_ttl: Option<TimeDelta>,
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

fn text_of(ways: &Ways) -> String {
    ways.words().collect::<Vec<_>>().join(" ")
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
            allowed_grants: text_of(&audience.ways),
            token_ttl: audience.token_ttl.map(|ttl| ttl.num_seconds()),
            create_time: TimeCol(audience.create_time),
            update_time: TimeCol(audience.update_time),
        }
    }
}

impl TryFrom<Row> for Audience {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let inconsistent = |column| Inconsistent { table: "audiences", column };
        let signing =
            [Signing::PublicKey, Signing::Hs256].into_iter().find(|way| way.as_str() == row.signing);
        let read_ttl = |seconds| {
            let ttl = Some(seconds).filter(|seconds| (1..=MAX_ACCESS_TTL_SECONDS).contains(seconds));
            ttl.map(TimeDelta::seconds).ok_or(inconsistent("token_ttl"))
        };
        Ok(Self {
            id: row.id.0,
            name: row.name,
            display_name: row.display_name,
            signing: signing.ok_or(inconsistent("signing"))?,
            encryption_jwk: row.encryption_jwk,
            scopes: words(&row.scopes),
            ways: Ways::of_text(&row.allowed_grants),
            token_ttl: row.token_ttl.map(read_ttl).transpose()?,
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
        audiences::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Audience::try_from).transpose()?)
}

/// The audience with this name.
pub async fn find_by_name(conn: &mut Conn, name: &str) -> Stored<Option<Audience>> {
    let row: Option<Row> = on!(conn, c => {
        audiences::table.filter(audiences::name.eq(name)).select(Row::as_select()).get_result(c).await.optional()
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

/// The rules of those that have some. A life that makes no sense is the nearest one that does.
pub async fn list_rules(conn: &mut Conn) -> Stored<Vec<Rules>> {
    let found: Vec<(String, String, String, Option<i64>)> = on!(conn, c => {
        let has_some = audiences::scopes
            .ne("")
            .or(audiences::allowed_grants.ne(""))
            .or(audiences::token_ttl.is_not_null());
        audiences::table
            .filter(has_some)
            .select((audiences::name, audiences::scopes, audiences::allowed_grants, audiences::token_ttl))
            .load(c)
            .await
    })?;
    let rules = |(name, scopes, grants, ttl): (String, String, String, Option<i64>)| Rules {
        name,
        scopes: words(&scopes),
        ways: Ways::of_text(&grants),
        token_ttl: ttl.map(|seconds| TimeDelta::seconds(seconds.clamp(1, MAX_ACCESS_TTL_SECONDS))),
    };
    Ok(found.into_iter().map(rules).collect())
}

/// Writes what can be changed of an audience; says whether it is there. Grants that stay are not written: some may be of
/// a newer release.
pub async fn update(conn: &mut Conn, audience: &Audience, former: &Audience) -> Stored<bool> {
    let grants = Some(text_of(&audience.ways)).filter(|_| audience.ways != former.ways);
    let changed = on!(conn, c => {
        let update = diesel::update(audiences::table.find(IdCol(audience.id))).set((
            audiences::display_name.eq(&audience.display_name),
            audiences::encryption_jwk.eq(&audience.encryption_jwk),
            audiences::scopes.eq(audience.scopes.join(" ")),
            grants.as_ref().map(|grants| audiences::allowed_grants.eq(grants)),
            audiences::token_ttl.eq(audience.token_ttl.map(|ttl| ttl.num_seconds())),
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
