//! Files being written, out of sight, and those that wait for the attempt that goes on with them.
//!
//! A file is written by one holder at a time. When it is cut short it is put down here, with a note of what it is a part of,
//! and whoever claims its download next takes it up. The index in memory says what lies here; the disk says it again to
//! the next process.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{StorageError, failed_to};

mod file;
mod note;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use file::BUFFER_BYTES;
pub(super) use file::Spooled;
pub use file::{Finished, HEAD_BYTES, SpoolFile};
pub use note::{Note, Validator};

use file::{Place, remove_if_there};
use note::Record;

/// The directory, and what lies in it for a later attempt, by the download it belongs to.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    kept: Mutex<HashMap<i64, Partial>>,
}

/// A file that was put down.
#[derive(Debug, Clone)]
struct Partial {
    part: PathBuf,
    note: Note,
    /// How many of its first bytes can be relied on.
    trusted: u64,
}

/// What a sweep found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Files that were removed.
    pub removed: usize,
    /// Files that an attempt goes on with.
    pub kept: usize,
}

impl Spool {
    pub(super) fn over(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            kept: Mutex::default(),
        }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Takes up the file of a download where it was put down, if it comes from `url`.
    pub(super) async fn resume(
        self: &Arc<Self>,
        download: i64,
        url: &str,
    ) -> Result<Option<SpoolFile>, StorageError> {
        let Some(partial) = self.take(download) else {
            return Ok(None);
        };
        let place = self.place(download, &partial.part);
        if partial.note.url != url {
            return Ok(None);
        }
        SpoolFile::reopen(place, partial).await
    }

    /// Begins a file. The name carries the lease token, so that two claims of one download never meet.
    pub(super) async fn create(
        self: &Arc<Self>,
        download: i64,
        token: i64,
    ) -> Result<SpoolFile, StorageError> {
        let part = self.directory.join(format!("{download}-{token}.part"));
        SpoolFile::create(self.place(download, &part)).await
    }

    fn place(self: &Arc<Self>, download: i64, part: &Path) -> Place {
        Place {
            spool: Arc::clone(self),
            download,
            part: part.to_owned(),
            note: note_of(part),
            kept: false,
        }
    }

    fn put(&self, download: i64, partial: Partial) {
        let mut kept = self.lock();
        if let Some(other) = kept.get(&download).filter(|other| other.part != partial.part) {
            remove(other);
        }
        kept.insert(download, partial);
    }

    fn take(&self, download: i64) -> Option<Partial> {
        self.lock().remove(&download)
    }

    /// Removes what lies here and fits; how many files.
    pub(super) fn forget(&self, fits: impl Fn(i64, &Note) -> bool) -> usize {
        let mut kept = self.lock();
        let before = kept.len();
        kept.retain(|download, partial| {
            let goes = fits(*download, &partial.note);
            if goes {
                remove(partial);
            }
            !goes
        });
        before - kept.len()
    }

    /// The downloads of which a predecessor left something.
    pub(super) fn left(&self) -> Result<Vec<i64>, StorageError> {
        let left = || -> io::Result<Vec<i64>> {
            let entries = fs::read_dir(&self.directory)?.collect::<io::Result<Vec<_>>>()?;
            Ok(entries
                .iter()
                .filter_map(|entry| download_of(&entry.path()))
                .collect())
        };
        left().map_err(failed_to("read the spool"))
    }

    /// Takes over what a predecessor left for downloads that are to be fetched, from the same URL still; removes all else.
    pub(super) fn sweep(&self, wanted: &HashMap<i64, String>) -> io::Result<Swept> {
        let mut swept = Swept::default();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                continue;
            }
            let path = entry.path();
            if !path.exists() {
                // It went with its part.
                continue;
            }
            match wanted_part(&path, wanted) {
                Some((download, partial)) => {
                    self.put(download, partial);
                    swept.kept += 1;
                }
                None if is_note_of_a_part(&path) => {}
                None => {
                    remove_if_there(&path)?;
                    if download_of(&path).is_some() {
                        remove_if_there(&note_of(&path))?;
                    }
                    swept.removed += 1;
                }
            }
        }
        Ok(swept)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Partial>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note_of(part: &Path) -> PathBuf {
    part.with_extension("note")
}

/// Notes go with their part.
fn is_note_of_a_part(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "note") && path.with_extension("part").exists()
}

/// The download that a file belongs to, by its name: `{download}-{token}.part`.
fn download_of(path: &Path) -> Option<i64> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".part")?;
    stem.split_once('-')?.0.parse().ok()
}

fn wanted_part(path: &Path, wanted: &HashMap<i64, String>) -> Option<(i64, Partial)> {
    let download = download_of(path)?;
    let record = Record::read(&note_of(path)).ok()?;
    let partial = Partial {
        part: path.to_owned(),
        trusted: record.trusted(),
        note: record.note,
    };
    (wanted.get(&download) == Some(&partial.note.url)).then_some((download, partial))
}

fn remove(partial: &Partial) {
    // What cannot be removed now is removed by the sweep at the next start.
    fs::remove_file(note_of(&partial.part)).ok();
    fs::remove_file(&partial.part).ok();
}
