//! Where the announced files lie: a server in the test process whose content follows from the path alone.

use std::collections::HashSet;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use futures_util::stream;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::media::mp4;
use crate::random::Random;

/// Files that were asked for.
type Asked = Arc<Mutex<HashSet<(String, String)>>>;

/// Files of this length are cut.
const CUT_FROM: usize = 100_000;

/// A running server; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Cdn {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Cdn {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/{task_id}/{name}", get(serve))
            .with_state(Asked::default());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            addr,
            _serving: serving,
        }
    }

    /// Where a file of a task lies. Its last part is the name that the server under test gives it, too.
    pub(crate) fn url_of(&self, task_id: &str, name: &str) -> String {
        format!("http://{}/{task_id}/{name}", self.addr)
    }
}

/// The digest of a file, in hex.
pub(crate) fn sha256_of(task_id: &str, name: &str) -> String {
    hex::encode(Sha256::digest(content_of(task_id, name)))
}

/// The bytes of a file: most of them small, some of a mebibyte and more.
pub(crate) fn content_of(task_id: &str, name: &str) -> Vec<u8> {
    let mut random = random_of(task_id, name);
    let length = match random.below(16) {
        0 => 1_000_000 + random.below(500_000),
        1..4 => 100_000 + random.below(200_000),
        _ => 700 + random.below(30_000),
    };
    mp4(random.next(), usize::try_from(length).unwrap())
}

fn random_of(task_id: &str, name: &str) -> Random {
    let digest = Sha256::digest(format!("{task_id}/{name}"));
    Random::new(u64::from_le_bytes(*digest.first_chunk().unwrap()))
}

/// Sends a file, or the rest of it; every eighth one only when it is asked for again, every fourth one in pieces with pauses, as
/// a slow server would, and large ones cut in the middle when they are asked for first.
async fn serve(
    State(asked): State<Asked>,
    Path((task_id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response<Body> {
    let is_first = asked.lock().unwrap().insert((task_id.clone(), name.clone()));
    if is_first && random_of(&task_id, &name).below(8) == 0 {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    }
    let whole = Bytes::from(content_of(&task_id, &name));
    let (etag, length) = (format!("\"{task_id}/{name}\""), whole.len());
    let start = headers
        .get(header::RANGE)
        .filter(|_| headers.get(header::IF_RANGE).is_some_and(|known| *known == etag))
        .map_or(0, |range| start_of(range.to_str().unwrap()));
    let rest = whole.slice(start..);
    let announced = rest.len();
    let is_slow = random_of(&task_id, &name).next() >> 62 == 0;
    let body = if is_first && length >= CUT_FROM {
        cut(&rest)
    } else if is_slow {
        trickle(rest)
    } else {
        Body::from(rest)
    };
    let mut response = Response::new(body);
    if start > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{length}", length - 1);
        let range = HeaderValue::from_str(&range).unwrap();
        response.headers_mut().insert(header::CONTENT_RANGE, range);
    }
    let etag = HeaderValue::from_str(&etag).unwrap();
    response.headers_mut().insert(header::ETAG, etag);
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, HeaderValue::from(announced));
    response
}

/// `bytes=1234-`
fn start_of(range: &str) -> usize {
    let start = range
        .strip_prefix("bytes=")
        .and_then(|range| range.strip_suffix('-'));
    start.unwrap().parse().unwrap()
}

/// Half of it, and then the connection breaks.
fn cut(content: &Bytes) -> Body {
    let half = content.slice(..content.len() / 2);
    let pieces = [Ok(half), Err(io::Error::other("cut"))];
    Body::from_stream(stream::iter(pieces))
}

fn trickle(content: Bytes) -> Body {
    let piece = content.len() / 8 + 1;
    Body::from_stream(stream::unfold(content, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
        let next = rest.split_to(piece.min(rest.len()));
        Some((Ok::<_, Infallible>(next), rest))
    }))
}
