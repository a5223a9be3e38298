//! One connection, from its handshake to its end, in HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Version, header};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::handshake::{Failures, handshake};
use super::{Limits, Peer, Transport};
use crate::shutdown::Tasks;

/// Headers a request may have; more are answered 431.
const MAX_HEADERS: usize = 64;
/// Bytes that the head of a request may have; more are answered 431.
const MAX_HEAD: usize = 32 * 1024;
/// Bytes that an HTTP/1.1 connection buffers in each direction.
const MAX_BUFFER: usize = 64 * 1024;
/// Requests under way at one time in one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Bytes of bodies that an HTTP/2 connection may send ahead of us, and one of its streams alone.
const CONNECTION_WINDOW: u32 = 512 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes of answers that are held for one HTTP/2 stream.
const MAX_SEND_BUFFER: usize = 128 * 1024;
/// Streams that a peer may reset before we saw them, or force us to reset, before the connection is ended.
const MAX_RESETS: usize = 20;
/// A silent HTTP/2 peer is asked whether it is still there, and how long it may take to say so.
const PING_AFTER: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What serves a connection.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) tasks: Tasks,
    pub(super) watcher: Watcher,
    pub(super) failures: Arc<Failures>,
}

impl Connection {
    /// Serves until the peer or a limit ends it. A peer that breaks off is its own affair: what it sent whole was
    /// handled.
    pub(super) async fn serve(self, stream: TcpStream, transport: Transport) {
        match transport {
            Transport::Plain => self.http1(stream).await,
            Transport::Tls(acceptor) => {
                let reporting = (self.peer.0, &*self.failures);
                let encrypted = handshake(&acceptor, stream, reporting, self.limits.header_timeout).await;
                let Some(stream) = encrypted else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    self.http2(stream).await;
                } else {
                    self.http1(stream).await;
                }
            }
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service(self.router, self.peer));
        let _ = self.watcher.watch(connection).await;
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let connection = http2::Builder::new(Streams(self.tasks))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .serve_connection(TokioIo::new(stream), service(self.router, self.peer));
        let _ = self.watcher.watch(connection).await;
    }
}

/// The routes, told who asks.
fn service(
    router: Router,
    peer: Peer,
) -> impl HttpService<Incoming, ResBody = Body, Error = Infallible, Future: Send> {
    let router = TowerToHyperService::new(router);
    service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        name_host(&mut request);
        router.call(request)
    })
}

/// HTTP/2 names the host in its target; everything behind looks for it where HTTP/1.1 has it.
fn name_host(request: &mut Request<Incoming>) {
    if request.version() != Version::HTTP_2 {
        return;
    }
    let authority = request.uri().authority();
    if let Some(host) = authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
}

/// Spawns the streams of HTTP/2 connections where the stop waits for them.
#[derive(Clone)]
struct Streams(Tasks);

impl<F> Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        self.0.spawn(stream);
    }
}
