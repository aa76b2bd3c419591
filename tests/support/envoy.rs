//! A real Envoy that lets requests in by their tokens: a gateway that knows nothing of Tessera but its JWKS.

use std::{
    error::Error,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use super::{FENCE, installed};

/// An issuer as Envoy is told of it.
#[derive(Debug, Clone)]
pub struct Provider<'p> {
    /// Its name here: what lies below `/NAME/` requires one of its tokens.
    pub name: &'p str,
    /// The issuer, exactly.
    pub issuer: &'p str,
    /// The audience that a token must be for.
    pub audience: &'p str,
    /// Where its JWKS is served, over plain HTTP.
    pub jwks_address: SocketAddr,
    /// The JWKS there.
    pub jwks_path: &'p str,
    /// How long Envoy keeps it. An unknown kid doesn't make it fetch anew before.
    pub keep_seconds: u32,
}

/// A running Envoy, gone when it is dropped.
pub struct Envoy {
    // One connection for all requests, as a gateway's clients have.
    connection: tokio::sync::Mutex<BufReader<TcpStream>>,
    said: Arc<Mutex<String>>,
    _process: Child,
}

/// What Envoy answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 where it lets the request in, 401 or 403 where not.
    pub status: u16,
    /// Its reason, where not.
    pub body: String,
}

impl Envoy {
    /// Starts one and waits until it serves.
    pub async fn start(providers: &[Provider<'_>]) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(installed("TESTS_ENVOY", "python/bin/envoy"))
            // Hot restart takes shared memory under a number that another one may hold.
            .args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"])
            // These tell where it listens and when.
            .args(["--component-log-level", "admin:info,config:info"])
            .arg("--config-yaml")
            .arg(config(providers).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = process.stderr.take().ok_or("its output is piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let said = Arc::new(Mutex::new(String::new()));
        let starting = async {
            let mut admin = None;
            while let Some(line) = lines.next_line().await? {
                said.lock().unwrap().extend([line.as_str(), "\n"]);
                if let Some((_, address)) = line.split_once("admin address: ") {
                    admin = Some(address.parse::<SocketAddr>()?);
                } else if line.contains("starting workers") {
                    return admin.ok_or_else(|| "it told of no admin address".into());
                }
            }
            Err::<SocketAddr, Box<dyn Error>>("it ended".into())
        };
        let started = timeout(FENCE, starting).await.unwrap_or_else(|_| Err("it takes too long".into()));
        let admin =
            started.map_err(|error| format!("Envoy did not start, {error}:\n{}", said.lock().unwrap()))?;
        // A pipe that nobody empties would stop it.
        tokio::spawn({
            let said = said.clone();
            async move {
                while let Ok(Some(line)) = lines.next_line().await {
                    said.lock().unwrap().extend([line.as_str(), "\n"]);
                }
            }
        });

        // The admin's answers come from the thread that starts the workers, so it listens by the time of this one.
        let mut stream = BufReader::new(TcpStream::connect(admin).await?);
        let listeners = get(&mut stream, "/listeners?format=json", None).await?;
        let listeners: Value = serde_json::from_str(&listeners.body)?;
        let port = &listeners["listener_statuses"][0]["local_address"]["socket_address"]["port_value"];
        let port: u16 = port.as_u64().ok_or("it tells no port")?.try_into()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let connection = tokio::sync::Mutex::new(BufReader::new(TcpStream::connect(address).await?));
        Ok(Self { connection, said, _process: process })
    }

    /// Asks for what lies behind a provider with this token, over the one connection.
    pub async fn get(&self, provider: &str, token: &str) -> Result<Answer, Box<dyn Error>> {
        let mut connection = self.connection.lock().await;
        get(&mut connection, &format!("/{provider}/"), Some(token)).await
    }

    /// What it has logged so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

/// Asks over HTTP/1.1 on a connection that stays open.
async fn get(
    stream: &mut BufReader<TcpStream>,
    path: &str,
    token: Option<&str>,
) -> Result<Answer, Box<dyn Error>> {
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: envoy\r\n{token}\r\n");
    let answering = async {
        stream.write_all(request.as_bytes()).await?;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head).await? == 0 {
                return Err(format!("the connection ended: {head}").into());
            }
        }
        let status = head.split(' ').nth(1).ok_or("no status")?.parse()?;
        let body = if head.contains("transfer-encoding: chunked") {
            chunks(stream).await?
        } else {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(Ok(0), str::parse)?];
            stream.read_exact(&mut body).await?;
            body
        };
        Ok::<_, Box<dyn Error>>(Answer { status, body: String::from_utf8(body)? })
    };
    timeout(FENCE, answering).await?
}

/// A body of unknown length, as the admin answers (RFC 9112 section 7.1).
async fn chunks(stream: &mut BufReader<TcpStream>) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).await?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        let start = body.len();
        body.resize(start + size + 2, 0);
        stream.read_exact(&mut body[start..]).await?;
        body.truncate(start + size);
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Envoy's bootstrap: one listener, a filter with the providers, and a cluster for each one's JWKS.
fn config(providers: &[Provider<'_>]) -> Value {
    let at = |address: SocketAddr| {
        json!({"socket_address": {
            "address": address.ip().to_string(), "port_value": address.port(),
        }})
    };
    let anywhere = at(SocketAddr::from(([127, 0, 0, 1], 0)));
    let typed = |name: &str, config: Value| {
        let mut config = config;
        config["@type"] = format!("type.googleapis.com/envoy.extensions.filters.{name}").into();
        json!({"name": name, "typed_config": config})
    };
    let mut told = serde_json::Map::new();
    let (mut rules, mut clusters) = (Vec::new(), Vec::new());
    for provider in providers {
        let Provider { name, issuer, audience, jwks_address, jwks_path, keep_seconds } = provider;
        let jwks = json!({
            "http_uri": {
                "uri": format!("http://{jwks_address}{jwks_path}"), "cluster": name, "timeout": "10s",
            },
            "cache_duration": format!("{keep_seconds}s"),
        });
        let provider = json!({"issuer": issuer, "audiences": [audience], "remote_jwks": jwks});
        told.insert((*name).to_owned(), provider);
        rules.push(json!({
            "match": {"prefix": format!("/{name}/")}, "requires": {"provider_name": name},
        }));
        clusters.push(json!({"name": name, "type": "STATIC", "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(*jwks_address)}}]}],
        }}));
    }
    let jwt = json!({"providers": told, "rules": rules});
    let routes = json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]);
    let http = json!({
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            typed("http.jwt_authn.v3.JwtAuthentication", jwt),
            typed("http.router.v3.Router", json!({})),
        ],
    });
    let http = typed("network.http_connection_manager.v3.HttpConnectionManager", http);
    let listener = json!({"name": "in", "address": anywhere, "filter_chains": [{"filters": [http]}]});
    json!({
        "admin": {"address": anywhere},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    })
}
