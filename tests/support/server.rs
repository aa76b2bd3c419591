//! Homes and the servers in them.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tessera::{
    app::Bootstrap,
    config::{Config, Flags},
    crypto::random::SystemRandomness,
    proto::{
        audiences_client::AudiencesClient, audit_client::AuditClient, auth_client::AuthClient,
        keys_client::KeysClient, session_client::SessionClient, tenants_client::TenantsClient,
        users_client::UsersClient,
    },
    server::{self, ServeError},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::{ADMIN_PASSWORD, TestClock, over_tls, postgres};

/// How long anything may take before the test gives up: not a measure, a fence.
pub const FENCE: Duration = Duration::from_secs(60);

/// Cheap hashes, for tests that are not about hashing.
const IN_PROCESS: &str = "
    [passwords]
    argon2_memory_kib = 64
    argon2_time = 1
";

/// Where a server lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In this process, on SQLite.
    Sqlite,
    /// In this process, on PostgreSQL.
    Postgres,
    /// The binary, on PostgreSQL.
    Binary,
    /// The binary, on SQLite.
    BinarySqlite,
}

/// A database and a folder, and the time there.
pub struct Home {
    /// What kind.
    pub kind: Kind,
    /// The time, where the server is in this process.
    pub clock: Arc<TestClock>,
    database_url: Option<String>,
    dir: TempDir,
}

/// A running server.
pub struct Server {
    /// Where it is reached.
    pub address: SocketAddr,
    endpoint: Endpoint,
    channel: Channel,
    running: Running,
}

enum Running {
    Here { stop: oneshot::Sender<()>, task: JoinHandle<Result<(), ServeError>> },
    Binary { child: Box<Child>, said: Arc<Mutex<String>>, reader: JoinHandle<()> },
}

impl Home {
    /// An empty one.
    pub async fn new(kind: Kind) -> Result<Self, Box<dyn Error>> {
        let database_url = match kind {
            Kind::Sqlite | Kind::BinarySqlite => None,
            Kind::Postgres | Kind::Binary => Some(postgres::new_database().await?),
        };
        Ok(Self { kind, clock: Arc::default(), database_url, dir: TempDir::new()? })
    }

    /// The folder; a binary's working directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The URL of its PostgreSQL.
    pub fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref()
    }

    /// Runs a statement on its database, as an operator could. A query has one column, a text named `first`; a plan is
    /// one too.
    pub async fn query(&self, sql: &str) -> Result<Vec<String>, Box<dyn Error>> {
        match &self.database_url {
            Some(url) => postgres::query(url, sql).await,
            None => query_sqlite(&self.dir().join("data/tessera.db"), sql),
        }
    }

    /// What its PostgreSQL logged.
    pub fn database_log(&self) -> Result<Vec<String>, Box<dyn Error>> {
        postgres::log_of(self.database_url().ok_or("it has no PostgreSQL")?)
    }

    /// Starts a server with the default settings.
    pub async fn start(&self) -> Result<Server, Box<dyn Error>> {
        self.start_with("").await
    }

    /// Starts a server with settings of a TOML file.
    pub async fn start_with(&self, toml: &str) -> Result<Server, Box<dyn Error>> {
        self.start_at(toml, plain).await
    }

    /// The same for a server that is reached over TLS.
    pub async fn start_with_tls(&self, toml: &str, tls: ClientTlsConfig) -> Result<Server, Box<dyn Error>> {
        self.start_at(toml, |address| over_tls(address, tls)).await
    }

    async fn start_at(
        &self,
        toml: &str,
        endpoint: impl FnOnce(SocketAddr) -> Result<Endpoint, tonic::transport::Error>,
    ) -> Result<Server, Box<dyn Error>> {
        match self.kind {
            Kind::Sqlite | Kind::Postgres => self.start_here(toml, endpoint).await,
            Kind::Binary | Kind::BinarySqlite => self.start_binary(toml, endpoint).await,
        }
    }

    /// Starts another replica, where the database lets several be.
    pub async fn another(&self, toml: &str) -> Result<Option<Server>, Box<dyn Error>> {
        if self.database_url.is_some() { Ok(Some(self.start_with(toml).await?)) } else { Ok(None) }
    }

    fn write_settings(&self, toml: &str) -> Result<PathBuf, Box<dyn Error>> {
        let file = self.dir().join(format!("{}.toml", uuid::Uuid::from_u128(toml.len() as u128)));
        std::fs::write(&file, toml)?;
        Ok(file)
    }

    async fn start_here(
        &self,
        toml: &str,
        endpoint: impl FnOnce(SocketAddr) -> Result<Endpoint, tonic::transport::Error>,
    ) -> Result<Server, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let toml = if toml.contains("[passwords]") { toml.to_owned() } else { format!("{toml}{IN_PROCESS}") };
        let mut flags = vec![("server.data_dir", self.dir().join("data").display().to_string())];
        flags.extend(self.database_url.clone().map(|url| ("database.url", url)));
        let settings = Config::load(Some(&self.write_settings(&toml)?), Flags(flags))?.check()?;
        let bootstrap = Bootstrap { admin_password: Some(ADMIN_PASSWORD.into()), announce: Box::new(|_| {}) };
        let (stop, stopped) = oneshot::channel();
        let (clock, rng) = (self.clock.clone(), Arc::new(SystemRandomness));
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(server::run(settings, listener, clock, rng, bootstrap, shutdown));
        Server::connect(address, endpoint(address)?, Running::Here { stop, task }).await
    }

    async fn start_binary(
        &self,
        toml: &str,
        endpoint: impl FnOnce(SocketAddr) -> Result<Endpoint, tonic::transport::Error>,
    ) -> Result<Server, Box<dyn Error>> {
        let mut command = self.binary();
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .env("TESSERA_BOOTSTRAP_ADMIN_PASSWORD", ADMIN_PASSWORD);
        if !toml.is_empty() {
            command.arg("--config").arg(self.write_settings(toml)?);
        }
        Server::of_binary_at(command, endpoint).await
    }

    /// Starts the binary where an earlier one was reached.
    pub async fn start_again_at(&self, address: SocketAddr) -> Result<Server, Box<dyn Error>> {
        let mut command = self.binary();
        command.args(["serve", "--listen", &address.to_string()]);
        Server::of_binary(command).await
    }

    /// The binary with an environment of its own: this home's database and nothing else.
    pub fn binary(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tessera"));
        command.current_dir(self.dir()).env_clear().kill_on_drop(true).stdin(Stdio::null());
        if let Some(url) = &self.database_url {
            command.env("DATABASE_URL", url);
        }
        command
    }
}

