//! Where stored files lie: on a local disk, or in a bucket of an object store.
//!
//! A file is written to the spool, out of sight, and becomes visible under its key only whole:
//! write → length and content check by the caller → fsync → stage → publish. On disk, staging copies it if the spool is on
//! another file system, and publishing is a rename and an fsync of the directories. To a bucket, staging sends the
//! parts of a large file, and publishing puts them together. Until it is published, it is in the spool, for another attempt
//! should this one fail. What is visible of a task changes under [`TaskFiles`] only, one change at a time.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::TryStreamExt as _;
use futures_util::stream::BoxStream;
use rustix::io::Errno;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::io::ReaderStream;
use url::Url;

use crate::config::{self, Layout, Variables};
use crate::shutdown::Tasks;

mod bucket;
mod connect;
mod disk;
mod key;
mod room;
mod spool;
mod upload;

pub use connect::BadSettings;
pub use key::object_key;
pub use room::{AMPLE, Promise, Reserve};
pub use spool::{Finished, HEAD_BYTES, Note, SpoolFile, Swept, Validator};

use bucket::Bucket;
use disk::Disk;
use room::Room;
use spool::Spool;

/// Bytes read from disk at a time to be handed out.
const CHUNK: usize = 256 * 1024;

/// Over how many locks the tasks are spread; two that share one only wait for each other now and then.
const LOCKS: usize = 64;

/// Why the disk or the object store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No file lies at the key.
    #[error("no file is stored under this key")]
    Missing,
    /// The key is not one that any layout makes; it might lead out of the storage.
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
    /// The object store refused, failed, or could not be reached.
    #[error("the storage could not {action}")]
    Bucket {
        /// What was tried, such as `publish a file`.
        action: &'static str,
        /// Which bucket, and what was wrong, for people: without secrets and without URLs that were asked for.
        told: String,
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
                Self::Bucket { told, .. } => return format!("{self}: {told}"),
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
            Self::Missing | Self::BadKey | Self::NoRoom { .. } | Self::Bucket { .. } => None,
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
    place: Place,
    layout: Arc<Layout>,
    spool: Arc<Spool>,
    locks: Arc<[Arc<Mutex<()>>]>,
    room: Arc<Room>,
}

/// Where stored files lie.
#[derive(Debug, Clone)]
enum Place {
    Disk(Disk),
    Bucket(Bucket),
}

/// A bucket for stored files.
#[derive(Debug, Clone, Copy)]
pub struct InBucket<'a> {
    /// Which.
    pub bucket: &'a config::Bucket,
    /// How to get in.
    pub variables: &'a Variables,
    /// A directory for notes of uploads that are not finished, beside the database: it outlives a crash.
    pub notes: &'a Path,
    /// Under which requests run that must come to their end.
    pub tasks: &'a Tasks,
}

impl Storage {
    /// Opens a storage on disk, creating its directories where they are missing.
    pub fn open(media_root: &Path, spool_dir: &Path) -> Result<Self, StorageError> {
        let create = || {
            fs::create_dir_all(spool_dir)?;
            Disk::open(media_root)
        };
        let disk = create().map_err(failed_to("create its directories"))?;
        Ok(Self::at(Place::Disk(disk), spool_dir))
    }

    /// Opens a storage in a bucket. Nothing is asked of it yet: it may be out of reach for a while.
    pub fn open_bucket(place: &InBucket<'_>, spool_dir: &Path) -> Result<Self, BadSettings> {
        let notes = (place.notes, place.tasks);
        let bucket = Bucket::open(place.bucket, place.variables, notes)?;
        Ok(Self::at(Place::Bucket(bucket), spool_dir))
    }

    fn at(place: Place, spool_dir: &Path) -> Self {
        Self {
            place,
            layout: Arc::default(),
            spool: Arc::new(Spool::over(spool_dir)),
            locks: (0..LOCKS).map(|_| Arc::default()).collect(),
            room: Arc::new(Room::on(&[], Reserve::Usual)),
        }
    }

