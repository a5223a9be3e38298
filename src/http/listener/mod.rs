//! The accept loop: `axum::serve` installs no timer, which leaves hyper's header time-out without effect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Served;
use crate::shutdown::Tasks;

mod connection;
mod exchange;
mod handshake;
mod places;
mod stream;

pub(super) use places::{Holder, Occupant, Places};

use connection::Connection;
use handshake::Failures;
use places::Wish;

/// Connections that may wait to be accepted, as far as the system's own bound (`net.core.somaxconn`) allows.
const BACKLOG: u32 = 4096;
/// How long the loop rests when the system cannot give it another connection (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener speaks.
#[derive(Clone)]
pub enum Transport {
    /// HTTP/1.1 without encryption.
    Plain,
    /// TLS; HTTP/2 with peers that agree on `h2` by ALPN, HTTP/1.1 with all others.
    Tls(TlsAcceptor),
}

/// What peers may take of us.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long the head of a request or a TLS handshake may take, and how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// How long a peer may take nothing of an answer.
    pub write_timeout: Duration,
    /// Connections open at one time; more push out those that wait on their peers, or wait in the backlog.
    pub max_connections: usize,
    /// Those of one address; more push out its own.
    pub max_connections_per_address: usize,
    /// Whose connections are not counted, beside those of this machine: they carry the requests of others.
    pub trusted_proxies: Vec<IpNet>,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// Whether it speaks TLS with us.
    pub(super) tls: bool,
    pub(super) connection: Arc<Occupant>,
}

/// What all connections of a listener share.
struct Server {
    transport: Transport,
    served: Served,
    limits: Limits,
    places: Places,
    failures: Failures,
    tasks: Tasks,
}

/// Listens, with a backlog that outlasts a burst. Must be called within a runtime.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart may bind while connections of its predecessor linger.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Accepts and serves connections until the soft stop, then lets what is in flight finish until the hard stop.
pub async fn serve(
    listener: TcpListener,
    transport: Transport,
    served: Served,
    limits: Limits,
    tasks: Tasks,
) {
    let shared = Arc::new(Server {
        places: Places::new(limits.max_connections, limits.max_connections_per_address),
        transport,
        served,
        limits,
        failures: Failures::default(),
        tasks,
    });
    let tasks = &shared.tasks;
    loop {
        let accepted = tokio::select! {
            accepted = shared.accept(&listener) => accepted,
            () = tasks.draining() => break,
        };
        match accepted {
            Ok((stream, connection)) => {
                tasks.spawn(connection.serve(stream));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; if this goes on, raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    shared.places.ask_all(Wish::Drain);
    tokio::select! {
        () = shared.places.emptied() => {}
        () = tasks.stopping() => shared.places.ask_all(Wish::Stop),
    }
}

impl Server {
    async fn accept(self: &Arc<Self>, listener: &TcpListener) -> io::Result<(TcpStream, Connection)> {
        let (stream, addr) = listener.accept().await?;
        // Answers are small and whole: nothing is gained by holding them back.
        let _ = stream.set_nodelay(true);
        let ip = addr.ip().to_canonical();
        let is_proxy = self.limits.trusted_proxies.iter().any(|net| net.contains(&ip));
        let place = self
            .places
            .enter(Holder::new(ip, !is_proxy && !ip.is_loopback()))
            .await;
        let connection = Connection {
            server: self.clone(),
            peer: Peer {
                addr,
                tls: matches!(self.transport, Transport::Tls(_)),
                connection: place.occupant.clone(),
            },
            place,
        };
        Ok((stream, connection))
    }
}

#[cfg(test)]
mod tests;
