//! What goes: tasks that somebody deletes, and by age what nobody needs any more.
//!
//! Age is looked at once a minute, in the order things came, so that a look costs as much as there is to remove. It is
//! removed a few rows at a time, with pauses in which the writer belongs to callbacks and downloads.

use std::future::Future;
use std::time::{Duration, Instant};

use crate::clock::{Clock, Millis, millis};
use crate::failpoint::{self, Step};
use crate::shutdown::Tasks;
use crate::storage::Storage;
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
                Ok(Removed {
                    deliveries: 0,
                    rejected: 0,
                    tasks: 0,
                }) => {}
                Ok(removed) => tracing::info!(
                    deliveries = removed.deliveries,
                    rejected = removed.rejected,
                    tasks = removed.tasks,
                    "removed by age: {} deliveries, {} rejected ones, {} tasks",
                    removed.deliveries,
                    removed.rejected,
                    removed.tasks
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
        Ok(removed)
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

    /// Leaves the writer to others for a while; `false` if it is time to stop.
    async fn pause(&self, began: Instant) -> bool {
        tokio::select! {
            () = tokio::time::sleep(PAUSE.max(began.elapsed() * PAUSE_FACTOR)) => true,
            () = self.tasks.draining() => false,
        }
    }
}

/// Removes a task: its rows by `rows`, and then all its files. Should those resist, the next start tries again.
pub async fn remove_task(
    (store, storage): (&Store, &Storage),
    (source, task_id): (&str, &str),
    rows: impl Future<Output = Result<Deletion, StoreError>>,
) -> Result<Deletion, StoreError> {
    // Held to the end: what a download publishes comes before the deletion and is removed, or is not published.
    let files = storage.task_files(source, task_id).await;
    let deletion = rows.await?;
    if deletion == Deletion::Done {
        storage.forget_spooled_of(source, task_id);
        failpoint::step(Step::RowsDeleted);
        match files.remove_all_but(&[]).await {
            Ok(()) => {
                failpoint::step(Step::FilesRemoved);
                store.forget_doomed(source, task_id).await?;
            }
            Err(error) => tracing::warn!(
                task.id = task_id, %error,
                "files of deleted task {task_id} were not removed yet: {}", error.sentence()
            ),
        }
    }
    Ok(deletion)
}
