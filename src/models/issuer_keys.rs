//! The table `issuer_keys`: the service's own key pairs, their private halves sealed.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;

use super::{Conn, Stored, columns::TimeCol, on, schema::issuer_keys, session_keys::StoredKey};
use crate::domain::{
    Inconsistent,
    algorithm::Algorithm,
    issuer_key::{self, Life, State},
};

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = issuer_keys)]
struct Row {
    kid: String,
    algorithm: String,
    state: String,
    public_jwk: String,
    sealed_private_key: Vec<u8>,
    create_time: TimeCol,
    activate_time: Option<TimeCol>,
    expire_time: Option<TimeCol>,
    retire_time: Option<TimeCol>,
    revoke_time: Option<TimeCol>,
}

/// An issuer key as it is stored.
pub struct IssuerKey {
    /// The key and its life.
    pub key: issuer_key::IssuerKey,
    /// Its two halves.
    pub pair: StoredKey,
}

/// A row that is there, whether or not it makes sense.
pub struct Found {
    /// The key's id.
    pub kid: String,
    /// The algorithm that it is for, where this release knows it.
    pub algorithm: Option<Algorithm>,
    /// It stands there as the one that signs.
    pub is_active: bool,
    /// The key.
    pub key: Result<IssuerKey, Inconsistent>,
}

/// The state and the instants of a life, as columns.
struct Columns {
    state: &'static str,
    activate_time: Option<TimeCol>,
    expire_time: Option<TimeCol>,
    retire_time: Option<TimeCol>,
    revoke_time: Option<TimeCol>,
}

impl From<&issuer_key::IssuerKey> for Columns {
    fn from(key: &issuer_key::IssuerKey) -> Self {
        let mut columns = Self {
            state: key.state().as_str(),
            activate_time: None,
            expire_time: None,
            retire_time: None,
            revoke_time: None,
        };
        match key.life {
            Life::Prepared => {}
            Life::Active { since, until } => {
                columns.activate_time = Some(TimeCol(since));
                columns.expire_time = until.map(TimeCol);
            }
            Life::Retired { since } => columns.retire_time = Some(TimeCol(since)),
            Life::Revoked { since } => columns.revoke_time = Some(TimeCol(since)),
        }
        columns
    }
}

impl TryFrom<Row> for IssuerKey {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let broken = |column| Inconsistent { table: "issuer_keys", column };
        let algorithm: Algorithm = row.algorithm.parse().map_err(|_| broken("algorithm"))?;
        let since = |time: Option<TimeCol>, column| Ok(time.ok_or(broken(column))?.0);
        let life = if row.state == State::Prepared.as_str() {
            Life::Prepared
        } else if row.state == State::Active.as_str() {
            let until = row.expire_time.map(|time| time.0);
            Life::Active { since: since(row.activate_time, "activate_time")?, until }
        } else if row.state == State::Retired.as_str() {
            Life::Retired { since: since(row.retire_time, "retire_time")? }
        } else if row.state == State::Revoked.as_str() {
            Life::Revoked { since: since(row.revoke_time, "revoke_time")? }
        } else {
            return Err(broken("state"));
        };
        let Row { kid, public_jwk, sealed_private_key, create_time, .. } = row;
        Ok(Self {
            key: issuer_key::IssuerKey { kid: kid.clone(), algorithm, create_time: create_time.0, life },
            pair: StoredKey { kid, algorithm, public_jwk, sealed_private_key },
        })
    }
}

impl From<Row> for Found {
    fn from(row: Row) -> Self {
        Self {
            kid: row.kid.clone(),
            algorithm: row.algorithm.parse().ok(),
            is_active: row.state == State::Active.as_str(),
            key: row.try_into(),
        }
    }
}

impl IssuerKey {
    fn row(&self) -> Row {
        let Columns { state, activate_time, expire_time, retire_time, revoke_time } = (&self.key).into();
        Row {
            kid: self.pair.kid.clone(),
            algorithm: self.pair.algorithm.as_str().to_owned(),
            state: state.to_owned(),
            public_jwk: self.pair.public_jwk.clone(),
            sealed_private_key: self.pair.sealed_private_key.clone(),
            create_time: TimeCol(self.key.create_time),
            activate_time,
            expire_time,
            retire_time,
            revoke_time,
        }
    }
}

/// Adds a key unless its place is taken: one is active and one is prepared of each algorithm. Says whether it did.
pub async fn insert_if_free(conn: &mut Conn, key: &IssuerKey) -> Stored<bool> {
    let row = key.row();
    let added = on!(conn, c => {
        diesel::insert_into(issuer_keys::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    Ok(added == 1)
}

/// Writes where a key stands now, unless it no longer stood `from` there; says whether it did. What it went
/// through before stays written beside it.
pub async fn move_on(conn: &mut Conn, key: &issuer_key::IssuerKey, from: State) -> Stored<bool> {
    let to = Columns::from(key);
    let changed = on!(conn, c => {
        let is_there = issuer_keys::kid.eq(&key.kid).and(issuer_keys::state.eq(from.as_str()));
        let here = issuer_keys::table.filter(is_there);
        let state = issuer_keys::state.eq(to.state);
        match key.life {
            Life::Prepared => diesel::update(here).set(state).execute(c).await,
            Life::Active { .. } => {
                let times = (
                    issuer_keys::activate_time.eq(to.activate_time),
                    issuer_keys::expire_time.eq(to.expire_time),
                );
                diesel::update(here).set((state, times)).execute(c).await
            }
            Life::Retired { .. } => {
                diesel::update(here).set((state, issuer_keys::retire_time.eq(to.retire_time))).execute(c).await
            }
            Life::Revoked { .. } => {
                diesel::update(here).set((state, issuer_keys::revoke_time.eq(to.revoke_time))).execute(c).await
            }
        }
    })?;
    Ok(changed == 1)
}

/// Removes a key; says whether it was there.
pub async fn delete(conn: &mut Conn, kid: &str) -> Stored<bool> {
    let deleted = on!(conn, c => diesel::delete(issuer_keys::table.find(kid)).execute(c).await)?;
    Ok(deleted == 1)
}

/// Every key, the newest first, each read by itself.
pub async fn list(conn: &mut Conn) -> Stored<Vec<Found>> {
    let rows: Vec<Row> = on!(conn, c => {
        issuer_keys::table
            .order((issuer_keys::create_time.desc(), issuer_keys::kid))
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Found::from).collect())
}
