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
    UnknownName,
    NothingInCommon,
    Other,
}

/// The handshakes that failed, each kind said once a minute: scanners find every open port.
#[derive(Debug, Default)]
pub(super) struct Failures([Mutex<Sparse>; Failure::Other as usize + 1]);

impl Failures {
    fn say(&self, failure: Failure, peer: SocketAddr, error: Option<&io::Error>) {
        let mut kind = self.0[failure as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(unsaid) = kind.say(Instant::now()) else {
            return;
        };
        drop(kind);
        let peer = peer.ip();
        let error = error.map(tracing::field::display);
        tracing::warn!(%peer, error, unsaid, "no TLS with {peer}: {}; {unsaid} more since the last such line", failure.sentence());
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
            // The one general error of a server is that its resolver had no certificate for the name.
            rustls::Error::General(_) => Self::UnknownName,
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
            Self::UnknownName => "it asks for a name that there is no certificate for",
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
    match tokio::time::timeout(deadline, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => failures.say(Failure::of(&error), peer, Some(&error)),
        Err(_) => failures.say(Failure::TooSlow, peer, None),
    }
    None
}
