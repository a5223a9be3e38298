//! The provider's API as a real HTTP server on loopback, which says what it is told to.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{PATIENCE, RUNTIME, until};

/// The key it wants.
pub(crate) const API_KEY: &str = "key-of-the-providers-api";

/// How one request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// JSON under 200.
    Json(Value),
    /// Any status with any text.
    Text(u16, &'static str, String),
    /// JSON under 200, once [`ScriptedProvider::release`] lets it go.
    Held(Value),
    /// The beginning of an answer, and then nothing more.
    Breaks,
}

impl From<Value> for Says {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

/// A request that was made.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Below `/api/v1/`, with its query.
    pub(crate) path: String,
    pub(crate) body: Value,
    /// The body as it came.
    pub(crate) text: String,
    pub(crate) at: Instant,
}

struct Shared {
    key: &'static str,
    released: watch::Sender<bool>,
    says: Mutex<HashMap<String, VecDeque<Says>>>,
    asked: Mutex<Vec<Question>>,
}

/// The API. Dropping it leaves its listener to the end of the tests.
pub(crate) struct ScriptedProvider {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl ScriptedProvider {
    pub(crate) async fn start() -> Self {
        Self::wanting(API_KEY).await
    }

    /// One that wants another key.
    pub(crate) async fn wanting(key: &'static str) -> Self {
        let shared = Arc::new(Shared {
            key,
            released: watch::Sender::new(false),
            says: Mutex::default(),
            asked: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(shared.clone());
        let addr = RUNTIME
            .spawn(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let addr = listener.local_addr().unwrap();
                RUNTIME.spawn(async move { axum::serve(listener, app).await });
                addr
            })
            .await
            .unwrap();
        Self { addr, shared }
    }

    /// The configuration of a source that asks it.
    pub(crate) fn source(&self) -> String {
        format!(
            "[sources.kie]\nconfirm = false\napi_url = \"http://{}\"\napi_key = \"{API_KEY}\"\n",
            self.addr
        )
    }

    /// What it says at an endpoint (below `/api/v1/`), one after the other; the last one stays.
    pub(crate) fn says<S: Into<Says>>(&self, endpoint: &str, answers: impl IntoIterator<Item = S>) {
        let answers = answers.into_iter().map(Into::into).collect();
        self.shared
            .says
            .lock()
            .unwrap()
            .insert(endpoint.to_owned(), answers);
    }

    /// The requests for an endpoint, in the order in which they came.
    pub(crate) fn asked(&self, endpoint: &str) -> Vec<Question> {
        let all = self.shared.asked.lock().unwrap();
        let of = |question: &&Question| question.path.split('?').next() == Some(endpoint);
        all.iter().filter(of).cloned().collect()
    }

    /// Lets all held answers go.
    pub(crate) fn release(&self) {
        self.shared.released.send_replace(true);
    }

    /// All requests.
    pub(crate) fn all_asked(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// Waits until an endpoint was asked so often.
    pub(crate) async fn wait_asked(&self, endpoint: &str, times: usize) {
        until("the provider is asked", || async {
            (self.asked(endpoint).len() >= times).then_some(())
        })
        .await;
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let uri = request.uri().clone();
    let path = uri
        .path_and_query()
        .map_or("", |path| path.as_str())
        .trim_start_matches("/api/v1/");
    let has_key = request
        .headers()
        .get("authorization")
        .is_some_and(|key| key == format!("Bearer {}", shared.key).as_str());
    let endpoint = path.split('?').next().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    shared.asked.lock().unwrap().push(Question {
        path: path.to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        text: String::from_utf8_lossy(&body).into_owned(),
        at: Instant::now(),
    });
    let says = {
        let mut all = shared.says.lock().unwrap();
        match all.get_mut(&endpoint) {
            Some(answers) if answers.len() > 1 => answers.pop_front(),
            Some(answers) => answers.front().cloned(),
            None => None,
        }
    };
    let says = match says {
        _ if !has_key => json!({"code": 401, "msg": "You do not have access permissions"}).into(),
        Some(says) => says,
        None => json!({"code": 422, "msg": "record is null.", "data": null}).into(),
    };
    match says {
        Says::Json(value) => response(200, "application/json;charset=UTF-8", value.to_string()),
        Says::Text(status, content_type, text) => response(status, content_type, text),
        Says::Held(value) => {
            let mut released = shared.released.subscribe();
            let released = tokio::time::timeout(PATIENCE, released.wait_for(|released| *released));
            drop(released.await);
            response(200, "application/json", value.to_string())
        }
        Says::Breaks => {
            let cut = futures_util::stream::iter([Ok("{\"code\":"), Err(io::Error::other("cut"))]);
            Response::new(Body::from_stream(cut))
        }
    }
}

fn response(status: u16, content_type: &str, text: String) -> Response {
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(Body::from(text))
        .unwrap()
}

/// A record of Veo that ended well.
pub(crate) fn record(task_id: &str, urls: &[String]) -> Value {
    json!({"code": 200, "msg": "success", "data": {
        "taskId": task_id, "paramJson": "{\"prompt\":\"A dog\"}", "completeTime": "2025-06-06 10:30:00",
        "response": {"taskId": task_id, "resultUrls": urls, "originUrls": null, "resolution": "1080p"},
        "successFlag": 1, "errorCode": null, "errorMessage": "", "createTime": "2025-06-06 10:25:00",
        "fallbackFlag": false}})
}

/// One that has not ended.
pub(crate) fn generating(task_id: &str) -> Value {
    json!({"code": 200, "msg": "success", "data": {
        "taskId": task_id, "paramJson": "{}", "completeTime": null, "response": null, "successFlag": 0,
        "errorCode": null, "errorMessage": "", "createTime": "2025-06-06 10:25:00", "fallbackFlag": false}})
}

/// One that failed.
pub(crate) fn failed_record(task_id: &str) -> Value {
    json!({"code": 200, "msg": "success", "data": {
        "taskId": task_id, "paramJson": "{}", "completeTime": "2025-06-06 10:30:00", "response": null,
        "successFlag": 3, "errorCode": 400, "errorMessage": "Your prompt was flagged by Website as violating content policies.",
        "createTime": "2025-06-06 10:25:00", "fallbackFlag": false}})
}
