//! TLS of our own: the certificate that is served, where it comes from, and what replaces it while we serve.
//!
//! One certificate is in force at a time ([`Served`]). It comes either from the operator's files, which are watched
//! ([`Files`]), or from a certificate authority that is asked for it ([`Acme`]). A certificate that cannot be served
//! never takes the place of one that can.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Live;

mod acme;
mod certificate;
mod contents;
mod files;

pub use acme::{Acme, AcmeError, Challenges, Settings as AcmeSettings, cache_dir, cached, check_roots};
pub use certificate::{Certificate, Flaw, Pair, Unusable, names_in};
pub use files::Files;

/// The certificate in force, if there is one yet; rustls asks for it at every handshake. Clones share it.
#[derive(Debug, Clone)]
pub struct Served(Live<Option<Arc<Certificate>>>);

impl Served {
    /// Nothing yet: until there is a certificate, every handshake is refused.
    ///
    /// Nothing self-made is served meanwhile: a sender that checks certificates would refuse it just the same, and one
    /// that does not would hand its callback to whoever stands in between.
    pub fn nothing() -> Self {
        Self(Live::new(None))
    }

    /// A certificate from the start.
    pub fn from_start(certificate: Certificate) -> Self {
        Self(Live::new(Some(Arc::new(certificate))))
    }

    /// What is in force.
    pub fn now(&self) -> Option<Arc<Certificate>> {
        self.0.now().as_ref().clone()
    }

    /// Puts another certificate in force, for handshakes from now on. Connections that stand are not disturbed.
    pub(crate) fn replace(&self, certificate: Certificate) {
        self.0.replace(Some(Arc::new(certificate)));
    }

    /// TLS 1.2 and 1.3 with this certificate, offering HTTP/2 and HTTP/1.1.
    pub fn server_config(&self) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring speaks TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(self.clone()));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

impl ResolvesServerCert for Served {
    /// The same for every name asked for: a client that wants another one finds out by itself.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now()?.key())
    }
}
