//! Certificates for tests, made by openssl.

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::process::Command;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use super::{Ended, Home, Outcome, run};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const OPENSSL: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = the tests
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[leaf]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
";

/// A certificate authority of the test's own, and what it issues.
pub struct Authority(TempDir);

/// A certificate and its key, PEM.
pub struct Leaf {
    /// The certificate's file.
    pub cert: PathBuf,
    /// The key's.
    pub key: PathBuf,
}

impl Authority {
    /// A new one.
    pub async fn new() -> Result<Self> {
        let authority = Self(TempDir::new()?);
        std::fs::write(authority.0.path().join("openssl.cnf"), OPENSSL)?;
        authority.request("ca", &["-x509", "-extensions", "authority"]).await?;
        Ok(authority)
    }

    /// Makes a key and a request, or with `-x509` a certificate, for it.
    async fn request(&self, name: &str, more: &[&str]) -> Outcome {
        let subject = format!("/CN={name}");
        let (key, out) = (format!("{name}.key"), format!("{name}.pem"));
        let request = ["req", "-new", "-config", "openssl.cnf", "-nodes", "-newkey", "ec"];
        let curve = ["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &subject];
        let files = ["-keyout", &key, "-out", &out];
        self.openssl(&[&request[..], &curve, &files, more].concat()).await?;
        Ok(())
    }

    /// Issues a server's certificate, for loopback.
    pub async fn issue(&self, name: &str, serial: &str) -> Result<Leaf> {
        self.sign(name, serial, 2, "openssl.cnf").await
    }

    /// Issues a client's certificate with this subject alternative name, as `URI:spiffe://a/b`, for so many days from now; one
    /// of a negative number has ended.
    pub async fn client(&self, name: &str, alternative: &str, days: i32) -> Result<Leaf> {
        let extensions = format!("{name}.cnf");
        let text = format!(
            "[leaf]\nbasicConstraints = critical, CA:FALSE\nextendedKeyUsage = clientAuth\n\
             subjectAltName = {alternative}\n"
        );
        std::fs::write(self.0.path().join(&extensions), text)?;
        self.sign(name, "77", days, &extensions).await
    }

    /// Makes a certificate for which nobody vouches but itself.
    pub async fn self_signed(&self, name: &str) -> Result<Leaf> {
        self.request(name, &["-x509", "-extensions", "leaf"]).await?;
        Ok(self.leaf(name, &format!("{name}.pem")))
    }

    async fn sign(&self, name: &str, serial: &str, days: i32, extensions: &str) -> Result<Leaf> {
        self.request(name, &[]).await?;
        let (request, out) = (format!("{name}.pem"), format!("{name}-cert.pem"));
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.pem", "-CAkey", "ca.key"];
        let days = days.to_string();
        let what = ["-set_serial", serial, "-days", &days, "-extfile", extensions];
        let files = ["-extensions", "leaf", "-out", &out];
        self.openssl(&[&sign[..], &what, &files].concat()).await?;
        Ok(self.leaf(name, &out))
    }

    fn leaf(&self, name: &str, cert: &str) -> Leaf {
        Leaf { cert: self.0.path().join(cert), key: self.0.path().join(format!("{name}.key")) }
    }

    async fn openssl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(self.0.path());
        let Ended { code, stdout, stderr } = run(command).await?;
        if code == Some(0) { Ok(stdout) } else { Err(format!("openssl {args:?}: {stderr}").into()) }
    }

    /// The file of its own certificate.
    pub fn certificate(&self) -> PathBuf {
        self.0.path().join("ca.pem")
    }

    /// The `x5t#S256` of a certificate, as openssl has it.
    pub async fn thumbprint(&self, leaf: &Leaf) -> Result<String> {
        let cert = leaf.cert.to_str().ok_or("not UTF-8")?;
        let told = self.openssl(&["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"]).await?;
        let (_, hex) = told.trim().split_once('=').ok_or("no fingerprint")?;
        let bytes = hex.split(':').map(|byte| u8::from_str_radix(byte, 16));
        Ok(URL_SAFE_NO_PAD.encode(bytes.collect::<std::result::Result<Vec<_>, _>>()?))
    }

    /// The TLS of a client that trusts it, and that shows this certificate, or none.
    pub fn client_tls(&self, shown: Option<&Leaf>) -> Result<ClientTlsConfig> {
        let authority = Certificate::from_pem(std::fs::read(self.certificate())?);
        let tls = ClientTlsConfig::new().ca_certificate(authority);
        Ok(match shown {
            Some(leaf) => tls.identity(leaf.identity()?),
            None => tls,
        })
    }
}

impl Leaf {
    /// The certificate.
    pub fn der(&self) -> Result<CertificateDer<'static>> {
        Ok(CertificateDer::from_pem_file(&self.cert)?)
    }

    /// Both, as tonic takes them.
    pub fn identity(&self) -> Result<Identity> {
        Ok(Identity::from_pem(std::fs::read(&self.cert)?, std::fs::read(&self.key)?))
    }

    /// Puts both files where the server looks.
    pub fn install(&self, home: &Home) -> Outcome {
        replace(&self.cert, &home.dir().join("cert.pem"))?;
        replace(&self.key, &home.dir().join("key.pem"))
    }
}

/// Where a server is reached over TLS.
pub fn over_tls(
    address: SocketAddr,
    tls: ClientTlsConfig,
) -> std::result::Result<Endpoint, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)
}

/// As a careful operator does: a file is whole whenever somebody reads it.
pub fn replace(from: &Path, to: &Path) -> Outcome {
    let new = to.with_extension("new");
    std::fs::copy(from, &new)?;
    Ok(std::fs::rename(new, to)?)
}
