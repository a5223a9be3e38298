//! Where stored files lie: local disk.
//!
//! A file is written to the spool, out of sight, and becomes visible under its key only whole and synced:
//! write → length and content check by the caller → fsync → stage → rename → fsync of the directories. What is visible
//! of a task changes under [`TaskFiles`] only, one change at a time.

use std::collections::HashMap;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytesize::ByteSize;
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::failpoint::{self, Step};

mod key;
mod room;
mod spool;

pub use key::object_key;
pub use room::{AMPLE, Promise, Reserve};
pub use spool::{Finished, HEAD_BYTES, Note, SpoolFile, Swept, Validator};

use key::{is_sound, task_directory};
use room::Room;
use spool::{Spool, Spooled};

/// Where staged files wait for their rename, on the file system of their destination. No key begins with a dot.
const INCOMING: &str = ".incoming";

/// How much is copied in one go from one file system to another; a copy that is abandoned ends after so much.
const COPY_BYTES: u64 = 64 << 20;

/// How often a rename is tried while others remove its directory.
const RENAMES: usize = 8;

/// Over how many locks the tasks are spread; two that share one only wait for each other now and then.
const LOCKS: usize = 64;

/// Why the disk did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No file lies at the key.
    #[error("no file is stored under this key")]
    Missing,
    /// The key is not one that [`object_key`] makes; it might lead out of the storage.
    #[error("not a storage key")]
    BadKey,
    /// The disk has no room beside the reserve and what other downloads were promised. All in bytes.
    #[error("no room on the disk")]
    NoRoom {
        /// For how much.
        needed: u64,
        /// How much there is.
        spare: u64,
        /// How much is kept free.
        reserve: u64,
        /// Whether the disk is large enough at all.
        fits: bool,
    },
    /// The operating system refused or failed.
    #[error("the storage could not {action}")]
    Io {
        /// What was tried, such as `write to the spool`.
        action: &'static str,
        /// As the operating system put it.
        source: io::Error,
    },
}

impl StorageError {
    /// Whether the disk, or the quota on it, is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::NoRoom { .. }) || matches!(self.errno(), Some(Errno::NOSPC | Errno::DQUOT))
    }

    /// What is wrong and what to do, as one sentence for people, without paths.
    pub fn sentence(&self) -> String {
        let advice = match self.errno() {
            Some(Errno::NOSPC) => "the disk is full; make room and it goes on by itself",
            Some(Errno::DQUOT) => "the disk quota is used up; make room and it goes on by itself",
            Some(Errno::ROFS) => "the file system is read-only",
            Some(Errno::MFILE | Errno::NFILE) => "too many files are open; raise the limit (ulimit -n)",
            Some(Errno::ACCESS | Errno::PERM) => "permission denied; the server must own its data directory",
            Some(Errno::IO) => "the disk reports a hardware error",
            _ => match self {
                Self::Io { source, .. } => return format!("{self}: {source}"),
                Self::NoRoom { .. } => return self.room_sentence(),
                Self::Missing | Self::BadKey => return self.to_string(),
            },
        };
        format!("{self}: {advice}")
    }

    fn room_sentence(&self) -> String {
        let &Self::NoRoom {
            needed,
            spare,
            reserve,
            fits,
        } = self
        else {
            return self.to_string();
        };
        let shown = |bytes| ByteSize(bytes).display().iec().to_string();
        let (needed, spare, reserve) = (shown(needed), shown(spare), shown(reserve));
        if fits {
            format!(
                "the disk is full: {spare} are left beside the reserve of {reserve} and running downloads, {needed} are \
                 needed; make room and it goes on by itself"
            )
        } else {
            format!("the disk is too small: {needed} are needed beside the reserve of {reserve}")
        }
    }

    fn errno(&self) -> Option<Errno> {
        match self {
            Self::Io { source, .. } => Errno::from_io_error(source),
            Self::Missing | Self::BadKey | Self::NoRoom { .. } => None,
        }
    }
}

/// Names an action for the error it may end in.
fn failed_to(action: &'static str) -> impl FnOnce(io::Error) -> StorageError {
    move |source| StorageError::Io { action, source }
}

/// The stored files of one server and the files it is writing. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    media: Arc<Path>,
    spool: Arc<Spool>,
    locks: Arc<[Arc<Mutex<()>>]>,
    room: Arc<Room>,
}

impl Storage {
    /// Opens the storage, creating its directories where they are missing.
    pub fn open(media_root: &Path, spool_dir: &Path) -> Result<Self, StorageError> {
        let create = || {
            for directory in [media_root, &media_root.join(INCOMING), spool_dir] {
                fs::create_dir_all(directory)?;
            }
            sync_upward(media_root, media_root)
        };
        create().map_err(failed_to("create its directories"))?;
        if let Some(parent) = media_root.parent() {
            // Not ours, and maybe not readable: whoever keeps it that way created the root long ago.
            sync_upward(parent, parent).ok();
        }
        Ok(Self {
            media: media_root.into(),
            spool: Arc::new(Spool::over(spool_dir)),
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            room: Arc::new(Room::on(&[spool_dir, media_root], Reserve::Bytes(0))),
        })
    }

