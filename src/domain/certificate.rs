//! Certificates that clients show (RFC 5280), and which of them a service account proves itself with.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use x509_cert::{
    Certificate as X509,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
    time::Time,
};

use super::InvalidField;

/// A client's certificate, as much of it as counts here. That its client has the key, and that somebody vouches for
/// the names, is known from elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The SHA-256 of its DER, in base64url.
    pub thumbprint: String,
    dns_names: Vec<String>,
    uris: Vec<String>,
    begin_time: DateTime<Utc>,
    /// When it ends.
    pub expire_time: DateTime<Utc>,
}

impl Certificate {
    /// Reads DER of this thumbprint; `None` where it is no certificate, or one of which something makes no sense.
    pub fn read(der: &[u8], thumbprint: String) -> Option<Self> {
        let certificate = X509::from_der(der).ok()?;
        let content = certificate.tbs_certificate();
        let (mut dns_names, mut uris) = (Vec::new(), Vec::new());
        for name in
            content.get_extension::<SubjectAltName>().ok()?.map(|(_, names)| names.0).unwrap_or_default()
        {
            match name {
                GeneralName::DnsName(name) => dns_names.push(name.as_str().to_owned()),
                GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().to_owned()),
                _ => {}
            }
        }
        let validity = content.validity();
        Some(Self {
            thumbprint,
            dns_names,
            uris,
            begin_time: instant(validity.not_before)?,
            expire_time: instant(validity.not_after)?,
        })
    }

    /// Whether it is accepted now: a connection may outlive the certificate that it began with.
    pub fn is_good(&self, now: DateTime<Utc>) -> bool {
        (self.begin_time..=self.expire_time).contains(&now)
    }
}

fn instant(time: Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(i64::try_from(time.to_unix_duration().as_secs()).ok()?, 0)
}

/// Which certificates an account proves itself with (RFC 8705 section 2.1.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Named {
    /// Those that are for this host, by its name.
    SanDns(String),
    /// Those that have this URI, as a SPIFFE id.
    SanUri(String),
    /// This one.
    CertificateThumbprint(String),
}

impl Named {
    /// The longest URI, in bytes: as long as a SPIFFE id may be.
    const LONGEST_URI: usize = 2048;

    /// Reads the name of a host. One with a wildcard is none.
    pub fn san_dns(field: &'static str, text: &str) -> Result<Self, InvalidField> {
        let is_label = |label: &str| {
            let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            (1..=63).contains(&label.len()) && label.bytes().all(is_inner)
        };
        if text.len() > 253 || !text.split('.').all(is_label) {
            return Err(InvalidField::new(field, "has a `san_dns` that is no host's name"));
        }
        Ok(Self::SanDns(text.to_ascii_lowercase()))
    }

    /// Reads a URI.
    pub fn san_uri(field: &'static str, text: &str) -> Result<Self, InvalidField> {
        let (scheme, rest) = text.split_once(':').unwrap_or_default();
        let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let is_rest = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic());
        if text.len() > Self::LONGEST_URI || !is_scheme || !is_rest {
            return Err(InvalidField::new(
                field,
                "has a `san_uri` that is no URI of at most 2048 characters",
            ));
        }
        Ok(Self::SanUri(text.to_owned()))
    }

    /// Reads a thumbprint, in base64url, or in hex as `openssl x509 -fingerprint -sha256` prints it.
    pub fn thumbprint(field: &'static str, text: &str) -> Result<Self, InvalidField> {
        let is_digest = |bytes: &Vec<u8>| bytes.len() == 32;
        let digest = URL_SAFE_NO_PAD.decode(text).ok().filter(is_digest);
        match digest.or_else(|| of_hex(text).filter(is_digest)) {
            Some(digest) => Ok(Self::CertificateThumbprint(URL_SAFE_NO_PAD.encode(digest))),
            None => {
                let problem = "has a `certificate_thumbprint` that is no SHA-256 in base64url or hex";
                Err(InvalidField::new(field, problem))
            }
        }
    }

    /// What is named.
    pub fn as_str(&self) -> &str {
        match self {
            Self::SanDns(text) | Self::SanUri(text) | Self::CertificateThumbprint(text) => text,
        }
    }

    /// Whether this certificate is one of these.
    pub fn takes(&self, certificate: &Certificate) -> bool {
        match self {
            Self::SanDns(wanted) => {
                certificate.dns_names.iter().any(|name| name.eq_ignore_ascii_case(wanted))
            }
            Self::SanUri(wanted) => certificate.uris.contains(wanted),
            Self::CertificateThumbprint(wanted) => certificate.thumbprint == *wanted,
        }
    }
}

