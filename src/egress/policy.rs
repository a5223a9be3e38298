//! What the guard lets through: the judgement of a URL before any name is resolved, and of every address after.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use url::{Host, Url};

use super::address;
use super::error::BlockReason;

/// The operator's rules for fetching URLs that came from outside.
#[derive(Debug, Clone)]
pub struct EgressPolicy {
    /// Ports that may be asked on public addresses.
    pub ports: Vec<u16>,
    /// Addresses that may be asked although they are not public, and on any port.
    pub allow_cidrs: Vec<IpNet>,
    /// The one URL that is fetched without any judgement; where it redirects to is judged.
    pub exempt_url: Option<Url>,
    /// Longest wait for a connection: name, TCP and TLS together.
    pub connect_timeout: Duration,
    /// Longest wait for the head of an answer and for each next piece of its body.
    pub idle_timeout: Duration,
}

/// Which addresses a vetted URL may lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Public ones and those in `allow_cidrs`.
    Public,
    /// Only those in `allow_cidrs`: the port or the name is fit for nothing else.
    Listed,
    /// Any: the exempt URL.
    Exempt,
}

/// A URL that may be asked, provided that its addresses are in scope.
#[derive(Debug, Clone)]
pub(super) struct Hop {
    /// The URL, its host without a trailing dot.
    pub(super) url: Url,
    /// The host as it stands in the URL.
    pub(super) host: String,
    /// Where it may lead.
    pub(super) scope: Scope,
}

impl EgressPolicy {
    /// Judges the first URL of a request, as it was written.
    pub(super) fn vet_first(&self, text: &str, allowed_hosts: &[String]) -> Result<Hop, BlockReason> {
        let url = Url::parse(text).map_err(|_| BlockReason::InvalidUrl)?;
        if self.exempt_url.as_ref() == Some(&url) {
            let host = url.host_str().unwrap_or_default().to_owned();
            return Ok(Hop {
                url,
                host,
                scope: Scope::Exempt,
            });
        }
        self.vet(url, allowed_hosts)
    }

    /// Judges a URL as far as that is possible without resolving its name.
    pub(super) fn vet(&self, mut url: Url, allowed_hosts: &[String]) -> Result<Hop, BlockReason> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(BlockReason::Scheme {
                scheme: url.scheme().to_owned(),
            });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(BlockReason::Userinfo);
        }
        without_trailing_dot(&mut url)?;
        let host = url.host_str().ok_or(BlockReason::InvalidUrl)?.to_owned();
        if !allowed_hosts.is_empty() && !allowed_hosts.iter().any(|pattern| covers(pattern, &host)) {
            return Err(BlockReason::Host { host });
        }
        let scope = self.scope(&url, &host)?;
        Ok(Hop { url, host, scope })
    }

    /// Where the URL may lead by its port and by the kind of its host; a literal address is judged at once.
    fn scope(&self, url: &Url, host: &str) -> Result<Scope, BlockReason> {
        let port = url.port_or_known_default().ok_or(BlockReason::InvalidUrl)?;
        let local = matches!(url.host(), Some(Host::Domain(name)) if is_local(name));
        let scope = if self.ports.contains(&port) && !local {
            Scope::Public
        } else {
            Scope::Listed
        };
        if let Some(address) = literal(url) {
            // First what the address is, then the port: the reason that no other port would cure.
            self.judge(host, address, Scope::Public)?;
            if scope == Scope::Public || self.lists(address) {
                return Ok(scope);
            }
        } else if scope == Scope::Public || !self.allow_cidrs.is_empty() {
            return Ok(scope);
        }
        // Nothing can be in scope: refused before any name is asked for.
        let host = host.to_owned();
        if local {
            return Err(BlockReason::LocalName { host });
        }
        Err(BlockReason::Port { host, port })
    }

    /// Judges one address that `host` leads to.
    pub(super) fn judge(&self, host: &str, address: IpAddr, scope: Scope) -> Result<(), BlockReason> {
        if scope == Scope::Exempt || self.lists(address) {
            return Ok(());
        }
        let host = host.to_owned();
        match address::not_public(address) {
            Some(class) => Err(BlockReason::Address { host, address, class }),
            None if scope == Scope::Public => Ok(()),
            None => Err(BlockReason::NotListed { host, address }),
        }
    }

    fn lists(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        if !self.allow_cidrs.iter().any(|net| net.contains(&address)) {
            return false;
        }
        // Who allows a NAT64 gateway means the internet behind it, not the private network behind it.
        address::behind_nat64(address).is_none_or(|v4| address::not_public(v4).is_none() || self.lists(v4))
    }
}

