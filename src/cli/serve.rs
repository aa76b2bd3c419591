//! `tessera serve`.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::Arc,
};

use tokio::{
    net::TcpListener,
    runtime,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{
    EnvFilter,
    filter::{Directive, LevelFilter},
    fmt,
};

use super::{Settings, bad_setting, failed};
use crate::{
    app::{self, Bootstrap},
    clock::SystemClock,
    config::{BadSetting, Checked, Log, LogFormat},
    crypto::random::SystemRandomness,
    domain::InvalidField,
    server::{self, ServeError},
};

/// The password of the first admin; without it, one is generated.
const ADMIN_PASSWORD: &str = "TESSERA_BOOTSTRAP_ADMIN_PASSWORD";

#[derive(clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn run(self) -> ExitCode {
        let checked = match self.settings.load().and_then(|loaded| loaded.check()) {
            Ok(checked) => checked,
            Err(error) => return bad_setting(&error),
        };
        start_log(&checked.config.log);
        let served = match runtime::Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(serve(checked)),
            Err(error) => Err(error.into()),
        };
        match served {
            Ok(()) => ExitCode::SUCCESS,
            Err(ServeError::Start(app::Error::Invalid(InvalidField { field, problem }))) => {
                bad_setting(&BadSetting {
                    setting: field.to_owned(),
                    problem,
                    source_name: "the environment".to_owned(),
                })
            }
            Err(error) => failed(&error),
        }
    }
}

async fn serve(settings: Checked) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let address = settings.config.server.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))?;
    let bootstrap = Bootstrap {
        admin_password: std::env::var(ADMIN_PASSWORD).ok().filter(|text| !text.is_empty()).map(Into::into),
        announce: Box::new(announce_password),
    };
    let (clock, rng) = (Arc::new(SystemClock), Arc::new(SystemRandomness));
    server::run(settings, listener, clock, rng, bootstrap, shutdown).await
}

/// On the terminal and not in the log, which may be kept for years.
fn announce_password(password: &str) {
    eprintln!(
        "\n  The first admin is `admin` with the password\n\n      {password}\n\n  \
         It is shown only this once and must be changed at the first login.\n"
    );
}

fn start_log(log: &Log) {
    // The filter was checked with the other settings. Below `info` PostgreSQL's driver writes every value that
    // it sends, hashes and sealed keys among them.
    let driver = Directive::from(LevelFilter::INFO);
    let filter = EnvFilter::new(&log.filter).add_directive("tokio_postgres=info".parse().unwrap_or(driver));
    let is_terminal = io::stderr().is_terminal();
    let format = log.format.unwrap_or(if is_terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(is_terminal);
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
    }
}
