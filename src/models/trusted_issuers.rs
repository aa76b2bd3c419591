//! The table `trusted_issuers`.

use std::collections::BTreeMap;

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::trusted_issuers,
};
use crate::domain::{
    Inconsistent,
    algorithm::Algorithm,
    trusted_issuer::{ClaimMapping, KeySource, TrustedIssuer},
};

/// A row that is there, whether or not it makes sense.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: Uuid,
    /// What it says.
    pub issuer: Result<TrustedIssuer, Inconsistent>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = trusted_issuers)]
struct Row {
    id: IdCol,
    issuer: String,
    display_name: String,
    jwks_url: Option<String>,
    jwks_json: Option<String>,
    audiences: String,
    algorithms: String,
    claim_mapping: String,
    create_time: TimeCol,
    update_time: TimeCol,
}

impl TryFrom<&TrustedIssuer> for Row {
    type Error = Inconsistent;

    fn try_from(issuer: &TrustedIssuer) -> Result<Self, Inconsistent> {
        let (jwks_url, jwks_json) = match issuer.keys.clone() {
            KeySource::Url(url) => (Some(url), None),
            KeySource::Json(json) => (None, Some(json)),
        };
        let algorithms: Vec<&str> = issuer.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
        let claim_mapping = serde_json::to_string(issuer.claim_mapping.pairs());
        Ok(Self {
            id: IdCol(issuer.id),
            issuer: issuer.issuer.clone(),
            display_name: issuer.display_name.clone(),
            jwks_url,
            jwks_json,
            audiences: issuer.audiences.join(" "),
            algorithms: algorithms.join(" "),
            claim_mapping: claim_mapping.map_err(|_| inconsistent("claim_mapping"))?,
            create_time: TimeCol(issuer.create_time),
            update_time: TimeCol(issuer.update_time),
        })
    }
}

const fn inconsistent(column: &'static str) -> Inconsistent {
    Inconsistent { table: "trusted_issuers", column }
}

impl TryFrom<Row> for TrustedIssuer {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let algorithms: Result<Vec<Algorithm>, _> = row.algorithms.split(' ').map(str::parse).collect();
        let mapping = serde_json::from_str::<BTreeMap<String, String>>(&row.claim_mapping).ok();
        let mapping = mapping.and_then(|mapping| ClaimMapping::parse("claim_mapping", &mapping).ok());
        Ok(Self {
            id: row.id.0,
            issuer: row.issuer,
            display_name: row.display_name,
            keys: match (row.jwks_url, row.jwks_json) {
                (Some(url), None) => {
                    KeySource::url("jwks_url", &url).map_err(|_| inconsistent("jwks_url"))?
                }
                (None, Some(json)) => KeySource::Json(json),
                _ => return Err(inconsistent("jwks_json")),
            },
            audiences: row.audiences.split(' ').map(str::to_owned).collect(),
            algorithms: algorithms.map_err(|_| inconsistent("algorithms"))?,
            claim_mapping: mapping.ok_or(inconsistent("claim_mapping"))?,
            create_time: row.create_time.0,
            update_time: row.update_time.0,
        })
    }
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        Self { id: row.id.0, issuer: row.try_into() }
    }
}

/// Adds one; a taken issuer is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, issuer: &TrustedIssuer) -> Stored<()> {
    let row = Row::try_from(issuer)?;
    on!(conn, c => Cached(diesel::insert_into(trusted_issuers::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// How many there are.
pub async fn count(conn: &mut Conn) -> Stored<i64> {
    Ok(on!(conn, c => trusted_issuers::table.count().get_result(c).await)?)
}

/// The one with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<TrustedIssuer>> {
    let row: Option<Row> = on!(conn, c => {
        trusted_issuers::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(TrustedIssuer::try_from).transpose()?)
}

/// Some of them, newest first.
pub async fn list(conn: &mut Conn, slice: Slice) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        trusted_issuers::table
            .filter(trusted_issuers::id.lt(slice.below()))
            .order(trusted_issuers::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}

/// Writes what can be changed of one; says whether it is there.
pub async fn update(conn: &mut Conn, issuer: &TrustedIssuer) -> Stored<bool> {
    let row = Row::try_from(issuer)?;
    let changed = on!(conn, c => {
        let update = diesel::update(trusted_issuers::table.find(row.id)).set((
            trusted_issuers::display_name.eq(&row.display_name),
            trusted_issuers::jwks_url.eq(&row.jwks_url),
            trusted_issuers::jwks_json.eq(&row.jwks_json),
            trusted_issuers::audiences.eq(&row.audiences),
            trusted_issuers::algorithms.eq(&row.algorithms),
            trusted_issuers::claim_mapping.eq(&row.claim_mapping),
            trusted_issuers::update_time.eq(row.update_time),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// Removes one; gives its issuer, where it was there.
pub async fn delete(conn: &mut Conn, id: Uuid) -> Stored<Option<String>> {
    let deleted: Option<String> = on!(conn, c => {
        diesel::delete(trusted_issuers::table.find(IdCol(id)))
            .returning(trusted_issuers::issuer)
            .get_result(c)
            .await
            .optional()
    })?;
    Ok(deleted)
}
