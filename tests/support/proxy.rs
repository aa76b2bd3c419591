//! What lies between a client and what it connects to: a connection that can be cut, muted, frozen and led elsewhere.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::watch,
    task::JoinSet,
};

/// Passes connections on, unless it is told otherwise.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    target: Arc<Mutex<Target>>,
    _task: JoinSet<()>,
}

#[derive(Clone)]
enum Target {
    Socket(PathBuf),
    Address(SocketAddr),
}

#[derive(Clone, Copy)]
struct State {
    is_open: bool,
    is_mute: bool,
    /// How many connections there were.
    connections: u64,
    /// How many of the first are broken, and how many pass nothing on any more.
    broken: u64,
    frozen: u64,
}

impl Proxy {
    /// Begins to pass on to a Unix socket.
    pub async fn to(socket: PathBuf) -> io::Result<Self> {
        Self::begin(Target::Socket(socket)).await
    }

    /// Begins to pass on to an address.
    pub async fn to_address(address: SocketAddr) -> io::Result<Self> {
        Self::begin(Target::Address(address)).await
    }

    async fn begin(target: Target) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = State { is_open: true, is_mute: false, connections: 0, broken: 0, frozen: 0 };
        let (state, target) = (watch::Sender::new(state), Arc::new(Mutex::new(target)));
        let mut _task = JoinSet::new();
        _task.spawn(accept(listener, target.clone(), state.clone()));
        Ok(Self { address, state, target, _task })
    }

    /// Where it is reached, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks every connection, and refuses new ones until it is mended.
    pub fn cut(&self) {
        self.state.send_modify(|state| (state.is_open, state.broken) = (false, state.connections));
    }

    /// Passes requests on, and no reply until it is mended.
    pub fn mute(&self) {
        self.state.send_modify(|state| state.is_mute = true);
    }

    /// Passes nothing on that comes by the connections there are, and doesn't break them. New ones are as ever.
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.frozen = state.connections);
    }

    /// Passes on again.
    pub fn mend(&self) {
        self.state.send_modify(|state| (state.is_open, state.is_mute) = (true, false));
    }

    /// Passes new connections on to another address.
    pub fn lead_to(&self, address: SocketAddr) {
        *self.target.lock().unwrap() = Target::Address(address);
    }
}

async fn accept(listener: TcpListener, target: Arc<Mutex<Target>>, state: watch::Sender<State>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut number = None;
        state.send_if_modified(|state| {
            if state.is_open {
                number = Some(state.connections);
                state.connections += 1;
            }
            false
        });
        let target = target.lock().unwrap().clone();
        let Some(number) = number else { continue };
        let state = state.subscribe();
        connections.spawn(async move {
            match target {
                Target::Socket(path) => match UnixStream::connect(path).await {
                    Ok(to) => pass_on(stream, to, number, state).await,
                    Err(_) => drop(stream),
                },
                Target::Address(address) => match TcpStream::connect(address).await {
                    Ok(to) => pass_on(stream, to, number, state).await,
                    Err(_) => drop(stream),
                },
            }
        });
    }
}

async fn pass_on<T: AsyncRead + AsyncWrite>(
    from: TcpStream,
    to: T,
    number: u64,
    mut state: watch::Receiver<State>,
) {
    let (client_reads, client_writes) = from.into_split();
    let (server_reads, server_writes) = io::split(to);
    // From the moment on that it is cut nothing passes, and not from that on which this is noticed.
    let is_whole = |state: &State| state.frozen <= number && state.broken <= number;
    let requests = carry(client_reads, server_writes, state.clone(), is_whole);
    let replies =
        carry(server_reads, client_writes, state.clone(), |state| is_whole(state) && !state.is_mute);
    tokio::select! {
        _ = async { tokio::join!(requests, replies) } => {}
        _ = state.wait_for(|state| number < state.broken) => {}
    }
}

/// Carries one direction to its end, while it may pass.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    mut may_pass: impl FnMut(&State) -> bool,
) {
    let mut piece = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let passes = state.wait_for(&mut may_pass).await.is_ok();
        if !passes || to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}
