//! The tables `audit_events` and `audit_trail`: append-only from where the trail begins, as triggers in both
//! databases see to.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Slice, Stored,
    columns::{IdCol, TimeCol},
    conn::Either,
    on,
    schema::{audit_events, audit_trail},
};
use crate::domain::audit::{Event, Origin};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = audit_events)]
struct Row {
    id: IdCol,
    tenant_id: IdCol,
    create_time: TimeCol,
    action: String,
    refusal: Option<String>,
    actor_id: Option<IdCol>,
    target_type: String,
    target_id: Option<IdCol>,
    address: String,
    user_agent: String,
    request_id: String,
    target_name: Option<String>,
}

impl From<&Event> for Row {
    fn from(event: &Event) -> Self {
        Self {
            id: IdCol(event.id),
            tenant_id: IdCol(event.tenant_id),
            create_time: TimeCol(event.create_time),
            action: event.action.clone(),
            refusal: event.refusal.clone(),
            actor_id: event.actor_id.map(IdCol),
            target_type: event.target_type.clone(),
            target_id: event.target_id.map(IdCol),
            address: event.origin.address.clone(),
            user_agent: event.origin.user_agent.clone(),
            request_id: event.origin.request_id.clone(),
            target_name: event.target_name.clone(),
        }
    }
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        let origin = Origin { address: row.address, user_agent: row.user_agent, request_id: row.request_id };
        Self {
            id: row.id.0,
            tenant_id: row.tenant_id.0,
            create_time: row.create_time.0,
            action: row.action,
            refusal: row.refusal,
            actor_id: row.actor_id.map(|id| id.0),
            target_type: row.target_type,
            target_id: row.target_id.map(|id| id.0),
            target_name: row.target_name,
            origin,
        }
    }
}

/// Appends an event.
pub async fn append(conn: &mut Conn, event: &Event) -> Stored<()> {
    let row = Row::from(event);
    on!(conn, c => Cached(diesel::insert_into(audit_events::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// A tenant's events, newest first; only with this action and by this user, where they are given.
pub async fn list(
    conn: &mut Conn,
    tenant_id: Uuid,
    action: Option<&str>,
    actor_id: Option<Uuid>,
    slice: Slice,
) -> Stored<Vec<Event>> {
    let rows: Vec<Row> = on!(conn, c => {
        let mut query = audit_events::table
            .filter(audit_events::tenant_id.eq(IdCol(tenant_id)))
            .filter(audit_events::id.lt(slice.below()))
            .order(audit_events::id.desc())
            .limit(slice.limit)
            .select(Row::as_select())
            .into_boxed();
        if let Some(action) = action {
            query = query.filter(audit_events::action.eq(action));
        }
        if let Some(actor_id) = actor_id {
            query = query.filter(audit_events::actor_id.eq(IdCol(actor_id)));
        }
        query.load(c).await
    })?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// Up to `limit` events from before `time`, the oldest first.
pub async fn before(conn: &mut Conn, time: DateTime<Utc>, limit: i64) -> Stored<Vec<Uuid>> {
    let ids: Vec<IdCol> = on!(conn, c => {
        audit_events::table
            .filter(audit_events::create_time.lt(TimeCol(time)))
            .order(audit_events::create_time)
            .limit(limit)
            .select(audit_events::id)
            .load(c)
            .await
    })?;
    Ok(ids.into_iter().map(|id| id.0).collect())
}

/// Lets the trail begin at `time`, unless it begins later already, and removes those of these events that lie
/// before, in the caller's transaction, but for those that somebody else removes.
pub async fn remove_before(conn: &mut Conn, time: DateTime<Utc>, ids: &[Uuid]) -> Stored<usize> {
    on!(conn, c => {
        let begins_earlier = audit_trail::begin_time.lt(TimeCol(time));
        diesel::update(audit_trail::table.filter(begins_earlier))
            .set(audit_trail::begin_time.eq(TimeCol(time)))
            .execute(c)
            .await
    })?;
    let old = audit_events::table
        .filter(audit_events::id.eq_any(ids.iter().copied().map(IdCol)))
        .filter(audit_events::create_time.lt(TimeCol(time)))
        .select(audit_events::id);
    let held: Vec<IdCol> = match &mut conn.inner {
        Either::Sqlite(c) => old.load(&mut **c).await,
        Either::Pg(c) => old.for_update().skip_locked().load(&mut **c).await,
    }?;
    Ok(on!(conn, c => {
        diesel::delete(audit_events::table.filter(audit_events::id.eq_any(&held))).execute(c).await
    })?)
}
