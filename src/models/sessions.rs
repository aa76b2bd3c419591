//! The table `sessions`.

use chrono::{DateTime, Utc};
use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, NullableExpressionMethods, OptionalExtension,
    QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{
    Cached, Conn, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::{session_keys, sessions},
};
use crate::domain::{
    Inconsistent,
    algorithm::Algorithm,
    claims::Profile,
    device::Device,
    session::{End, EndReason, Seen, Session},
};

/// Everything but the salt and the profile.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = sessions)]
pub(super) struct Row {
    id: IdCol,
    tenant_id: IdCol,
    user_id: IdCol,
    device_type: String,
    device_id: String,
    device_name: String,
    slot: i32,
    kid: String,
    generation: i64,
    create_time: TimeCol,
    refresh_time: TimeCol,
    idle_expire_time: TimeCol,
    expire_time: TimeCol,
    end_time: Option<TimeCol>,
    end_reason: Option<String>,
    first_address: String,
    last_address: String,
    user_agent: String,
    last_seen_time: Option<TimeCol>,
    last_network: String,
    last_seen_address: String,
    dpop_jkt: Option<String>,
}

impl From<&Session> for Row {
    fn from(session: &Session) -> Self {
        Self {
            id: IdCol(session.id),
            tenant_id: IdCol(session.tenant_id),
            user_id: IdCol(session.user_id),
            device_type: session.device.kind.clone(),
            device_id: session.device.id.clone(),
            device_name: session.device.name.clone(),
            slot: session.slot,
            kid: session.kid.clone(),
            generation: session.generation,
            create_time: TimeCol(session.create_time),
            refresh_time: TimeCol(session.refresh_time),
            idle_expire_time: TimeCol(session.idle_expire_time),
            expire_time: TimeCol(session.expire_time),
            end_time: session.end.map(|end| TimeCol(end.time)),
            end_reason: session.end.map(|end| end.reason.as_str().to_owned()),
            first_address: session.first_address.clone(),
            last_address: session.last_address.clone(),
            user_agent: session.user_agent.clone(),
            last_seen_time: session.seen.as_ref().map(|seen| TimeCol(seen.time)),
            last_network: session.last_network.clone(),
            last_seen_address: session.seen.as_ref().map(|seen| seen.address.clone()).unwrap_or_default(),
            dpop_jkt: session.dpop_jkt.clone(),
        }
    }
}

impl TryFrom<Row> for Session {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let end = match (row.end_time, row.end_reason) {
            (None, None) => None,
            (Some(time), Some(word)) => Some(End { time: time.0, reason: EndReason::from_word(&word) }),
            _ => return Err(broken("end_time")),
        };
        Ok(Self {
            id: row.id.0,
            tenant_id: row.tenant_id.0,
            user_id: row.user_id.0,
            device: Device { kind: row.device_type, id: row.device_id, name: row.device_name },
            slot: row.slot,
            kid: row.kid,
            generation: row.generation,
            create_time: row.create_time.0,
            refresh_time: row.refresh_time.0,
            idle_expire_time: row.idle_expire_time.0,
            expire_time: row.expire_time.0,
            end,
            first_address: row.first_address,
            last_address: row.last_address,
            last_network: row.last_network,
            seen: row.last_seen_time.map(|time| Seen { time: time.0, address: row.last_seen_address }),
            user_agent: row.user_agent,
            dpop_jkt: row.dpop_jkt,
        })
    }
}

const fn broken(column: &'static str) -> Inconsistent {
    Inconsistent { table: "sessions", column }
}

pub(super) fn read_profile(json: &str) -> Result<Profile, Inconsistent> {
    serde_json::from_str(json).map_err(|_| broken("profile"))
}

fn write_profile(profile: &Profile) -> Result<String, Inconsistent> {
    serde_json::to_string(profile).map_err(|_| broken("profile"))
}

/// Adds a session; a place that is taken is [`StoreError::Taken`](super::StoreError::Taken).
pub async fn insert(conn: &mut Conn, session: &Session, salt: &[u8], profile: &Profile) -> Stored<()> {
    let profile = write_profile(profile)?;
    let values = (Row::from(session), sessions::salt.eq(salt), sessions::profile.eq(profile));
    on!(conn, c => Cached(diesel::insert_into(sessions::table).values(&values)).execute(c).await)?;
    Ok(())
}

/// The session with this id.
pub async fn find(conn: &mut Conn, id: Uuid) -> Stored<Option<Session>> {
    let row: Option<Row> = on!(conn, c => {
        sessions::table.find(IdCol(id)).select(Row::as_select()).get_result(c).await.optional()
    })?;
    Ok(row.map(Session::try_from).transpose()?)
}

