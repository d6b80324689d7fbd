//! Which HTTP goes through a proxy: what stays on this machine never does, for a proxy would see its
//! tokens; the rest as `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.

use std::net::IpAddr;

use reqwest::{ClientBuilder, Url};

/// Tells whether the address `url` leads to this machine whatever its network is: a loopback address,
/// the unspecified one, `localhost` or a name below it.
pub fn is_here(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_end_matches('.');
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    })
}

/// Lets what `client` sends go past any proxy where it stays `here`.
pub fn unless(here: bool, client: ClientBuilder) -> ClientBuilder {
    if here { client.no_proxy() } else { client }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_on_this_machine_is_told_from_what_is_not() {
        for url in [
            "http://127.0.0.1:7332/mcp",
            "http://127.8.9.10",
            "https://[::1]:1/mcp",
            "http://[::ffff:127.0.0.1]/",
            "http://0.0.0.0:7332",
            "http://LocalHost:7332",
            "http://localhost.",
            "http://tools.localhost/mcp",
        ] {
            assert!(is_here(url), "{url}");
        }
        for url in
            ["http://192.0.2.7", "https://localhost.example/mcp", "http://127.0.0.1.example", "x"]
        {
            assert!(!is_here(url), "{url}");
        }
    }
}
