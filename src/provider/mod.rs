//! The provider's dialect as pure functions: payloads, signatures, failures and the state rules.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod encoding;
pub mod failure;
pub mod naming;
pub mod payload;
pub mod rules;
pub mod samples;
pub mod signature;
pub mod times;

pub use failure::{Failure, FailureKind};

/// The provider's id of a task: opaque, `[A-Za-z0-9._~:*-]{1,128}` and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

/// A task id outside the permitted characters or length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a task id is 1 to 128 characters of A-Z a-z 0-9 . _ ~ : * - and neither \".\" nor \"..\"")]
pub struct BadTaskId;

impl TaskId {
    /// The id as the provider wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TaskId {
    type Err = BadTaskId;

    fn from_str(text: &str) -> Result<Self, BadTaskId> {
        let permitted = |b: u8| b.is_ascii_alphanumeric() || b"._~:*-".contains(&b);
        if matches!(text, "" | "." | "..") || text.len() > 128 || !text.bytes().all(permitted) {
            return Err(BadTaskId);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for TaskId {
    type Error = BadTaskId;

    fn try_from(text: String) -> Result<Self, BadTaskId> {
        text.parse()
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> Self {
        id.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which result of a task an outcome is about: `video` (the base), `4k`, `1080p`, …; `[a-z0-9]{1,16}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Kind(String);

/// A kind outside `[a-z0-9]{1,16}`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a kind is 1 to 16 characters of a-z 0-9, such as video or 4k")]
pub struct BadKind;

impl Kind {
    /// The kind as it stands in queries and file names.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The base result, the default.
    pub fn video() -> Self {
        Self("video".to_owned())
    }

    /// The 4K upgrade of a video.
    pub fn four_k() -> Self {
        Self("4k".to_owned())
    }

    /// The 1080p version of a video.
    pub fn full_hd() -> Self {
        Self("1080p".to_owned())
    }
}

impl FromStr for Kind {
    type Err = BadKind;

    fn from_str(text: &str) -> Result<Self, BadKind> {
        let permitted = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if text.is_empty() || text.len() > 16 || !text.bytes().all(permitted) {
            return Err(BadKind);
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Kind {
    type Error = BadKind;

    fn try_from(text: String) -> Result<Self, BadKind> {
        text.parse()
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> Self {
        kind.0
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names of API families that decide what a task is asked about, as tasks are announced with them.
pub mod family {
    /// Tasks that extend another's video: their record names the whole film, their callback does not.
    pub const EXTENSION: &str = "veo-extend";
    /// 4K upgrades that are tasks of their own: they have a record, as any task.
    pub const UPGRADE: &str = "veo-4k";
}

/// What a file is to its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The generated media itself.
    Result,
    /// The original behind a processed result (Veo `originUrls`, Flux `originImageUrl`).
    Origin,
    /// An extended clip together with what it extends (`fullResultUrls`).
    Full,
    /// A still that comes with the result, or an image result.
    Image,
    /// A sound track or stem.
    Audio,
}

impl Role {
    /// The word in file names, JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Result => "result",
            Self::Origin => "origin",
            Self::Full => "full",
            Self::Image => "image",
            Self::Audio => "audio",
        }
    }
}

/// What one delivery says about its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutcomeClass {
    /// Not finished (Suno's `text` and `first`, Market's `generating`).
    Progress,
    /// Finished without a result.
    Failure,
    /// Finished; the media may still be missing from the text.
    Success,
}

/// One announced file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// What the file is to the task.
    pub role: Role,
    /// Its place among those of the same role, from 0.
    pub n: u32,
    /// Where the provider says it lies, as it was written; at most [`payload::MAX_URL_BYTES`] bytes.
    pub url: String,
    /// How long the provider keeps it, from the delivery on.
    pub lifetime: Duration,
    /// Set if it is listed but can never be fetched.
    pub fault: Option<MediaFault>,
}

/// Why an announced file is listed but never fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaFault {
    /// The URL was longer than [`payload::MAX_URL_BYTES`]; `url` holds its beginning.
    UrlTooLong,
    /// The delivery announced this many files; this entry stands for all past [`payload::MAX_MEDIA`].
    TooManyFiles {
        /// How many the delivery announced in all.
        announced: usize,
    },
}

/// What one delivery says about a task, in our words.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Progress, failure or success.
    pub class: OutcomeClass,
    /// The provider's body code, if it was a number or a numeric string.
    pub code: Option<i64>,
    /// The provider's sentence, cut to [`payload::MAX_TEXT_BYTES`].
    pub msg: String,
    /// For failures: the class, whether a retry makes sense, and what to do.
    pub failure: Option<Failure>,
    /// Such as `1080p`.
    pub resolution: Option<String>,
    /// Whether the fallback model made it; `None` where the provider did not say.
    pub fallback: Option<bool>,
    /// The prompt, where the delivery echoes it.
    pub prompt: Option<String>,
    /// Credits consumed, where the delivery says so.
    pub credits: Option<f64>,
    /// The announced files; empty unless `class` is success.
    pub media: Vec<Media>,
    /// The kind that the shape of the body gives away (`4k`), if any; an explicit `?kind=` wins over it.
    pub kind_by_shape: Option<Kind>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_task_ids_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a\\b",
            "a b",
            "é",
            "a\0",
            "a%2e",
            &"x".repeat(129),
        ] {
            assert_eq!(bad.parse::<TaskId>(), Err(BadTaskId), "{bad:?}");
        }
        for good in [
            "veo_task_abcdef123456",
            "2fac****9f72",
            "a..b",
            "...",
            &"x".repeat(128),
        ] {
            assert_eq!(good.parse::<TaskId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn kinds_are_short_lower_case_words() {
        for bad in ["", "4K", "a-b", "0123456789abcdefg"] {
            assert_eq!(bad.parse::<Kind>(), Err(BadKind), "{bad:?}");
        }
        assert_eq!("4k".parse::<Kind>(), Ok(Kind::four_k()));
    }
}
