//! Networks: which addresses count as one place.

use std::net::IpAddr;

use ipnet::IpNet;

/// How many leading bits two addresses must have in common to count as one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// Of IPv4 addresses, up to 32.
    pub v4: u8,
    /// Of IPv6 addresses, up to 128.
    pub v6: u8,
}

impl Prefixes {
    /// The network of an address, as `192.0.2.0/24`; empty where the address is not known.
    pub fn network(self, address: &str) -> String {
        let network = address.parse::<IpAddr>().ok().and_then(|address| {
            let address = address.to_canonical();
            let prefix = if address.is_ipv4() { self.v4 } else { self.v6 };
            Some(IpNet::new(address, prefix).ok()?.trunc())
        });
        network.map(|network| network.to_string()).unwrap_or_default()
    }
}

/// Whether two networks may be one place: what is not known can't contradict.
pub fn may_be_same(a: &str, b: &str) -> bool {
    a.is_empty() || b.is_empty() || a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIXES: Prefixes = Prefixes { v4: 24, v6: 64 };

    #[test]
    fn an_address_is_cut_to_its_network() {
        assert_eq!(PREFIXES.network("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(PREFIXES.network("::ffff:192.0.2.77"), "192.0.2.0/24");
        assert_eq!(PREFIXES.network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(Prefixes { v4: 32, v6: 128 }.network("192.0.2.77"), "192.0.2.77/32");
        for unknown in ["", "unknown", "192.0.2.0/24", "192.0.2.1:80"] {
            assert_eq!(PREFIXES.network(unknown), "", "{unknown}");
        }
    }

    #[test]
    fn what_is_not_known_contradicts_nothing() {
        assert!(may_be_same("192.0.2.0/24", "192.0.2.0/24"));
        assert!(!may_be_same("192.0.2.0/24", "192.0.3.0/24"));
        assert!(!may_be_same("192.0.2.0/24", "2001:db8::/64"));
        assert!(may_be_same("", "192.0.2.0/24"));
        assert!(may_be_same("192.0.2.0/24", ""));
    }
}
