//! What a service proves itself with.

use std::{fmt, path::PathBuf};

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};

use super::{IdentityError, assertion, private_key::PrivateKey};
use crate::{proto::IssueServiceTokenRequest, verifier::files};

/// What an assertion is (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a service proves itself with. A file is read whenever a token is got, so that it may be replaced at any time;
/// one that is only half there is read again with the next attempt. Silent in `Debug`.
#[derive(Clone)]
pub struct Credential(Kind);

#[derive(Clone)]
enum Kind {
    ClientSecret(Text),
    PrivateKey { key: Text, issuer: String, key_id: Option<String> },
    WorkloadToken(Text),
    Connection,
}

#[derive(Clone)]
enum Text {
    Given(SecretString),
    File(PathBuf),
}

impl Credential {
    /// A client secret: `tcs_` and what follows.
    pub fn client_secret(secret: impl Into<SecretString>) -> Self {
        Self(Kind::ClientSecret(Text::Given(secret.into())))
    }

    /// The client secret in this file.
    pub fn client_secret_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::ClientSecret(Text::File(path.into())))
    }

    /// A private key, in PEM (PKCS#8, or as OpenSSL wrote EC and RSA keys before) or as a JWK: on P-256, P-384 or
    /// Ed25519, or RSA of 2048 bits at least. It signs an assertion (RFC 7523) for each token. `issuer` is whom these are
    /// for, the issuer's setting `tokens.issuer`, exactly: one that several would take could be passed on.
    ///
    /// The assertion names the key by the `kid` of the JWK, else by its thumbprint (RFC 7638), unless
    /// [`Self::with_key_id`] says otherwise. An RSA key signs with RS256, unless the `alg` of the JWK is PS256.
    pub fn private_key(key: impl Into<SecretString>, issuer: impl Into<String>) -> Self {
        Self(Kind::PrivateKey { key: Text::Given(key.into()), issuer: issuer.into(), key_id: None })
    }

    /// The private key in this file.
    pub fn private_key_file(path: impl Into<PathBuf>, issuer: impl Into<String>) -> Self {
        Self(Kind::PrivateKey { key: Text::File(path.into()), issuer: issuer.into(), key_id: None })
    }

    /// The token in this file, which the platform replaces before it ends: one that Kubernetes projects into a pod, or
    /// a JWT-SVID that an agent of SPIFFE writes.
    pub fn workload_token_file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::WorkloadToken(Text::File(path.into())))
    }

    /// Nothing but the connection: the certificate that its TLS settings present (RFC 8705). Where its files
    /// are replaced, `ServiceIdentity::by_certificate` takes them instead.
    pub fn connection() -> Self {
        Self(Kind::Connection)
    }

    /// The id by which the registered key set calls a private key; empty, where its keys have none.
    #[must_use]
    pub fn with_key_id(mut self, id: impl Into<String>) -> Self {
        if let Kind::PrivateKey { key_id, .. } = &mut self.0 {
            *key_id = Some(id.into());
        }
        self
    }

    /// A request that proves who asks, and asks nothing yet. Each has an assertion of its own.
    pub(super) async fn present(
        &self,
        client_id: &str,
        now: DateTime<Utc>,
    ) -> Result<IssueServiceTokenRequest, IdentityError> {
        let request = IssueServiceTokenRequest {
            client_id: client_id.to_owned(),
            ..IssueServiceTokenRequest::default()
        };
        let asserted = |assertion: String| IssueServiceTokenRequest {
            client_assertion_type: ASSERTION_TYPE.to_owned(),
            client_assertion: assertion,
            ..request.clone()
        };
        Ok(match &self.0 {
            Kind::ClientSecret(text) => {
                let secret = text.read().await?;
                IssueServiceTokenRequest {
                    client_secret: secret.expose_secret().trim().to_owned(),
                    ..request
                }
            }
            Kind::PrivateKey { key: text, issuer, key_id } => {
                let key = PrivateKey::read(text.read().await?.expose_secret(), key_id.as_deref());
                let signed = key.and_then(|key| assertion::sign(&key, client_id, issuer, now));
                asserted(signed.map_err(|problem| text.useless(&problem))?)
            }
            Kind::WorkloadToken(text) => asserted(text.read().await?.expose_secret().trim().to_owned()),
            Kind::Connection => request,
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, text) = match &self.0 {
            Kind::ClientSecret(text) => ("ClientSecret", text),
            Kind::PrivateKey { key, .. } => ("PrivateKey", key),
            Kind::WorkloadToken(text) => ("WorkloadToken", text),
            Kind::Connection => return f.write_str("Connection"),
        };
        write!(f, "{kind}({text})")
    }
}

impl Text {
    /// What it says now.
    async fn read(&self) -> Result<SecretString, IdentityError> {
        match self {
            Self::Given(text) if text.expose_secret().trim().is_empty() => Err(self.useless(&"is empty")),
            Self::Given(text) => Ok(text.clone()),
            Self::File(path) => files::read(path).await.map_err(|error| self.useless(&error)),
        }
    }

    fn useless(&self, problem: &dyn fmt::Display) -> IdentityError {
        IdentityError::Credential(format!("{self}: {problem}"))
    }
}

impl fmt::Display for Text {
    /// Where it is, never what.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str(".."),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "tcs_0123456789";

    async fn present(credential: &Credential) -> Result<IssueServiceTokenRequest, IdentityError> {
        credential.present("orders", DateTime::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn it_presents_what_it_is() -> Result<(), IdentityError> {
        let secret = present(&Credential::client_secret(SECRET)).await?;
        assert_eq!((&*secret.client_id, &*secret.client_secret), ("orders", SECRET));
        assert_eq!((&*secret.client_assertion_type, &*secret.client_assertion), ("", ""));
        let connection = present(&Credential::connection()).await?;
        let bare = IssueServiceTokenRequest {
            client_id: "orders".to_owned(),
            ..IssueServiceTokenRequest::default()
        };
        assert_eq!(connection, bare);
        Ok(())
    }

    #[tokio::test]
    async fn a_file_is_read_each_time() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::TempDir::new()?;
        let path = dir.path().join("token");
        let credential = Credential::workload_token_file(&path);
        let useless = async || match present(&credential).await {
            Err(IdentityError::Credential(told)) => told.contains(&*path.display().to_string()),
            _ => false,
        };
        assert!(useless().await, "it is not there");
        for bad in [&b""[..], b" \n", b"\xff\xfe", &[b'x'; 64 * 1024 + 1]] {
            tokio::fs::write(&path, bad).await?;
            assert!(useless().await);
        }
        for good in ["first", "second"] {
            tokio::fs::write(&path, format!("{good}\n")).await?;
            assert_eq!(present(&credential).await?.client_assertion, good);
        }
        Ok(())
    }

    #[tokio::test]
    async fn nothing_secret_is_told() {
        let given = [
            Credential::client_secret(SECRET),
            Credential::private_key(SECRET, "i"),
            Credential::private_key(format!("{{\"kty\":\"{SECRET}\"}}"), "i"),
        ];
        for credential in given {
            let told = format!("{credential:?} {:?}", present(&credential).await);
            assert!(!told.contains(SECRET) && !told.contains("0123"), "{told}");
        }
        assert_eq!(format!("{:?}", Credential::client_secret_file("a/b")), "ClientSecret(a/b)");
    }
}
