//! An issuer that is not ours, and the HTTP server that its keys are fetched from.

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tessera::domain::algorithm::Algorithm;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::Key;

/// The JWK set of these keys, with the ids that are given.
pub fn jwks(keys: &[(&str, &Key)]) -> Value {
    let keys = keys.iter().map(|(kid, key)| {
        let mut jwk = serde_json::to_value(key.jwk()).expect("a JWK is JSON");
        jwk["kid"] = json!(kid);
        jwk
    });
    json!({"keys": keys.collect::<Vec<_>>()})
}

/// A set of one new key, and the key.
pub fn one_key(kid: &str) -> Result<(Key, Value), Box<dyn Error>> {
    let key = Key::generate(Algorithm::Es256)?;
    let set = jwks(&[(kid, &key)]);
    Ok((key, set))
}

/// Answers each request with what it is told, over HTTP/1.1.
pub struct KeyServer {
    address: SocketAddr,
    reply: Arc<Mutex<Option<String>>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl KeyServer {
    /// One that serves this set.
    pub async fn serving(set: &Value) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (reply, asked) = (Arc::new(Mutex::new(None::<String>)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (reply, asked) = (reply.clone(), asked.clone());
            async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    assert!(request.starts_with(b"GET /jwks.json HTTP/1.1\r\n"), "that is all it is asked");
                    asked.fetch_add(1, Ordering::Relaxed);
                    let reply = reply.lock().unwrap().clone();
                    if let Some(reply) = reply {
                        let _ = stream.write_all(reply.as_bytes()).await;
                        let _ = stream.shutdown().await;
                    }
                }
            }
        });
        let server = Self { address, reply, asked, task };
        server.serve(set, "");
        Ok(server)
    }

    /// Where the keys are.
    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Serves this set from now on, with headers that each end with a line break.
    pub fn serve(&self, set: &Value, headers: &str) {
        self.answer(&format!("200 OK\r\ncontent-type: application/json\r\n{headers}"), &set.to_string());
    }

    /// Gives this answer from now on.
    pub fn answer(&self, head: &str, body: &str) {
        let head = head.trim_end();
        let reply = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        *self.reply.lock().unwrap() = Some(reply);
    }

    /// Closes each connection without an answer from now on.
    pub fn fall_silent(&self) {
        *self.reply.lock().unwrap() = None;
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
