//! The table `server_secrets`: secrets that all replicas share, sealed.

use diesel::{ExpressionMethods, OptionalExtension, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{Conn, Stored, on, schema::server_secrets};

/// The secret of this name.
pub async fn find(conn: &mut Conn, name: &str) -> Stored<Option<Vec<u8>>> {
    Ok(on!(conn, c => {
        server_secrets::table.find(name).select(server_secrets::sealed).get_result(c).await.optional()
    })?)
}

/// Adds a secret unless there is one of this name.
pub async fn insert_if_new(conn: &mut Conn, name: &str, sealed: &[u8]) -> Stored<()> {
    let values = (server_secrets::name.eq(name), server_secrets::sealed.eq(sealed));
    on!(conn, c => {
        diesel::insert_into(server_secrets::table).values(values).on_conflict_do_nothing().execute(c).await
    })?;
    Ok(())
}
