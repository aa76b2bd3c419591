//! Child processes, and what the operating system says that they used.

use std::{
    fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::{Channel, Endpoint};

use super::{Outcome, cpu::Threads, support};

/// What a process says before its address.
pub const SERVES: &str = "serves gRPC and HTTP on ";
/// How long it may take to say so: PostgreSQL may be busy with what was written before.
const FENCE: Duration = Duration::from_secs(60);

/// A child process that serves; gone when dropped.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    threads: Mutex<Threads>,
}

impl Process {
    /// Starts it, and waits until it says where it serves.
    pub fn start(mut command: Command) -> Outcome<Self> {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("its output is piped")?;
        let (tell, told) = channel();
        thread::spawn(move || listen(stderr, &tell));
        let address = told.recv_timeout(FENCE)??;
        Ok(Self { child, address, threads: Mutex::default() })
    }

    /// This program, as the bare server.
    pub fn echo() -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--echo");
        Self::start(command)
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Outcome<Channel> {
        Ok(Endpoint::from_shared(format!("http://{}", self.address))?.connect().await?)
    }

    /// Several.
    pub async fn channels(&self, count: usize) -> Outcome<Vec<Channel>> {
        let mut channels = Vec::new();
        for _ in 0..count {
            channels.push(self.channel().await?);
        }
        Ok(channels)
    }

    /// The time that it has had on processors so far, its own and the system's in its name.
    pub fn cpu(&self) -> Outcome<Duration> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).total(self.child.id())
    }

    /// How many entries one of its caches has, as it says itself.
    pub async fn entries_of(&self, cache: &str) -> Outcome<usize> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let name = format!("tessera_cache_entries{{cache=\"{cache}\"}} ");
        let entries = page.lines().find_map(|line| line.strip_prefix(&*name));
        Ok(entries.ok_or_else(|| format!("no metric of the cache {cache}"))?.trim().parse()?)
    }

    /// The memory that is resident now, in MiB.
    pub fn resident_mib(&self) -> Outcome<f64> {
        self.memory("VmRSS:")
    }

    /// The most that ever was.
    pub fn peak_mib(&self) -> Outcome<f64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? / 1024.0)
    }

    /// Lets it finish, and waits for its end.
    pub fn stop(mut self) -> Outcome {
        support::signal(self.child.id(), "TERM")?;
        let ended = self.child.wait()?;
        if ended.success() { Ok(()) } else { Err(format!("the server ended with {ended}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells the address, and then empties the pipe as fast as it can: a full one would stop the server.
fn listen(stderr: ChildStderr, tell: &Sender<Result<SocketAddr, String>>) {
    let (mut lines, mut line, mut said) = (BufReader::new(stderr), String::new(), String::new());
    while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
        if let Some(address) = address_in(&line) {
            let _ = tell.send(Ok(address));
            let _ = io::copy(&mut lines, &mut io::sink());
            return;
        }
        said.push_str(&line);
        line.clear();
    }
    let _ = tell.send(Err(format!("it did not start: {said}")));
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, url) = line.split_once(SERVES)?;
    url.split_once("://")?.1.split_once(',')?.0.parse().ok()
}
