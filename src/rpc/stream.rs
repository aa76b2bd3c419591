//! Replies that go on: what a verb says next, message by message.

use std::pin::Pin;

use futures_util::{Stream, stream::try_unfold};
use tonic::Status;

use super::convert;
use crate::{
    app::{
        Error,
        watch::{Event, Message, Place},
        watch_session::Standing,
    },
    proto::{self, watch_response},
    verifier::wire,
};

/// A reply that goes on.
pub(super) type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Asks `source` for the next message again and again, until it has none or fails.
pub(super) fn of_messages<S, T, F, Fut>(source: S, next: F) -> Streamed<T>
where
    S: Send + 'static,
    T: Send + 'static,
    F: Fn(S) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<(T, S)>, Error>> + Send + 'static,
{
    Box::pin(try_unfold((source, next), |(source, next)| async move {
        let told = next(source).await?;
        Ok(told.map(|(message, source)| (message, (source, next))))
    }))
}

/// What a watcher takes in.
pub(super) fn watched(message: Message) -> proto::WatchResponse {
    let event = match message.event {
        Event::Snapshot { is_first, is_last, entries, jwks_json } => {
            let entries = entries.iter().map(wire::entry).collect();
            watch_response::Event::Snapshot(proto::TrustSnapshot { is_first, is_last, entries, jwks_json })
        }
        Event::Changes { entries, jwks_json } => {
            let entries = entries.iter().map(wire::entry).collect();
            watch_response::Event::Changes(proto::TrustChanges { entries, jwks_json })
        }
        Event::Heartbeat => watch_response::Event::Heartbeat(proto::Heartbeat {}),
    };
    let Place { revision, mark } = message.place.unwrap_or_default();
    let age = prost_types::Duration::try_from(message.age).ok();
    proto::WatchResponse { event: Some(event), revision, mark, age }
}

/// How a watched session stands.
pub(super) fn standing(standing: Standing) -> proto::WatchSessionResponse {
    proto::WatchSessionResponse {
        state: convert::state(standing.state).into(),
        end_reason: standing.reason.map(|reason| reason.as_str().to_owned()).unwrap_or_default(),
    }
}
