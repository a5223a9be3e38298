//! What goes: tasks that somebody deletes, by age what nobody needs any more, and files that outlived their rows.
//!
//! Age is looked at once a minute, in the order things came, so that a look costs as much as there is to remove. It is
//! removed a few rows at a time, with pauses in which the writer belongs to callbacks and downloads.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Millis, millis};
use crate::failpoint::{self, Step};
use crate::shutdown::Tasks;
use crate::storage::{Storage, StorageError, TaskFiles};
use crate::store::deletion::Deletion;
use crate::store::retention::Which;
use crate::store::{Store, StoreError};

/// How often it is looked what has become too old.
const EVERY: Duration = Duration::from_mins(1);
/// After so many rounds it is looked again at what was passed over: a conflict may be settled, a task ended by then.
const ROUNDS: u32 = 60;
/// The shortest pause between two steps, and how many times as long as the step itself it is: pruning takes a fifth of
/// the time at most, and less where others keep the writer busy.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_FACTOR: u32 = 4;

/// How long what is kept; `None` for ever.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// Deliveries that were not rejected.
    pub deliveries: Option<Duration>,
    /// Rejected ones.
    pub rejected: Option<Duration>,
    /// Tasks of which nothing more is awaited, with their files.
    pub tasks: Option<Duration>,
    /// Stored files, since they were stored.
    pub media: Option<Duration>,
    /// Bytes of all stored files together; past that the first stored go.
    pub media_bytes: Option<u64>,
}

/// Removes by age.
#[derive(Debug)]
pub struct Retention {
    store: Store,
    storage: Storage,
    clock: Clock,
    tasks: Tasks,
    settings: Settings,
    /// Up to which row each was looked through.
    done: Done,
    round: u32,
}

/// Row ids.
#[derive(Debug, Default)]
struct Done {
    deliveries: i64,
    rejected: i64,
    tasks: i64,
}

/// What a round removed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Removed {
    /// Deliveries that were not rejected.
    pub deliveries: u64,
    /// Rejected ones.
    pub rejected: u64,
    /// Tasks.
    pub tasks: u64,
    /// Stored files, but for those of the tasks.
    pub files: u64,
    /// Bytes of those.
    pub bytes: u64,
}

impl Retention {
    /// Removes nothing before it is run.
    pub fn new(store: Store, storage: Storage, (clock, tasks): (Clock, Tasks), settings: Settings) -> Self {
        Self {
            store,
            storage,
            clock,
            tasks,
            settings,
            done: Done::default(),
            round: 0,
        }
    }

    /// Looks and removes until the soft stop.
    pub async fn run(mut self) {
        loop {
            match self.round().await {
                Ok(removed) if removed == Removed::default() => {}
                Ok(removed) => tracing::info!(
                    deliveries = removed.deliveries,
                    rejected = removed.rejected,
                    tasks = removed.tasks,
                    files = removed.files,
                    size_bytes = removed.bytes,
                    "removed by age: {} deliveries, {} rejected ones, {} tasks, {} files",
                    removed.deliveries,
                    removed.rejected,
                    removed.tasks,
                    removed.files
                ),
                // The next round goes on where this one stopped.
                Err(error) => tracing::warn!(%error, "what is too old was not removed yet: {error}"),
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = self.tasks.draining() => return,
            }
        }
    }

