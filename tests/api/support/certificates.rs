//! Certificates of an authority that only these tests trust.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;

/// An authority with its root.
pub(crate) struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key, both as PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "authority of a test");
        let root = params.self_signed(&key).unwrap().pem();
        Self {
            root,
            issuer: Issuer::new(params, key),
        }
    }

    /// What clients must trust, as PEM.
    pub(crate) fn root(&self) -> &str {
        &self.root
    }

    /// Valid until this year begins.
    pub(crate) fn issue(&self, names: &[&str], until: i32) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        Issued {
            chain: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

impl Issued {
    /// Puts both files in place, each in one step and one after the other.
    pub(crate) fn put(&self, dir: &Path) {
        for (name, text) in [("cert.pem", &self.chain), ("key.pem", &self.key)] {
            let partial = dir.join("partial");
            std::fs::write(&partial, text).unwrap();
            std::fs::rename(partial, dir.join(name)).unwrap();
        }
    }

    /// The server's own certificate.
    pub(crate) fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).unwrap()
    }
}

/// A client that trusts one root (as PEM), offers these protocols, and speaks one version of TLS if that matters.
pub(crate) fn connector(
    root: &str,
    alpn: &[&[u8]],
    version: Option<&'static SupportedProtocolVersion>,
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = version.map_or(rustls::ALL_VERSIONS.to_vec(), |version| vec![version]);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Connects and shakes hands as with a server of this name.
pub(crate) async fn shake_hands(
    connector: &TlsConnector,
    addr: std::net::SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(addr).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::time::timeout(PATIENCE, connector.connect(name, stream))
        .await
        .expect("the handshake ends")
}

/// The certificate that a server showed.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let certificates = stream.get_ref().1.peer_certificates().unwrap();
    certificates[0].clone().into_owned()
}

/// A client that finds `name` at this address and trusts this root.
pub(crate) fn web_client(root: &str, name: &str, addr: std::net::SocketAddr) -> reqwest::ClientBuilder {
    trusting(root).resolve(name, addr)
}

/// A client that trusts this root.
pub(crate) fn trusting(root: &str) -> reqwest::ClientBuilder {
    rustls::crypto::ring::default_provider().install_default().ok();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .tls_certs_only([reqwest::Certificate::from_pem(root.as_bytes()).unwrap()])
}
