//! Somebody who is called back: notes what came and answers as told.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;

use super::RUNTIME;

/// A callback that came in.
#[derive(Debug, Clone)]
pub(crate) struct Called {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Called {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn task_id(&self) -> &str {
        self.body["data"]["taskId"].as_str().expect("an id")
    }
}

#[derive(Debug, Default)]
struct Noted {
    called: Vec<Called>,
    /// Statuses of the next answers; then 200.
    answers: VecDeque<StatusCode>,
}

/// A receiver on loopback.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) url: String,
    noted: Arc<Mutex<Noted>>,
}

impl Hook {
    /// Answers with these statuses, then with 200.
    pub(crate) async fn answering(statuses: &[u16]) -> Self {
        let noted = Noted {
            answers: statuses
                .iter()
                .map(|status| StatusCode::from_u16(*status).unwrap())
                .collect(),
            ..Noted::default()
        };
        let noted = Arc::new(Mutex::new(noted));
        let app = Router::new().route("/", post(take)).with_state(noted.clone());
        let serve = async move {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            RUNTIME.spawn(async move { axum::serve(listener, app).await });
            url
        };
        let url = RUNTIME.spawn(serve).await.unwrap();
        Self { url, noted }
    }

    /// All that came so far.
    pub(crate) fn called(&self) -> Vec<Called> {
        self.noted.lock().unwrap().called.clone()
    }
}

async fn take(State(noted): State<Arc<Mutex<Noted>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let body = serde_json::from_slice(&body).expect("a callback is JSON");
    let mut noted = noted.lock().unwrap();
    noted.called.push(Called { headers, body });
    noted.answers.pop_front().unwrap_or(StatusCode::OK)
}
