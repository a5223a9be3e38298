//! Whose request it is, when trusted proxies stand between.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The address of the client: the peer's, or, as long as the last known hop is a trusted proxy, the one that it
/// names as its own peer. What untrusted hops wrote further left is never looked at.
pub(super) fn client_addr(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let mut client = peer.to_canonical();
    let mut hops = forwarded_for(headers);
    while is_trusted(client) {
        match hops.pop() {
            Some(Some(hop)) => client = hop,
            _ => break,
        }
    }
    client
}

/// The hops as written, left to right; `None` for one that is no address.
fn forwarded_for(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lists = |name| {
        headers
            .get_all(name)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
    };
    let by_list: Vec<_> = lists("x-forwarded-for")
        .map(|hop| parse_hop(hop.trim()))
        .collect();
    if !by_list.is_empty() {
        return by_list;
    }
    lists("forwarded")
        .map(|element| {
            element.split(';').find_map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                name.eq_ignore_ascii_case("for")
                    .then(|| parse_hop(value.trim_matches('"')))?
            })
        })
        .collect()
}

/// `192.0.2.1`, `192.0.2.1:1234`, `2001:db8::1` or `[2001:db8::1]:1234`.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, header: (&'static str, &str)) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(header.0, header.1.parse().unwrap());
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        client_addr(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed_and_only_for_their_own_peer() {
        let list = "1.1.1.1, 203.0.113.9, 10.0.0.2";
        assert_eq!(client("10.0.0.1", ("x-forwarded-for", list)), "203.0.113.9");
        assert_eq!(client("192.0.2.1", ("x-forwarded-for", list)), "192.0.2.1");
        assert_eq!(client("10.0.0.1", ("x-forwarded-for", "nonsense")), "10.0.0.1");
        assert_eq!(client("10.0.0.1", ("x-forwarded-for", "10.0.0.3")), "10.0.0.3");
        assert_eq!(
            client(
                "10.0.0.1",
                ("forwarded", "for=1.1.1.1, for=\"[2001:db8::1]:4711\";proto=https")
            ),
            "2001:db8::1"
        );
        assert_eq!(
            client("::ffff:10.0.0.1", ("x-forwarded-for", "203.0.113.9:80")),
            "203.0.113.9"
        );
    }
}
