//! Senders' addresses: what of them is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network of an address, /24 or /48, as it is stored; the address itself is never kept.
pub fn cut_address(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{}/24", Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_network_only() {
        let cut = |text: &str| cut_address(text.parse().unwrap());
        assert_eq!(cut("203.0.113.77"), "203.0.113.0/24");
        assert_eq!(cut("2001:db8:1:2:3:4:5:6"), "2001:db8:1::/48");
        assert_eq!(cut("::ffff:203.0.113.77"), "203.0.113.0/24");
        assert_eq!(cut("::1"), "::/48");
    }
}
