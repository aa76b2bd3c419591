//! Accepts connections. A TLS handshake runs in a task of its own, so that a slow one holds up nobody.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::Connected;

use super::tls::Tls;
use crate::rpc::peer::Peer;

/// How long a client may take for its handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a connection may take to show which HTTP it speaks; afterwards HTTP's own limits hold.
const OPENING: Duration = Duration::from_secs(10);
/// What HTTP/2 begins with (RFC 9113 section 3.4); whatever differs from it is HTTP/1.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait where the system has no more sockets to give.
const EXHAUSTED: Duration = Duration::from_millis(50);
/// Connections that are accepted and not yet served.
const BACKLOG: usize = 128;

/// A connection that is ready for HTTP.
pub(super) struct Conn {
    socket: Socket,
    peer: Peer,
    /// Until it is known which HTTP it speaks.
    opening: Option<Opening>,
}

/// A connection that may speak either HTTP so far.
struct Opening {
    patience: Pin<Box<Sleep>>,
    /// What is to come if it speaks HTTP/2.
    expected: &'static [u8],
}

impl Opening {
    /// Takes in what came; says whether either is still possible.
    fn goes_on(&mut self, came: &[u8]) -> bool {
        match self.expected.strip_prefix(came) {
            Some(expected) if !came.is_empty() => {
                self.expected = expected;
                !expected.is_empty()
            }
            _ => false,
        }
    }
}

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Conn {
    fn new(socket: Socket, peer: Peer) -> Self {
        let opening = Opening { patience: Box::pin(sleep(OPENING)), expected: PREFACE };
        Self { socket, peer, opening: Some(opening) }
    }
}

/// The connections of a listener, until `stop`.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    stop: CancellationToken,
    tasks: &TaskTracker,
) -> impl Stream<Item = io::Result<Conn>> + use<> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = accept(listener, tls, sender) => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, tls: Option<Arc<Tls>>, sender: mpsc::Sender<io::Result<Conn>>) {
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "can't accept a connection");
                sleep(EXHAUSTED).await;
                continue;
            }
        };
        // Without it small replies wait for the acknowledgement of those before.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection went away");
            continue;
        }
        match &tls {
            None => {
                let conn = Conn::new(Socket::Plain(stream), Peer::new(peer));
                if sender.send(Ok(conn)).await.is_err() {
                    return;
                }
            }
            Some(tls) => {
                tokio::spawn(handshake(tls.acceptor(), stream, peer, sender.clone()));
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    sender: mpsc::Sender<io::Result<Conn>>,
) {
    match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let peer = match certificate {
                Some(certificate) => Peer::new(peer).with_certificate(certificate),
                None => Peer::new(peer),
            };
            // Nobody takes it any more when the server stops.
            let _ = sender.send(Ok(Conn::new(Socket::Tls(Box::new(stream)), peer))).await;
        }
        Ok(Err(error)) if is_of_certificate(&error) => {
            tracing::info!(%error, %peer, "a client's certificate is refused");
        }
        Ok(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

/// Whether a handshake failed since the client's certificate is not good. Nobody can tell whose it is.
fn is_of_certificate(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(_)))
}

impl Connected for Conn {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Conn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let read = match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let Some(opening) = &mut self.opening else { return read };
        if read.is_pending() && opening.patience.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let came = buf.filled().get(filled..).unwrap_or_default();
        if read.is_ready() && !opening.goes_on(came) {
            self.opening = None;
        }
        read
    }
}

impl AsyncWrite for Conn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
