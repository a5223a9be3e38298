//! What lies beside an unfinished file, so that a later attempt can go on where this one was cut.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Where an unfinished file comes from, and by what to tell its version from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The source of the task that it belongs to.
    pub source: String,
    /// The task.
    pub task_id: String,
    /// The announced URL.
    pub url: String,
    /// By what the server tells versions apart; without it the file is of use only if it is whole.
    pub validator: Option<Validator>,
    /// Length of the whole file, as far as the server told it.
    pub total: Option<u64>,
}

/// What may stand in `If-Range` (RFC 9110, section 13.1.5), as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Validator {
    /// A strong `ETag`, with its quotes.
    Etag(String),
    /// `Last-Modified`; only good together with the length.
    LastModified(String),
}

impl Validator {
    /// The value of `If-Range`.
    pub fn if_range(&self) -> &str {
        match self {
            Self::Etag(value) | Self::LastModified(value) => value,
        }
    }
}

impl Note {
    /// Whether so many bytes are the whole file.
    pub fn is_whole(&self, bytes: u64) -> bool {
        bytes > 0 && self.total == Some(bytes)
    }

    /// Whether so many bytes are of use to a later attempt.
    pub(super) fn serves(&self, bytes: u64) -> bool {
        bytes > 0 && (self.validator.is_some() || self.is_whole(bytes))
    }
}

/// A note as it lies on the disk.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) note: Note,
    /// How many bytes of the file are known to be on the disk. After a crash of the machine the rest may be anything, whatever
    /// the file's length says.
    synced: u64,
    /// Since which boot the rest is in the system's memory at least: a crash of this process does it no harm.
    boot: Option<String>,
}

impl Record {
    pub(super) fn new(note: Note, synced: u64) -> Self {
        let boot = boot_id();
        Self { note, synced, boot }
    }

    pub(super) fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(Into::into)
    }

    /// Replaces the note in one step; not synced, as an older one says less and nothing wrong.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let fresh = path.with_extension("note-new");
        let written = fs::write(&fresh, serde_json::to_vec(self)?).and_then(|()| fs::rename(&fresh, path));
        written.inspect_err(|_| {
            fs::remove_file(&fresh).ok();
        })
    }

    /// How many of the first bytes of the file can be relied on.
    pub(super) fn trusted(&self) -> u64 {
        let same_boot = self.boot.is_some() && self.boot == boot_id();
        if same_boot { u64::MAX } else { self.synced }
    }
}

/// Differs after each start of the machine; `None` where the system does not tell.
fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(validator: Option<Validator>, total: Option<u64>) -> Note {
        Note {
            source: "kie".to_owned(),
            task_id: "t1".to_owned(),
            url: "https://a.example/1.mp4".to_owned(),
            validator,
            total,
        }
    }

    #[test]
    fn after_a_crash_of_the_machine_only_what_was_synced_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("1-1.note");
        let etag = Validator::Etag("\"a\"".to_owned());
        let mut record = Record::new(note(Some(etag), Some(9)), 4);
        record.write(&path).unwrap();
        let read = Record::read(&path).unwrap();
        assert_eq!((&read.note, read.trusted()), (&record.note, u64::MAX));
        for boot in [Some("another".to_owned()), None] {
            record.boot = boot;
            record.write(&path).unwrap();
            assert_eq!(Record::read(&path).unwrap().trusted(), 4);
        }
    }

    #[test]
    fn without_a_validator_only_a_whole_file_is_of_use() {
        let modified = Validator::LastModified("Sun, 22 Nov 2026 04:00:00 GMT".to_owned());
        assert!(note(Some(modified), Some(9)).serves(1));
        assert!(note(None, Some(9)).serves(9));
        for (total, bytes) in [(Some(9), 8), (None, 9), (Some(0), 0)] {
            assert!(!note(None, total).serves(bytes));
        }
    }
}
