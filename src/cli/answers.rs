//! The server's answers, as far as they are shown to people. Whatever is missing reads as empty, so that an older or
//! newer server is understood as far as possible.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A page of tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskPage {
    pub(super) tasks: Vec<Task>,
    pub(super) next_cursor: Option<String>,
}

/// A task with its outcomes and files.
#[expect(clippy::struct_field_names, reason = "the names are those of the answer")]
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) source: String,
    pub(super) state: String,
    pub(super) code: Option<i64>,
    pub(super) msg: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) resolution: Option<String>,
    pub(super) fallback: Option<bool>,
    pub(super) prompt: Option<String>,
    pub(super) credits: Option<f64>,
    pub(super) created_at: Option<String>,
    pub(super) received_at: Option<String>,
    pub(super) updated_at: Option<String>,
    pub(super) deliveries: u64,
    pub(super) conflicts: u64,
    pub(super) media: String,
    pub(super) paused: Option<String>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) files: Vec<File>,
    pub(super) asking: Vec<Ask>,
}

impl Task {
    /// Whether it is finished and nothing is left to be downloaded.
    pub(super) fn is_settled(&self) -> bool {
        self.state != "pending" && !matches!(self.media.as_str(), "queued" | "downloading")
    }

    /// Whether it came out well and every file is stored.
    pub(super) fn is_stored(&self) -> bool {
        self.state == "succeeded" && self.media == "stored"
    }
}

/// Why the provider made nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) retryable: bool,
    pub(super) advice: String,
}

/// What is known of one kind and index.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Outcome {
    pub(super) kind: String,
    pub(super) index: u64,
    pub(super) state: String,
    pub(super) code: Option<i64>,
    pub(super) msg: Option<String>,
    pub(super) failure: Option<Failure>,
    pub(super) via: Option<String>,
    pub(super) received_at: Option<String>,
}

/// An announced file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) index: u64,
    pub(super) state: String,
    pub(super) provider_url: Option<String>,
    pub(super) url: Option<String>,
    pub(super) bytes: Option<u64>,
    pub(super) sha256: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) duration_ms: Option<u64>,
    pub(super) width: Option<u64>,
    pub(super) height: Option<u64>,
    pub(super) codec: Option<String>,
    pub(super) attempts: u64,
    pub(super) next_attempt_at: Option<String>,
    pub(super) error: Option<FileError>,
    pub(super) progress: Option<Progress>,
    pub(super) deadline: Option<String>,
}

/// An open question to the provider.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ask {
    pub(super) kind: String,
    pub(super) index: u64,
    pub(super) reason: String,
    pub(super) since: Option<String>,
    pub(super) asks: u64,
    pub(super) asked_at: Option<String>,
    pub(super) next_ask_at: Option<String>,
    pub(super) note: Option<Note>,
}

/// What came of asking.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    pub(super) code: String,
    pub(super) detail: String,
}

/// How far a file is that is being fetched.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) total: Option<u64>,
    pub(super) bytes_per_second: u64,
}

/// Why a file is not stored, or was not at the last attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct FileError {
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) remedy: Option<String>,
}

/// A page of deliveries.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct DeliveryPage {
    pub(super) deliveries: Vec<Delivery>,
    pub(super) next_cursor: Option<String>,
}

/// One arrival of a callback.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Delivery {
    pub(super) id: String,
    pub(super) task_id: Option<String>,
    pub(super) source: Option<String>,
    pub(super) received_at: Option<String>,
    pub(super) via: String,
    pub(super) verdict: String,
    pub(super) reason: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) index: Option<u64>,
    pub(super) remote_addr: Option<String>,
    pub(super) headers: serde_json::Map<String, serde_json::Value>,
    pub(super) body: Option<String>,
    pub(super) body_base64: Option<String>,
    pub(super) remedy: Option<String>,
}

/// What became of a rejected delivery.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reverified {
    pub(super) verdict: String,
    pub(super) reason: Option<String>,
    pub(super) detail: Option<String>,
    pub(super) remedy: Option<String>,
    pub(super) already: bool,
    pub(super) queued: u64,
}

/// What became of many.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Judged {
    pub(super) examined: u64,
    pub(super) accepted: u64,
    pub(super) duplicate: u64,
    pub(super) conflict: u64,
    pub(super) still_rejected: std::collections::BTreeMap<String, u64>,
}

/// The answer to `retry`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queued {
    pub(super) queued: u64,
}

/// The answer to `stats`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) tasks: BTreeMap<String, u64>,
    pub(super) files: BTreeMap<String, u64>,
    pub(super) stored_bytes: u64,
    pub(super) oldest_queued_at: Option<String>,
    pub(super) paused: Option<String>,
    pub(super) paused_since: Option<String>,
    pub(super) repaired: u64,
    pub(super) asks: Asks,
    pub(super) scrub: Option<LastScrub>,
}

/// What the provider is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Asks {
    pub(super) open: BTreeMap<String, u64>,
    pub(super) paused: BTreeMap<String, ApiPause>,
}

/// Why nobody is asked about a source.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiPause {
    pub(super) detail: String,
    pub(super) until: Option<String>,
}

/// The last scrub of everything.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LastScrub {
    pub(super) ended_at: Option<String>,
    pub(super) files: u64,
    pub(super) damaged: u64,
    pub(super) missing: u64,
    pub(super) unreadable: u64,
}

/// The answer to an announcement of several tasks.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
pub(super) struct Announced {
    pub(super) created: u64,
    pub(super) known: u64,
}

/// The answer to questions about scrubs.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Scrubs {
    pub(super) running: Option<Scrub>,
    pub(super) last: Option<Scrub>,
}

/// A scrub, as far as it came.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Scrub {
    pub(super) id: String,
    pub(super) complete: bool,
    pub(super) files: u64,
    pub(super) files_total: u64,
    pub(super) bytes: u64,
    pub(super) bytes_total: u64,
    pub(super) waits: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) damaged: u64,
    pub(super) missing: u64,
    pub(super) unreadable: u64,
    pub(super) repaired: u64,
    pub(super) findings: Vec<Finding>,
}

impl Scrub {
    /// Files that are not as they should be.
    pub(super) fn wrong(&self) -> u64 {
        self.damaged + self.missing + self.unreadable
    }
}

/// What a scrub found wrong with a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Finding {
    pub(super) task_id: String,
    pub(super) source: String,
    pub(super) name: String,
    pub(super) wrong: String,
    pub(super) detail: String,
    pub(super) queued: bool,
}

/// An error of the server (RFC 9457).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProblemDetails {
    pub(super) title: String,
    pub(super) detail: String,
    pub(super) code: String,
}