    /// Removes all that has become too old since the last round; part of it if the soft stop comes meanwhile.
    pub async fn round(&mut self) -> Result<Removed, StoreError> {
        if self.round == ROUNDS {
            (self.done, self.round) = (Done::default(), 0);
        }
        self.round += 1;
        let now = self.clock.now();
        let before = |age: Option<Duration>| age.map(|age| now.saturating_sub(millis(age)));
        let mut removed = Removed::default();
        if let Err(error) = self.storage.abort_abandoned_uploads().await {
            let sentence = error.sentence();
            tracing::warn!(%error, "an upload that is not needed any more was not aborted yet: {sentence}");
        }
        self.doomed().await?;
        // Whole tasks first: their deliveries go along.
        if let Some(before) = before(self.settings.tasks) {
            removed.tasks = self.tasks(before).await?;
        }
        if let Some(before) = before(self.settings.deliveries) {
            removed.deliveries = self.deliveries(Which::Taken, before).await?;
        }
        if let Some(before) = before(self.settings.rejected) {
            removed.rejected = self.deliveries(Which::Rejected, before).await?;
        }
        let media = self.settings.media;
        if media.is_some() || self.settings.media_bytes.is_some() {
            (removed.files, removed.bytes) = self.files(before(media)).await?;
        }
        Ok(removed)
    }

    /// Removes files that outlived their rows: a crash came between, or they resisted.
    async fn doomed(&self) -> Result<(), StoreError> {
        let (mut removed, mut resisted) = (0, None);
        for (source, task_id) in self.store.doomed_tasks().await? {
            let began = Instant::now();
            let task = (source.as_str(), task_id.as_str());
            let files = self.storage.task_files(task.0, task.1).await;
            let swept = remove_doomed(&self.store, &files, task).await?;
            removed += swept.gone.len();
            resisted = swept.resisted.or(resisted);
            forget(&self.store, task, swept.gone).await?;
            drop(files);
            if !self.pause(began).await {
                break;
            }
        }
        if removed > 0 {
            tracing::info!(
                files = removed,
                "removed {removed} files that were deleted earlier"
            );
        }
        // Tried each time, but said at the start and then from time to time only.
        if let Some(error) = resisted.filter(|_| self.round == 1) {
            let sentence = error.sentence();
            tracing::warn!(%error, "files that were deleted are still there, and will be tried again: {sentence}");
        }
        Ok(())
    }

    async fn deliveries(&mut self, which: Which, before: Millis) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let began = Instant::now();
            let done = match which {
                Which::Taken => &mut self.done.deliveries,
                Which::Rejected => &mut self.done.rejected,
            };
            let stretch = self.store.aged_deliveries(which, before, *done).await?;
            if !stretch.aged.is_empty() {
                removed += self.store.prune_deliveries(stretch.aged).await?;
            }
            *done = stretch.last.unwrap_or(*done);
            if !stretch.more || !self.pause(began).await {
                return Ok(removed);
            }
        }
    }

    async fn tasks(&mut self, before: Millis) -> Result<u64, StoreError> {
        let mut removed = 0;
        loop {
            let mut began = Instant::now();
            let stretch = self.store.aged_tasks(before, self.done.tasks).await?;
            for task in stretch.aged {
                let rows = self.store.prune_task(task.row, before);
                let deletion = remove_task((&self.store, &self.storage), (&task.source, &task.task_id), rows);
                removed += u64::from(deletion.await? == Deletion::Done);
                self.done.tasks = task.row;
                if !self.pause(began).await {
                    return Ok(removed);
                }
                began = Instant::now();
            }
            self.done.tasks = stretch.last.unwrap_or(self.done.tasks);
            if !stretch.more || !self.pause(began).await {
                return Ok(removed);
            }
        }
    }

    /// Removes stored files, the first stored first, as long as they are from before a moment, or do not all fit.
    /// How many, and how many bytes.
    async fn files(&self, before: Option<Millis>) -> Result<(u64, u64), StoreError> {
        let (mut removed, mut bytes) = (0, 0);
        loop {
            let (oldest, mut over) = (self.store.oldest_files().await?, self.excess().await?);
            let removed_before = removed;
            for file in oldest {
                let is_old = before.is_some_and(|before| file.stored_at < before);
                if !is_old && over <= 0 {
                    return Ok((removed, bytes));
                }
                let (began, task) = (Instant::now(), (file.source.as_str(), file.task_id.as_str()));
                if remove_file((&self.store, &self.storage), task, (file.row, file.stored_at)).await?
                    == Deletion::Done
                {
                    over = over.saturating_sub(file.bytes);
                    removed += 1;
                    bytes += file.bytes.unsigned_abs();
                }
                if !self.pause(began).await {
                    return Ok((removed, bytes));
                }
            }
            if removed == removed_before {
                return Ok((removed, bytes));
            }
        }
    }

    /// By how many bytes there is more than there may be.
    async fn excess(&self) -> Result<i64, StoreError> {
        let Some(bound) = self.settings.media_bytes else {
            return Ok(0);
        };
        let bound = i64::try_from(bound).unwrap_or(i64::MAX);
        Ok(self.store.stored_bytes().await?.saturating_sub(bound))
    }

    /// Leaves the writer to others for a while; `false` if it is time to stop.
    async fn pause(&self, began: Instant) -> bool {
        tokio::select! {
            () = tokio::time::sleep(PAUSE.max(began.elapsed() * PAUSE_FACTOR)) => true,
            () = self.tasks.draining() => false,
        }
    }
}

