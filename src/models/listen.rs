//! PostgreSQL's LISTEN and NOTIFY: how replicas learn at once that another one has appended to the trust log.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicI32, Ordering},
};

use tokio::{sync::Notify, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket, tls::NoTlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    Store, StoreError,
    store::{PATIENCE, Pools, unavailable},
};

impl Store {
    /// Whether the database can tell.
    pub fn can_listen(&self) -> bool {
        matches!(self.pools_ref(), Pools::Pg { .. })
    }

    /// Calls `heard` when another replica has told of something, and once at the beginning; tells others
    /// whenever `to_announce` is notified. Ends when the connection does, or at `stop`, having told them once more.
    pub async fn listen(
        &self,
        heard: &(dyn Fn() + Send + Sync),
        to_announce: &Notify,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let Pools::Pg { config, .. } = self.pools_ref() else {
            return Err(unavailable("this database can't tell"));
        };
        let connected = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            connected = timeout(PATIENCE, config.connect(NoTls)) => connected,
        };
        let (client, connection) = connected.map_err(unavailable)?.map_err(unavailable)?;
        let own = AtomicI32::default();
        tokio::select! {
            lost = pass_on(connection, &own, heard) => lost,
            ended = announce(client, &own, heard, to_announce, stop) => ended,
        }
    }
}

/// Drives the connection, and passes on what others tell it: PostgreSQL also tells whoever has told.
async fn pass_on(
    mut connection: Connection<Socket, NoTlsStream>,
    own: &AtomicI32,
    heard: &(dyn Fn() + Send + Sync),
) -> Result<(), StoreError> {
    loop {
        match poll_fn(|context| connection.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(told)))
                if told.process_id() != own.load(Ordering::Relaxed) =>
            {
                heard();
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(unavailable(error)),
            None => return Err(unavailable("the connection has ended")),
        }
    }
}

async fn announce(
    client: Client,
    own: &AtomicI32,
    heard: &(dyn Fn() + Send + Sync),
    to_announce: &Notify,
    stop: &CancellationToken,
) -> Result<(), StoreError> {
    let asked = timeout(PATIENCE, client.query_one("SELECT pg_backend_pid()", &[])).await;
    let process = asked.map_err(unavailable)?.map_err(unavailable)?;
    own.store(process.try_get(0).map_err(unavailable)?, Ordering::Relaxed);
    run(&client, "LISTEN tessera_trust").await?;
    // What was told before that was not heard.
    heard();
    let mut is_last = false;
    while !is_last {
        tokio::select! {
            () = to_announce.notified() => {}
            () = stop.cancelled() => is_last = true,
        }
        run(&client, "NOTIFY tessera_trust").await?;
    }
    Ok(())
}

async fn run(client: &Client, sql: &str) -> Result<(), StoreError> {
    timeout(PATIENCE, client.batch_execute(sql)).await.map_err(unavailable)?.map_err(unavailable)
}
