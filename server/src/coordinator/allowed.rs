//! Who may be an index node. Jobs carry the keys of the object store, and any client of the etcd API
//! can write a session.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Networks, addresses and host names; everything else is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    /// `any`.
    Any,
    /// `private`: addresses that are not reached from the internet.
    Private,
    /// `10.1.0.0/16`, or one address.
    Network { address: IpAddr, bits: u8 },
    /// `node.example`, or `*.example` for all names below it.
    Name(String),
}

impl Default for Allowed {
    /// Where Milvus's processes are unless somebody has made an effort.
    fn default() -> Allowed {
        Allowed { entries: vec![Entry::Private] }
    }
}

impl Allowed {
    /// Reads a list that is separated by commas.
    ///
    /// # Errors
    /// What an entry must look like.
    pub(crate) fn parse(text: &str) -> Result<Allowed, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let entries: Vec<Entry> = entries.map(Entry::parse).collect::<Result<_, _>>()?;
        if entries.is_empty() {
            return Err(expected(text));
        }
        Ok(Allowed { entries })
    }

    /// Whether a process at `HOST:PORT` may be one.
    pub(crate) fn permits(&self, address: &str) -> bool {
        let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        self.entries.iter().any(|entry| match (entry, ip) {
            (Entry::Any, _) => true,
            (Entry::Private, Some(ip)) => is_private(ip),
            (Entry::Network { address, bits }, Some(ip)) => is_within(ip, *address, *bits),
            (Entry::Name(name), None) => is_named(host, name),
            (Entry::Private | Entry::Network { .. }, None) | (Entry::Name(_), Some(_)) => false,
        })
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Entry, String> {
        if text.eq_ignore_ascii_case("any") {
            return Ok(Entry::Any);
        }
        if text.eq_ignore_ascii_case("private") {
            return Ok(Entry::Private);
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            let address = address.to_canonical();
            return Ok(Entry::Network { address, bits: length(address) });
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address = address.parse::<IpAddr>().map_err(|_not_one| expected(text))?;
            let bits = bits.parse().map_err(|_not_one| expected(text))?;
            if bits > length(address) {
                return Err(expected(text));
            }
            return Ok(Entry::Network { address, bits });
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let name = text.strip_prefix('*').unwrap_or(text);
        // What is not all digits and dots is no mistyped address.
        let has_letter = name.bytes().any(|byte| byte.is_ascii_alphabetic());
        if name.bytes().all(is_name) && has_letter {
            return Ok(Entry::Name(text.to_ascii_lowercase()));
        }
        Err(expected(text))
    }
}

fn expected(text: &str) -> String {
    format!(
        "`{text}` is none of: `private`, `any`, a network such as 10.1.0.0/16, an address, a host \
         name, `*.` and a domain"
    )
}

fn length(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            // 100.64.0.0/10 is shared by providers, and by clusters of containers.
            let is_shared = first == 100 && (64..128).contains(&second);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    match (ip, network) {
        (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {}
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
    }
    // Both as the first bits of 128.
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(Ipv6Addr::from(ip.octets())),
    };
    let differing = number(ip) ^ number(network);
    differing.leading_zeros() >= u32::from(bits)
}

fn is_named(host: &str, name: &str) -> bool {
    let host = host.to_ascii_lowercase();
    match name.strip_prefix('*') {
        Some(domain) => host.len() > domain.len() && host.ends_with(domain),
        None => host == name,
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, entry) in self.entries.iter().enumerate() {
            if nth > 0 {
                out.write_str(",")?;
            }
            match entry {
                Entry::Any => out.write_str("any")?,
                Entry::Private => out.write_str("private")?,
                Entry::Network { address, bits } if *bits == length(*address) => {
                    write!(out, "{address}")?;
                }
                Entry::Network { address, bits } => write!(out, "{address}/{bits}")?,
                Entry::Name(name) => out.write_str(name)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_places_are_permitted() {
        let permitted = |list: &str, addresses: &[&str]| -> Vec<bool> {
            let allowed = Allowed::parse(list).expect("a list");
            addresses.iter().map(|address| allowed.permits(address)).collect()
        };
        let private = ["127.0.0.1:1", "10.0.0.1:1", "172.31.0.1:1", "192.168.3.4:21121"];
        assert_eq!(permitted("private", &private), [true; 4]);
        let private = ["100.64.0.1:1", "169.254.1.1:1", "[::1]:1", "[fd00::1]:1", "[fe80::1]:1"];
        assert_eq!(permitted("private", &private), [true; 5]);
        let public = ["8.8.8.8:1", "172.32.0.1:1", "100.128.0.1:1", "[2001:db8::1]:1", "host:1"];
        assert_eq!(permitted("private", &public), [false; 5]);
        assert_eq!(
            permitted("private", &["[::ffff:10.0.0.1]:1", "[::ffff:8.8.8.8]:1"]),
            [true, false]
        );
        assert_eq!(permitted("any", &public), [true; 5]);
        let some = ["10.1.2.3:1", "10.2.2.3:1", "8.8.8.8:1", "8.8.8.9:1"];
        assert_eq!(permitted("10.1.0.0/16, 8.8.8.8", &some), [true, false, true, false]);
        assert_eq!(
            permitted("2001:db8::/32", &["[2001:db8:1::1]:1", "[2001:db9::1]:1"]),
            [true, false]
        );
        assert_eq!(permitted("0.0.0.0/0", &["8.8.8.8:1", "[::1]:1"]), [true, false]);
        let names = ["index.example:1", "a.pods.example:1", "pods.example:1", "evilpods.example:1"];
        assert_eq!(permitted("index.example,*.pods.example", &names), [true, true, false, false]);
        assert_eq!(permitted("private", &["", ":", "::"]), [false; 3]);
    }

    #[test]
    fn a_list_that_says_nothing_is_refused() {
        for text in ["", " , ", "10.0.0.0/33", "10.0.0/8", "300.1.1.1", "a b", "10.0.0.1:80"] {
            assert!(Allowed::parse(text).is_err(), "`{text}`");
        }
        let list = "private,10.1.0.0/16,8.8.8.8,*.example";
        assert_eq!(Allowed::parse(list).expect("a list").to_string(), list);
    }
}
