//! The fixed minimal program: the same HTTP stack, the same checks of a callback, the same answer, and no storage.
//!
//! It stands for the most that could be had on a machine. It imports nothing of reelhook and is not to be tuned: figures
//! of different days are compared through it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::rig::callback::KEY;

const TOLERANCE: u64 = 300;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Callback {
    code: i64,
    msg: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "taskId")]
    task_id: String,
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    #[serde(rename = "resultUrls")]
    result_urls: Vec<String>,
}

/// Serves until it is killed; prints where, in the words of reelhook.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let router = Router::new().route("/callbacks/{source}", post(receive));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("POST http://{}/callbacks/kie", listener.local_addr()?);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        connections.spawn(connection);
    }
}

async fn receive(
    Path(source): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, StatusCode> {
    let callback: Callback = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let sound = source == "kie"
        && callback.code == 200
        && !callback.msg.is_empty()
        && !callback.data.info.result_urls.is_empty();
    if !sound {
        return Err(StatusCode::BAD_REQUEST);
    }
    verify(&headers, &callback.data.task_id).ok_or(StatusCode::UNAUTHORIZED)?;
    Ok(Json(json!({"code": 200, "msg": "success"})))
}

#[expect(
    clippy::disallowed_methods,
    reason = "this program stands outside of reelhook and its clock"
)]
fn verify(headers: &HeaderMap, task_id: &str) -> Option<()> {
    let timestamp = headers.get("x-webhook-timestamp")?.to_str().ok()?;
    let signature = headers.get("x-webhook-signature")?.to_str().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    if now.abs_diff(timestamp.parse().ok()?) > TOLERANCE {
        return None;
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).ok()?;
    mac.update(task_id.as_bytes());
    mac.update(b".");
    mac.update(timestamp.as_bytes());
    mac.verify_slice(&STANDARD.decode(signature).ok()?).ok()
}
