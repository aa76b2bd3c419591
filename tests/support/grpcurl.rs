//! grpcurl, which learns the contract from the server.

use std::{
    error::Error,
    ffi::{OsStr, OsString},
};

use serde_json::Value;
use tokio::process::Command;

use super::{Authority, Leaf, Server, installed, run};

/// It, on its way to a server.
pub struct Grpcurl {
    address: String,
    flags: Vec<OsString>,
}

impl Grpcurl {
    /// Without TLS.
    pub fn plain(server: &Server) -> Self {
        Self { address: server.address.to_string(), flags: vec!["-plaintext".into()] }
    }

    /// Over TLS to whom this authority knows, with this certificate or none.
    pub fn over_tls(server: &Server, authority: &Authority, shown: Option<&Leaf>) -> Self {
        let mut flags: Vec<OsString> = vec!["-cacert".into(), authority.certificate().into()];
        if let Some(Leaf { cert, key }) = shown {
            let own = [OsStr::new("-cert"), cert.as_ref(), OsStr::new("-key"), key.as_ref()];
            flags.extend(own.map(OsString::from));
        }
        Self { address: server.address.to_string(), flags }
    }

    /// The same with this token.
    pub fn with_token(mut self, token: &str) -> Self {
        self.flags.extend([OsString::from("-H"), format!("authorization: Bearer {token}").into()]);
        self
    }

    /// Calls a method. Gives what it prints: the reply, or of a refusal its reason.
    pub async fn call(&self, method: &str, message: Value) -> Result<Result<Value, String>, Box<dyn Error>> {
        let mut command = Command::new(installed("TESTS_GRPCURL", "python/bin/grpcurl"));
        command.args(&self.flags).args(["-d", &message.to_string(), &self.address, method]);
        command.kill_on_drop(true);
        let ended = run(command).await?;
        if ended.code == Some(0) {
            return Ok(Ok(serde_json::from_str(&ended.stdout)?));
        }
        let (_, rest) = ended.stderr.split_once("\"reason\":\"").ok_or_else(|| ended.stderr.clone())?;
        Ok(Err(rest.split('"').next().unwrap_or_default().to_owned()))
    }
}
