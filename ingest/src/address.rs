//! Which client a request came from.
//!
//! Refuses to believe `X-Forwarded-For` from anyone but a trusted proxy.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hyper::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// The right-most hop that no trusted proxy stands for. A hop that cannot be read ends the search: what stands
/// left of it was written by somebody unknown.
pub(crate) fn client(peer: SocketAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = peer.ip().to_canonical();
    if !contains(trusted, nearest) {
        return nearest;
    }
    for line in headers.get_all(FORWARDED_FOR).iter().rev() {
        let Ok(line) = line.to_str() else { return nearest };
        for hop in line.rsplit(',').map(str::trim).filter(|hop| !hop.is_empty()) {
            let Some(address) = parse_hop(hop) else { return nearest };
            nearest = address;
            if !contains(trusted, nearest) {
                return nearest;
            }
        }
    }
    nearest
}

fn contains(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// `203.0.113.7`, `203.0.113.7:4711`, `2001:db8::1` or `[2001:db8::1]:4711`.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = hop.parse::<IpAddr>().or_else(|_| hop.parse::<SocketAddr>().map(|socket| socket.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    address.ok().or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        client(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_for_is_believed_only_from_trusted_proxies() {
        assert_eq!(from("198.51.100.9:1", &["203.0.113.7"], &[]), "198.51.100.9");
        assert_eq!(from("198.51.100.9:1", &["203.0.113.7"], &["10.0.0.0/8"]), "198.51.100.9");
        assert_eq!(from("10.0.0.1:1", &["203.0.113.7"], &["10.0.0.0/8"]), "203.0.113.7");
        assert_eq!(from("[::ffff:10.0.0.1]:1", &["203.0.113.7"], &["10.0.0.0/8"]), "203.0.113.7");
    }

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let trusted = &["10.0.0.0/8"];
        assert_eq!(from("10.0.0.1:1", &["6.6.6.6, 203.0.113.7, 10.9.9.9"], trusted), "203.0.113.7");
        assert_eq!(from("10.0.0.1:1", &["6.6.6.6", "203.0.113.7:99,10.9.9.9"], trusted), "203.0.113.7");
        assert_eq!(from("10.0.0.1:1", &["6.6.6.6, [2001:db8::1]:99"], trusted), "2001:db8::1");
        assert_eq!(from("10.0.0.1:1", &["6.6.6.6, [2001:db8::1]"], trusted), "2001:db8::1");
        assert_eq!(from("10.0.0.1:1", &["6.6.6.6, unknown, 10.9.9.9"], trusted), "10.9.9.9");
        assert_eq!(from("10.0.0.1:1", &["10.1.1.1"], trusted), "10.1.1.1");
        assert_eq!(from("10.0.0.1:1", &[], trusted), "10.0.0.1");
    }
}
