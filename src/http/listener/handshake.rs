//! The TLS handshake: within its deadline, and what there is to say of those that fail.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::InvalidMessage;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stream::Paced;
use crate::telemetry::Sparse;

/// Why there was no handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    NotTls,
    TooSlow,
    Distrusted,
    NoCertificate,
    NothingInCommon,
    Other,
}

/// The handshakes that failed, each kind said once a minute: scanners find every open port.
#[derive(Debug, Default)]
pub(super) struct Failures([Mutex<Sparse>; Failure::Other as usize + 1]);

impl Failures {
    fn say(&self, failure: Failure, peer: SocketAddr, error: Option<&io::Error>) {
        let kind = &self.0[failure as usize];
        let said = kind
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .say(Instant::now());
        let Some(unsaid) = said else { return };
        let (peer, why) = (peer.ip(), failure.sentence());
        let error = error.map(tracing::field::display);
        let more = match unsaid {
            0 => String::new(),
            unsaid => format!(" ({unsaid} more of these since this was last said)"),
        };
        tracing::warn!(%peer, error, unsaid, "no TLS with {peer}: {why}{more}");
    }
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        let Some(error) = error
            .get_ref()
            .and_then(|error| error.downcast_ref::<rustls::Error>())
        else {
            return Self::Other;
        };
        match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            rustls::Error::AlertReceived(_) => Self::Distrusted,
            rustls::Error::PeerIncompatible(_) => Self::NothingInCommon,
            // The one general error of a server is that its resolver had no certificate to give.
            rustls::Error::General(_) => Self::NoCertificate,
            _ => Self::Other,
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::NotTls => "it does not speak TLS; a plain http:// URL leads to this port",
            Self::TooSlow => "the handshake was not complete within ingest.header_timeout",
            Self::Distrusted => {
                "it refuses our certificate; it may be self-signed, expired, or for another name"
            }
            Self::NoCertificate => "there is no certificate yet; the lines about obtaining one say why",
            Self::NothingInCommon => "no version or cipher in common; TLS 1.2 and 1.3 are spoken here",
            Self::Other => "the handshake broke off",
        }
    }
}

/// The stream once it is encrypted; `None` if that did not come about, which was then said.
pub(super) async fn handshake(
    acceptor: &TlsAcceptor,
    stream: Paced,
    (peer, failures): (SocketAddr, &Failures),
    deadline: Duration,
) -> Option<TlsStream<Paced>> {
    let shaken = tokio::time::timeout(deadline, acceptor.accept(stream)).await;
    let (failure, error) = match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => (Failure::of(&error), Some(error)),
        Err(_) => (Failure::TooSlow, None),
    };
    failures.say(failure, peer, error.as_ref());
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::ServerName;
    use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConfig, RootCertStore};
    use tokio::io::AsyncWriteExt as _;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A certificate for one name.
    #[derive(Debug)]
    struct Only(&'static str, Arc<CertifiedKey>);

    impl ResolvesServerCert for Only {
        fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            (hello.server_name() == Some(self.0)).then(|| self.1.clone())
        }
    }

    fn acceptor() -> TlsAcceptor {
        let provider = rustls::crypto::ring::default_provider();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let key = CertifiedKey::from_der(vec![made.cert.der().clone()], key, &provider).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Only("localhost", Arc::new(key))));
        TlsAcceptor::from(Arc::new(config))
    }

    /// What a server makes of whatever this client does.
    async fn failure<F: Future<Output = ()>>(client: impl FnOnce(tokio::io::DuplexStream) -> F) -> Failure {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let acceptor = acceptor();
        let (accepted, ()) = tokio::join!(acceptor.accept(ours), client(theirs));
        Failure::of(&accepted.expect_err("no handshake"))
    }

    /// A client that trusts nobody asks for this name.
    async fn ask(stream: tokio::io::DuplexStream, name: &'static str) {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        assert!(connector.connect(name, stream).await.is_err());
    }

    #[tokio::test]
    async fn every_failure_is_told_by_its_cause() {
        let plain = async |mut stream: tokio::io::DuplexStream| {
            stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        };
        assert_eq!(failure(plain).await, Failure::NotTls);
        assert_eq!(
            failure(|stream| ask(stream, "localhost")).await,
            Failure::Distrusted
        );
        assert_eq!(
            failure(|stream| ask(stream, "example.com")).await,
            Failure::NoCertificate
        );
        assert_eq!(failure(async |stream| drop(stream)).await, Failure::Other);
    }
}
