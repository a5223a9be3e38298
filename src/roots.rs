//! Whom outgoing connections trust: the certificates of the system's store; where there is none (a bare container),
//! Mozilla's list as it was when this program was built.

use reqwest::{Certificate, Client, ClientBuilder};

/// Builds a client of `settings`, which is asked once more if the system has no certificates at all.
///
/// Where it has some, they decide alone, so that an operator can add an own authority or withdraw one.
pub fn client(settings: impl Fn() -> ClientBuilder) -> reqwest::Result<Client> {
    // An error means that a provider is installed already, which is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    settings()
        .build()
        .or_else(|_| settings().tls_certs_only(bundled()?).build())
}

/// Mozilla's list as it was when this program was built.
pub(crate) fn bundled() -> reqwest::Result<Vec<Certificate>> {
    let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS;
    roots.iter().map(|root| Certificate::from_der(root)).collect()
}
