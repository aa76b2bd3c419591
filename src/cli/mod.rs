//! The command line: a file for each command.
//!
//! Must not enter: anything that a command does beyond reading its flags, starting it and ending it.

mod health;
mod reseal;
mod serve;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::{BadSetting, Config, Flags, Loaded};

/// Wrong settings or flags (`EX_USAGE` of sysexits.h).
const USAGE: u8 = 64;

/// Signs people and services in, issues JSON Web Tokens, and lets every service check them.
#[derive(Parser)]
#[command(name = "tessera", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service.
    Serve(serve::Serve),
    /// Seal everything anew under the first key-encryption key, also while the service runs.
    Reseal(reseal::Reseal),
    /// Ask a running service whether it serves; exit code 0 says yes.
    Health(health::Health),
}

/// Flags for settings; each overrides the environment and the file.
#[derive(Args)]
struct Settings {
    /// A TOML file of settings.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen, as 127.0.0.1:50051.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where the embedded database and its key are kept.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// sqlite://PATH or postgres://…
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Serve without TLS beyond loopback.
    #[arg(long)]
    allow_plaintext: bool,
}

impl Settings {
    fn load(self) -> Result<Loaded, BadSetting> {
        let Self { config, listen, data_dir, database_url, allow_plaintext } = self;
        let flags = [
            ("server.listen", listen),
            ("server.data_dir", data_dir),
            ("database.url", database_url),
            ("server.allow_plaintext", allow_plaintext.then(|| "true".to_owned())),
        ];
        let given = flags.into_iter().filter_map(|(setting, value)| Some((setting, value?)));
        Config::load(config.as_ref(), Flags(given.collect()))
    }
}

/// Obeys the command line.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is there to tell when this fails.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Reseal(reseal) => reseal.run(),
        Command::Health(health) => health.run(),
    }
}

/// Says what is wrong with a setting.
fn bad_setting(error: &BadSetting) -> ExitCode {
    eprintln!("tessera: {error}");
    ExitCode::from(USAGE)
}

/// Says what went wrong.
fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("tessera: {error}");
    ExitCode::FAILURE
}
