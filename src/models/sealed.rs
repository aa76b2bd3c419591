//! Everything that is sealed, whichever table it lies in: what sealing it anew goes through.

use diesel::{BoolExpressionMethods, ExpressionMethods, QueryDsl};
use diesel_async::RunQueryDsl;

use super::{
    Conn, Stored, on,
    schema::{audience_secrets, issuer_keys, server_secrets, session_keys, spare_keys},
};

/// A table with a sealed column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedTable {
    /// Secrets that all replicas share.
    ServerSecrets,
    /// Issuer keys.
    IssuerKeys,
    /// Secrets of HS256 audiences.
    AudienceSecrets,
    /// RSA keys that wait for sessions.
    SpareKeys,
    /// Keys of sessions.
    SessionKeys,
}

impl SealedTable {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ServerSecrets, Self::IssuerKeys, Self::AudienceSecrets, Self::SpareKeys, Self::SessionKeys];

    /// The table's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServerSecrets => "server_secrets",
            Self::IssuerKeys => "issuer_keys",
            Self::AudienceSecrets => "audience_secrets",
            Self::SpareKeys => "spare_keys",
            Self::SessionKeys => "session_keys",
        }
    }
}

/// A sealed value and the primary key of its row.
pub type Sealed = (String, Vec<u8>);

macro_rules! page_of {
    ($c:ident, $key:expr, $sealed:expr, $table:expr, $after:ident, $limit:ident) => {
        $table.filter($key.gt($after)).order($key).limit($limit).select(($key, $sealed)).load($c).await
    };
}

macro_rules! replace_in {
    ($c:ident, $key:expr, $sealed:expr, $table:expr, $name:ident, $old:ident, $new:ident) => {
        diesel::update($table.filter($key.eq($name).and($sealed.eq($old))))
            .set($sealed.eq($new))
            .execute($c)
            .await
    };
}

/// Up to `limit` rows after the one with the key `after`, in the order of their keys.
pub async fn page(conn: &mut Conn, table: SealedTable, after: &str, limit: i64) -> Stored<Vec<Sealed>> {
    Ok(on!(conn, c => match table {
        SealedTable::ServerSecrets => {
            page_of!(c, server_secrets::name, server_secrets::sealed, server_secrets::table, after, limit)
        }
        SealedTable::IssuerKeys => {
            page_of!(c, issuer_keys::kid, issuer_keys::sealed_private_key, issuer_keys::table, after, limit)
        }
        SealedTable::AudienceSecrets => {
            page_of!(c, audience_secrets::kid, audience_secrets::sealed, audience_secrets::table, after, limit)
        }
        SealedTable::SpareKeys => {
            page_of!(c, spare_keys::kid, spare_keys::sealed_private_key, spare_keys::table, after, limit)
        }
        SealedTable::SessionKeys => {
            page_of!(c, session_keys::kid, session_keys::sealed_private_key, session_keys::table, after, limit)
        }
    })?)
}

/// Writes a value sealed anew, unless the row is gone or holds another one by now; says whether it did.
pub async fn replace(
    conn: &mut Conn,
    table: SealedTable,
    name: &str,
    old: &[u8],
    new: &[u8],
) -> Stored<bool> {
    let changed = on!(conn, c => match table {
        SealedTable::ServerSecrets => {
            replace_in!(c, server_secrets::name, server_secrets::sealed, server_secrets::table, name, old, new)
        }
        SealedTable::IssuerKeys => {
            replace_in!(c, issuer_keys::kid, issuer_keys::sealed_private_key, issuer_keys::table, name, old, new)
        }
        SealedTable::AudienceSecrets => {
            replace_in!(c, audience_secrets::kid, audience_secrets::sealed, audience_secrets::table, name, old, new)
        }
        SealedTable::SpareKeys => {
            replace_in!(c, spare_keys::kid, spare_keys::sealed_private_key, spare_keys::table, name, old, new)
        }
        SealedTable::SessionKeys => {
            replace_in!(c, session_keys::kid, session_keys::sealed_private_key, session_keys::table, name, old, new)
        }
    })?;
    Ok(changed == 1)
}