/// What tokens of a session are made with, sealed; never changes.
pub struct Maker {
    /// The session as it is now.
    pub session: Session,
    /// What its refresh tokens' tags are derived with.
    pub salt: Vec<u8>,
    /// Its own key, where it has one.
    pub key: Option<SealedKey>,
    /// Its tokens' audiences; none where what they say can't be read.
    pub aud: Vec<String>,
}

type AlgorithmAndKey = (String, Vec<u8>);

/// The private half of a session's key.
pub struct SealedKey {
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The key, sealed.
    pub sealed_private_key: Vec<u8>,
}

/// What tokens of this session are made with.
pub async fn find_maker(conn: &mut Conn, id: Uuid) -> Stored<Option<Maker>> {
    let found: Option<(Row, Vec<u8>, String, Option<AlgorithmAndKey>)> = on!(conn, c => {
        let key = (session_keys::algorithm, session_keys::sealed_private_key);
        sessions::table
            .left_join(session_keys::table)
            .filter(sessions::id.eq(IdCol(id)))
            .select((Row::as_select(), sessions::salt, sessions::profile, key.nullable()))
            .get_result(c)
            .await
            .optional()
    })?;
    let Some((row, salt, profile, key)) = found else { return Ok(None) };
    let open = |(algorithm, sealed_private_key): AlgorithmAndKey| {
        let broken = Inconsistent { table: "session_keys", column: "algorithm" };
        let algorithm = algorithm.parse().map_err(|_| broken)?;
        Ok::<_, Inconsistent>(SealedKey { algorithm, sealed_private_key })
    };
    // Where that makes no sense, the session ends as ever and gets no tokens: the step says why.
    let aud = read_profile(&profile).map(|profile| profile.aud).unwrap_or_default();
    Ok(Some(Maker { session: row.try_into()?, salt, key: key.map(open).transpose()?, aud }))
}

/// The session with what its tokens say.
pub async fn find_with_profile(conn: &mut Conn, id: Uuid) -> Stored<Option<(Session, Profile)>> {
    let found: Option<(Row, String)> = on!(conn, c => {
        sessions::table
            .find(IdCol(id))
            .select((Row::as_select(), sessions::profile))
            .get_result(c)
            .await
            .optional()
    })?;
    let Some((row, profile)) = found else {
        return Ok(None);
    };
    Ok(Some((row.try_into()?, read_profile(&profile)?)))
}

/// Ends a session; `None` where it had ended before, else whether it was live until now.
pub async fn end(conn: &mut Conn, id: Uuid, end: End) -> Stored<Option<bool>> {
    let limits: Vec<TimeCol> = on!(conn, c => {
        let is_open = sessions::id.eq(IdCol(id)).and(sessions::end_time.is_null());
        let update = diesel::update(sessions::table.filter(is_open)).set((
            sessions::end_time.eq(TimeCol(end.time)),
            sessions::end_reason.eq(end.reason.as_str()),
        ));
        Cached(update.returning(sessions::idle_expire_time)).get_results(c).await
    })?;
    Ok(limits.into_iter().next().map(|limit| limit.0 > end.time))
}

/// Writes where a live session was seen, unless it was seen since `unless_since`.
pub async fn see(conn: &mut Conn, id: Uuid, seen: &Seen, unless_since: DateTime<Utc>) -> Stored<()> {
    let limit = TimeCol(unless_since);
    on!(conn, c => {
        let is_due = sessions::id
            .eq(IdCol(id))
            .and(sessions::end_time.is_null())
            .and(sessions::idle_expire_time.gt(TimeCol(seen.time)))
            .and(sessions::refresh_time.le(limit))
            .and(sessions::last_seen_time.is_null().or(sessions::last_seen_time.assume_not_null().le(limit)));
        let update = diesel::update(sessions::table.filter(is_due)).set((
            sessions::last_seen_time.eq(TimeCol(seen.time)),
            sessions::last_seen_address.eq(&seen.address),
        ));
        Cached(update).execute(c).await
    })?;
    Ok(())
}

/// Changes what the next tokens of a session say.
pub async fn set_profile(conn: &mut Conn, id: Uuid, profile: &Profile) -> Stored<()> {
    let profile = write_profile(profile)?;
    on!(conn, c => {
        let update = diesel::update(sessions::table.find(IdCol(id))).set(sessions::profile.eq(&profile));
        Cached(update).execute(c).await
    })?;
    Ok(())
}
