//! The table `spare_keys`: RSA key pairs made ahead of need, their private halves sealed as they will stay.

use chrono::{DateTime, Utc};
use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{Cached, Conn, Stored, columns::TimeCol, conn::Either, on, schema::spare_keys};

/// A key pair that waits for its session. It has no algorithm until it is taken.
pub struct SpareKey {
    /// Its id.
    pub kid: String,
    /// The length of its modulus.
    pub bits: i32,
    /// Its public half, a JWK.
    pub public_jwk: String,
    /// Its private half, sealed.
    pub sealed_private_key: Vec<u8>,
}

/// Adds a key pair.
pub async fn insert(conn: &mut Conn, key: &SpareKey, now: DateTime<Utc>) -> Stored<()> {
    let values = (
        spare_keys::kid.eq(&key.kid),
        spare_keys::bits.eq(key.bits),
        spare_keys::public_jwk.eq(&key.public_jwk),
        spare_keys::sealed_private_key.eq(&key.sealed_private_key),
        spare_keys::create_time.eq(TimeCol(now)),
    );
    on!(conn, c => diesel::insert_into(spare_keys::table).values(values).execute(c).await)?;
    Ok(())
}

/// How many there are of this length besides these.
pub async fn count(conn: &mut Conn, bits: i32, besides: &[String]) -> Stored<i64> {
    let usable =
        spare_keys::table.filter(spare_keys::bits.eq(bits)).filter(spare_keys::kid.ne_all(besides)).count();
    Ok(on!(conn, c => usable.get_result(c).await)?)
}

/// The ids of those of this length that will be taken next, besides these.
pub async fn next(conn: &mut Conn, bits: i32, besides: &[String], limit: i64) -> Stored<Vec<String>> {
    let oldest = spare_keys::table
        .filter(spare_keys::bits.eq(bits))
        .filter(spare_keys::kid.ne_all(besides))
        .order(spare_keys::create_time)
        .limit(limit)
        .select(spare_keys::kid);
    Ok(on!(conn, c => oldest.load(c).await)?)
}

/// The sealed private half of one.
pub async fn find_sealed(conn: &mut Conn, kid: &str) -> Stored<Option<Vec<u8>>> {
    let sealed = spare_keys::table.find(kid).select(spare_keys::sealed_private_key);
    Ok(on!(conn, c => sealed.get_result(c).await.optional())?)
}

/// The oldest of this length besides these, held for the transaction. Of two that ask at once each gets another one,
/// and neither waits for the other.
pub async fn hold(conn: &mut Conn, bits: i32, besides: &[String]) -> Stored<Option<SpareKey>> {
    let oldest = spare_keys::table
        .filter(spare_keys::bits.eq(bits))
        .filter(spare_keys::kid.ne_all(besides))
        .order(spare_keys::create_time)
        .limit(1)
        .select((spare_keys::kid, spare_keys::bits, spare_keys::public_jwk, spare_keys::sealed_private_key));
    let found: Option<(String, i32, String, Vec<u8>)> = match &mut conn.inner {
        Either::Sqlite(c) => oldest.first(&mut **c).await.optional(),
        Either::Pg(c) => oldest.for_update().skip_locked().first(&mut **c).await.optional(),
    }?;
    Ok(found.map(|(kid, bits, public_jwk, sealed_private_key)| SpareKey {
        kid,
        bits,
        public_jwk,
        sealed_private_key,
    }))
}

/// Takes one away, which comes back if the transaction is rolled back; says whether it was there.
pub async fn take(conn: &mut Conn, kid: &str) -> Stored<bool> {
    Ok(on!(conn, c => Cached(diesel::delete(spare_keys::table.find(kid))).execute(c).await)? == 1)
}
