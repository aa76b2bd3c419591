//! A request's body that can be sent a second time, as long as it is short.
//!
//! Nothing is read ahead: what goes out is kept as it passes, so that a stream of messages is never held up.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tonic::{Status, body::Body};

/// The longest body that is kept, in bytes.
const LONGEST: usize = 64 * 1024;

/// One sending of the body.
pub(super) struct Replay {
    shared: Arc<Mutex<Shared>>,
    /// Which sending it is; only the latest may take from the rest.
    turn: usize,
    /// Pieces that this one has sent.
    sent: usize,
}

/// What can be sent again.
pub(super) struct Kept(Arc<Mutex<Shared>>);

struct Shared {
    rest: Body,
    turn: usize,
    pieces: Vec<Bytes>,
    length: usize,
    /// Too long, so that nothing is kept.
    is_lost: bool,
}

impl Replay {
    pub(super) fn of(body: Body) -> (Self, Kept) {
        let shared = Shared { rest: body, turn: 0, pieces: Vec::new(), length: 0, is_lost: false };
        let shared = Arc::new(Mutex::new(shared));
        (Self { shared: shared.clone(), turn: 0, sent: 0 }, Kept(shared))
    }
}

impl Kept {
    /// The body once more, and what had not been sent of it.
    pub(super) fn again(&self) -> Option<Replay> {
        let mut shared = lock(&self.0);
        if shared.is_lost {
            return None;
        }
        shared.turn += 1;
        Some(Replay { shared: self.0.clone(), turn: shared.turn, sent: 0 })
    }
}

impl Shared {
    fn keep(&mut self, piece: &Bytes) {
        self.length += piece.len();
        if self.is_lost || self.length > LONGEST {
            self.is_lost = true;
            self.pieces = Vec::new();
        } else {
            self.pieces.push(piece.clone());
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Replay {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut shared = lock(&this.shared);
        if shared.turn != this.turn {
            return Poll::Ready(Some(Err(Status::cancelled("the request is sent again"))));
        }
        if let Some(piece) = shared.pieces.get(this.sent) {
            this.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
        }
        let polled = Pin::new(&mut shared.rest).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(piece) = frame.data_ref()
        {
            shared.keep(piece);
            this.sent += 1;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.turn == self.turn && self.sent >= shared.pieces.len() && shared.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    struct Pieces(VecDeque<Bytes>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn of(pieces: &[&[u8]]) -> (Replay, Kept) {
        Replay::of(Body::new(Pieces(pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect())))
    }

    fn take(body: &mut Replay, most: usize) -> Result<Vec<Bytes>, Status> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut taken = Vec::new();
        while taken.len() < most {
            match Pin::new(&mut *body).poll_frame(&mut cx) {
                Poll::Ready(Some(frame)) => taken.push(frame?.into_data().unwrap_or_default()),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Ok(taken)
    }

    #[test]
    fn it_is_sent_whole_the_second_time_however_far_the_first_had_come() -> Result<(), Status> {
        for sent in 0..=3 {
            let (mut first, kept) = of(&[b"a", b"b", b"c"]);
            take(&mut first, sent)?;
            let mut again = kept.again().ok_or(Status::cancelled("not kept"))?;
            assert!(take(&mut first, 1).is_err(), "the first one takes nothing more");
            assert_eq!(take(&mut again, 9)?, ["a", "b", "c"]);
        }
        Ok(())
    }

    #[test]
    fn what_is_too_long_is_sent_once() -> Result<(), Status> {
        let half = vec![0; LONGEST / 2 + 1];
        let (mut first, kept) = of(&[&half, &half, b"c"]);
        assert_eq!(take(&mut first, 9)?.len(), 3);
        assert!(kept.again().is_none());
        Ok(())
    }
}