/// Removes a task: its rows by `rows`, and then its files. Those that resist are tried again by [`Retention`].
pub async fn remove_task(
    parts: (&Store, &Storage),
    task: (&str, &str),
    rows: impl Future<Output = Result<Deletion, StoreError>>,
) -> Result<Deletion, StoreError> {
    let rows = async {
        let deletion = rows.await?;
        if deletion == Deletion::Done {
            parts.1.forget_spooled_of(task.0, task.1);
        }
        Ok(deletion)
    };
    remove(parts, task, rows).await
}

async fn remove(
    parts: (&Store, &Storage),
    task: (&str, &str),
    rows: impl Future<Output = Result<Deletion, StoreError>>,
) -> Result<Deletion, StoreError> {
    // Held to the end: what a download publishes comes before the deletion and is removed, or is not published.
    let files = parts.1.task_files(task.0, task.1).await;
    let deletion = rows.await?;
    if deletion == Deletion::Done {
        failpoint::step(Step::RowsDeleted);
        let swept = remove_doomed(parts.0, &files, task).await?;
        failpoint::step(Step::FilesRemoved);
        forget(parts.0, task, swept.gone).await?;
        if let Some(error) = swept.resisted {
            let task_id = task.1;
            tracing::warn!(
                task.id = task_id, %error,
                "files of task {task_id} were not removed yet: {}", error.sentence()
            );
        }
    }
    Ok(deletion)
}

/// Removes one file of a task, if it is still the one that was stored at that moment, and keeps its row, which says
/// `deleted` from then on.
pub async fn remove_file(
    parts: (&Store, &Storage),
    task: (&str, &str),
    (download, stored_at): (i64, Millis),
) -> Result<Deletion, StoreError> {
    remove(parts, task, parts.0.delete_file(download, stored_at)).await
}

/// What became of doomed files.
#[derive(Debug, Default)]
struct Swept {
    /// The keys of those that are removed.
    gone: Vec<String>,
    /// What the last of those said that could not be removed.
    resisted: Option<StorageError>,
}

/// Removes the files of a task that no row names any more. One that resists stops no other.
async fn remove_doomed(
    store: &Store,
    files: &TaskFiles,
    (source, task_id): (&str, &str),
) -> Result<Swept, StoreError> {
    let doomed = store.doomed_files(source, task_id).await?;
    let mut swept = Swept::default();
    for key in doomed.keys {
        match files.remove(&key).await {
            Ok(()) => swept.gone.push(key),
            Err(error) => swept.resisted = Some(error),
        }
    }
    if let Some(keep) = doomed.all_but {
        match files.remove_all_but(&keep).await {
            Ok(()) => swept.gone.push(String::new()),
            Err(error) => swept.resisted = Some(error),
        }
    }
    Ok(swept)
}

/// Forgets files that are removed.
async fn forget(store: &Store, task: (&str, &str), gone: Vec<String>) -> Result<(), StoreError> {
    if gone.is_empty() {
        return Ok(());
    }
    store.forget_doomed(task.0, task.1, gone).await
}
