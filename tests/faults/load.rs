//! The provider: several clients that call back as fast as they are answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use reelhook::clock::Clock;
use reelhook::provider::signature::sign;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cdn::Cdn;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::wire::Connection;

/// The key that callbacks are signed with.
pub(crate) const KEY: &str = "kill-harness-key";

const CLIENTS: usize = 8;

/// Calls back over `CLIENTS` connections until every one of them is broken off.
pub(crate) async fn run(addr: SocketAddr, mut provider: Provider) {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let random = Random::new(provider.random.next());
        let client = Provider {
            random,
            ..provider.clone()
        };
        clients.spawn(client.run(addr));
    }
    while let Some(ended) = clients.join_next().await {
        ended.expect("no client panics");
    }
}

/// Somebody who makes up callbacks, and remembers which of them were answered 200.
#[derive(Debug, Clone)]
pub(crate) struct Provider {
    pub(crate) cdn: Arc<Cdn>,
    pub(crate) ledger: Arc<Ledger>,
    /// By which it signs.
    pub(crate) clock: Clock,
    /// Whether that clock, which is the server's too, may be moved while a callback is on its way.
    pub(crate) excuses_stale: bool,
    pub(crate) random: Random,
}

/// One callback, ready to be sent as often as one likes.
pub(crate) struct Callback {
    pub(crate) task_id: String,
    files: Vec<String>,
    request: Vec<u8>,
}

impl Provider {
    async fn run(mut self, addr: SocketAddr) {
        let Ok(mut connection) = Connection::open(addr).await else {
            return;
        };
        let mut callback = self.callback();
        loop {
            if self.send(&mut connection, &callback).await.is_err() {
                return;
            }
            // One in eight comes again, as a provider that missed the answer would send it.
            if self.random.below(8) > 0 {
                callback = self.callback();
            }
        }
    }

    /// Sends a callback, notes what became of it, and returns the status of the answer.
    pub(crate) async fn send(&self, connection: &mut Connection, callback: &Callback) -> io::Result<u16> {
        let status = connection.status_of(&callback.request).await?;
        match status {
            // From here on it is a promise, whether or not the rest of the answer still arrives.
            200 => self.ledger.note(&callback.task_id, &callback.files),
            503 => self.ledger.note_refusal(),
            401 if self.excuses_stale => self.ledger.note_refusal(),
            other => panic!("a sound callback was answered {other}"),
        }
        connection.body().await?;
        Ok(status)
    }

    /// A callback about a new task: mostly failures, so that ingest runs at full load while the files that the
    /// others announce can still be fetched within the test's time.
    fn callback(&mut self) -> Callback {
        match self.random.below(12) {
            0 => self.callback_about(&["result-0.mp4"]),
            1 => self.callback_about(&["result-0.mp4", "origin-0.mp4"]),
            _ => self.callback_about(&[]),
        }
    }

    /// A callback about a new task with these files; without any, it failed.
    pub(crate) fn callback_about(&mut self, files: &[&str]) -> Callback {
        let task_id = format!("{:016x}{:016x}", self.random.next(), self.random.next());
        let files: Vec<String> = files.iter().map(ToString::to_string).collect();
        let body = self.body(&task_id, &files);
        Callback {
            request: self.signed_request(&task_id, &body),
            task_id,
            files,
        }
    }

    fn body(&self, task_id: &str, files: &[String]) -> Value {
        if files.is_empty() {
            let msg = "Only English prompts are supported at this time.";
            return json!({"code": 400, "msg": msg, "data": {"taskId": task_id, "fallbackFlag": false}});
        }
        let urls = |role: &str| -> Vec<String> {
            let names = files.iter().filter(|name| name.starts_with(role));
            names.map(|name| self.cdn.url_of(task_id, name)).collect()
        };
        let info = json!({"resultUrls": urls("result"), "originUrls": urls("origin"), "resolution": "1080p"});
        json!({
            "code": 200,
            "msg": "Veo3.1 video generated successfully.",
            "data": {"taskId": task_id, "info": info, "fallbackFlag": false},
        })
    }

    fn signed_request(&self, task_id: &str, body: &Value) -> Vec<u8> {
        let timestamp = (self.clock.now() / 1000).to_string();
        let signature = sign(KEY, task_id, &timestamp);
        let body = body.to_string();
        let length = body.len();
        let request = format!(
            "POST /callbacks/kie HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             X-Webhook-Timestamp: {timestamp}\r\nX-Webhook-Signature: {signature}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        request.into_bytes()
    }
}
