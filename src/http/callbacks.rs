//! `POST /callbacks/{source}`: read a callback within its bounds, hand it to ingest, answer.

use std::future;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode_str;
use utoipa::ToSchema;

use super::App;
use super::access::require_local;
use super::client_addr::client_addr;
use super::listener::{Holder, Peer};
use super::problem::Problem;
use super::span;
use crate::config::Source;
use crate::failpoint::{self, Step};
use crate::ingest::{Arrival, Observed, Receipt, Refusal, Room};
use crate::provider::TaskId;

/// What a provider wants to hear.
const SUCCESS: &[u8] = br#"{"code":200,"msg":"success"}"#;

/// It as the document shows it.
#[derive(ToSchema)]
#[expect(dead_code, reason = "what is answered is made once")]
struct Success {
    code: u16,
    msg: String,
}

/// How long the refusal of a callback is held back that is past the rate at which refusals are noted: whoever floods us waits
/// for each answer, and good callbacks keep the processor.
const FLOOD_PAUSE: Duration = Duration::from_millis(100);
/// How many are held back at one time: a connection that waits for us cannot be asked to make room for another.
pub(super) const FLOOD_PAUSES: usize = 64;

/// Whether a path is that of a callback.
pub(super) fn is_callback(path: &str) -> bool {
    source_in(path).is_some()
}

/// The name in the path of a callback, percent-encoded, of a source known or not.
fn source_in(path: &str) -> Option<&str> {
    path.strip_prefix("/callbacks/")
        .filter(|source| !source.is_empty() && !source.contains('/'))
}

/// Takes a callback.
///
/// Accepted, duplicate and conflict all answer 200: a retry would help nobody. What is answered 200 is on disk. Any
/// `Content-Type` is taken; a byte order mark and gzip are tolerated. The task id stands in `data.taskId`, `data.task_id`,
/// `taskId` or `task_id`.
// Its path is one that `is_callback`.
#[utoipa::path(
    post,
    path = "/callbacks/{source}",
    tag = "callbacks",
    operation_id = "receive_callback",
    params(
        ("source" = String, Path, description = "The configured source.", example = "kie"),
        (
            "kind" = Option<String>, Query, pattern = "^[a-z0-9]{1,16}$",
            description = "Which result it is about. Without it `4k` if the body has that shape, else `video`.",
        ),
        ("index" = Option<u32>, Query, description = "Which of several of the kind."),
        ("ref" = Option<String>, Query, description = "The submission that the URL was made for."),
        ("X-Webhook-Timestamp" = Option<String>, Header, description = "In Unix seconds; needed where the source has keys."),
        (
            "X-Webhook-Signature" = Option<String>, Header,
            description = "Base64 of HMAC-SHA256 over task id, a dot and the timestamp; needed where the source has keys.",
        ),
    ),
    request_body(
        content = Object,
        example = json!({
            "code": 200,
            "msg": "Veo3.1 video generated successfully.",
            "data": {"taskId": "veo_task_1", "info": {"resultUrls": ["https://media.example.com/a.mp4"]}},
        }),
    ),
    responses(
        (
            status = 200, description = "It is recorded.", content_type = "application/json", body = inline(Success),
            example = json!({"code": 200, "msg": "success"}),
        ),
        (status = 400, description = "bad_query, not_json, no_task_id, task_ids_differ, duplicate_key, bad_task_id, bad_request"),
        (status = 401, description = "missing_token, bad_token, missing_signature, stale, bad_signature"),
        (status = 403, description = "loopback_only"),
        (status = 404, description = "unknown_source"),
        (status = 405, description = "method_not_allowed"),
        (status = 408, description = "too_slow"),
        (status = 413, description = "too_large"),
        (status = 500, description = "internal"),
        (status = 503, description = "busy, draining, store_unavailable"),
    ),
    security((), ("callback_token" = [])),
)]
pub(super) async fn receive<B>(app: &App, peer: &Peer, request: Request<B>) -> Response
where
    B: HttpBody<Data = Bytes>,
{
    let started = Instant::now();
    let (
        Parts {
            method, uri, headers, ..
        },
        body,
    ) = request.into_parts();
    let source = source_in(uri.path()).unwrap_or_default();
    // What is not UTF-8 is the name of no source.
    let source = percent_decode_str(source).decode_utf8_lossy();
    let peer_ip = peer.addr.ip().to_canonical();
    let remote = client_addr(peer_ip, &headers, &app.settings.trusted_proxies);
    let sources = app.ingest.sources();
    if let Err(problem) = admit(sources.get(&*source), &method, (peer_ip, &headers)) {
        return unread(app, &source, (remote, started), problem).await;
    }
    let via_proxy = (remote != peer_ip).then_some(remote);
    let read = match read_body(app, body, via_proxy).await {
        Ok(read) => read,
        Err(problem) => return unread(app, &source, (remote, started), problem.closing()).await,
    };
    let mut observed = app.tracer.is_on().then(Observed::default);
    let arrival = Arrival {
        sources: &sources,
        source: &source,
        query: uri.query().unwrap_or_default(),
        headers: &headers,
        remote_addr: remote,
        body: read.body,
        room: read.room,
        observed: observed.as_mut(),
    };
    let receipt = app.ingest.receive(arrival).await;
    log(&source, &receipt, started, remote);
    if let Some(observed) = &observed {
        span::tell(&app.tracer, &source, (&receipt, observed), started);
    }
    match receipt.result {
        Ok(recorded) => {
            failpoint::step(Step::CallbackRecorded);
            if sources
                .get(&*source)
                .is_some_and(|source| !source.is_unverified())
            {
                peer.connection.prove();
            }
            app.meters()
                .recorded(&source, recorded.verdict, started.elapsed());
            success()
        }
        Err(refusal) => {
            app.meters().refused(&source, refusal.reason());
            if !receipt.noted {
                hold_back(app).await;
            }
            Problem::from(refusal).into_response()
        }
    }
}

