//! The accept loop: `axum::serve` installs no timer, which leaves hyper's header time-out without effect.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::shutdown::Tasks;

/// Headers a request may have; more are answered 431.
const MAX_HEADERS: usize = 64;
/// How long the loop rests when the system cannot give it another connection (no descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a peer may take of us.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long the head of a request may take, and how long a connection may idle between requests.
    pub header_timeout: Duration,
    /// Connections open at one time; further ones wait in the backlog.
    pub max_connections: usize,
}

/// Who is at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Accepts and serves connections until the soft stop, then lets what is in flight finish until the hard stop.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, tasks: Tasks) {
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            () = tasks.draining() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                let connection = connection(stream, router.clone().layer(Extension(Peer(peer))), limits);
                let connection = graceful.watch(connection);
                let hard_stop = tasks.clone();
                tasks.spawn(async move {
                    tokio::select! {
                        // A peer that breaks off is its own affair: what it sent whole was handled.
                        _ = connection => {}
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
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
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

fn connection(
    stream: TcpStream,
    router: Router,
    limits: Limits,
) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}