/// Two digits for each byte, with or without colons.
fn of_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks(2).map(|pair| Some(value(*pair.first()?)? << 4 | value(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    fn certificate() -> Certificate {
        Certificate {
            thumbprint: URL_SAFE_NO_PAD.encode([7; 32]),
            dns_names: vec!["Orders.shop.example".to_owned(), "*.shop.example".to_owned()],
            uris: vec!["spiffe://shop.example/orders".to_owned()],
            begin_time: DateTime::UNIX_EPOCH,
            expire_time: DateTime::UNIX_EPOCH + TimeDelta::seconds(10),
        }
    }

    #[test]
    fn one_name_must_be_the_wanted_one_in_whole() -> Result<(), InvalidField> {
        let takes = |named: Named| named.takes(&certificate());
        assert!(takes(Named::san_dns("f", "orders.SHOP.example")?));
        assert!(takes(Named::san_uri("f", "spiffe://shop.example/orders")?));
        assert!(takes(Named::thumbprint("f", &URL_SAFE_NO_PAD.encode([7; 32]))?));
        assert!(takes(Named::thumbprint("f", &"07".repeat(32))?));
        assert!(takes(Named::thumbprint("f", &["07"; 32].join(":"))?));
        for other in
            ["shop.example", "payments.shop.example", "orders.shop.example.net", "x-orders.shop.example"]
        {
            assert!(!takes(Named::san_dns("f", other)?), "{other}");
        }
        for other in
            ["spiffe://shop.example/orders/", "spiffe://shop.example/Orders", "spiffe://shop.example/order"]
        {
            assert!(!takes(Named::san_uri("f", other)?), "{other}");
        }
        assert!(!takes(Named::thumbprint("f", &URL_SAFE_NO_PAD.encode([8; 32]))?));
        Ok(())
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in
            ["", "*.shop.example", "a..b", "a.b.", "a b", "ä.example", &"a".repeat(64), &"a.".repeat(127)]
        {
            assert!(Named::san_dns("f", text).is_err(), "{text}");
        }
        let long = format!("spiffe://{}", "a".repeat(2048));
        for text in ["", "orders", ":orders", "1a:b", "a:", "spiffe://a b", "spiffe://ä", &long] {
            assert!(Named::san_uri("f", text).is_err(), "{text}");
        }
        let (short, padded) = (URL_SAFE_NO_PAD.encode([7; 31]), URL_SAFE_NO_PAD.encode([7; 32]) + "=");
        for text in ["", "AA:BB", &short, &padded, &"a".repeat(63), &"g".repeat(64)] {
            assert!(Named::thumbprint("f", text).is_err(), "{text}");
        }
    }

    #[test]
    fn it_is_good_for_as_long_as_it_says() {
        let at = |seconds: i64| certificate().is_good(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds));
        assert!(!at(-1) && at(0) && at(10) && !at(11));
    }

    #[test]
    fn garbage_is_no_certificate() {
        let long = [0x30, 0x84, 0xff, 0xff, 0xff, 0xff];
        for garbage in [&b""[..], b"0", b"\x30\x00", &long, &[0xff; 4096], &[0x30; 4096]] {
            assert_eq!(Certificate::read(garbage, String::new()), None);
        }
    }
}
