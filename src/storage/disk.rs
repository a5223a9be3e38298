//! Stored files on a local disk.
//!
//! Not by way of `object_store`, which has a local backend, too: that would copy each file, where a rename out of the
//! spool does, and sync nothing unless asked.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::{is_sound, task_directory};
use super::spool::{Finished, Spooled};
use super::{StorageError, blocking, failed_to};
use crate::failpoint::{self, Step};

/// Where staged files wait for their rename, on the file system of their destination. No key begins with a dot.
pub(super) const INCOMING: &str = ".incoming";

/// How much is copied in one go from one file system to another; a copy that is abandoned ends after so much.
const COPY_BYTES: u64 = 64 << 20;

/// How often a rename is tried while others remove its directory.
const RENAMES: usize = 8;

/// A path whose file goes when this does. Nothing is left to remove once the file was renamed.
#[derive(Debug)]
pub(super) struct Unpublished(pub(super) PathBuf);

impl Drop for Unpublished {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the sweep at the next start.
        fs::remove_file(&self.0).ok();
    }
}

/// A whole file, synced, on the file system of its destination. Dropping it leaves it in the spool for another attempt.
#[derive(Debug)]
pub(super) struct Staged {
    from: Spooled,
    /// Of a spool on another file system.
    copy: Option<Unpublished>,
}

impl Staged {
    fn path(&self) -> &Path {
        self.copy.as_ref().map_or(self.from.path(), |copy| &copy.0)
    }
}

/// The directory of stored files. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    root: Arc<Path>,
}

impl Disk {
    /// Takes the directory, creating it where it is missing.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root.join(INCOMING))?;
        sync_upward(root, root)?;
        if let Some(parent) = root.parent() {
            // Not ours, and maybe not readable: whoever keeps it that way created the root long ago.
            sync_upward(parent, parent).ok();
        }
        Ok(Self { root: root.into() })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where staged files lie.
    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join(INCOMING)
    }

    /// The path of a key; refuses whatever no layout can have made.
    pub(super) fn path_of(&self, key: &str) -> Result<PathBuf, StorageError> {
        if !is_sound(key) {
            return Err(StorageError::BadKey);
        }
        Ok(self.root.join(key))
    }

    /// Has a finished file on this file system: it stays where it is if it can be renamed from there, else a synced copy is
    /// made.
    pub(super) async fn stage(&self, finished: Finished) -> io::Result<Staged> {
        let from = finished.spooled;
        let to = Unpublished(self.incoming().join(from.path().file_name().unwrap_or_default()));
        // All go along, so that what appears after the caller stopped waiting is removed nevertheless.
        let tried = blocking(move || {
            let tried = renames(&Unpublished(from.path().with_extension("try")), &to)?;
            Ok((from, to, tried))
        });
        match tried.await? {
            (from, _, true) => Ok(Staged { from, copy: None }),
            (from, to, false) => copy_across(from, to).await,
        }
    }

    /// Renames a staged file to the path of its key, and syncs that. `done` goes once the work ends, even if nobody waits.
    /// If that fails, the file is in the spool still.
    pub(super) async fn publish(
        &self,
        staged: Staged,
        key: &str,
        done: impl Send + 'static,
    ) -> Result<(), StorageError> {
        let (target, root) = (self.path_of(key)?, Arc::clone(&self.root));
        blocking(move || {
            let _until_done = done;
            publish(staged, &target, &root)
        })
        .await
        .map_err(failed_to("publish a file"))
    }

    /// Removes the file of a key, if there is one, and the directories that are empty without it.
    pub(super) async fn remove(&self, key: &str, done: impl Send + 'static) -> Result<(), StorageError> {
        let (target, root) = (self.path_of(key)?, Arc::clone(&self.root));
        blocking(move || {
            let _until_done = done;
            remove(&target, &root)
        })
        .await
        .map_err(failed_to("remove a file"))
    }

    /// Removes all that lies in `{source}/{task_id}`, and then that, but for the files of the keys in `keep`.
    pub(super) async fn remove_all_but(
        &self,
        (source, task_id): (&str, &str),
        keep: &[String],
        done: impl Send + 'static,
    ) -> Result<(), StorageError> {
        let directory = self.path_of(&task_directory(source, task_id))?;
        let kept = keep
            .iter()
            .map(|key| self.path_of(key))
            .collect::<Result<Vec<_>, _>>()?;
        blocking(move || {
            let _until_done = done;
            remove_all_but(&kept, &directory)
        })
        .await
        .map_err(failed_to("remove the files of a task"))
    }

    /// Opens the file of a key and says how long it is.
    pub(super) async fn open_file(&self, key: &str) -> Result<(File, u64), StorageError> {
        let path = self.path_of(key)?;
        blocking(move || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok((file, metadata.len()))
        })
        .await
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StorageError::Missing,
            _ => failed_to("open a stored file")(error),
        })
    }
}

