//! The table `tenants`.

use diesel::{
    ExpressionMethods, Insertable, OptionalExtension, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::tenants,
};
use crate::domain::tenant::Tenant;

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tenants)]
struct Row {
    id: IdCol,
    name: String,
    display_name: String,
    create_time: TimeCol,
}

impl From<&Tenant> for Row {
    fn from(tenant: &Tenant) -> Self {
        Self {
            id: IdCol(tenant.id),
            name: tenant.name.clone(),
            display_name: tenant.display_name.clone(),
            create_time: TimeCol(tenant.create_time),
        }
    }
}

impl From<Row> for Tenant {
    fn from(row: Row) -> Self {
        Self { id: row.id.0, name: row.name, display_name: row.display_name, create_time: row.create_time.0 }
    }
}

/// Adds a tenant; a taken name is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, tenant: &Tenant) -> Stored<()> {
    let row = Row::from(tenant);
    on!(conn, c => Cached(diesel::insert_into(tenants::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// Adds a tenant unless its name is taken; says whether it did.
pub async fn insert_if_new(conn: &mut Conn, tenant: &Tenant) -> Stored<bool> {
    let row = Row::from(tenant);
    let added = on!(conn, c => {
        diesel::insert_into(tenants::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    Ok(added == 1)
}

/// The tenant with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<Tenant>> {
    let row: Option<Row> = on!(conn, c => {
        tenants::table.find(IdCol(id)).select(Row::as_select()).first(c).await.optional()
    })?;
    Ok(row.map(Tenant::from))
}

/// The tenant with this name.
pub async fn find_by_name(conn: &mut Conn, name: &str) -> Stored<Option<Tenant>> {
    let row: Option<Row> = on!(conn, c => {
        tenants::table.filter(tenants::name.eq(name)).select(Row::as_select()).first(c).await.optional()
    })?;
    Ok(row.map(Tenant::from))
}

/// Tenants, newest first.
pub async fn list(conn: &mut Conn, slice: Slice) -> Stored<Vec<Tenant>> {
    let rows: Vec<Row> = on!(conn, c => {
        tenants::table
            .filter(tenants::id.lt(slice.below()))
            .order(tenants::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Tenant::from).collect())
}
