//! One connection, from its handshake to its end, in HTTP/1.1 or HTTP/2.

use std::future::{self, Future};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::exchange::service;
use super::handshake::handshake;
use super::places::{Occupant, Place, Wish};
use super::stream::Paced;
use super::{Limits, Peer, Server, Transport};
use crate::shutdown::Tasks;

/// Headers a request may have; more are answered 431.
const MAX_HEADERS: usize = 64;
/// Bytes that the head of a request may have; more are answered 431.
const MAX_HEAD: u32 = 32 * 1024;
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

/// How long an HTTP/2 connection may last; hyper knows no limit. Its peer is told to make another one.
const MAX_AGE: Duration = Duration::from_hours(1);

/// A connection that was accepted.
pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) peer: Peer,
    pub(super) place: Place,
}

impl Connection {
    /// Serves until the peer, a limit or the stop ends it. A peer that breaks off is its own affair: what it sent whole
    /// was handled.
    pub(super) async fn serve(self, stream: TcpStream) {
        let stream = Paced::new(stream, self.limits().write_timeout);
        match &self.server.transport {
            Transport::Plain => self.http1(stream).await,
            // Boxed, so that an idle plain connection does not take up the room for what TLS and HTTP/2 need.
            Transport::Tls(acceptor) => Box::pin(self.encrypted(acceptor, stream)).await,
        }
    }

    async fn encrypted(&self, acceptor: &TlsAcceptor, stream: Paced) {
        let reporting = (self.peer.addr, &self.server.failures);
        let encrypted = tokio::select! {
            encrypted = handshake(acceptor, stream, reporting, self.limits().header_timeout) => encrypted,
            _ = self.place.occupant.asked() => None,
        };
        match encrypted {
            Some(stream) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => self.http2(stream).await,
            Some(stream) => self.http1(stream).await,
            None => {}
        }
    }

    fn limits(&self) -> &Limits {
        &self.server.limits
    }

    async fn http1(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let service = service(self.server.served.clone(), self.peer.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits().header_timeout)
            // Who has sent a callback and says no more may still want to hear.
            .half_close(true)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD as usize)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        self.drive(connection, |_| future::pending()).await;
    }

    async fn http2(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let service = service(self.server.served.clone(), self.peer.clone());
        let connection = http2::Builder::new(Streams(self.server.tasks.clone()))
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_stream_window_size(STREAM_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_RESETS)
            .max_local_error_reset_streams(MAX_RESETS)
            .serve_connection(TokioIo::new(stream), service);
        self.drive(connection, |draining| {
            overdue(&self.place.occupant, self.limits(), draining)
        })
        .await;
    }

    /// Drives a connection to its end, heeding what is asked of it and, of `limit`, what it has run into; `limit` is told
    /// whether the connection takes no more requests already.
    async fn drive<F: Future<Output = Wish>>(
        &self,
        connection: impl GracefulConnection,
        limit: impl Fn(bool) -> F,
    ) {
        let mut connection = pin!(connection);
        let occupant = &self.place.occupant;
        let mut draining = false;
        loop {
            let wish = tokio::select! {
                // First the connection: a request that has just arrived counts.
                biased;
                _ = connection.as_mut() => return,
                wish = occupant.asked() => wish,
                wish = limit(draining) => wish,
            };
            match wish {
                Wish::Leave if !occupant.is_waiting() => {}
                Wish::Leave | Wish::Stop => return,
                Wish::Drain => {
                    draining = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}

/// What hyper does not limit of an HTTP/2 connection: idling, age, and answers that nobody takes. (A window
/// that stays closed keeps an answer from ever being written, so no write can time out.)
async fn overdue(occupant: &Occupant, limits: &Limits, draining: bool) -> Wish {
    let (idle, write) = (limits.header_timeout, limits.write_timeout);
    loop {
        tokio::time::sleep(idle.min(write) / 4).await;
        let quiet = occupant.quiet_for(Instant::now());
        let is_stuck = occupant.only_answers() && quiet >= write;
        let is_idle = occupant.is_idle() && quiet >= idle;
        if is_stuck || (is_idle && draining) {
            return Wish::Stop;
        }
        if is_idle || (occupant.age() >= MAX_AGE && !draining) {
            return Wish::Drain;
        }
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