    /// Stores files under other keys from now on. Those of files that are stored already stand in their rows.
    #[must_use]
    pub fn with_layout(self, layout: Layout) -> Self {
        Self {
            layout: Arc::new(layout),
            ..self
        }
    }

    /// The key under which a file belongs.
    pub fn key_of(&self, source: &str, task_id: &str, name: &str) -> String {
        object_key(&self.layout, (source, task_id, name))
    }

    /// Takes over what a predecessor that was killed had begun to send to the bucket, to have it aborted.
    ///
    /// Only at start and only under the lock of the data directory: then nothing there has an owner.
    pub fn take_over_uploads(&self) -> Result<usize, StorageError> {
        match &self.place {
            Place::Disk(_) => Ok(0),
            Place::Bucket(bucket) => bucket.take_over().map_err(failed_to("read its notes of uploads")),
        }
    }

    /// Aborts uploads that nobody will finish and that could not be aborted yet.
    pub async fn abort_abandoned_uploads(&self) -> Result<(), StorageError> {
        match &self.place {
            Place::Disk(_) => Ok(()),
            Place::Bucket(bucket) => bucket.abort_abandoned().await,
        }
    }

    /// Looks whether files can be spooled, stored and removed, by doing so with a small one.
    pub async fn probe(&self) -> Result<(), StorageError> {
        let mut directories = vec![self.spool.directory().to_owned()];
        if let Place::Disk(disk) = &self.place {
            directories.push(disk.incoming());
        }
        blocking(move || {
            directories
                .iter()
                .try_for_each(|directory| disk::probe(directory))
        })
        .await
        .map_err(failed_to("write a test file"))?;
        match &self.place {
            Place::Disk(_) => Ok(()),
            Place::Bucket(bucket) => bucket.probe().await,
        }
    }

