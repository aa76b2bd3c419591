//! `tessera reseal`: the last step of exchanging the key-encryption key.

use std::{process::ExitCode, sync::Arc};

use tokio::runtime;

use super::{Settings, bad_setting, failed};
use crate::{
    app::reseal::{self, Resealed},
    config::Checked,
    crypto::random::SystemRandomness,
    server::{self, ServeError},
};

#[derive(clap::Args)]
pub(super) struct Reseal {
    #[command(flatten)]
    settings: Settings,
}

impl Reseal {
    pub(super) fn run(self) -> ExitCode {
        let checked = match self.settings.load().and_then(|loaded| loaded.check()) {
            Ok(checked) => checked,
            Err(error) => return bad_setting(&error),
        };
        let resealed = match runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(reseal(checked)),
            Err(error) => Err(error.into()),
        };
        match resealed {
            Ok(resealed) => report(&resealed),
            Err(error) => failed(&error),
        }
    }
}

async fn reseal(settings: Checked) -> Result<Vec<Resealed>, ServeError> {
    let (store, sealer) = server::open_beside(settings, Arc::new(SystemRandomness)).await?;
    Ok(reseal::reseal(&store, &sealer).await?)
}

/// What was done, a line for each table. What can't be opened fails the command: its key is still needed.
fn report(resealed: &[Resealed]) -> ExitCode {
    for Resealed { table, resealed, current, failed } in resealed {
        println!("{table}: {resealed} sealed anew, {current} were already, {} can't be opened", failed.len());
        for why in failed {
            eprintln!("tessera: {table}: {why}");
        }
    }
    if resealed.iter().all(|table| table.failed.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
