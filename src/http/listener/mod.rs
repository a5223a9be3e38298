//! The accept loop: `axum::serve` installs no timer, which leaves hyper's header time-out without effect.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::shutdown::Tasks;

mod connection;
mod handshake;

use connection::Connection;
use handshake::Failures;

/// Connections that may wait to be accepted, as far as the system's own bound (`net.core.somaxconn`) allows.
const BACKLOG: u32 = 1024;
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

/// What a peer may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the head of a request or a TLS handshake may take, and how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// Connections open at one time; further ones wait in the backlog.
    pub max_connections: usize,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

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
    router: Router,
    limits: Limits,
    tasks: Tasks,
) {
    let graceful = GracefulShutdown::new();
    let failures = Arc::new(Failures::default());
    let room = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = tasks.draining() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = Connection {
                    peer: Peer(peer),
                    router: router.clone(),
                    limits,
                    tasks: tasks.clone(),
                    watcher: graceful.watcher(),
                    failures: failures.clone(),
                };
                let served = connection.serve(stream, transport.clone());
                let hard_stop = tasks.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        () = served => {}
                        () = hard_stop.stopping() => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted; if this goes on, raise the limit of open files");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tasks.stopping() => {}
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = room
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    let (stream, peer) = listener.accept().await?;
    // Answers are small and whole: nothing is gained by holding them back.
    let _ = stream.set_nodelay(true);
    Ok((stream, peer, permit))
}

#[cfg(test)]
mod tests;
