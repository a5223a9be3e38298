//! A provider on loopback that answers with scripted bytes and keeps what it was asked.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use url::Url;

use super::super::{ProviderApi, Settings};
use crate::clock::Clock;
use crate::config::Secret;
use crate::shutdown::Tasks;

/// The key that must never be seen but in the header it belongs to.
pub(super) const KEY: &str = "sk-very-secret-0123456789";

/// What the server does with one request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Writes the bytes and closes the connection.
    Bytes(Vec<u8>),
    /// Writes the bytes, and then neither writes nor closes.
    Stall(Vec<u8>),
    /// Closes the connection without a word.
    Cut,
}

impl Reply {
    /// A whole answer.
    pub(super) fn whole(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n");
        Self::Bytes([head.as_bytes(), body.as_bytes()].concat())
    }

    /// An answer of the API: HTTP 200, whatever it says.
    pub(super) fn json(body: &str) -> Self {
        Self::whole(200, "content-type: application/json;charset=UTF-8\r\n", body)
    }

    /// An answer that says nothing but a code.
    pub(super) fn code(code: i64) -> Self {
        Self::json(&format!(r#"{{"code":{code},"msg":"no luck","data":null}}"#))
    }
}

type Script = dyn Fn(usize) -> Reply + Send + Sync;

/// The scripted provider.
pub(super) struct Provider {
    pub(super) base: Url,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
    _tasks: Tasks,
}

impl Provider {
    /// Answers the n-th request, from 0, as the script says.
    pub(super) async fn start(script: impl Fn(usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (tasks, asked) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let (spawner, kept, script): (_, _, Arc<Script>) =
            (tasks.clone(), Arc::clone(&asked), Arc::new(script));
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                spawner.spawn(async move { serve(stream, &kept, &*script).await });
            }
        });
        Self {
            base: base.parse().unwrap(),
            asked,
            _tasks: tasks,
        }
    }

    /// Gives every request the same answer.
    pub(super) async fn always(reply: Reply) -> Self {
        Self::start(move |_| reply.clone()).await
    }

    /// A client of it that no limit holds up.
    pub(super) fn api(&self) -> ProviderApi {
        self.api_with(|_| {})
    }

    pub(super) fn api_with(&self, change: impl FnOnce(&mut Settings)) -> ProviderApi {
        let mut settings = settings(self.base.clone());
        change(&mut settings);
        ProviderApi::new(settings, Clock::system()).unwrap()
    }

    /// The requests so far, head and body.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(_, request)| request.clone()).collect()
    }

    /// When those came that begin like this.
    pub(super) fn arrivals(&self, method: &str) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        let such = asked.iter().filter(|(_, request)| request.starts_with(method));
        such.map(|(at, _)| *at).collect()
    }
}

pub(super) fn settings(base: Url) -> Settings {
    Settings {
        base,
        key: Secret::new(KEY),
        queries_per_second: 100_000,
        submissions_per_10s: 100_000,
        timeout: Duration::from_secs(20),
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: &Mutex<Vec<(Instant, String)>>,
    script: &Script,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    request.extend(body);
    let n = {
        let mut asked = asked.lock().unwrap();
        asked.push((Instant::now(), String::from_utf8_lossy(&request).into_owned()));
        asked.len() - 1
    };
    match script(n) {
        Reply::Bytes(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Reply::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            std::future::pending().await
        }
        Reply::Cut => Ok(()),
    }
}