/// Writes, syncs and removes a small file.
pub(super) fn probe(directory: &Path) -> io::Result<()> {
    // Another process may look at the same time.
    let probe = directory.join(format!("probe-{}", std::process::id()));
    let written = fs::write(&probe, [0; 4096]).and_then(|()| File::open(&probe)?.sync_all());
    // Also of a write that the disk had no room for, the empty file is there.
    written.and(fs::remove_file(&probe))
}

/// Whether files can be renamed from the directory of one path to that of another. An empty file tells: the same device may
/// be mounted twice, or have a quota for each of them, and the file itself must not lie where nobody looks for it.
fn renames(from: &Unpublished, to: &Unpublished) -> io::Result<bool> {
    File::create(&from.0)?;
    match fs::rename(&from.0, &to.0) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
        renamed => renamed.map(|()| true),
    }
}

/// Copies in pieces, each on a blocking thread: dropping this ends the copy after the piece at hand.
pub(super) async fn copy_across(from: Spooled, to: Unpublished) -> io::Result<Staged> {
    let paths = (from.path().to_owned(), to.0.clone());
    let (mut input, mut output) =
        blocking(move || Ok((File::open(paths.0)?, File::create(paths.1)?))).await?;
    loop {
        let copied;
        (input, output, copied) = blocking(move || {
            let copied = io::copy(&mut (&input).take(COPY_BYTES), &mut output)?;
            Ok((input, output, copied))
        })
        .await?;
        if copied == 0 {
            break;
        }
    }
    blocking(move || output.sync_all()).await?;
    Ok(Staged { from, copy: Some(to) })
}

fn publish(staged: Staged, target: &Path, root: &Path) -> io::Result<()> {
    let directory = target.parent().unwrap_or(root);
    rename_into(staged.path(), target, directory)?;
    failpoint::step(Step::FileRenamed);
    // All the way up each time, not only where this call created something: whoever created it may not have synced it
    // yet. Syncing a directory that did not change costs next to nothing.
    let synced = sync_upward(directory, root);
    match synced {
        Ok(()) => staged.from.discard(),
        // Back, to be published by another attempt. Where even that fails, it lies under its key, which the row names.
        Err(_) => drop(fs::rename(target, staged.path())),
    }
    synced
}

/// Renames into a directory that is made if it is missing, and again if a removal of another task's files takes it away
/// meanwhile because it is empty.
fn rename_into(from: &Path, target: &Path, directory: &Path) -> io::Result<()> {
    for _ in 0..RENAMES {
        // Also between two of the directories that are made.
        match fs::create_dir_all(directory).and_then(|()| fs::rename(from, target)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => return renamed,
        }
    }
    fs::rename(from, target)
}

fn remove(target: &Path, root: &Path) -> io::Result<()> {
    match fs::remove_file(target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    for directory in target.parent().unwrap_or(root).ancestors() {
        let is_gone = directory != root
            && match fs::remove_dir(directory) {
                // By an earlier try, that may have ended before the sync.
                Err(error) => error.kind() == io::ErrorKind::NotFound,
                Ok(()) => true,
            };
        if is_gone {
            continue;
        }
        match sync_upward(directory, directory) {
            // Others have emptied it meanwhile: what its removal is synced with covers ours.
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != root => {}
            synced => return synced,
        }
    }
    Ok(())
}

fn remove_all_but(kept: &[PathBuf], directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut outcome = Ok(());
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        // Under another layout, a kept file may lie deeper.
        if kept.iter().any(|kept| kept.starts_with(&path)) {
            continue;
        }
        let removed = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        outcome = outcome.and(removed);
    }
    outcome?;
    if !kept.is_empty() {
        return sync_upward(directory, directory);
    }
    fs::remove_dir(directory)?;
    let parent = directory.parent().unwrap_or(directory);
    sync_upward(parent, parent)
}

/// Syncs `directory` and its parents up to `root`, so that the names in them survive a loss of power.
fn sync_upward(directory: &Path, root: &Path) -> io::Result<()> {
    for directory in directory.ancestors() {
        // The parent of a relative path of one part is written as the empty path.
        let directory_or_here = if directory.as_os_str().is_empty() {
            Path::new(".")
        } else {
            directory
        };
        File::open(directory_or_here)?.sync_all()?;
        if directory == root {
            break;
        }
    }
    Ok(())
}
