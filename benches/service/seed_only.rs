//! Fills tables for a server that somebody starts by hand, and keeps them until it is told to stop.

use super::{
    Outcome,
    home::{Home, Kind},
    seed::Seeder,
    support::{ADMIN_PASSWORD, PASSWORD},
};

/// Fills them with so many sessions.
pub async fn keep(kind: Kind, sessions: u64) -> Outcome {
    let home = Home::new(kind)?;
    home.start("").await?.stop()?;
    Seeder::new(&home).await?.fill_to(&home, sessions).await?;
    home.settle().await?;
    let database = home.url().map(|url| format!("DATABASE_URL='{url}' ")).unwrap_or_default();
    println!(
        "{sessions} sessions are in {}. To serve them:\n\n    cd '{}' && {database}'{}' serve\n\n\
         The admin's password is '{ADMIN_PASSWORD}', that of the users u-0, u-1 and so on '{PASSWORD}'.\n\
         Press Ctrl-C to remove all of it.",
        kind.name(),
        home.dir.path().display(),
        env!("CARGO_BIN_EXE_tessera"),
    );
    Ok(tokio::signal::ctrl_c().await?)
}
