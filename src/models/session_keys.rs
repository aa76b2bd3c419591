//! The table `session_keys`: the key pair of each session, its private half sealed.

use diesel::{Insertable, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::{Cached, Conn, Stored, columns::IdCol, on, schema::session_keys};
use crate::domain::algorithm::Algorithm;

/// A key pair as it is stored.
pub struct StoredKey {
    /// Its id.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Its public half, a JWK.
    pub public_jwk: String,
    /// Its private half, sealed.
    pub sealed_private_key: Vec<u8>,
}

#[derive(Insertable)]
#[diesel(table_name = session_keys)]
struct Row<'k> {
    kid: &'k str,
    session_id: IdCol,
    algorithm: &'static str,
    public_jwk: &'k str,
    sealed_private_key: &'k [u8],
}

/// The session that the key of this id was made for, and the public half, a JWK.
pub async fn find(conn: &mut Conn, kid: &str) -> Stored<Option<(Uuid, String)>> {
    let found: Option<(IdCol, String)> = on!(conn, c => {
        session_keys::table
            .find(kid)
            .select((session_keys::session_id, session_keys::public_jwk))
            .get_result(c)
            .await
            .optional()
    })?;
    Ok(found.map(|(session_id, public_jwk)| (session_id.0, public_jwk)))
}

/// Adds a session's key.
pub async fn insert(conn: &mut Conn, session_id: Uuid, key: &StoredKey) -> Stored<()> {
    let row = Row {
        kid: &key.kid,
        session_id: IdCol(session_id),
        algorithm: key.algorithm.as_str(),
        public_jwk: &key.public_jwk,
        sealed_private_key: &key.sealed_private_key,
    };
    on!(conn, c => Cached(diesel::insert_into(session_keys::table).values(&row)).execute(c).await)?;
    Ok(())
}