impl Server {
    /// Starts the binary and waits for the line that says where it listens.
    pub async fn of_binary(command: Command) -> Result<Self, Box<dyn Error>> {
        Self::of_binary_at(command, plain).await
    }

    /// The same, reached through an endpoint that is made for its address.
    pub async fn of_binary_at(
        mut command: Command,
        endpoint: impl FnOnce(SocketAddr) -> Result<Endpoint, tonic::transport::Error>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().ok_or("its output is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let hear = |line: &str, said: &Mutex<String>| said.lock().unwrap().extend([line, "\n"]);
        let mut address = timeout(FENCE, async {
            while let Some(line) = lines.next_line().await? {
                hear(&line, &said);
                if let Some((_, rest)) = line.split_once("serves gRPC and HTTP on ") {
                    let address = rest.split_once("://").and_then(|(_, rest)| rest.split_once(','));
                    return Ok(address.ok_or("no address in the line")?.0.parse::<SocketAddr>()?);
                }
            }
            Err::<SocketAddr, Box<dyn Error>>(format!("the binary ended: {}", said.lock().unwrap()).into())
        })
        .await??;
        if address.ip().is_unspecified() {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        }
        // A pipe that nobody empties would stop the server.
        let reader = tokio::spawn({
            let said = said.clone();
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    hear(&line, &said);
                }
            }
        });
        let child = Box::new(child);
        Self::connect(address, endpoint(address)?, Running::Binary { child, said, reader }).await
    }

    async fn connect(
        address: SocketAddr,
        endpoint: Endpoint,
        running: Running,
    ) -> Result<Self, Box<dyn Error>> {
        let mut server = Self { address, channel: endpoint.connect_lazy(), endpoint, running };
        let mut health = server.health();
        let answer = timeout(FENCE, health.check(HealthCheckRequest::default())).await?;
        if let (Err(status), Running::Here { task, .. }) = (&answer, &mut server.running) {
            // A server that can't start says why: its client only sees the connection go.
            let ended = timeout(FENCE, task).await??;
            return Err(format!("the server ended: {ended:?} ({status})").into());
        }
        answer?;
        Ok(server)
    }

    /// A connection of its own.
    pub async fn new_channel(&self) -> Result<Channel, Box<dyn Error>> {
        Ok(self.endpoint.connect().await?)
    }

    /// What the binary has said so far.
    pub fn said(&self) -> String {
        match &self.running {
            Running::Here { .. } => String::new(),
            Running::Binary { said, .. } => said.lock().unwrap().clone(),
        }
    }

    /// Gets a page over HTTP/1.1 and without TLS: status line, headers and body.
    pub async fn get(&self, path: &str) -> Result<String, Box<dyn Error>> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await?;
        let mut page = String::new();
        timeout(FENCE, stream.read_to_string(&mut page)).await??;
        Ok(page)
    }

    /// The sum of the metric's lines that begin with this, as `name{label="value"}`; 0 where none was counted yet.
    pub async fn metric(&self, beginning: &str) -> Result<u64, Box<dyn Error>> {
        let metrics = self.get("/metrics").await?;
        let lines = metrics.lines().filter(|line| line.starts_with(beginning));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    }

    /// Where it is reached, as a URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until so many RSA keys wait for logins.
    pub async fn has_spare_keys(&self, least: u32) -> Result<(), Box<dyn Error>> {
        eventually("there are RSA keys for logins", async || {
            Ok(self.metric("tessera_rsa_pool_keys").await? >= u64::from(least))
        })
        .await
    }

    /// `Auth`.
    pub fn auth(&self) -> AuthClient<Channel> {
        AuthClient::new(self.channel.clone())
    }

    /// `Session`.
    pub fn session(&self) -> SessionClient<Channel> {
        SessionClient::new(self.channel.clone())
    }

    /// `Keys`.
    pub fn keys(&self) -> KeysClient<Channel> {
        KeysClient::new(self.channel.clone())
    }

    /// `Users`.
    pub fn users(&self) -> UsersClient<Channel> {
        UsersClient::new(self.channel.clone())
    }

    /// `Tenants`.
    pub fn tenants(&self) -> TenantsClient<Channel> {
        TenantsClient::new(self.channel.clone())
    }

    /// `Audiences`.
    pub fn audiences(&self) -> AudiencesClient<Channel> {
        AudiencesClient::new(self.channel.clone())
    }

    /// `Audit`.
    pub fn audit(&self) -> AuditClient<Channel> {
        AuditClient::new(self.channel.clone())
    }

    /// `grpc.health.v1.Health`.
    pub fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel.clone())
    }

    /// The channel that the clients above share.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The process, where it is the binary.
    pub fn pid(&self) -> Option<u32> {
        match &self.running {
            Running::Here { .. } => None,
            Running::Binary { child, .. } => child.id(),
        }
    }

    /// Lets it drain and waits for its end.
    pub async fn stop(self) -> Result<(), Box<dyn Error>> {
        if let Some(pid) = self.pid() {
            signal(pid, "TERM")?;
            let ended = self.ended().await?;
            return match ended.code {
                Some(0) => Ok(()),
                code => Err(format!("it ended with {code:?}: {}", ended.stderr).into()),
            };
        }
        drop(self.channel);
        if let Running::Here { stop, task } = self.running {
            let _ = stop.send(());
            timeout(FENCE, task).await???;
        }
        Ok(())
    }

    /// Waits for the end of a binary that was told to end.
    pub async fn ended(self) -> Result<Ended, Box<dyn Error>> {
        drop(self.channel);
        let Running::Binary { mut child, said, reader } = self.running else {
            return Err("only a process ends by itself".into());
        };
        let status = timeout(FENCE, child.wait()).await??;
        reader.await?;
        let stderr = said.lock().unwrap().clone();
        Ok(Ended { code: status.code(), stdout: String::new(), stderr })
    }

    /// Takes the binary's life in the middle of whatever it does.
    pub async fn kill(self) -> Result<(), Box<dyn Error>> {
        match self.running {
            Running::Here { .. } => Err("only a process can be killed".into()),
            Running::Binary { mut child, .. } => Ok(child.kill().await?),
        }
    }
}

