//! One request and its answer, and how far they are, for whoever judges the connection.

use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, Version, header};
use futures_util::FutureExt as _;
use futures_util::future::Either;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::{HttpService, Service as _, service_fn};
use hyper_util::service::TowerToHyperService;

use super::Peer;
use super::places::Occupant;
use crate::http::{Served, callbacks, problem};

/// What is served, told who asks.
pub(super) fn service(
    served: Served,
    peer: Peer,
) -> impl HttpService<Incoming, ResBody = Answer, Error = Infallible, Future: Send> {
    let router = TowerToHyperService::new(served.router);
    let callbacks = served.callbacks;
    service_fn(move |mut request: Request<Incoming>| {
        let open = Open::new(&peer.connection);
        name_host(&mut request);
        let mut request = request.map(|body| Arriving::new(body, peer.connection.clone()));
        match &callbacks {
            Some(app) if callbacks::is_callback(request.uri().path()) => {
                let (app, peer) = (app.clone(), peer.clone());
                // In a box, as every wrapper doubles its size, and a connection keeps room for the whole even while it is
                // idle.
                let receiving = Box::pin(async move { callbacks::receive(&app, &peer, request).await });
                Either::Left(answer(caught(receiving), open))
            }
            _ => {
                request.extensions_mut().insert(peer.clone());
                Either::Right(answer(router.call(request), open))
            }
        }
    })
}

/// As the router does: who panics answers 500, and the connection lives on.
async fn caught(receiving: impl Future<Output = Response<Body>>) -> Result<Response<Body>, Infallible> {
    let response = AssertUnwindSafe(receiving).catch_unwind().await;
    Ok(response.unwrap_or_else(problem::of_panic))
}

async fn answer(
    answered: impl Future<Output = Result<Response<Body>, Infallible>>,
    mut open: Open,
) -> Result<Response<Answer>, Infallible> {
    let response = answered.await?;
    open.begin_answer();
    Ok(response.map(|body| Answer { body, open }))
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

/// A request until its answer is handed over, or nobody waits for it any more.
struct Open {
    connection: Arc<Occupant>,
    answered: bool,
}

impl Open {
    fn new(connection: &Arc<Occupant>) -> Self {
        connection.begin_request();
        Self {
            connection: connection.clone(),
            answered: false,
        }
    }

    fn begin_answer(&mut self) {
        self.answered = true;
        self.connection.begin_answer();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.end_request(self.answered);
    }
}

/// The body of a request, until it is there whole or nobody reads it any more.
struct Arriving {
    body: Incoming,
    connection: Option<Arc<Occupant>>,
}

impl Arriving {
    fn new(body: Incoming, connection: Arc<Occupant>) -> Self {
        let mut arriving = Self {
            body,
            connection: Some(connection),
        };
        if arriving.body.is_end_stream() {
            arriving.end();
        }
        arriving
    }

    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end_arrival();
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.end();
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None)) || self.body.is_end_stream() {
            self.end();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, until it is handed over.
pub(super) struct Answer {
    body: Body,
    open: Open,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if frame.is_ready() {
            self.open.connection.move_on();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