    /// Keeps so much of each disk free from now on.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self {
            room: Arc::new(Room::on(&[self.spool.directory(), &self.media], reserve)),
            ..self
        }
    }

    /// Promises room for so many bytes of a file: [`StorageError::NoRoom`] if there is not so much beside the reserve and
    /// what other downloads were promised.
    pub fn admit(&self, bytes: u64) -> Result<Promise, StorageError> {
        self.room.admit(bytes)
    }

    /// Writes a small file wherever files are written, and removes it: fails while that cannot be done.
    pub async fn probe(&self) -> Result<(), StorageError> {
        let directories = [self.spool.directory().to_owned(), self.media.join(INCOMING)];
        let write = move || {
            for directory in directories {
                let probe = Unpublished(directory.join("probe"));
                let mut file = File::create(&probe.0)?;
                file.write_all(&[0; 4096])?;
                file.sync_all()?;
            }
            Ok(())
        };
        blocking(write).await.map_err(failed_to("write a file"))
    }

    /// Fails where the reserve has been touched, by whomever.
    pub fn has_reserve(&self) -> Result<(), StorageError> {
        self.room.has_reserve()
    }

    /// The downloads of which a predecessor left part of the file in the spool.
    pub fn spooled(&self) -> Result<Vec<i64>, StorageError> {
        self.spool.left()
    }

    /// Removes every unfinished file but those of downloads that are to be fetched from the same URL still.
    ///
    /// Only at start and only under the lock of the data directory: then no file in the spool has an owner.
    pub fn sweep_spool(&self, wanted: &HashMap<i64, String>) -> Result<Swept, StorageError> {
        let sweep = || -> io::Result<Swept> {
            let mut swept = self.spool.sweep(wanted)?;
            for entry in fs::read_dir(self.media.join(INCOMING))? {
                fs::remove_file(entry?.path())?;
                swept.removed += 1;
            }
            Ok(swept)
        };
        sweep().map_err(failed_to("empty the spool"))
    }

    /// Begins a file in the spool, for one claim of a download.
    pub async fn create_spool(&self, download_id: i64, token: i64) -> Result<SpoolFile, StorageError> {
        self.spool.create(download_id, token).await
    }

    /// Goes on with the file of a download from where an earlier claim put it down, if there is one and it comes from
    /// `url`.
    pub async fn resume_spool(&self, download_id: i64, url: &str) -> Result<Option<SpoolFile>, StorageError> {
        self.spool.resume(download_id, url).await
    }

    /// Removes what was put down of one download, if anything was: it needs it no more.
    pub fn forget_spooled(&self, download_id: i64) {
        self.spool.forget(|download, _| download == download_id);
    }

    /// Removes what was put down of the downloads of one task.
    pub fn forget_spooled_of(&self, source: &str, task_id: &str) {
        self.spool
            .forget(|_, note| note.source == source && note.task_id == task_id);
    }

    /// Removes all that was put down and waits for another attempt, to make room; how many files.
    pub fn forget_all_spooled(&self) -> usize {
        self.spool.forget(|_, _| true)
    }

    /// Brings a finished file onto the file system of its destination, so that publishing it is a mere rename: itself by
    /// a rename, or from another file system by a synced copy, which may take minutes.
    ///
    /// If that fails, or the caller stops waiting, the file stays in the spool for another attempt.
    pub async fn stage(&self, finished: Finished) -> Result<Staged, StorageError> {
        let from = finished.spooled;
        let name = from.path().file_name().unwrap_or_default();
        let to = Unpublished(self.media.join(INCOMING).join(name));
        // Both go along, so that what appears after the caller stopped waiting is removed nevertheless.
        let renamed = blocking(move || match fs::rename(from.path(), &to.0) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok((to, Some(from))),
            Err(error) => Err(error),
            Ok(()) => Ok((to, None)),
        });
        let staged = async {
            match renamed.await? {
                (to, None) => Ok(Staged(to)),
                (to, Some(from)) => copy_across(from, to).await,
            }
        };
        staged.await.map_err(failed_to("stage a file"))
    }

    /// The stored files of one task, for whoever changes them: waits until nobody else does.
    pub async fn task_files(&self, source: &str, task_id: &str) -> TaskFiles {
        let mut hasher = DefaultHasher::new();
        (source, task_id).hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % LOCKS as u64).unwrap_or(0);
        TaskFiles {
            storage: self.clone(),
            source: source.to_owned(),
            task_id: task_id.to_owned(),
            lock: Arc::new(Arc::clone(&self.locks[place]).lock_owned().await),
        }
    }

    /// Opens a stored file for reading and says how long it is.
    pub async fn open_file(&self, key: &str) -> Result<(tokio::fs::File, u64), StorageError> {
        let path = self.path_of(key)?;
        let (file, length) = blocking(move || {
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
        })?;
        Ok((tokio::fs::File::from_std(file), length))
    }

    /// The path of a key; refuses whatever [`object_key`] cannot have made.
    fn path_of(&self, key: &str) -> Result<PathBuf, StorageError> {
        if !is_sound(key) {
            return Err(StorageError::BadKey);
        }
        Ok(self.media.join(key))
    }
}