/// How a process ended and what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// What it said on its standard output.
    pub stdout: String,
    /// What it said on its standard error.
    pub stderr: String,
}

/// Runs a process to its end.
pub async fn run(mut command: Command) -> Result<Ended, Box<dyn Error>> {
    let output = timeout(FENCE, command.output()).await??;
    Ok(Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout)?,
        stderr: String::from_utf8(output.stderr)?,
    })
}

/// Asks again and again until it holds.
pub async fn eventually(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let asking = async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    timeout(FENCE, asking).await.map_err(|_| format!("never: {what}"))?
}

fn plain(address: SocketAddr) -> Result<Endpoint, tonic::transport::Error> {
    Endpoint::from_shared(format!("http://{address}"))
}

/// Sends a signal by its name.
pub fn signal(pid: u32, name: &str) -> Result<(), Box<dyn Error>> {
    // The shell's own: the program of this name is in a package that a small system lacks.
    let sent = std::process::Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status()?;
    if sent.success() { Ok(()) } else { Err("can't send the signal".into()) }
}

fn query_sqlite(path: &Path, sql: &str) -> Result<Vec<String>, Box<dyn Error>> {
    use diesel::{
        Connection, QueryableByName, RunQueryDsl, sql_query, sql_types::Text, sqlite::SqliteConnection,
    };

    #[derive(QueryableByName)]
    struct Step {
        #[diesel(sql_type = Text)]
        detail: String,
    }

    #[derive(QueryableByName)]
    struct First {
        #[diesel(sql_type = Text)]
        first: String,
    }

    let mut conn = SqliteConnection::establish(path.to_str().ok_or("not UTF-8")?)?;
    sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn)?;
    if sql.starts_with("EXPLAIN") {
        let steps: Vec<Step> = sql_query(sql).load(&mut conn)?;
        return Ok(steps.into_iter().map(|step| step.detail).collect());
    }
    if !sql.trim_start().starts_with("SELECT") {
        sql_query(sql).execute(&mut conn)?;
        return Ok(Vec::new());
    }
    let rows: Vec<First> = sql_query(sql).load(&mut conn)?;
    Ok(rows.into_iter().map(|row| row.first).collect())
}
