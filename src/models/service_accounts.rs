//! The table `service_accounts`.

use chrono::TimeDelta;
use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    conn::Either,
    on,
    schema::service_accounts,
};
use crate::domain::{
    Inconsistent,
    claims::MAX_ACCESS_TTL_SECONDS,
    service_account::{Allowed, Grant, ServiceAccount},
};

/// A row that is there, whether or not it makes sense.
#[derive(Debug)]
pub struct Found {
    /// Its id.
    pub id: Uuid,
    /// Its tenant.
    pub tenant_id: Uuid,
    /// Its name.
    pub name: String,
    /// How often all its tokens ended.
    pub token_version: i64,
    /// What it says.
    pub account: Result<ServiceAccount, Inconsistent>,
}

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = service_accounts)]
struct Row {
    id: IdCol,
    tenant_id: IdCol,
    name: String,
    display_name: String,
    allowed_audiences: String,
    allowed_scopes: String,
    allowed_grants: String,
    own_audiences: String,
    token_ttl: Option<i64>,
    token_version: i64,
    disable_time: Option<TimeCol>,
    create_time: TimeCol,
    update_time: TimeCol,
}

impl From<&ServiceAccount> for Row {
    fn from(account: &ServiceAccount) -> Self {
        let Allowed { audiences, scopes, grants } = &account.allowed;
        Self {
            id: IdCol(account.id),
            tenant_id: IdCol(account.tenant_id),
            name: account.name.clone(),
            display_name: account.display_name.clone(),
            allowed_audiences: audiences.join(" "),
            allowed_scopes: scopes.join(" "),
            allowed_grants: grants.iter().map(|grant| grant.as_str()).collect::<Vec<_>>().join(" "),
            own_audiences: account.own_audiences.join(" "),
            token_ttl: account.token_ttl.map(|ttl| ttl.num_seconds()),
            token_version: account.token_version,
            disable_time: account.disable_time.map(TimeCol),
            create_time: TimeCol(account.create_time),
            update_time: TimeCol(account.update_time),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_ascii_whitespace().map(str::to_owned).collect()
}

impl TryFrom<Row> for ServiceAccount {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let inconsistent = |column| Inconsistent { table: "service_accounts", column };
        // One that this release does not know allows nothing here.
        let grants = row.allowed_grants.split_ascii_whitespace().filter_map(Grant::of_word).collect();
        let read_ttl = |seconds| {
            let ttl = Some(seconds).filter(|seconds| (1..=MAX_ACCESS_TTL_SECONDS).contains(seconds));
            ttl.map(TimeDelta::seconds).ok_or(inconsistent("token_ttl"))
        };
        Ok(Self {
            id: row.id.0,
            tenant_id: row.tenant_id.0,
            name: row.name,
            display_name: row.display_name,
            allowed: Allowed {
                audiences: words(&row.allowed_audiences),
                scopes: words(&row.allowed_scopes),
                grants,
            },
            own_audiences: words(&row.own_audiences),
            token_ttl: row.token_ttl.map(read_ttl).transpose()?,
            token_version: row.token_version,
            disable_time: row.disable_time.map(|time| time.0),
            create_time: row.create_time.0,
            update_time: row.update_time.0,
        })
    }
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.0,
            tenant_id: row.tenant_id.0,
            name: row.name.clone(),
            token_version: row.token_version,
            account: row.try_into(),
        }
    }
}

/// Adds one; a taken name is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, account: &ServiceAccount) -> Stored<()> {
    let row = Row::from(account);
    on!(conn, c => Cached(diesel::insert_into(service_accounts::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// How many a tenant has.
pub async fn count(conn: &mut Conn, tenant_id: Uuid) -> Stored<i64> {
    Ok(on!(conn, c => {
        service_accounts::table
            .filter(service_accounts::tenant_id.eq(IdCol(tenant_id)))
            .count()
            .get_result(c)
            .await
    })?)
}

/// The one with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<Found>> {
    let row: Option<Row> = on!(conn, c => {
        service_accounts::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Found::from))
}

/// The one with this id, kept from others until the transaction ends. SQLite's transactions keep everything from others.
pub async fn lock(conn: &mut Conn, id: Uuid) -> Stored<Option<Found>> {
    let account = service_accounts::table.find(IdCol(id));
    let row: Option<Row> = match &mut conn.inner {
        Either::Sqlite(c) => account.select(Row::as_select()).get_result(&mut **c).await.optional(),
        Either::Pg(c) => account.select(Row::as_select()).for_update().get_result(&mut **c).await.optional(),
    }?;
    Ok(row.map(Found::from))
}

/// Some of a tenant's, newest first.
pub async fn list(conn: &mut Conn, tenant_id: Uuid, slice: Slice) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        service_accounts::table
            .filter(service_accounts::tenant_id.eq(IdCol(tenant_id)))
            .filter(service_accounts::id.lt(slice.below()))
            .order(service_accounts::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}

/// Writes what can be changed of one that was locked; says whether it is there. Grants that stay are not written: some
/// may be of a newer release.
pub async fn update(conn: &mut Conn, account: &ServiceAccount, former: &ServiceAccount) -> Stored<bool> {
    let row = Row::from(account);
    let grants = Some(row.allowed_grants).filter(|_| account.allowed.grants != former.allowed.grants);
    let changed = on!(conn, c => {
        let update = diesel::update(service_accounts::table.find(row.id)).set((
            service_accounts::display_name.eq(&row.display_name),
            service_accounts::allowed_audiences.eq(&row.allowed_audiences),
            service_accounts::allowed_scopes.eq(&row.allowed_scopes),
            grants.as_ref().map(|grants| service_accounts::allowed_grants.eq(grants)),
            service_accounts::own_audiences.eq(&row.own_audiences),
            service_accounts::token_ttl.eq(row.token_ttl),
            service_accounts::token_version.eq(row.token_version),
            service_accounts::disable_time.eq(row.disable_time),
            service_accounts::update_time.eq(row.update_time),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// Removes one that was locked and has no credentials any more; says whether it was there.
pub async fn delete(conn: &mut Conn, id: Uuid) -> Stored<bool> {
    let deleted = on!(conn, c => {
        diesel::delete(service_accounts::table.find(IdCol(id))).execute(c).await
    })?;
    Ok(deleted == 1)
}
