//! The table `tenants`.

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
    schema::tenants,
};
use crate::domain::{
    Inconsistent,
    algorithm::Algorithm,
    session_rules::TenantSessions,
    tenant::{Tenant, TenantSigning},
};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tenants)]
struct Row {
    id: IdCol,
    name: String,
    display_name: String,
    create_time: TimeCol,
    algorithm: Option<String>,
    session_algorithm: Option<String>,
    suspend_time: Option<TimeCol>,
    standing: i64,
    session_policy: Option<String>,
}

fn algorithm_text(algorithm: Option<Algorithm>) -> Option<String> {
    algorithm.map(|algorithm| algorithm.as_str().to_owned())
}

fn algorithm(column: &'static str, text: Option<String>) -> Result<Option<Algorithm>, Inconsistent> {
    let parsed = text.map(|text| text.parse()).transpose();
    parsed.map_err(|_| Inconsistent { table: "tenants", column })
}

const BROKEN_POLICY: Inconsistent = Inconsistent { table: "tenants", column: "session_policy" };

fn policy_json(sessions: TenantSessions) -> Result<Option<String>, Inconsistent> {
    let is_own = sessions != TenantSessions::default();
    is_own.then(|| serde_json::to_string(&sessions).map_err(|_| BROKEN_POLICY)).transpose()
}

fn policy(json: Option<String>) -> Result<TenantSessions, Inconsistent> {
    let Some(json) = json else { return Ok(TenantSessions::default()) };
    let policy: TenantSessions = serde_json::from_str(&json).map_err(|_| BROKEN_POLICY)?;
    policy.check().map_err(|_| BROKEN_POLICY)
}

/// A tenant's row, each part read by itself.
pub struct Found {
    /// The tenant without what follows.
    rest: Tenant,
    /// How its tokens are signed.
    pub signing: Result<TenantSigning, Inconsistent>,
    /// What its sessions keep to.
    pub sessions: Result<TenantSessions, Inconsistent>,
}

impl Found {
    /// The tenant's id.
    pub fn id(&self) -> Uuid {
        self.rest.id
    }

    /// The tenant, where all of it makes sense.
    pub fn whole(self) -> Result<Tenant, Inconsistent> {
        Ok(Tenant { signing: self.signing?, sessions: self.sessions?, ..self.rest })
    }

    /// The tenant without what makes no sense.
    pub fn readable(self) -> Tenant {
        let (signing, sessions) = (self.signing.unwrap_or_default(), self.sessions.unwrap_or_default());
        Tenant { signing, sessions, ..self.rest }
    }
}

impl TryFrom<&Tenant> for Row {
    type Error = Inconsistent;

    fn try_from(tenant: &Tenant) -> Result<Self, Inconsistent> {
        Ok(Self {
            id: IdCol(tenant.id),
            name: tenant.name.clone(),
            display_name: tenant.display_name.clone(),
            create_time: TimeCol(tenant.create_time),
            algorithm: algorithm_text(tenant.signing.algorithm),
            session_algorithm: algorithm_text(tenant.signing.session_algorithm),
            suspend_time: tenant.suspend_time.map(TimeCol),
            standing: tenant.standing,
            session_policy: policy_json(tenant.sessions)?,
        })
    }
}

fn signing(of_issuer: Option<String>, of_sessions: Option<String>) -> Result<TenantSigning, Inconsistent> {
    Ok(TenantSigning {
        algorithm: algorithm("algorithm", of_issuer)?,
        session_algorithm: algorithm("session_algorithm", of_sessions)?,
    })
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        let rest = Tenant {
            id: row.id.0,
            name: row.name,
            display_name: row.display_name,
            create_time: row.create_time.0,
            signing: TenantSigning::default(),
            sessions: TenantSessions::default(),
            suspend_time: row.suspend_time.map(|time| time.0),
            standing: row.standing,
        };
        Self {
            rest,
            signing: signing(row.algorithm, row.session_algorithm),
            sessions: policy(row.session_policy),
        }
    }
}

/// Adds a tenant; a taken name is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, tenant: &Tenant) -> Stored<()> {
    let row = Row::try_from(tenant)?;
    on!(conn, c => Cached(diesel::insert_into(tenants::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// Adds a tenant unless its name is taken; says whether it did.
pub async fn insert_if_new(conn: &mut Conn, tenant: &Tenant) -> Stored<bool> {
    let row = Row::try_from(tenant)?;
    let added = on!(conn, c => {
        diesel::insert_into(tenants::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    Ok(added == 1)
}

/// The tenant with this id, whether or not all of it makes sense.
pub async fn look_up(conn: &mut Conn, id: Uuid) -> Stored<Option<Found>> {
    let row: Option<Row> = on!(conn, c => {
        tenants::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Found::from))
}

/// The tenant with this name.
pub async fn find_by_name(conn: &mut Conn, name: &str) -> Stored<Option<Tenant>> {
    Ok(look_up_by_name(conn, name).await?.map(Found::whole).transpose()?)
}

/// The same, whether or not all of it makes sense.
pub async fn look_up_by_name(conn: &mut Conn, name: &str) -> Stored<Option<Found>> {
    let row: Option<Row> = on!(conn, c => {
        tenants::table.filter(tenants::name.eq(name)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Found::from))
}

/// Tenants, newest first.
pub async fn list(conn: &mut Conn, slice: Slice) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        tenants::table
            .filter(tenants::id.lt(slice.below()))
            .order(tenants::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}

/// Writes what can be changed of a tenant, but for its standing; says whether it is there.
pub async fn update(conn: &mut Conn, tenant: &Tenant) -> Stored<bool> {
    let session_policy = policy_json(tenant.sessions)?;
    let changed = on!(conn, c => {
        let update = diesel::update(tenants::table.find(IdCol(tenant.id))).set((
            tenants::display_name.eq(&tenant.display_name),
            tenants::algorithm.eq(algorithm_text(tenant.signing.algorithm)),
            tenants::session_algorithm.eq(algorithm_text(tenant.signing.session_algorithm)),
            tenants::session_policy.eq(&session_policy),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// Writes whether a tenant is suspended, and nothing else of it; says whether it is there.
pub async fn set_standing(conn: &mut Conn, tenant: &Tenant) -> Stored<bool> {
    let changed = on!(conn, c => {
        let update = diesel::update(tenants::table.find(IdCol(tenant.id))).set((
            tenants::suspend_time.eq(tenant.suspend_time.map(TimeCol)),
            tenants::standing.eq(tenant.standing),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(changed == 1)
}

/// The tenants that have a way of their own, or are suspended, each read by itself.
pub async fn list_special(conn: &mut Conn) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        let has_own = tenants::algorithm
            .is_not_null()
            .or(tenants::session_algorithm.is_not_null())
            .or(tenants::session_policy.is_not_null())
            .or(tenants::suspend_time.is_not_null());
        tenants::table.filter(has_own).select(Row::as_select()).load(c).await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}
