//! A PostgreSQL of the tests' own: started once, gone with the process that started it.

use std::{
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio_postgres::NoTls;

/// Runs as the user that PostgreSQL wants to be, makes the cluster with the settings given, says where it is, and takes it away when its
/// standard input ends: when the tests' process does, however it does.
const KEEPER: &str = r#"
dir=$(mktemp -d) || exit 1
trap 'exit 1' HUP INT TERM
trap '"$0/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1; rm -rf "$dir"' EXIT
"$0/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-sync >"$dir/initdb.log" 2>&1 &&
"$0/pg_ctl" -D "$dir/data" -l "$dir/log" -w -o "-k $dir -c listen_addresses= $1 -c max_connections=500 -c log_line_prefix=%d:" \
    start >"$dir/start.log" 2>&1 || { cat "$dir"/*log >&2; exit 1; }
echo "$dir"
read -r _ || :
"#;

/// For tests, which nobody wants to wait for.
const FAST: &str = "-c fsync=off";

struct Cluster {
    socket_dir: PathBuf,
    _stdin: ChildStdin,
    _keeper: Child,
}

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn bin_dir() -> PathBuf {
    let given = env::var_os("TESTS_PG_BIN").map(PathBuf::from);
    let debian = || {
        let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|dir| dir.join("initdb").exists())
            .collect();
        versions.sort();
        versions.pop()
    };
    given.or_else(debian).expect("no PostgreSQL: run scripts/test, which installs it or says how")
}

/// A shell that runs as PostgreSQL wants to: not as root.
fn as_postgres(script: &str) -> Command {
    if !is_root() {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh", "-c", script]);
    command
}

fn start(settings: &str) -> Cluster {
    let mut keeper = as_postgres(KEEPER)
        .arg(bin_dir())
        .arg(settings)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("can't start the keeper of PostgreSQL");
    let mut dir = String::new();
    let stdout = keeper.stdout.take().expect("its output is piped");
    BufReader::new(stdout).read_line(&mut dir).expect("can't read what the keeper says");
    assert!(!dir.is_empty(), "PostgreSQL did not start; what it said stands above");
    let _stdin = keeper.stdin.take().expect("its input is piped");
    Cluster { socket_dir: Path::new(dir.trim()).to_owned(), _stdin, _keeper: keeper }
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("can't run id");
    id.stdout == b"0\n"
}

fn url(socket_dir: &Path, database: &str) -> String {
    let host = socket_dir.display().to_string().replace('/', "%2F");
    format!("postgres://postgres@{host}/{database}")
}

/// A PostgreSQL of one test's own, which that test may restart.
pub struct OwnPostgres(Cluster);

impl OwnPostgres {
    /// Starts one.
    pub fn start() -> Self {
        Self::start_with(FAST)
    }

    /// Starts one with these options. Without any it keeps what it has committed, also after a power cut.
    pub fn start_with(options: &str) -> Self {
        Self(tokio::task::block_in_place(|| start(options)))
    }

    /// The socket that it listens on.
    pub fn socket(&self) -> PathBuf {
        self.0.socket_dir.join(".s.PGSQL.5432")
    }

    /// The URL of its database, past any proxy.
    pub fn url(&self) -> String {
        url(&self.0.socket_dir, "postgres")
    }

    /// Stops it as a power cut would, and starts it again.
    pub async fn restart(&self) -> Result<(), Box<dyn std::error::Error>> {
        let restart =
            r#""$0/pg_ctl" -D "$1/data" -l "$1/log" -m immediate -w restart >"$1/restart.log" 2>&1"#;
        let mut command = as_postgres(restart);
        command.arg(bin_dir()).arg(&self.0.socket_dir).current_dir("/");
        let ended = tokio::process::Command::from(command).status().await?;
        if ended.success() { Ok(()) } else { Err("PostgreSQL did not restart".into()) }
    }
}

/// Makes a database of its own and gives its URL.
pub async fn new_database() -> Result<String, Box<dyn std::error::Error>> {
    let cluster = tokio::task::block_in_place(|| CLUSTER.get_or_init(|| start(FAST)));
    let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    query(&url(&cluster.socket_dir, "postgres"), &format!("CREATE DATABASE {name}")).await?;
    Ok(url(&cluster.socket_dir, &name))
}

/// What PostgreSQL logged of a database.
pub fn log_of(url: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let cluster = CLUSTER.get().ok_or("PostgreSQL was not started")?;
    let prefix = format!("{}:", url.rsplit('/').next().unwrap_or_default());
    let log = std::fs::read_to_string(cluster.socket_dir.join("log"))?;
    Ok(log.lines().filter_map(|line| Some(line.strip_prefix(&prefix)?.to_owned())).collect())
}

/// Runs statements and gives the first column of each row as text.
pub async fn query(url: &str, sql: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await?;
    drop(client);
    connection.await??;
    let first = |message: tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    };
    Ok(rows.into_iter().filter_map(first).collect())
}
