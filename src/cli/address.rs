//! Where this machine reaches the server that a configuration describes.

use std::net::SocketAddr;

use url::{Host, Url};

use crate::config::Config;
use crate::config::as_destination;
use crate::tls;

/// A server, by its URL and by where to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// What it is called: by the name in its certificate, if it has one.
    pub(super) url: Url,
    /// Where it listens, if the URL has a name: on this machine, whatever the rest of the world is told about that name.
    pub(super) at: Option<SocketAddr>,
}

impl Address {
    /// A server that the operator named.
    pub(super) fn named(url: Url) -> Self {
        Self { url, at: None }
    }

    /// Where callbacks are taken.
    pub(super) fn of_callbacks(config: &Config) -> Self {
        Self::of(config, config.listen, config.tls.is_on())
    }

    /// Where the API is served.
    pub(super) fn of_api(config: &Config) -> Self {
        Self::of(config, config.api_listen(), config.api_speaks_tls())
    }

    fn of(config: &Config, listen: SocketAddr, tls: bool) -> Self {
        let at = as_destination(listen);
        if !tls {
            return Self::named(url("http", at));
        }
        let by_address = url("https", at);
        match certified_name(config, at) {
            Some(name) => {
                let mut url = by_address;
                url.set_host(Some(&name)).expect("a domain can be a host");
                Self { url, at: Some(at) }
            }
            None => Self::named(by_address),
        }
    }
}

fn url(scheme: &str, address: SocketAddr) -> Url {
    Url::parse(&format!("{scheme}://{address}")).expect("an address and a port make a URL")
}

/// The name to call the server by, so that its certificate fits; none if its address fits, or nothing is known to.
fn certified_name(config: &Config, at: SocketAddr) -> Option<String> {
    let names = match &config.tls.cert_file {
        Some(path) => tls::names_in(path).unwrap_or_default(),
        None => config.tls.acme.domains.clone(),
    };
    if names.contains(&at.ip().to_string()) {
        return None;
    }
    let public = config.public_url.as_ref().and_then(|url| match url.host() {
        Some(Host::Domain(name)) => Some(name.to_owned()),
        _ => None,
    });
    let of_public = public.filter(|public| names.iter().any(|name| covers(name, public)));
    let is_domain = |name: &&String| matches!(Host::parse(name), Ok(Host::Domain(_))) && !name.contains('*');
    of_public.or_else(|| names.iter().find(is_domain).cloned())
}

/// Whether a name in a certificate, which may be a wildcard for one label, is good for a host.
fn covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest == parent),
        None => name == host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(toml: &str) -> Config {
        toml::from_str(toml).unwrap()
    }

    fn both(config: &Config) -> [String; 2] {
        [Address::of_callbacks(config), Address::of_api(config)].map(|address| match address.at {
            Some(at) => format!("{} at {at}", address.url),
            None => address.url.to_string(),
        })
    }

    #[test]
    fn plain_http_is_reached_by_its_address() {
        let everywhere = config("listen = \"0.0.0.0:80\"\nadmin_listen = \"[::]:8081\"");
        assert_eq!(both(&everywhere), ["http://127.0.0.1/", "http://[::1]:8081/"]);
        assert_eq!(both(&config("")), ["http://127.0.0.1:8080/"; 2]);
    }

    #[test]
    fn tls_is_reached_on_this_machine_by_the_name_in_the_certificate() {
        let acme = "[tls.acme]\ndomains = [\"hooks.example.com\", \"b.example.com\"]";
        assert_eq!(
            both(&config(&format!("listen = \"0.0.0.0:443\"\n{acme}"))),
            ["https://hooks.example.com/ at 127.0.0.1:443"; 2]
        );
        assert_eq!(
            both(&config(&format!(
                "public_url = \"https://b.example.com\"\nlisten = \"192.0.2.1:8443\"\nadmin_listen = \"127.0.0.1:8081\"\n{acme}"
            ))),
            [
                "https://b.example.com:8443/ at 192.0.2.1:8443",
                "http://127.0.0.1:8081/"
            ]
        );
    }

    #[test]
    fn a_certificate_in_a_file_says_its_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        let of = |names: &[&str], public: &str| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            std::fs::write(&path, made.cert.pem()).unwrap();
            let toml = format!("public_url = \"{public}\"\n[tls]\ncert_file = {path:?}\nkey_file = \"k\"");
            both(&config(&toml))[0].clone()
        };
        let at = "at 127.0.0.1:8080";
        assert_eq!(of(&["a.example"], ""), format!("https://a.example:8080/ {at}"));
        assert_eq!(
            of(&["*.example.com"], "https://hooks.example.com"),
            format!("https://hooks.example.com:8080/ {at}")
        );
        assert_eq!(of(&["*.example.com"], ""), "https://127.0.0.1:8080/");
        assert_eq!(of(&["a.example", "127.0.0.1"], ""), "https://127.0.0.1:8080/");
        std::fs::remove_file(&path).unwrap();
        let gone = config(&format!("[tls]\ncert_file = {path:?}\nkey_file = \"k\""));
        assert_eq!(both(&gone)[0], "https://127.0.0.1:8080/");
    }
}