fn success() -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(SUCCESS)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Logs and answers what was refused without its body.
async fn unread(app: &App, source: &str, (remote, started): (IpAddr, Instant), problem: Problem) -> Response {
    app.meters().refused(source, problem.code());
    let duration_ms = elapsed_ms(started);
    if app.ingest.notes_refusal(remote) {
        tracing::warn!(source, reason = problem.code(), duration_ms, %remote, "callback refused");
    } else {
        hold_back(app).await;
    }
    problem.into_response()
}

async fn hold_back(app: &App) {
    if let Ok(_place) = app.0.pauses.try_acquire() {
        tokio::time::sleep(FLOOD_PAUSE).await;
    }
}

fn elapsed_ms(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// What can be refused before the body is read.
fn admit(
    source: Option<&Source>,
    method: &Method,
    (peer, headers): (IpAddr, &HeaderMap),
) -> Result<(), Problem> {
    let source = source.ok_or(Refusal::UnknownSource)?;
    if method != Method::POST {
        return Err(Problem::method_not_allowed("callbacks are POSTed").allowing("POST"));
    }
    if source.is_unverified() && !source.allow_unverified {
        require_local(peer, headers)?;
    }
    Ok(())
}

struct Read {
    body: Bytes,
    room: Room,
}

/// Reads the body within `max_body`, `body_timeout` and the bound on all bodies together.
async fn read_body<B>(app: &App, body: B, via_proxy: Option<IpAddr>) -> Result<Read, Problem>
where
    B: HttpBody<Data = Bytes>,
{
    let max = app.settings.max_body;
    if body.size_hint().lower() > max {
        return Err(Refusal::TooLarge.into());
    }
    let mut reading = pin!(collect(app, body, max));
    // Nearly every body has come along with its head: no deadline, no place.
    if let Some(read) = reading.as_mut().now_or_never() {
        return read;
    }
    let place = via_proxy.and_then(|addr| app.0.arriving.try_enter(Holder::new(addr, !addr.is_loopback())));
    let crowded = async {
        match &place {
            Some(place) => drop(place.occupant.asked().await),
            None => future::pending().await,
        }
    };
    let too_slow = |detail| Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too_slow", detail));
    tokio::select! {
        read = reading => read,
        () = tokio::time::sleep(app.settings.body_timeout) => {
            too_slow("the body did not arrive within ingest.body_timeout")
        }
        () = crowded => too_slow(
            "of the bodies that were arriving from this address this was the oldest, and there were more than \
             ingest.max_connections_per_address",
        ),
    }
}

/// Room is taken as bytes arrive, not as they are announced: a peer that promises much and sends nothing holds none.
async fn collect<B>(app: &App, body: B, max: u64) -> Result<Read, Problem>
where
    B: HttpBody<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut room = app.0.memory.room();
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body broke off"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = first.len() + more.len() + data.len();
        if length as u64 > max {
            return Err(Refusal::TooLarge.into());
        }
        room.grow(data.len() as u64)?;
        if first.is_empty() && more.is_empty() {
            // Nearly every callback is one frame: no copy.
            first = data;
        } else {
            more.extend_from_slice(&first);
            first = Bytes::new();
            more.extend_from_slice(&data);
        }
    }
    let body = if more.is_empty() { first } else { more.freeze() };
    Ok(Read { body, room })
}

/// One line per callback: verdict, reason, task, milliseconds.
fn log(source: &str, receipt: &Receipt, started: Instant, remote: IpAddr) {
    let task = receipt.task_id.as_ref().map(TaskId::as_str);
    let duration_ms = elapsed_ms(started);
    match &receipt.result {
        Ok(recorded) => {
            let (verdict, reason) = (recorded.verdict.as_str(), recorded.reason);
            tracing::info!(
                source, task.id = task, verdict, reason, downloads = recorded.queued, duration_ms, %remote,
                "callback {verdict}"
            );
        }
        Err(Refusal::StoreUnavailable(error)) => {
            tracing::error!(
                source, task.id = task, %error, duration_ms, %remote,
                "callback not recorded: the database failed; free disk space or repair it, the provider tries again"
            );
        }
        Err(refusal) if receipt.noted => {
            tracing::warn!(
                source, task.id = task, reason = refusal.reason(), detail = %refusal, duration_ms, %remote,
                "callback refused"
            );
        }
        Err(_) => {}
    }
}
