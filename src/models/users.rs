//! The table `users`.

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, JoinOnDsl, OptionalExtension, QueryDsl, Queryable,
    Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    conn::Either,
    on,
    schema::{tenants, users},
};
use crate::domain::user::User;

/// Everything but the password's hash.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = users)]
struct Row {
    id: IdCol,
    tenant_id: IdCol,
    username: String,
    password_change_required: bool,
    email: Option<String>,
    display_name: String,
    roles: String,
    token_version: i64,
    disable_time: Option<TimeCol>,
    create_time: TimeCol,
    update_time: TimeCol,
}

impl From<&User> for Row {
    fn from(user: &User) -> Self {
        Self {
            id: IdCol(user.id),
            tenant_id: IdCol(user.tenant_id),
            username: user.username.clone(),
            password_change_required: user.password_change_required,
            email: user.email.clone(),
            display_name: user.display_name.clone(),
            roles: user.roles.join(" "),
            token_version: user.token_version,
            disable_time: user.disable_time.map(TimeCol),
            create_time: TimeCol(user.create_time),
            update_time: TimeCol(user.update_time),
        }
    }
}

impl From<Row> for User {
    fn from(row: Row) -> Self {
        Self {
            id: row.id.0,
            tenant_id: row.tenant_id.0,
            username: row.username,
            password_change_required: row.password_change_required,
            email: row.email,
            display_name: row.display_name,
            roles: row.roles.split_ascii_whitespace().map(str::to_owned).collect(),
            token_version: row.token_version,
            disable_time: row.disable_time.map(|time| time.0),
            create_time: row.create_time.0,
            update_time: row.update_time.0,
        }
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
struct WithHash {
    #[diesel(embed)]
    row: Row,
    password_hash: String,
}

impl From<WithHash> for Credentials {
    fn from(found: WithHash) -> Self {
        Self { user: found.row.into(), password_hash: found.password_hash }
    }
}

/// A user and the PHC string of its password.
pub struct Credentials {
    /// The user.
    pub user: User,
    /// The hash.
    pub password_hash: String,
}

/// Adds a user; a taken name is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, user: &User, password_hash: &str) -> Stored<()> {
    let values = (Row::from(user), users::password_hash.eq(password_hash));
    on!(conn, c => Cached(diesel::insert_into(users::table).values(&values)).execute(c).await)?;
    Ok(())
}

/// The user with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<User>> {
    let row: Option<Row> = on!(conn, c => {
        users::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(User::from))
}

/// The user with this id and its hash.
pub async fn find_credentials(conn: &mut Conn, id: Uuid) -> Stored<Option<Credentials>> {
    let row: Option<WithHash> = on!(conn, c => {
        users::table.find(IdCol(id)).select(WithHash::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Credentials::from))
}

/// Who a login names.
#[derive(Default)]
pub struct Named {
    /// The tenant's id.
    pub tenant_id: Uuid,
    /// The tenant is suspended.
    pub is_suspended: bool,
    /// The user, where the tenant has one of this name.
    pub credentials: Option<Credentials>,
}

/// Who a login names, where there is such a tenant.
pub async fn find_by_name(conn: &mut Conn, tenant: &str, username: &str) -> Stored<Option<Named>> {
    let is_named = users::tenant_id.eq(tenants::id).and(users::username.eq(username));
    let row: Option<(IdCol, Option<TimeCol>, Option<WithHash>)> = on!(conn, c => {
        tenants::table
            .left_join(users::table.on(is_named))
            .filter(tenants::name.eq(tenant))
            .select((tenants::id, tenants::suspend_time, Option::<WithHash>::as_select()))
            .get_result(c)
            .await
            .optional()
    })?;
    Ok(row.map(|(tenant_id, suspend_time, found)| Named {
        tenant_id: tenant_id.0,
        is_suspended: suspend_time.is_some(),
        credentials: found.map(Credentials::from),
    }))
}

/// The user with this id, kept from others until the transaction ends. SQLite's transactions keep
/// everything from others.
pub async fn lock(conn: &mut Conn, id: Uuid) -> Stored<Option<User>> {
    let user = users::table.find(IdCol(id));
    let row: Option<Row> = match &mut conn.inner {
        Either::Sqlite(c) => user.select(Row::as_select()).get_result(&mut **c).await.optional(),
        Either::Pg(c) => user.select(Row::as_select()).for_update().get_result(&mut **c).await.optional(),
    }?;
    Ok(row.map(User::from))
}

/// Lets a login begin: replaces the hash that was compared by `new_hash`, which may be the same, and
/// keeps the user from others until the transaction ends. `None` where the password was changed or the
/// user disabled meanwhile.
pub async fn admit(conn: &mut Conn, id: Uuid, compared_hash: &str, new_hash: &str) -> Stored<Option<User>> {
    let rows: Vec<Row> = on!(conn, c => {
        let is_same = users::id
            .eq(IdCol(id))
            .and(users::password_hash.eq(compared_hash))
            .and(users::disable_time.is_null());
        let update = diesel::update(users::table.filter(is_same)).set(users::password_hash.eq(new_hash));
        Cached(update.returning(Row::as_returning())).get_results(c).await
    })?;
    Ok(rows.into_iter().next().map(User::from))
}

/// Sets a new password, unless the one that was compared is no longer there.
pub async fn set_password(
    conn: &mut Conn,
    id: Uuid,
    compared_hash: &str,
    new_hash: &str,
    now: DateTime<Utc>,
) -> Stored<Option<User>> {
    let rows: Vec<Row> = on!(conn, c => {
        let is_same = users::id.eq(IdCol(id)).and(users::password_hash.eq(compared_hash));
        let update = diesel::update(users::table.filter(is_same)).set((
            users::password_hash.eq(new_hash),
            users::password_change_required.eq(false),
            users::update_time.eq(TimeCol(now)),
        ));
        Cached(update.returning(Row::as_returning())).get_results(c).await
    })?;
    Ok(rows.into_iter().next().map(User::from))
}

/// Writes what can be changed of a user that was locked; says whether it is there.
pub async fn update(conn: &mut Conn, user: &User) -> Stored<bool> {
    let changed = on!(conn, c => {
        let update = diesel::update(users::table.find(IdCol(user.id))).set((
            users::email.eq(user.email.as_deref()),
            users::display_name.eq(&user.display_name),
            users::roles.eq(user.roles.join(" ")),
            users::token_version.eq(user.token_version),
            users::disable_time.eq(user.disable_time.map(TimeCol)),
            users::update_time.eq(TimeCol(user.update_time)),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// A tenant's users, newest first.
pub async fn list(conn: &mut Conn, tenant_id: Uuid, slice: Slice) -> Stored<Vec<User>> {
    let rows: Vec<Row> = on!(conn, c => {
        users::table
            .filter(users::tenant_id.eq(IdCol(tenant_id)))
            .filter(users::id.lt(slice.below()))
            .order(users::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(User::from).collect())
}
