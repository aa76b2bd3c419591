//! The header in which a trusted proxy tells the certificate of its client.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderName;
use percent_encoding::percent_decode_str;
use rustls::pki_types::{CertificateDer, pem::PemObject};

/// RFC 9440.
const CLIENT_CERT: &str = "client-cert";
/// The longest value that is read, in bytes.
const LONGEST: usize = 16 * 1024;

/// Which header, and what is written in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateHeader {
    name: HeaderName,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// DER between colons, in base64 (RFC 9440 section 2.2).
    ClientCert,
    /// Envoy's `x-forwarded-client-cert`.
    Envoy,
}

impl CertificateHeader {
    /// The header of this name; `None` where none can have it.
    pub fn named(name: &str) -> Option<Self> {
        let name: HeaderName = name.parse().ok()?;
        let format = if name == CLIENT_CERT { Format::ClientCert } else { Format::Envoy };
        Some(Self { name, format })
    }

    /// Its name.
    pub fn name(&self) -> &HeaderName {
        &self.name
    }

    /// The DER that a value tells; `None` where it tells none.
    pub fn read(&self, value: &str) -> Option<Vec<u8>> {
        if value.len() > LONGEST {
            return None;
        }
        match self.format {
            Format::ClientCert => {
                let inner = value.trim().strip_prefix(':')?.strip_suffix(':')?;
                STANDARD.decode(inner).ok()
            }
            Format::Envoy => of_envoy(value),
        }
    }
}

/// Of one element alone: each proxy on the way may append one, and in names that a certificate brings along Envoy quotes no
/// comma, so that whoever can choose such a name would write an element.
fn of_envoy(value: &str) -> Option<Vec<u8>> {
    let mut elements = split(value, ',');
    let element = elements.next()?;
    if elements.next().is_some() {
        return None;
    }
    let mut told = split(element, ';')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("cert"));
    let (_, value) = told.next()?;
    if told.next().is_some() {
        return None;
    }
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
    let pem: Vec<u8> = percent_decode_str(unquoted).collect();
    let mut certificates = CertificateDer::pem_slice_iter(&pem);
    let first = certificates.next()?.ok()?;
    // A chain stands in `Chain`.
    certificates.next().is_none().then(|| first.to_vec())
}

/// The pieces between separators outside of quotes, in which a backslash takes its meaning from what follows.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |c| {
        let was_escaped = is_escaped;
        is_escaped = is_quoted && !was_escaped && c == '\\';
        is_quoted ^= c == '"' && !was_escaped;
        c == separator && !is_quoted
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN%20CERTIFICATE-----%0AAQID%0A-----END%20CERTIFICATE-----%0A";

    fn envoy(value: &str) -> Option<Vec<u8>> {
        CertificateHeader::named("X-Forwarded-Client-Cert")?.read(value)
    }

    #[test]
    fn envoys_one_element_is_the_nearest_proxys() {
        let good = Some(vec![1, 2, 3]);
        let other = PEM.replace("AQID", "BAUG");
        let hash = "Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688";
        assert_eq!(envoy(&format!("Cert=\"{PEM}\"")), good);
        assert_eq!(envoy(&format!("cert={PEM}")), good);
        assert_eq!(
            envoy(&format!(
                "By=spiffe://a/b;{hash};Cert=\"{PEM}\";Subject=\"CN=\\\"a,b;c\\\"\";URI=spiffe://a/c;DNS=a"
            )),
            good
        );
        for bad in [
            String::new(),
            hash.to_owned(),
            format!("Cert=\"{PEM}\",{hash}"),
            format!("{hash};Cert=\"{other}\",{hash};Cert=\"{PEM}\""),
            format!("Cert=\"{other}\";URI=spiffe://x,Cert={PEM}"),
            format!("URI=spiffe://x,Cert={PEM}"),
            format!("Cert=\"{PEM}\","),
            format!("Cert=\"{PEM}\";Cert=\"{other}\""),
            format!("Cert=\"{PEM}{other}\""),
            format!("Chain=\"{PEM}\""),
            // Whoever writes a subject writes no element.
            format!("Subject=\"a,Cert={PEM}\""),
            format!("Subject=\"a\\\";Cert={PEM}\""),
            "Cert=\"%GG\"".to_owned(),
            "Cert=\"-----BEGIN%20CERTIFICATE-----%0A?%0A-----END%20CERTIFICATE-----\"".to_owned(),
            format!("Subject=\"{}\";Cert=\"{PEM}\"", "a".repeat(16 * 1024)),
        ] {
            assert_eq!(envoy(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_standard_header_has_der_between_colons() {
        let read = |value: &str| CertificateHeader::named("Client-Cert")?.read(value);
        assert_eq!(read(":AQID:"), Some(vec![1, 2, 3]));
        for bad in ["", ":", "AQID", ":AQID", ":AQI:", ":AQID:, :AQID:", ":AQID:;a=1", "Cert=AQID"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(read(&format!(":{}:", "A".repeat(16 * 1024))), None);
    }

    #[test]
    fn a_header_has_a_name() {
        assert!(CertificateHeader::named("").is_none() && CertificateHeader::named("a b").is_none());
    }
}