    /// Keeps so much of each disk free from now on.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        let mut directories = vec![self.spool.directory()];
        if let Place::Disk(disk) = &self.place {
            directories.push(disk.root());
        }
        let room = Arc::new(Room::on(&directories, reserve));
        Self { room, ..self }
    }

    /// Promises room for so many bytes of a file: [`StorageError::NoRoom`] if there is not so much beside the reserve and
    /// what other downloads were promised.
    pub fn admit(&self, bytes: u64) -> Result<Promise, StorageError> {
        self.room.admit(bytes)
    }

    /// Bytes that are free on each disk that downloads fill, and whether its reserve is touched, so that nothing is fetched.
    pub fn room_left(&self) -> Vec<(u64, bool)> {
        self.room.left()
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
            if let Place::Disk(disk) = &self.place {
                for entry in fs::read_dir(disk.incoming())? {
                    fs::remove_file(entry?.path())?;
                    swept.removed += 1;
                }
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

    /// Brings a finished file as near to its key as can be without showing it there, so that publishing it is a small
    /// matter. That may take minutes: a copy to another file system, or the parts of a large file sent to a bucket.
    ///
    /// If that fails, or the caller stops waiting, the file stays in the spool for another attempt.
    pub async fn stage(
        &self,
        finished: Finished,
        key: &str,
        content_type: &str,
    ) -> Result<Staged, StorageError> {
        let content = match &self.place {
            Place::Disk(disk) => {
                let staged = disk.stage(finished).await;
                StagedContent::Disk(Box::new(staged.map_err(failed_to("stage a file"))?))
            }
            Place::Bucket(bucket) => {
                StagedContent::Bucket(Box::new(bucket.stage(finished, key, content_type).await?))
            }
        };
        let key = key.to_owned();
        Ok(Staged { key, content })
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

    /// Finds a stored file, to be read.
    pub async fn open_file(&self, key: &str) -> Result<StoredFile, StorageError> {
        let (length, content) = match &self.place {
            Place::Disk(disk) => {
                let (file, length) = disk.open_file(key).await?;
                (length, Content::Disk(file))
            }
            Place::Bucket(bucket) => {
                let length = bucket.length_of(key).await?;
                (length, Content::Bucket(bucket.clone(), key.to_owned()))
            }
        };
        Ok(StoredFile { length, content })
    }

    /// A URL by which anybody can read a stored file for a while, without us; `None` for files on disk.
    pub async fn signed_url(&self, key: &str, opens_for: Duration) -> Result<Option<Url>, StorageError> {
        match &self.place {
            Place::Disk(_) => Ok(None),
            Place::Bucket(bucket) => bucket.signed_url(key, opens_for).await.map(Some),
        }
    }

    /// Whether stored files can be read at all: what is missing while they cannot is not lost. A file system that is not
    /// mounted lacks what [`Storage::open`] made in it.
    pub async fn is_there(&self) -> Result<(), StorageError> {
        match &self.place {
            Place::Disk(disk) => {
                let incoming = disk.incoming();
                let look = move || fs::read_dir(incoming).map(drop);
                let action = "find its directory; is the file system mounted?";
                blocking(look).await.map_err(failed_to(action))
            }
            Place::Bucket(bucket) => bucket.probe().await,
        }
    }
}

/// A stored file that was found.
#[derive(Debug)]
pub struct StoredFile {
    length: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Disk(fs::File),
    Bucket(Bucket, String),
}

impl StoredFile {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Part of it, which must lie within its length, as it comes: no more is held in memory than is on its way.
    pub async fn read(
        self,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, StorageError> {
        match self.content {
            Content::Disk(mut file) => {
                let (start, count) = (range.start, range.end.saturating_sub(range.start));
                let sought = blocking(move || file.seek(SeekFrom::Start(start)).map(|_| file)).await;
                let file = tokio::fs::File::from_std(sought.map_err(failed_to("read a stored file"))?);
                Ok(Box::pin(ReaderStream::with_capacity(file.take(count), CHUNK)))
            }
            Content::Bucket(bucket, key) => {
                let stream = bucket.read(&key, (range, self.length)).await?;
                Ok(Box::pin(stream.map_err(io::Error::other)))
            }
        }
    }
}

/// A whole file that can be published. Dropping it unpublished leaves it in the spool for another attempt.
#[derive(Debug)]
pub struct Staged {
    key: String,
    content: StagedContent,
}

#[derive(Debug)]
enum StagedContent {
    /// On the file system of its destination, and synced.
    Disk(Box<disk::Staged>),
    /// In the spool, and its parts in the bucket if it is large.
    Bucket(Box<bucket::Staged>),
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
    /// Makes a staged file visible under its key, replacing in one step what may lie there (a file published before a
    /// crash whose settlement was never committed). Once this returns, the file survives a loss of power.
    ///
    /// If that fails, the file stays in the spool for another attempt. If the caller stops waiting, it may still appear,
    /// whole, before anybody else changes the task's files.
    pub async fn publish(&self, staged: Staged) -> Result<(), StorageError> {
        let lock = Arc::clone(&self.lock);
        match (&self.storage.place, staged.content) {
            (Place::Disk(disk), StagedContent::Disk(file)) => disk.publish(*file, &staged.key, lock).await,
            (Place::Bucket(bucket), StagedContent::Bucket(file)) => bucket.publish(*file, lock).await,
            // Staged by another storage.
            _ => Err(StorageError::BadKey),
        }
    }

    /// Removes the file of a key, if there is one, and the directories that are empty without it.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove(&self, key: &str) -> Result<(), StorageError> {
        let lock = Arc::clone(&self.lock);
        match &self.storage.place {
            Place::Disk(disk) => disk.remove(key, lock).await,
            Place::Bucket(bucket) => bucket.remove(key, lock).await,
        }
    }

    /// Removes all that lies in the directory `{source}/{task_id}`, and then that, but for the files of the keys in `keep`:
    /// what was deleted before keys were noted, and so before there were buckets. What cannot be removed stops nothing else from being removed, and is the error in the end.
    ///
    /// Once this returns without an error, what was removed stays so after a loss of power.
    pub async fn remove_all_but(&self, keep: &[String]) -> Result<(), StorageError> {
        let task = (self.source.as_str(), self.task_id.as_str());
        let lock = Arc::clone(&self.lock);
        match &self.storage.place {
            Place::Disk(disk) => disk.remove_all_but(task, keep, lock).await,
            Place::Bucket(_) => Ok(()),
        }
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
