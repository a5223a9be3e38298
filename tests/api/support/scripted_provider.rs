//! The provider's API as a real HTTP server on loopback, which says what it is told to.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{RUNTIME, until};

/// The key it wants.
pub(crate) const API_KEY: &str = "key-of-the-providers-api";

/// How one request is answered.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// JSON under 200.
    Json(Value),
    /// Any status with any text.
    Text(u16, &'static str, String),
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
    pub(crate) at: Instant,
}

#[derive(Default)]
struct Shared {
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
        let shared = Arc::new(Shared::default());
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
        .is_some_and(|key| key == format!("Bearer {API_KEY}").as_str());
    let endpoint = path.split('?').next().unwrap_or_default().to_owned();
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    shared.asked.lock().unwrap().push(Question {
        path: path.to_owned(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
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
