//! Which `Host` and `Origin` a request may carry: the guard against DNS rebinding.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;

/// Decides on `Host` and `Origin`.
#[derive(Debug, Clone)]
pub(super) struct Hosts {
    /// Whether the listener is bound to loopback only.
    loopback: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Hosts {
    pub(super) fn new(bound: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower = |list: &[String]| list.iter().map(|item| item.to_ascii_lowercase()).collect();
        Self { loopback: bound.ip().is_loopback(), hosts: lower(hosts), origins: lower(origins) }
    }

    /// Whether a request with these `Host` values may come in. Exactly one is needed. A name must
    /// be configured, unless it is loopback's; an address literal cannot be rebound, so beyond
    /// loopback any is taken.
    pub(super) fn allows_host(&self, hosts: &[&str]) -> bool {
        let [host] = hosts else { return false };
        let Some(authority) = authority(host) else { return false };
        let name = bare(authority.host());
        let host = host.to_ascii_lowercase();
        is_loopback(&name)
            || self.hosts.iter().any(|allowed| *allowed == host || *allowed == name)
            || (!self.loopback && name.parse::<IpAddr>().is_ok())
    }

    /// Whether an `Origin` is one of those that the operator named.
    pub(super) fn is_configured(&self, origin: &str) -> bool {
        self.origins.iter().any(|configured| configured.eq_ignore_ascii_case(origin))
    }

    /// Whether a request with these `Origin` values may come in. None is fine: only browsers send
    /// it. On loopback pages from loopback are allowed, as local inspectors are.
    pub(super) fn allows_origin(&self, origins: &[&str]) -> bool {
        let origin = match origins {
            [] => return true,
            [origin] => origin.to_ascii_lowercase(),
            _ => return false,
        };
        if self.is_configured(&origin) {
            return true;
        }
        let Some((scheme, rest)) = origin.split_once("://") else { return false };
        let Some(authority) = authority(rest) else { return false };
        self.loopback && matches!(scheme, "http" | "https") && is_loopback(&bare(authority.host()))
    }
}

/// Reads `host[:port]`; anything more, such as user information, is refused.
fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let plain = !text.contains('@') && !authority.host().is_empty();
    let port_fits = authority.port().is_some() == has_port(text);
    (plain && port_fits).then_some(authority)
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'))
}

fn bare(host: &str) -> String {
    host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase()
}

fn is_loopback(name: &str) -> bool {
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str) -> Hosts {
        let bound = bound.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        Hosts::new(
            bound,
            &["mesh.example".into(), "box.example:7332".into()],
            &["https://app.example:443".into()],
        )
    }

    #[test]
    fn only_loopback_and_configured_hosts_come_in() {
        let local = hosts("127.0.0.1:7332");
        for good in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1:7332",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
            "mesh.example",
            "mesh.example:99",
            "box.example:7332",
        ] {
            assert!(local.allows_host(&[good]), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "evil.example:7332",
            "127.0.0.1.evil.example",
            "box.example",
            "box.example:1",
            "192.168.1.5",
            "10.0.0.1:7332",
            "user@localhost",
            "",
            "localhost:",
            "localhost:x",
            "[::1",
            "0.0.0.0",
            "lo calhost",
            "localhost/",
            "[::ffff:8.8.8.8]",
        ] {
            assert!(!local.allows_host(&[bad]), "{bad}");
        }
        assert!(!local.allows_host(&[]));
        assert!(!local.allows_host(&["localhost", "localhost"]));
    }

    #[test]
    fn beyond_loopback_address_literals_come_in_and_names_do_not() {
        let open = hosts("0.0.0.0:7332");
        assert!(open.allows_host(&["192.168.1.5:7332"]));
        assert!(open.allows_host(&["[fe80::1]:7332"]));
        assert!(!open.allows_host(&["evil.example"]));
    }

    #[test]
    fn only_configured_origins_and_loopback_pages_come_in() {
        let local = hosts("127.0.0.1:7332");
        assert!(local.allows_origin(&[]));
        for good in [
            "http://localhost:3000",
            "https://127.0.0.1",
            "http://[::1]:1",
            "https://app.example:443",
            "HTTP://LOCALHOST",
        ] {
            assert!(local.allows_origin(&[good]), "{good}");
        }
        for bad in [
            "null",
            "http://evil.example",
            "http://localhost.evil.example",
            "https://app.example",
            "http://app.example:443",
            "file://",
            "http://user@localhost",
            "localhost",
            "",
            "http://localhost:1 http://x",
            "chrome-extension://abc",
        ] {
            assert!(!local.allows_origin(&[bad]), "{bad}");
        }
        assert!(!local.allows_origin(&["http://localhost", "http://localhost"]));
        assert!(!hosts("0.0.0.0:7332").allows_origin(&["http://localhost:3000"]));
    }
}
