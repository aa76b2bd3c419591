//! What lies between a server and its database: a connection that can be cut.

use std::{net::SocketAddr, path::PathBuf};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on to a Unix socket, unless it is cut.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    is_open: watch::Sender<bool>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// Begins to pass on.
    pub async fn to(socket: PathBuf) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (is_open, open) = watch::channel(true);
        let mut _task = JoinSet::new();
        _task.spawn(accept(listener, socket, open));
        Ok(Self { address, is_open, _task })
    }

    /// Breaks every connection, and refuses new ones until it is mended.
    pub fn cut(&self) {
        self.is_open.send_replace(false);
    }

    /// Passes on again.
    pub fn mend(&self) {
        self.is_open.send_replace(true);
    }
}

async fn accept(listener: TcpListener, socket: PathBuf, open: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        if *open.borrow() {
            connections.spawn(pass_on(stream, socket.clone(), open.clone()));
        }
    }
}

async fn pass_on(mut from: TcpStream, socket: PathBuf, mut open: watch::Receiver<bool>) {
    let Ok(mut to) = UnixStream::connect(socket).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut from, &mut to) => {}
        _ = open.wait_for(|open| !open) => {}
    }
}
