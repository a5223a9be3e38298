//! Trying a backup: restored as an operator would, opened as a server would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use super::super::instance::existing_storage_of;
use super::target::Target;
use super::{DATABASE, MediaCheck, blocking};
use crate::clock::Clock;
use crate::config::Config;
use crate::shutdown::Tasks;
use crate::storage::{Storage, StorageError};
use crate::store::Store;
use crate::store::backup::{self, Contents, Source};
use crate::store::scrub::StoredFile;

/// How many of the newest tasks must be found by their ids.
const NEWEST: u16 = 100;
/// After how many files that cannot be looked for the rest is left out.
const MOST_UNREADABLE: u64 = 100;
/// How long closing the restored database may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A copy of the copy, opened.
pub(super) struct Restored {
    dir: PathBuf,
    store: Store,
    writer: Tasks,
}

impl Restored {
    /// Closes it; where its files lie.
    pub(super) async fn end(self) -> PathBuf {
        drop(self.store);
        self.writer.drain(PATIENCE).await;
        self.dir
    }
}

/// Restores the copy beside itself and compares what a server would see of it.
pub(super) async fn restore(target: &Target, copy: &Path, contents: &Contents) -> anyhow::Result<Restored> {
    let dir = target.make_dir("restored")?;
    let database = dir.join(DATABASE);
    let newest = blocking({
        let (copy, database) = (copy.to_owned(), database.clone());
        move || {
            fs::copy(&copy, &database).context("cannot restore the copy to try it")?;
            Ok(backup::newest_tasks(&copy, NEWEST)?)
        }
    })
    .await?;
    let writer = Tasks::new();
    let store = Store::open(&database, Clock::system(), &writer)
        .await
        .context("the copy cannot be opened")?;
    let counts = store.counts().await?;
    let tasks: i64 = counts.tasks.values().sum();
    let stored = counts.files.get("stored").copied().unwrap_or_default();
    anyhow::ensure!(
        (tasks, stored, counts.stored_bytes) == (contents.tasks, contents.stored, contents.stored_bytes),
        "the copy counts {tasks} tasks and {stored} stored files, and has {} and {}",
        contents.tasks,
        contents.stored
    );
    for (task_id, source) in newest {
        let found = store.tasks_by_id(&task_id, Some(&source)).await?;
        anyhow::ensure!(
            !found.is_empty(),
            "task {task_id} is in the copy and cannot be found"
        );
    }
    blocking(move || Ok(backup::check_integrity(&database)?)).await?;
    Ok(Restored { dir, store, writer })
}

/// Looks whether every file of the copy lies in the storage in its full length. One that went since, or was stored
/// anew, is none of the backup's business. What is wrong with the files is told, and is no reason to have no backup.
pub(super) async fn look_for_files(
    restored: &Restored,
    live: &Path,
    config: &Config,
    bar: &ProgressBar,
) -> anyhow::Result<MediaCheck> {
    let mut check = MediaCheck::default();
    let storage = match existing_storage_of(config, &Tasks::new()) {
        Ok(storage) => storage,
        Err(error) => {
            check.found(format!("{error:#}"));
            return Ok(check);
        }
    };
    let total = restored.store.counts().await?.files.remove("stored");
    bar.set_style(ProgressStyle::with_template(
        "{bar:24} {pos} of {len} {msg}, {elapsed}",
    )?);
    bar.set_position(0);
    bar.set_length(total.unwrap_or_default().unsigned_abs());
    bar.set_message("files looked for");
    let mut last = -1;
    while let Some(stretch) = next(&restored.store, &mut last).await? {
        for file in stretch.into_iter().filter(|file| !file.given_up) {
            bar.inc(1);
            look_for(&storage, &file, live, &mut check).await;
            // Each may take its time to fail: the storage is out of reach.
            if check.unreadable >= MOST_UNREADABLE {
                return Ok(check);
            }
        }
    }
    check.done = true;
    Ok(check)
}

async fn next(store: &Store, last: &mut i64) -> anyhow::Result<Option<Vec<StoredFile>>> {
    let stretch = store.stored_files(*last, i64::MAX).await?;
    *last = stretch.last.unwrap_or(*last);
    Ok(stretch.last.map(|_| stretch.files))
}

/// Notes what is wrong with a file, if anything is.
async fn look_for(storage: &Storage, file: &StoredFile, live: &Path, check: &mut MediaCheck) {
    let key = &file.storage_key;
    let (counter, what) = match storage.open_file(key).await {
        Ok(found) if found.length() == file.bytes.unsigned_abs() => return,
        Ok(found) => {
            let what = format!("{key} has {} bytes instead of {}", found.length(), file.bytes);
            (&mut check.damaged, what)
        }
        Err(StorageError::Missing) => (&mut check.missing, format!("{key} is missing")),
        Err(error) => {
            let what = format!("{key} cannot be looked for: {}", error.sentence());
            (&mut check.unreadable, what)
        }
    };
    // If the database cannot be asked, the file stays one that is not as it should be.
    if matches!(
        Source::open(live).and_then(|live| live.still_has(file)),
        Ok(false)
    ) {
        check.changed_since += 1;
        return;
    }
    *counter += 1;
    check.found(what);
}
