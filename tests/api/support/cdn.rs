//! A fake CDN: a real HTTP server on loopback that does what real ones do when they are slow, broken or hostile.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::{RUNTIME, until};

/// How a request is answered.
#[derive(Clone)]
pub(crate) enum Reply {
    /// The whole file.
    Whole(Vec<u8>),
    /// The whole file, once [`Cdn::release`] lets it go.
    Held(Vec<u8>),
    /// Announced whole, but the connection breaks in the middle.
    Cut(Vec<u8>),
    /// Half of the file, and then nothing more.
    Stalled(Vec<u8>),
    /// A few bytes at a time, for ever.
    Drip,
    /// A status with headers and a short text.
    Status(u16, Vec<(&'static str, String)>),
    /// A page under 200.
    Html,
}

#[derive(Default)]
struct Seen {
    total: usize,
    at_once: usize,
    most_at_once: usize,
}

struct Shared {
    replies: Mutex<HashMap<String, VecDeque<Reply>>>,
    seen: Mutex<HashMap<String, Seen>>,
    all: Mutex<Seen>,
    gate: Semaphore,
}

/// The CDN. Dropping it leaves its listener to the end of the tests.
pub(crate) struct Cdn {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Cdn {
    pub(crate) async fn start() -> Self {
        Self::on("127.0.0.1").await
    }

    /// On another address of loopback.
    pub(crate) async fn on(host: &str) -> Self {
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            seen: Mutex::default(),
            all: Mutex::default(),
            gate: Semaphore::new(0),
        });
        let address = format!("{host}:0");
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let addr = RUNTIME
            .spawn(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                let addr = listener.local_addr().unwrap();
                RUNTIME.spawn(async move { axum::serve(listener, app).await });
                addr
            })
            .await
            .unwrap();
        Self { addr, shared }
    }

    /// A file with this path, and its URL.
    pub(crate) fn file(&self, path: &str, content: &[u8]) -> String {
        self.script(path, [Reply::Whole(content.to_vec())])
    }

    /// Answers for this path, one after the other; the last one stays. Returns the URL.
    pub(crate) fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) -> String {
        let replies = replies.into_iter().collect();
        self.shared
            .replies
            .lock()
            .unwrap()
            .insert(path.to_owned(), replies);
        format!("http://{}{path}", self.addr)
    }

    /// Requests for this path.
    pub(crate) fn hits(&self, path: &str) -> usize {
        self.shared
            .seen
            .lock()
            .unwrap()
            .get(path)
            .map_or(0, |seen| seen.total)
    }

    /// Requests for any path.
    pub(crate) fn all_hits(&self) -> usize {
        self.shared.all.lock().unwrap().total
    }

    /// The most requests that were answered at one time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.all.lock().unwrap().most_at_once
    }

    /// Waits until so many requests are being answered.
    pub(crate) async fn until_busy_with(&self, count: usize) {
        until(&format!("the CDN is busy with {count}"), || async {
            (self.shared.all.lock().unwrap().at_once == count).then_some(())
        })
        .await;
    }

    /// Lets so many held replies go.
    pub(crate) fn release(&self, count: usize) {
        self.shared.gate.add_permits(count);
    }
}

/// Counts a request for as long as its answer is being sent.
struct Counted {
    shared: Arc<Shared>,
    path: String,
}

impl Counted {
    fn new(shared: Arc<Shared>, path: &str) -> Self {
        let count = |seen: &mut Seen| {
            seen.total += 1;
            seen.at_once += 1;
            seen.most_at_once = seen.most_at_once.max(seen.at_once);
        };
        count(shared.seen.lock().unwrap().entry(path.to_owned()).or_default());
        count(&mut shared.all.lock().unwrap());
        Self {
            shared,
            path: path.to_owned(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(seen) = self.shared.seen.lock().unwrap().get_mut(&self.path) {
            seen.at_once -= 1;
        }
        self.shared.all.lock().unwrap().at_once -= 1;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path();
    let counted = Counted::new(shared.clone(), path);
    let reply = match shared.replies.lock().unwrap().get_mut(path) {
        Some(replies) if replies.len() > 1 => replies.pop_front(),
        Some(replies) => replies.front().cloned(),
        None => None,
    };
    let reply = reply.unwrap_or(Reply::Status(404, Vec::new()));
    let response = Response::builder().header("content-type", "video/mp4");
    let chunks = match reply {
        Reply::Status(status, headers) => {
            let response = headers
                .into_iter()
                .fold(Response::builder().status(status), |response, (name, value)| {
                    response.header(name, value)
                });
            return response.body(Body::from("no file here")).unwrap();
        }
        Reply::Html => stream::iter([Ok(Bytes::from("<!doctype html><title>Log in</title>"))]).boxed(),
        Reply::Drip => stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Some((Ok(Bytes::from_static(&[0; 64])), ()))
        })
        .boxed(),
        Reply::Whole(file) => {
            drop(counted);
            return response.body(Body::from(file)).unwrap();
        }
        Reply::Held(file) => {
            shared.gate.acquire().await.expect("never closed").forget();
            stream::iter([Ok(Bytes::from(file))]).boxed()
        }
        Reply::Cut(file) => {
            let (response, half) = (
                response.header("content-length", file.len()),
                file[..file.len() / 2].to_vec(),
            );
            // After a pause: what hyper has not flushed when the stream breaks is never sent.
            let broken = async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            };
            let chunks = stream::iter([Ok(Bytes::from(half))]).chain(stream::once(broken));
            return response.body(Body::from_stream(chunks)).unwrap();
        }
        Reply::Stalled(file) => {
            let half = file[..file.len() / 2].to_vec();
            stream::iter([Ok(Bytes::from(half))])
                .chain(stream::pending())
                .boxed()
        }
    };
    let chunks = chunks.inspect(move |_: &Result<Bytes, std::io::Error>| {
        let _alive_with_the_body = &counted;
    });
    response.body(Body::from_stream(chunks)).unwrap()
}

/// A listener that nobody must ever connect to.
pub(crate) struct Trap(std::net::TcpListener);

impl Trap {
    pub(crate) fn set(address: &str) -> Option<Self> {
        let listener = std::net::TcpListener::bind(address).ok()?;
        listener.set_nonblocking(true).unwrap();
        Some(Self(listener))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    /// Nobody connected since it was set.
    #[track_caller]
    pub(crate) fn assert_untouched(&self) {
        let accepted = self.0.accept();
        assert!(
            accepted
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock),
            "somebody connected: {accepted:?}"
        );
    }
}
