//! The table `service_credentials`.

use diesel::{
    BoolExpressionMethods, ExpressionMethods, Insertable, QueryDsl, Queryable, Selectable, SelectableHelper,
};
use diesel_async::RunQueryDsl;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Cached, Conn, Stored,
    columns::{IdCol, TimeCol},
    on,
    schema::service_credentials,
};
use crate::domain::{
    Inconsistent,
    certificate::Named,
    service_account::{Credential, Federated, Proof},
    trusted_issuer::KeySource,
};

const CLIENT_SECRET: &str = "client_secret";
const PRIVATE_KEY_JWT: &str = "private_key_jwt";
const FEDERATED: &str = "federated";
const MTLS: &str = "mtls";

#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = service_credentials)]
struct Row {
    id: IdCol,
    service_account_id: IdCol,
    kind: String,
    digest: Option<Vec<u8>>,
    detail: String,
    create_time: TimeCol,
    expire_time: Option<TimeCol>,
}

/// What a credential needs beside the digest of a secret.
#[derive(Default, Serialize, Deserialize)]
struct Detail {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks_json: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    jwks_uri: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    federated: Option<Federated>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtls: Option<Named>,
}

const fn inconsistent(column: &'static str) -> Inconsistent {
    Inconsistent { table: "service_credentials", column }
}

impl TryFrom<&Credential> for Row {
    type Error = Inconsistent;

    fn try_from(credential: &Credential) -> Result<Self, Inconsistent> {
        let (kind, digest, detail) = match &credential.proof {
            Proof::ClientSecret(digest) => (CLIENT_SECRET, Some(digest.to_vec()), Detail::default()),
            Proof::PrivateKeyJwt(KeySource::Url(url)) => {
                (PRIVATE_KEY_JWT, None, Detail { jwks_uri: Some(url.clone()), ..Detail::default() })
            }
            Proof::PrivateKeyJwt(KeySource::Json(json)) => {
                (PRIVATE_KEY_JWT, None, Detail { jwks_json: Some(json.clone()), ..Detail::default() })
            }
            Proof::Federated(federated) => {
                (FEDERATED, None, Detail { federated: Some(federated.clone()), ..Detail::default() })
            }
            Proof::Mtls(named) => (MTLS, None, Detail { mtls: Some(named.clone()), ..Detail::default() }),
        };
        Ok(Self {
            id: IdCol(credential.id),
            service_account_id: IdCol(credential.service_account_id),
            kind: kind.to_owned(),
            digest,
            detail: serde_json::to_string(&detail).map_err(|_| inconsistent("detail"))?,
            create_time: TimeCol(credential.create_time),
            expire_time: credential.expire_time.map(TimeCol),
        })
    }
}

impl TryFrom<Row> for Credential {
    type Error = Inconsistent;

    fn try_from(row: Row) -> Result<Self, Inconsistent> {
        let detail: Detail = serde_json::from_str(&row.detail).map_err(|_| inconsistent("detail"))?;
        let proof = match (row.kind.as_str(), row.digest, detail) {
            (CLIENT_SECRET, Some(digest), _) => {
                Proof::ClientSecret(digest.try_into().map_err(|_| inconsistent("digest"))?)
            }
            (PRIVATE_KEY_JWT, None, Detail { jwks_json: Some(json), jwks_uri: None, .. }) => {
                Proof::PrivateKeyJwt(KeySource::Json(json))
            }
            (PRIVATE_KEY_JWT, None, Detail { jwks_uri: Some(url), jwks_json: None, .. }) => {
                Proof::PrivateKeyJwt(KeySource::url("jwks_uri", &url).map_err(|_| inconsistent("detail"))?)
            }
            (FEDERATED, None, Detail { federated: Some(federated), .. }) => Proof::Federated(federated),
            (MTLS, None, Detail { mtls: Some(named), .. }) => Proof::Mtls(named),
            _ => return Err(inconsistent("kind")),
        };
        Ok(Self {
            id: row.id.0,
            service_account_id: row.service_account_id.0,
            proof,
            create_time: row.create_time.0,
            expire_time: row.expire_time.map(|time| time.0),
        })
    }
}

/// Adds one.
pub async fn insert(conn: &mut Conn, credential: &Credential) -> Stored<()> {
    let row = Row::try_from(credential)?;
    on!(conn, c => Cached(diesel::insert_into(service_credentials::table).values(&row)).execute(c).await)?;
    Ok(())
}

/// Those of an account, newest first. One that makes no sense, or that only a newer release understands, is told by its
/// id alone.
pub async fn of_account(conn: &mut Conn, id: Uuid) -> Stored<Vec<(Uuid, Result<Credential, Inconsistent>)>> {
    let rows: Vec<Row> = on!(conn, c => {
        let its = service_credentials::table.filter(service_credentials::service_account_id.eq(IdCol(id)));
        Cached(its.order(service_credentials::id.desc()).select(Row::as_select())).load(c).await
    })?;
    Ok(rows.into_iter().map(|row| (row.id.0, row.try_into())).collect())
}

/// Removes one of an account; says whether it was there.
pub async fn delete(conn: &mut Conn, account_id: Uuid, id: Uuid) -> Stored<bool> {
    let deleted = on!(conn, c => {
        let it = service_credentials::id
            .eq(IdCol(id))
            .and(service_credentials::service_account_id.eq(IdCol(account_id)));
        diesel::delete(service_credentials::table.filter(it)).execute(c).await
    })?;
    Ok(deleted == 1)
}

/// Removes all of an account.
pub async fn delete_of(conn: &mut Conn, account_id: Uuid) -> Stored<()> {
    on!(conn, c => {
        let its = service_credentials::service_account_id.eq(IdCol(account_id));
        diesel::delete(service_credentials::table.filter(its)).execute(c).await
    })?;
    Ok(())
}
