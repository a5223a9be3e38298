//! Where stored files lie: on a local disk, or in a bucket of an object store.
//!
//! A file is written to the spool, out of sight, and becomes visible under its key only whole:
//! write → length and content check by the caller → fsync → stage → publish. On disk, staging brings it onto the file
//! system of its destination, and publishing is a rename and an fsync of the directories. To a bucket, staging sends the
//! parts of a large file, and publishing puts them together. What is visible of a task changes under [`TaskFiles`] only,
//! one change at a time.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytesize::ByteSize;
use rustix::io::Errno;
use tokio::sync::{Mutex, OwnedMutexGuard};

mod disk;
mod key;
mod room;
mod spool;

pub use key::object_key;
pub use room::{AMPLE, Promise, Reserve};
pub use spool::{Finished, HEAD_BYTES, Note, SpoolFile, Swept, Validator};

use disk::{Disk, Unpublished};
use room::Room;
use spool::Spool;

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
    disk: Disk,
    spool: Arc<Spool>,
    locks: Arc<[Arc<Mutex<()>>]>,
    room: Arc<Room>,
}

impl Storage {
    /// Opens the storage, creating its directories where they are missing.
    pub fn open(media_root: &Path, spool_dir: &Path) -> Result<Self, StorageError> {
        let create = || {
            fs::create_dir_all(spool_dir)?;
            Disk::open(media_root)
        };
        Ok(Self {
            disk: create().map_err(failed_to("create its directories"))?,
            spool: Arc::new(Spool::over(spool_dir)),
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            room: Arc::new(Room::on(&[spool_dir, media_root], Reserve::Bytes(0))),
        })
    }

    /// Keeps so much of each disk free from now on.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self {
            room: Arc::new(Room::on(&[self.spool.directory(), self.disk.root()], reserve)),
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
        let directories = [self.spool.directory().to_owned(), self.disk.incoming()];
        let write = move || {
            directories
                .iter()
                .try_for_each(|directory| disk::probe(directory))
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
            for entry in fs::read_dir(self.disk.incoming())? {
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
        let staged = self.disk.stage(finished).await;
        staged.map(Staged).map_err(failed_to("stage a file"))
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
        let (file, length) = self.disk.open_file(key).await?;
        Ok((tokio::fs::File::from_std(file), length))
    }

    /// Whether stored files can be read at all: what is missing while they cannot is not lost. A file system that is not
    /// mounted lacks what [`Storage::open`] made in it.
    pub async fn is_there(&self) -> Result<(), StorageError> {
        let incoming = self.disk.incoming();
        blocking(move || fs::read_dir(incoming).map(drop))
            .await
            .map_err(failed_to("find its directory; is the file system mounted?"))
    }
}

/// A whole and synced file on the file system of its destination. Dropping it unpublished removes it.
#[derive(Debug)]
pub struct Staged(Unpublished);

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
        self.storage
            .disk
            .publish(staged.0, key, Arc::clone(&self.lock))
            .await
    }

    /// Removes the file of a key, if there is one, and the directories that are empty without it.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove(&self, key: &str) -> Result<(), StorageError> {
        self.storage.disk.remove(key, Arc::clone(&self.lock)).await
    }

    /// Removes all that lies in `{source}/{task_id}`, and then that, but for the files of the keys in `keep`. What
    /// cannot be removed stops nothing else from being removed, and is the error in the end.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove_all_but(&self, keep: &[String]) -> Result<(), StorageError> {
        let task = (self.source.as_str(), self.task_id.as_str());
        let lock = Arc::clone(&self.lock);
        self.storage.disk.remove_all_but(task, keep, lock).await
    }
}

/// Runs disk work on a blocking thread. If the caller stops waiting, the work is still done to its end.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests;
