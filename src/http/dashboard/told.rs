//! What the API tells of a task, read back for pages: so they show the same, and no secret gets past the redactor.

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use super::show::{Bytes, Took};
use crate::clock::{Millis, parse_rfc3339};
use crate::download::is_retryable;
use crate::http::App;
use crate::http::problem::Problem;

/// An answer of the API as a page reads it.
pub(super) fn told<T: DeserializeOwned>(app: &App, answer: &impl Serialize) -> Result<T, Problem> {
    let json = app.redactor().serialised(answer);
    let read = json.and_then(|json| serde_json::from_str(&json));
    read.map_err(|error| Problem::internal(&error))
}

fn moment<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
    let text = String::deserialize(from)?;
    parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not a moment"))
}

fn maybe_moment<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Millis>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    Ok(text.as_deref().and_then(parse_rfc3339))
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "as the API names them")]
pub(super) struct Task {
    pub(super) task_id: String,
    pub(super) source: String,
    pub(super) state: String,
    pub(super) resolution: Option<String>,
    pub(super) fallback: Option<bool>,
    pub(super) prompt: Option<String>,
    pub(super) credits: Option<f64>,
    #[serde(deserialize_with = "moment")]
    pub(super) created_at: Millis,
    #[serde(deserialize_with = "maybe_moment")]
    pub(super) received_at: Option<Millis>,
    #[serde(deserialize_with = "moment")]
    pub(super) updated_at: Millis,
    pub(super) deliveries: i64,
    pub(super) conflicts: i64,
    pub(super) media: String,
    pub(super) paused: Option<String>,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) files: Vec<File>,
    pub(super) asking: Vec<Asking>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Outcome {
    pub(super) kind: String,
    pub(super) index: i64,
    pub(super) state: String,
    pub(super) code: Option<i64>,
    pub(super) msg: Option<String>,
    pub(super) failure: Option<Failure>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Failure {
    pub(super) kind: String,
    pub(super) advice: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) role: String,
    pub(super) kind: String,
    pub(super) index: i64,
    pub(super) state: String,
    pub(super) provider_url: String,
    pub(super) url: Option<String>,
    pub(super) bytes: Option<i64>,
    pub(super) sha256: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) duration_ms: Option<i64>,
    pub(super) width: Option<i64>,
    pub(super) height: Option<i64>,
    pub(super) codec: Option<String>,
    #[serde(deserialize_with = "maybe_moment")]
    pub(super) next_attempt_at: Option<Millis>,
    pub(super) error: Option<Fault>,
    pub(super) progress: Option<Progress>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fault {
    pub(super) code: String,
    pub(super) detail: String,
    pub(super) remedy: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) total: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Asking {
    pub(super) kind: String,
    pub(super) index: i64,
    pub(super) reason: String,
    #[serde(deserialize_with = "moment")]
    pub(super) since: Millis,
    pub(super) asks: i64,
    #[serde(deserialize_with = "maybe_moment")]
    pub(super) asked_at: Option<Millis>,
    #[serde(deserialize_with = "maybe_moment")]
    pub(super) next_ask_at: Option<Millis>,
    pub(super) note: Option<Note>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Note {
    pub(super) detail: String,
}

impl Task {
    /// Where its page is.
    pub(super) fn href(&self) -> String {
        format!("/tasks/{}?source={}", self.task_id, self.source)
    }

    /// The one word that says most: of a task that succeeded, what became of its files.
    pub(super) fn word(&self) -> &str {
        match (self.state.as_str(), self.media.as_str()) {
            ("succeeded", "none") => "succeeded",
            ("succeeded", media) => media,
            (state, _) => state,
        }
    }

    /// Why it failed, or why files of it did.
    pub(super) fn reason(&self) -> Option<&str> {
        let outcome = self.outcomes.iter().find(|outcome| outcome.state == "failed");
        let file = || {
            self.files
                .iter()
                .find_map(|file| Some(&file.error.as_ref()?.detail))
        };
        match outcome {
            Some(outcome) => outcome.msg.as_ref().filter(|msg| !msg.is_empty()),
            None => file(),
        }
        .map(String::as_str)
    }

    /// What shows it at a glance: the first of its results that is stored, or of its other files.
    pub(super) fn poster(&self) -> Option<&File> {
        let shown = |file: &&File| file.is("video/") || file.is("image/");
        let mut stored = self.files.iter().filter(|file| file.url.is_some()).filter(shown);
        let first = stored.clone().find(|file| file.role == "result");
        first.or_else(|| stored.next())
    }

    /// How many files are stored.
    pub(super) fn stored(&self) -> usize {
        self.files.iter().filter(|file| file.url.is_some()).count()
    }

    /// Whether there is a failed file that could be fetched again.
    pub(super) fn can_retry(&self) -> bool {
        let can_retry = |file: &File| {
            let error = file.error.as_ref().filter(|_| file.state == "failed");
            error.is_some_and(|error| is_retryable(&error.code))
        };
        self.files.iter().any(can_retry)
    }
}

impl Outcome {
    /// Which result it is, for people.
    pub(super) fn result(&self) -> String {
        name_of(&self.kind, self.index)
    }
}

impl File {
    /// Whether it is stored and such media as a page shows.
    pub(super) fn is(&self, kind: &str) -> bool {
        let found = self.content_type.as_deref();
        self.url.is_some() && found.is_some_and(|found| found.starts_with(kind))
    }

    /// How long it plays.
    pub(super) fn length(&self) -> Option<Took> {
        self.duration_ms.map(Took)
    }

    /// The label by which the script knows its progress.
    pub(super) fn label(&self, task: &Task) -> String {
        format!("{} {} {}", task.task_id, task.source, self.name)
    }

    /// Of which result it is, for people.
    pub(super) fn result(&self) -> String {
        name_of(&self.kind, self.index)
    }

    /// How large, how long and how encoded it is.
    pub(super) fn shape(&self) -> String {
        let mut parts = Vec::new();
        if let (Some(width), Some(height)) = (self.width, self.height) {
            parts.push(format!("{width} × {height}"));
        }
        if let Some(ms) = self.duration_ms {
            parts.push(Took(ms).to_string());
        }
        if let Some(codec) = &self.codec {
            parts.push(codec.clone());
        }
        if let Some(bytes) = self.bytes {
            parts.push(Bytes(bytes).to_string());
        }
        parts.join(" · ")
    }
}

/// A result of a task, by kind and index, for people.
pub(super) fn name_of(kind: &str, index: i64) -> String {
    let kind = match kind {
        "video" => "Video",
        "4k" => "4K",
        kind => kind,
    };
    if index == 0 {
        kind.to_owned()
    } else {
        format!("{kind} {}", index + 1)
    }
}

/// A delivery, as far as a page about its task shows it.
#[derive(Debug, Deserialize)]
pub(super) struct Delivery {
    pub(super) id: String,
    #[serde(deserialize_with = "moment")]
    pub(super) received_at: Millis,
    pub(super) via: String,
    pub(super) verdict: String,
    pub(super) reason: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) index: Option<i64>,
    pub(super) remote_addr: Option<String>,
    #[serde(default)]
    pub(super) headers: std::collections::BTreeMap<String, serde_json::Value>,
    pub(super) body: Option<String>,
    #[serde(default)]
    pub(super) body_truncated: bool,
    pub(super) remedy: Option<String>,
}

/// A step of a file.
#[derive(Debug, Deserialize)]
pub(super) struct Attempt {
    pub(super) name: String,
    #[serde(deserialize_with = "moment")]
    pub(super) began_at: Millis,
    #[serde(deserialize_with = "moment")]
    pub(super) ended_at: Millis,
    pub(super) outcome: String,
    pub(super) detail: Option<String>,
    pub(super) bytes: Option<i64>,
}
