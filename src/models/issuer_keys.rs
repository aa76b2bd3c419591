//! The table `issuer_keys`: the service's own key pairs, their private halves sealed.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper};
use diesel_async::RunQueryDsl;

use super::{Conn, Stored, columns::TimeCol, on, schema::issuer_keys, session_keys::StoredKey};
use crate::domain::{Inconsistent, algorithm::Algorithm};

const ACTIVE: &str = "ACTIVE";
const REVOKED: &str = "REVOKED";

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
}

/// An issuer key as it is stored.
pub struct IssuerKey {
    /// The key pair.
    pub key: StoredKey,
    /// It signs.
    pub is_active: bool,
}

impl TryFrom<Row> for IssuerKey {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let broken = Inconsistent { table: "issuer_keys", column: "algorithm" };
        let algorithm: Algorithm = row.algorithm.parse().map_err(|_| broken)?;
        let Row { kid, public_jwk, sealed_private_key, state, .. } = row;
        Ok(Self {
            key: StoredKey { kid, algorithm, public_jwk, sealed_private_key },
            is_active: state == ACTIVE,
        })
    }
}

/// Makes a key the active one of its algorithm unless there is one; says whether it did.
pub async fn insert_active_if_none(conn: &mut Conn, key: &StoredKey, now: DateTime<Utc>) -> Stored<bool> {
    let row = Row {
        kid: key.kid.clone(),
        algorithm: key.algorithm.as_str().to_owned(),
        state: ACTIVE.to_owned(),
        public_jwk: key.public_jwk.clone(),
        sealed_private_key: key.sealed_private_key.clone(),
        create_time: TimeCol(now),
        activate_time: Some(TimeCol(now)),
    };
    let added = on!(conn, c => {
        diesel::insert_into(issuer_keys::table).values(&row).on_conflict_do_nothing().execute(c).await
    })?;
    Ok(added == 1)
}

/// Every key that was not revoked.
pub async fn list_trusted(conn: &mut Conn) -> Stored<Vec<IssuerKey>> {
    let rows: Vec<Row> = on!(conn, c => {
        issuer_keys::table
            .filter(issuer_keys::state.ne(REVOKED))
            .order((issuer_keys::create_time.desc(), issuer_keys::kid))
            .select(Row::as_select())
            .load(c)
            .await
    })?;
    rows.into_iter().map(|row| Ok(row.try_into()?)).collect()
}
