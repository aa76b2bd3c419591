//! Builds the service, serves it, drains it.

mod data_dir;
mod front;
mod listener;
mod tls;

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{net::TcpListener, sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    app::{self, App, Bootstrap, Parts, cleanup, foreign_keys, issuer_keys, rsa_pool, trust_tail},
    clock::Clock,
    config::Checked,
    crypto::{random::Randomness, sealing::Sealer},
    http,
    models::{Database, Store, StoreError},
    rpc::{self, Rpc},
};
use front::Front;

/// How often a silent connection is asked whether its other end is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// The most metadata of a call, in bytes. More than a proxy lets through (Envoy 60 KiB by default): at four times that HTTP/2 ends
/// the connection, with the calls of others on it. And more than a token, a proof and a certificate have at most, so that each of
/// them is refused in its own words where it is too long.
const MAX_METADATA: u32 = 64 * 1024;

/// Why the service can't start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory or the key-encryption key can't be used.
    #[error(transparent)]
    DataDir(#[from] data_dir::DataDirError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// The database can't be opened.
    #[error("can't open the database: {0}")]
    Store(#[from] StoreError),
    /// The installation can't be opened.
    #[error("can't start: {0}")]
    Start(#[from] app::Error),
    /// gRPC failed.
    #[error("can't serve: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection could not read the contract.
    #[error("can't describe the contract: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// There is no database where one was to be.
    #[error("{path}: {error}")]
    NoDatabase {
        /// Where.
        path: std::path::PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The listening socket is gone.
    #[error("can't listen: {0}")]
    Listener(#[from] std::io::Error),
}

/// Serves on `listener` until `shutdown` completes, then drains: health turns NOT_SERVING, no call is
/// accepted any more, those in flight finish within `server.drain_timeout`.
pub async fn run(
    settings: Checked,
    listener: TcpListener,
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Randomness>,
    bootstrap: Bootstrap,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let Checked { config, app: app_settings, hashing, policy, database, keks } = settings;
    let _data_dir = data_dir::open(&config.server.data_dir, &database, &keks)?;
    let tls = tls::Tls::open(&config.server, &clock)?;
    let starting = async {
        let store = Store::open(&database, config.database.max_connections).await?;
        let sealer = data_dir::sealer(keks, &store, &*rng).await?;
        let parts = Parts {
            settings: app_settings,
            hashing,
            policy,
            store: store.clone(),
            sealer,
            clock,
            rng,
            bootstrap,
        };
        Ok::<_, ServeError>((store, Arc::new(App::start(parts).await?)))
    };
    // Another replica's migration may take long.
    let mut shutdown = pin!(shutdown);
    let (store, app) = tokio::select! {
        started = starting => started?,
        () = &mut shutdown => {
            tracing::info!("stopped before it served");
            return Ok(());
        }
    };
    let (health, health_service) = tonic_health::server::health_reporter();
    tell(&health, ServingStatus::Serving).await;
    let (can_sign, signing) = watch::channel(true);
    let telling = tokio::spawn(tell_of_signing(health.clone(), signing));
    let rpc = Rpc::new(&app, health_service, config.server.reflection)?;
    let front = Front { rpc, http: http::router(&app) };

    announce(&listener, tls.is_some(), &database)?;
    let stop = CancellationToken::new();
    // The calls in flight at the end may still revoke something.
    let silence = CancellationToken::new();
    let _in_the_end = silence.clone().drop_guard();
    let background = TaskTracker::new();
    background.spawn({
        let (app, silence) = (app.clone(), silence.clone());
        async move { trust_tail::follow(&app, can_sign, silence).await }
    });
    background.spawn({
        let (app, silence) = (app.clone(), silence.clone());
        async move { trust_tail::hear_others(&app, silence).await }
    });
    background.spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { issuer_keys::follow_schedule(&app, stop).await }
    });
    background.spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { rsa_pool::keep_full(&app, stop).await }
    });
    background.spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { foreign_keys::keep_fresh(&app, stop).await }
    });
    background.spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move { cleanup::keep_clean(&app, stop).await }
    });
    if let Some(tls) = &tls {
        background.spawn(tls.clone().follow(stop.clone()));
    }
    let incoming = listener::incoming(listener, tls, stop.clone(), &background);

    let draining = CancellationToken::new();
    let serving = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_max_header_list_size(MAX_METADATA)
        .serve_with_incoming_shutdown(front, incoming, draining.cancelled());
    let drain = async {
        shutdown.await;
        tracing::info!("stopping: calls in flight finish");
        telling.abort();
        // It may be in the middle of telling.
        let _ = telling.await;
        drain_health(health).await;
        app.close_watches();
        stop.cancel();
        draining.cancel();
        tokio::time::sleep(config.server.drain_timeout).await;
    };
    tokio::select! {
        served = serving => served?,
        () = drain => tracing::warn!("calls were still in flight after server.drain_timeout"),
    }
    stop.cancel();
    background.close();
    if timeout(Duration::from_secs(5), async {
        // What the calls have left comes first: it may be something to tell.
        store.close().await;
        silence.cancel();
        background.wait().await;
        store.close().await;
    })
    .await
    .is_err()
    {
        tracing::warn!("background work did not end in time");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Opens what a command works on beside a service that may be running: the database, which must be there, and the
/// key-encryption keys.
pub async fn open_beside(settings: Checked, rng: Arc<dyn Randomness>) -> Result<(Store, Sealer), ServeError> {
    let Checked { config, database, keks, .. } = settings;
    if let Database::Sqlite(path) = &database {
        std::fs::metadata(path).map_err(|error| ServeError::NoDatabase { path: path.clone(), error })?;
    }
    let store = Store::open(&database, config.database.max_connections).await?;
    let sealer = data_dir::sealer(keks, &store, &*rng).await?;
    Ok((store, sealer))
}

/// Every service of the contract, and the whole.
async fn tell(health: &HealthReporter, status: ServingStatus) {
    for service in rpc::SERVICES.into_iter().chain([""]) {
        health.set_service_status(service, status).await;
    }
}

/// `Auth` can't serve while nothing can be signed; the rest can.
async fn tell_of_signing(health: HealthReporter, mut signing: watch::Receiver<bool>) {
    while signing.changed().await.is_ok() {
        let can_sign = *signing.borrow_and_update();
        let status = if can_sign { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(rpc::AUTH, status).await;
    }
}

/// Tells watchers that it is over, and ends their streams: they would hold up the drain.
async fn drain_health(mut health: HealthReporter) {
    tell(&health, ServingStatus::NotServing).await;
    for service in rpc::SERVICES.into_iter().chain([""]) {
        health.clear_service_status(service).await;
    }
}

/// The one line that says where.
fn announce(listener: &TcpListener, has_tls: bool, database: &Database) -> std::io::Result<()> {
    let scheme = if has_tls { "https" } else { "http" };
    let address = listener.local_addr()?;
    let kept = match database {
        Database::Sqlite(path) => format!("SQLite at {}", path.display()),
        Database::Postgres(_) => "PostgreSQL".to_owned(),
    };
    tracing::info!(
        "Tessera {} serves gRPC and HTTP on {scheme}://{address}, {kept}",
        env!("CARGO_PKG_VERSION")
    );
    Ok(())
}
