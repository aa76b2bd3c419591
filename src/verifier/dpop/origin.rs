//! Where a call goes: a scheme, a host and a port (RFC 6454 section 4).

use std::str::FromStr;

use http::Uri;

/// It is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin, as https://orders.example.com")]
pub struct BadOrigin(String);

/// A scheme, a host and a port, in their one form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    is_https: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// That of an absolute http or https URI.
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if is_https => 443,
            None => 80,
        };
        Some(Self { is_https, host: authority.host().to_ascii_lowercase(), port })
    }
}

impl FromStr for Origin {
    type Err = BadOrigin;

    fn from_str(text: &str) -> Result<Self, BadOrigin> {
        let uri = text.parse::<Uri>().ok();
        let uri = uri.filter(|uri| uri.path() == "/" && uri.query().is_none() && !text.contains('#'));
        uri.as_ref().and_then(Self::of).ok_or_else(|| BadOrigin(text.to_owned()))
    }
}