/// `example.com.` and `example.com` are the same host to a resolver, so they must be to every check.
fn without_trailing_dot(url: &mut Url) -> Result<(), BlockReason> {
    let Some(Host::Domain(name)) = url.host() else {
        return Ok(());
    };
    let bare = name.strip_suffix('.').unwrap_or(name).to_owned();
    if bare.split('.').any(str::is_empty) {
        return Err(BlockReason::InvalidUrl);
    }
    url.set_host(Some(&bare)).map_err(|_| BlockReason::InvalidUrl)
}

pub(super) fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}

/// Whether a name can only mean this machine or its own network.
fn is_local(name: &str) -> bool {
    const ZONES: [&str; 7] = [
        "localhost",
        "localdomain",
        "local",
        "internal",
        "intranet",
        "lan",
        "home.arpa",
    ];
    let within = |zone: &str| {
        name.strip_suffix(zone)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    // A single label is completed by the resolver's search list, or found in the hosts file.
    !name.contains('.') || ZONES.into_iter().any(within)
}

/// Whether a pattern (`host`, `*.suffix` or `.suffix`) covers the host. The suffix forms do not cover the suffix itself.
fn covers(pattern: &str, host: &str) -> bool {
    let pattern = pattern.trim();
    let suffix = pattern.strip_prefix('*').unwrap_or(pattern).strip_prefix('.');
    let name = canonical(suffix.unwrap_or(pattern));
    match suffix {
        Some(_) if name.is_empty() => false,
        Some(_) => host
            .strip_suffix(name.as_str())
            .is_some_and(|rest| rest.ends_with('.')),
        None => host == name,
    }
}

/// A host as `Url` writes it: lower case, in ASCII, IPv6 in brackets; here also without a trailing dot.
fn canonical(host: &str) -> String {
    let bare = host.strip_suffix('.').unwrap_or(host);
    let unbracketed = bare.trim_start_matches('[').trim_end_matches(']');
    match unbracketed.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        _ => Host::parse(bare).map_or_else(|_| bare.to_ascii_lowercase(), |host| host.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> EgressPolicy {
        EgressPolicy {
            ports: vec![80, 443],
            allow_cidrs: Vec::new(),
            exempt_url: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
        }
    }

    fn allowing(cidrs: &[&str]) -> EgressPolicy {
        EgressPolicy {
            allow_cidrs: cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect(),
            ..policy()
        }
    }

    fn refusal(policy: &EgressPolicy, url: &str) -> BlockReason {
        policy.vet_first(url, &[]).expect_err(url)
    }

    #[test]
    fn only_plain_urls_of_the_web_pass() {
        for url in [
            "https://media.example.com/v/1.mp4?x=1",
            "http://media.example.com/",
            "https://8.8.8.8/",
            "http://[2606:4700::1111]:443/",
        ] {
            assert!(policy().vet_first(url, &[]).is_ok(), "{url}");
        }
        for url in [
            "file:///etc/passwd",
            "ftp://a.example/",
            "gopher://a.example/",
            "data:,x",
            "HTTPX://a.example/",
        ] {
            assert!(
                matches!(refusal(&policy(), url), BlockReason::Scheme { .. }),
                "{url}"
            );
        }
        for url in [
            "",
            "media.example.com/1.mp4",
            "http://",
            "http://a..example/",
            "http://a.example../",
            "http://127.0.0.1../",
            "http://1.2.3.4.5/",
            "//a.example/",
        ] {
            assert_eq!(refusal(&policy(), url), BlockReason::InvalidUrl, "{url}");
        }
        for url in [
            "http://user@a.example/",
            "http://user:pw@a.example/",
            "http://:pw@a.example/",
            "http://8.8.8.8@127.0.0.1/",
        ] {
            assert_eq!(refusal(&policy(), url), BlockReason::Userinfo, "{url}");
        }
    }

    #[test]
    fn ports_off_the_list_are_for_allowed_ranges_only() {
        assert!(matches!(
            refusal(&policy(), "http://a.example:22/"),
            BlockReason::Port { port: 22, .. }
        ));
        assert!(matches!(
            refusal(&policy(), "http://8.8.8.8:8080/"),
            BlockReason::Port { port: 8080, .. }
        ));
        let policy = allowing(&["10.0.0.0/8"]);
        assert!(policy.vet_first("http://10.1.2.3:9000/", &[]).is_ok());
        assert!(matches!(
            refusal(&policy, "http://8.8.8.8:9000/"),
            BlockReason::Port { port: 9000, .. }
        ));
        assert_eq!(
            policy.vet_first("http://a.example:9000/", &[]).unwrap().scope,
            Scope::Listed
        );
        assert!(
            policy
                .judge("a.example", "8.8.8.8".parse().unwrap(), Scope::Listed)
                .is_err()
        );
        assert!(
            policy
                .judge("a.example", "10.1.2.3".parse().unwrap(), Scope::Listed)
                .is_ok()
        );
    }

    #[test]
    fn names_of_the_local_network_are_refused_unless_a_range_is_allowed() {
        for host in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "printer.local",
            "metadata.google.internal",
            "db",
            "nas.lan",
            "x.home.arpa",
        ] {
            let url = format!("http://{host}/");
            assert!(
                matches!(refusal(&policy(), &url), BlockReason::LocalName { .. }),
                "{url}"
            );
            let hop = allowing(&["10.0.0.0/8"]).vet_first(&url, &[]).unwrap();
            assert_eq!(hop.scope, Scope::Listed, "{url}");
        }
        assert!(policy().vet_first("http://mylocal.example/", &[]).is_ok());
    }

    #[test]
    fn a_list_of_hosts_holds_for_names_and_addresses() {
        let allowed = [
            "Media.Example.com",
            "*.cdn.example",
            ".b.example.",
            "8.8.8.8",
            "2606:4700::1111",
            "*.münchen.example",
        ]
        .map(str::to_owned);
        for host in [
            "media.example.com",
            "media.example.com.",
            "a.cdn.example",
            "a.b.cdn.example",
            "x.b.example",
            "8.8.8.8",
            "[2606:4700::1111]",
            "a.xn--mnchen-3ya.example",
        ] {
            assert!(
                policy().vet_first(&format!("https://{host}/"), &allowed).is_ok(),
                "{host}"
            );
        }
        for host in [
            "example.com",
            "amedia.example.com",
            "cdn.example",
            "evilcdn.example",
            "media.example.com.evil.example",
            "b.example",
            "8.8.4.4",
        ] {
            let refused = policy().vet_first(&format!("https://{host}/"), &allowed);
            assert!(matches!(refused, Err(BlockReason::Host { .. })), "{host}");
        }
    }

    #[test]
    fn an_allowed_nat64_prefix_does_not_open_the_private_network_behind_it() {
        let policy = allowing(&["64:ff9b::/96"]);
        assert!(policy.vet_first("http://[64:ff9b::8.8.8.8]/", &[]).is_ok());
        assert!(matches!(
            refusal(&policy, "http://[64:ff9b::10.0.0.1]/"),
            BlockReason::Address { .. }
        ));
    }

    #[test]
    fn a_mapped_address_is_judged_as_what_it_maps() {
        let policy = allowing(&["127.0.0.1/32"]);
        assert!(policy.vet_first("http://[::ffff:127.0.0.1]:9000/", &[]).is_ok());
        assert!(matches!(
            refusal(&policy, "http://[::ffff:127.0.0.2]/"),
            BlockReason::Address { .. }
        ));
    }

    #[test]
    fn exactly_one_url_is_exempt() {
        let policy = EgressPolicy {
            exempt_url: Some("http://127.0.0.1:8080/sample.mp4".parse().unwrap()),
            ..policy()
        };
        let hosts = ["other.example".to_owned()];
        assert_eq!(
            policy
                .vet_first("http://127.0.0.1:8080/sample.mp4", &hosts)
                .unwrap()
                .scope,
            Scope::Exempt
        );
        for url in [
            "http://127.0.0.1:8080/sample.mp4?x",
            "http://127.0.0.1:8080/sample.mp4/",
            "http://127.0.0.1:8080/",
            "http://127.0.0.1:8081/sample.mp4",
            "https://127.0.0.1:8080/sample.mp4",
            "http://localhost:8080/sample.mp4",
            "http://u@127.0.0.1:8080/sample.mp4",
        ] {
            assert!(policy.vet_first(url, &[]).is_err(), "{url}");
        }
        let again = "http://127.0.0.1:8080/sample.mp4".parse().unwrap();
        assert!(policy.vet(again, &[]).is_err(), "a redirect to it is judged");
    }
}
