//! Where a call came from that reached us through proxies.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;

/// The proxies whose word for an address counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

/// What proxies told, each header line by itself, the nearest proxy's word last.
#[derive(Debug, Default)]
pub struct Told<'h> {
    /// The values of `x-forwarded-for`.
    pub x_forwarded_for: Vec<&'h str>,
    /// The values of `forwarded` (RFC 7239).
    pub forwarded: Vec<&'h str>,
}

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// An address or a network in CIDR notation.
pub fn parse_network(text: &str) -> Option<IpNet> {
    IpNet::from_str(text).or_else(|_| IpAddr::from_str(text).map(IpNet::from)).ok()
}

impl TrustedProxies {
    /// Whether this peer's word counts.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// Where a call came from. The peer itself, unless it is trusted and tells one address. Where it writes one
    /// header and passes on what a client wrote into the other, the two differ, and neither counts.
    pub fn client<'h>(&self, peer: IpAddr, told: impl FnOnce() -> Told<'h>) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.trusts(peer) {
            return peer;
        }
        let told = told();
        let x_forwarded_for = items(&told.x_forwarded_for);
        let x_forwarded_for: Vec<_> = x_forwarded_for.into_iter().map(hop).collect();
        let forwarded = items(&told.forwarded);
        let forwarded: Vec<_> = forwarded.into_iter().map(|item| hop(forwarded_for(item)?)).collect();
        match (x_forwarded_for.as_slice(), forwarded.as_slice()) {
            ([], []) => None,
            (hops, []) | ([], hops) => self.first_beyond(hops),
            (one, other) => self.first_beyond(one).filter(|client| self.first_beyond(other) == Some(*client)),
        }
        .unwrap_or(peer)
    }

    /// The first hop from the right that is no trusted proxy, or the last one; `None` where one on the way makes no
    /// sense.
    fn first_beyond(&self, hops: &[Option<IpAddr>]) -> Option<IpAddr> {
        let beyond = hops.iter().rev().find(|hop| hop.is_none_or(|hop| !self.trusts(hop)));
        *beyond.or(hops.first())?
    }
}

/// The items of lists that were written in several lines, separated by commas outside of quotes.
fn items<'h>(lines: &[&'h str]) -> Vec<&'h str> {
    lines.iter().flat_map(|line| split(line, ',')).map(str::trim).collect()
}

fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_quoted = false;
    text.split(move |c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    })
}

/// The parameter `for` of one hop (RFC 7239 section 4).
fn forwarded_for(item: &str) -> Option<&str> {
    let mut named = split(item, ';')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    let (_, value) = named.next()?;
    let value = value.trim();
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value)).filter(|_| named.next().is_none())
}

/// An address, maybe in brackets, maybe with a port.
fn hop(text: &str) -> Option<IpAddr> {
    let address = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let is_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
            Some(address).filter(|_| port.is_empty() || is_port)?
        }
        None => match text.split_once(':') {
            Some((address, port)) if address.contains('.') && port.parse::<u16>().is_ok() => address,
            _ => text,
        },
    };
    Some(address.parse::<IpAddr>().ok()?.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: &str = "10.0.0.1";

    fn client_of(peer: &str, x_forwarded_for: &[&str], forwarded: &[&str]) -> String {
        let trusted: TrustedProxies =
            ["10.0.0.0/8", "2001:db8::1"].into_iter().filter_map(parse_network).collect();
        let told = Told { x_forwarded_for: x_forwarded_for.to_vec(), forwarded: forwarded.to_vec() };
        trusted.client(peer.parse().unwrap(), || told).to_string()
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        assert_eq!(client_of("192.0.2.1", &["203.0.113.9"], &["for=203.0.113.9"]), "192.0.2.1");
        assert_eq!(client_of("::ffff:10.0.0.1", &["203.0.113.9"], &[]), "203.0.113.9");
        assert_eq!(client_of("2001:db8::1", &["203.0.113.9"], &[]), "203.0.113.9");
        assert_eq!(client_of("2001:db8::2", &["203.0.113.9"], &[]), "2001:db8::2");
        assert_eq!(client_of(PEER, &[], &[]), PEER);
    }

    #[test]
    fn the_rightmost_hop_that_is_no_proxy_counts() {
        assert_eq!(client_of(PEER, &["198.51.100.1, 203.0.113.9, 10.9.9.9"], &[]), "203.0.113.9");
        assert_eq!(client_of(PEER, &["198.51.100.1", "203.0.113.9", "10.9.9.9"], &[]), "203.0.113.9");
        assert_eq!(client_of(PEER, &["nonsense, 203.0.113.9"], &[]), "203.0.113.9");
        assert_eq!(
            client_of(PEER, &["10.1.1.1, 10.9.9.9"], &[]),
            "10.1.1.1",
            "it came from among the proxies"
        );
    }

    #[test]
    fn garbage_falls_back_to_the_peer() {
        for garbage in
            ["", "nonsense", "203.0.113.9,", "203.0.113.9, unknown, 10.9.9.9", "203.0.113.999", "[", "[]"]
        {
            assert_eq!(client_of(PEER, &[garbage], &[]), PEER, "{garbage}");
        }
        for garbage in
            ["", "for=_hidden", "for=unknown", "by=203.0.113.9", "for=203.0.113.9;for=203.0.113.8", "for=\""]
        {
            assert_eq!(client_of(PEER, &[], &[garbage]), PEER, "{garbage}");
        }
    }

    #[test]
    fn a_hop_may_have_a_port() {
        assert_eq!(client_of(PEER, &["203.0.113.9:4711"], &[]), "203.0.113.9");
        assert_eq!(client_of(PEER, &["[2001:db8::9]:4711"], &[]), "2001:db8::9");
        assert_eq!(client_of(PEER, &["2001:db8::9"], &[]), "2001:db8::9");
        assert_eq!(client_of(PEER, &["203.0.113.9:port"], &[]), PEER);
    }

    #[test]
    fn the_standard_header_is_read() {
        assert_eq!(client_of(PEER, &[], &["for=203.0.113.9;proto=https;by=10.0.0.1"]), "203.0.113.9");
        assert_eq!(
            client_of(PEER, &[], &["for=198.51.100.1, For=\"[2001:db8::9]:4711\";host=\"a,b;c\""]),
            "2001:db8::9"
        );
    }

    #[test]
    fn of_two_headers_that_differ_a_client_may_have_written_one() {
        assert_eq!(client_of(PEER, &["203.0.113.9"], &["for=203.0.113.9"]), "203.0.113.9");
        assert_eq!(client_of(PEER, &["203.0.113.9"], &["for=198.51.100.1"]), PEER);
        assert_eq!(client_of(PEER, &["203.0.113.9"], &["for=unknown"]), PEER);
    }
}
