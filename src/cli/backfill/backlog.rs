//! The tasks of a file, each once, in a temporary file of our own: of a million of them only a byte each stays in memory.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Seek as _, Write as _};

use anyhow::Context as _;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::input::Entry;
use crate::config::SourceName;
use crate::provider::{Kind, TaskId};

/// What is known of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing final yet.
    Open,
    /// Nothing final, and nobody can be asked.
    Stuck,
    /// It succeeded.
    Found,
    /// It failed.
    Failed,
    /// The provider has no record of it, or never told.
    Unknown,
}

/// A task as it is looked up.
#[derive(Debug, Deserialize)]
pub(super) struct Item {
    pub(super) task_id: TaskId,
    pub(super) source: Option<SourceName>,
    pub(super) kind: Kind,
    pub(super) index: u64,
}

/// All tasks of a file.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Entries as JSON, one a line.
    entries: File,
    standings: Vec<Standing>,
    /// How many there are of each.
    counts: [usize; 5],
    /// Entries that the file had twice.
    pub(super) duplicates: u64,
}

/// A backlog that is being filled.
pub(super) struct Filling {
    entries: BufWriter<File>,
    /// Of what identifies an entry: a digest is shorter than most, and as good.
    seen: HashSet<[u8; 16]>,
    duplicates: u64,
}

impl Filling {
    pub(super) fn new() -> anyhow::Result<Self> {
        let entries =
            tempfile::tempfile().context("cannot make a temporary file; TMPDIR names the directory")?;
        Ok(Self {
            entries: BufWriter::new(entries),
            seen: HashSet::new(),
            duplicates: 0,
        })
    }

    /// Adds an entry, unless it is there.
    pub(super) fn add(&mut self, entry: &Entry) -> anyhow::Result<()> {
        let source = entry.source.as_ref().map_or("", SourceName::as_str);
        let key = format!("{source} {} {} {}", entry.task_id, entry.kind, entry.index);
        let digest = Sha256::digest(key);
        let digest = *digest.first_chunk().expect("a digest has 32 bytes");
        if !self.seen.insert(digest) {
            self.duplicates += 1;
            return Ok(());
        }
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        self.entries.write_all(&line).context(CANNOT_WRITE)
    }

    pub(super) fn filled(self) -> anyhow::Result<Backlog> {
        let entries = self.entries.into_inner().map_err(io::IntoInnerError::into_error);
        Ok(Backlog {
            entries: entries.context(CANNOT_WRITE)?,
            counts: [self.seen.len(), 0, 0, 0, 0],
            standings: vec![Standing::Open; self.seen.len()],
            duplicates: self.duplicates,
        })
    }
}

const CANNOT_WRITE: &str = "cannot write the temporary file; TMPDIR names the directory";

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.standings.len()
    }

    pub(super) fn count(&self, standing: Standing) -> usize {
        self.counts[standing as usize]
    }

    /// The entries from the first one, as JSON. One reading at a time: the next one begins at the first again.
    pub(super) fn entries(&self) -> anyhow::Result<impl Iterator<Item = anyhow::Result<String>> + use<>> {
        let mut entries = self.entries.try_clone()?;
        entries.rewind()?;
        let lines = BufReader::new(entries).lines();
        Ok(lines.map(|line| line.context("cannot read the temporary file")))
    }

    /// Begins to walk along those of one standing.
    pub(super) fn walk(&self, standing: Standing) -> anyhow::Result<Walk> {
        Ok(Walk {
            entries: Box::new(self.entries()?.enumerate()),
            standing,
        })
    }

    pub(super) fn note(&mut self, place: usize, standing: Standing) {
        let before = std::mem::replace(&mut self.standings[place], standing);
        self.counts[before as usize] -= 1;
        self.counts[standing as usize] += 1;
    }
}

/// A walk along the entries of one standing.
pub(super) struct Walk {
    entries: Box<dyn Iterator<Item = (usize, anyhow::Result<String>)> + Send>,
    standing: Standing,
}

impl Walk {
    /// The next one with its place. Only those ahead may change their standing meanwhile.
    pub(super) fn next(&mut self, backlog: &Backlog) -> anyhow::Result<Option<(usize, Item)>> {
        for (place, entry) in self.entries.by_ref() {
            if backlog.standings[place] == self.standing {
                return Ok(Some((place, serde_json::from_str(&entry?)?)));
            }
        }
        Ok(None)
    }
}
