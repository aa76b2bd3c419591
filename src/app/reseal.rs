//! Seals everything anew under the key-encryption key that writes, while the service runs.
//!
//! Each value is replaced only if it is still the one that was read, so that it may be stopped at any moment, run
//! again, and run twice at once.

use super::{Error, key_ring, start};
use crate::{
    crypto::sealing::Sealer,
    models::{
        Store,
        sealed::{self, Sealed, SealedTable},
    },
};

/// Rows of one transaction: few, so that a login waits for milliseconds.
const BATCH: i64 = 100;

/// What was done with one table.
#[derive(Debug)]
pub struct Resealed {
    /// The table's name.
    pub table: &'static str,
    /// Values that are sealed anew now.
    pub resealed: usize,
    /// Values that were sealed under the key that writes already.
    pub current: usize,
    /// Values that no key opens, each as `name: why`.
    pub failed: Vec<String>,
}

/// Goes through everything that is sealed.
pub async fn reseal(store: &Store, sealer: &Sealer) -> Result<Vec<Resealed>, Error> {
    let mut done = Vec::new();
    for table in SealedTable::ALL {
        done.push(reseal_table(store, sealer, table).await?);
    }
    Ok(done)
}

async fn reseal_table(store: &Store, sealer: &Sealer, table: SealedTable) -> Result<Resealed, Error> {
    let mut told = Resealed { table: table.as_str(), resealed: 0, current: 0, failed: Vec::new() };
    let mut after = String::new();
    loop {
        let from = after.as_str();
        let rows = store.read(async move |conn| sealed::page(conn, table, from, BATCH).await).await?;
        let Some((last, _)) = rows.last() else { return Ok(told) };
        after.clone_from(last);
        let mut renewed = Vec::new();
        for row in rows {
            if sealer.seals_like(&row.1) {
                told.current += 1;
                continue;
            }
            match renew(sealer, table, &row) {
                Ok(new) => renewed.push((row, new)),
                Err(error) => told.failed.push(format!("{}: {error}", row.0)),
            }
        }
        let changed = store.tx::<_, Error, _>(async move |conn| {
            let mut changed = 0;
            for ((name, old), new) in renewed {
                changed += usize::from(sealed::replace(conn, table, &name, &old, &new).await?);
            }
            Ok(changed)
        });
        told.resealed += changed.await?;
    }
}

fn renew(sealer: &Sealer, table: SealedTable, (name, old): &Sealed) -> Result<Vec<u8>, Error> {
    let bound_to = match table {
        SealedTable::ServerSecrets => start::secret_bound_to(name),
        SealedTable::AudienceSecrets => format!("audience:{name}"),
        SealedTable::IssuerKeys | SealedTable::SpareKeys | SealedTable::SessionKeys => {
            key_ring::bound_to(name)
        }
    };
    Ok(sealer.seal(&bound_to, &sealer.open(&bound_to, old)?)?)
}