/// A whole and synced file on the file system of its destination. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct Staged(Unpublished);

/// A path whose file goes when this does. Nothing is left to remove once the file was renamed.
#[derive(Debug)]
struct Unpublished(PathBuf);

impl Drop for Unpublished {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the sweep at the next start.
        fs::remove_file(&self.0).ok();
    }
}

/// The right to change which files of one task are visible. There is one at a time for each task.
///
/// Who publishes takes it before asking whether the lease still stands, and who deletes takes it before deleting the
/// rows: so nothing appears for a task that is deleted, and nobody replaces what a later claim published.
#[derive(Debug)]
pub struct TaskFiles {
    storage: Storage,
    source: String,
    task_id: String,
    /// Goes along with work on a blocking thread: work that is no longer waited for still excludes others.
    lock: Arc<OwnedMutexGuard<()>>,
}

impl TaskFiles {
    /// The key under which a file of that name belongs.
    pub fn key_of(&self, name: &str) -> String {
        object_key(&self.source, &self.task_id, name)
    }

    /// Makes a staged file visible under its key ([`TaskFiles::key_of`]), replacing in one step what may lie there
    /// (a file published before a crash whose settlement was never committed). Once this returns, the file survives a
    /// loss of power.
    ///
    /// If the caller stops waiting, the file may still appear, whole, before anybody else changes the task's files.
    pub async fn publish(&self, staged: Staged, key: &str) -> Result<(), StorageError> {
        let target = self.storage.path_of(key)?;
        let (root, lock) = (Arc::clone(&self.storage.media), Arc::clone(&self.lock));
        blocking(move || {
            let _until_done = lock;
            publish(&staged, &target, &root)
        })
        .await
        .map_err(failed_to("publish a file"))
    }

    /// Removes the file of a key, if there is one, and the directories that are empty without it.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove(&self, key: &str) -> Result<(), StorageError> {
        let target = self.storage.path_of(key)?;
        let (root, lock) = (Arc::clone(&self.storage.media), Arc::clone(&self.lock));
        blocking(move || {
            let _until_done = lock;
            remove(&target, &root)
        })
        .await
        .map_err(failed_to("remove a file"))
    }

    /// Removes all that lies in `{source}/{task_id}`, and then that, but for the files of the keys in `keep`. What
    /// cannot be removed stops nothing else from being removed, and is the error in the end.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove_all_but(&self, keep: &[String]) -> Result<(), StorageError> {
        let key = task_directory(&self.source, &self.task_id);
        let directory = self.storage.path_of(&key)?;
        let kept = keep
            .iter()
            .map(|key| self.storage.path_of(key))
            .collect::<Result<Vec<_>, _>>()?;
        let lock = Arc::clone(&self.lock);
        blocking(move || {
            let _until_done = lock;
            remove_all_but(&kept, &directory)
        })
        .await
        .map_err(failed_to("remove the files of a task"))
    }
}

/// Runs disk work on a blocking thread. If the caller stops waiting, the work is still done to its end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error)),
    }
}

/// Copies in pieces, each on a blocking thread: dropping this ends the copy after the piece at hand.
async fn copy_across(from: Spooled, to: Unpublished) -> io::Result<Staged> {
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
    from.discard();
    Ok(Staged(to))
}

fn publish(staged: &Staged, target: &Path, root: &Path) -> io::Result<()> {
    let directory = target.parent().unwrap_or(root);
    rename_into(&staged.0.0, target, directory)?;
    failpoint::step(Step::FileRenamed);
    // All the way up each time, not only where this call created something: whoever created it may not have synced it
    // yet. Syncing a directory that did not change costs next to nothing.
    sync_upward(directory, root)
}

/// Renames into a directory that is made if it is missing, and again if a removal of another task's files takes it away
/// meanwhile because it is empty.
fn rename_into(from: &Path, target: &Path, directory: &Path) -> io::Result<()> {
    for _ in 0..RENAMES {
        fs::create_dir_all(directory)?;
        match fs::rename(from, target) {
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
        if !is_gone {
            return sync_upward(directory, directory);
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
        if kept.contains(&path) {
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

#[cfg(test)]
mod tests;
