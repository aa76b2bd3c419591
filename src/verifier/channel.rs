//! Connections to the issuer, and calls that end in time.

use std::time::Duration;

use tokio::time::timeout;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// A connection that is dead is found out within so long.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection may take to come about, unless the endpoint says otherwise.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A channel that connects when it is used, and again when it has to.
pub(super) fn connect_lazily(endpoint: Endpoint) -> Channel {
    let patience = endpoint.get_connect_timeout().unwrap_or(CONNECT_PATIENCE);
    endpoint
        .connect_timeout(patience)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_PATIENCE)
        .keep_alive_while_idle(true)
        .connect_lazy()
}

/// A request that tells the issuer how long its answer is waited for.
pub(super) fn patient<T>(patience: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(patience);
    request
}

/// Waits no longer than that, also where no connection comes about or the answer never ends.
pub(super) async fn in_time<A>(
    patience: Duration,
    call: impl Future<Output = Result<A, Status>>,
) -> Result<A, Status> {
    let late = |_| Status::deadline_exceeded("the issuer took too long");
    timeout(patience, call).await.map_err(late)?
}
