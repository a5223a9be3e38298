//! What lies on disk after a kill, examined while no server runs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tempfile::TempDir;

use crate::cdn::sha256_of;
use crate::harness::temporary;
use crate::ledger::Acknowledged;
use crate::soundness::WRONGS;

/// A data directory and what was already found out about the files it should hold.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) data: PathBuf,
    /// The digest of each file seen so far, by its path under `media`: making the content again is slow.
    digests: HashMap<PathBuf, String>,
    /// Which files have been read: one that nobody has touched since is not read at each look.
    read: HashMap<PathBuf, Untouched>,
    /// How many times a visible file was read and compared.
    pub(crate) files_checked: usize,
}

/// What changes when a file is written to or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Untouched {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

impl Untouched {
    fn of(path: &Path) -> Self {
        let metadata = fs::metadata(path).unwrap();
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Remains {
    pub(crate) fn of(data: PathBuf) -> Self {
        Self {
            data,
            digests: HashMap::new(),
            read: HashMap::new(),
            files_checked: 0,
        }
    }

    /// Whether anything of a task is left among the stored files.
    pub(crate) fn has_files_of(&self, task_id: &str) -> bool {
        self.data.join("media/kie").join(task_id).exists()
    }

    /// The unfinished files; none before the first start.
    pub(crate) fn spool(&self) -> HashSet<PathBuf> {
        let Ok(spool) = fs::read_dir(self.data.join("spool")) else {
            return HashSet::new();
        };
        spool.map(|entry| entry.unwrap().path()).collect()
    }

    /// Every acknowledged callback is in the database, every visible file is whole, and every file that the
    /// database calls stored is visible.
    pub(crate) async fn check(&mut self, acknowledged: &HashMap<String, Acknowledged>) {
        let visible = self.check_media();
        // A copy is examined: recovering the original is the business of the server that starts next.
        let (_copy, mut database) = copy_of(&self.data).await;
        check_integrity(&mut database).await;
        if !is_set_up(&mut database).await {
            assert!(acknowledged.is_empty(), "the database was never set up");
            return;
        }
        check_soundness(&mut database).await;
        check_deliveries(&mut database, acknowledged).await;
        check_stored(&mut database, &visible).await;
        database.close().await.unwrap();
    }

    /// Has the next check read every file, whether or not it was touched.
    pub(crate) fn forget_what_was_read(&mut self) {
        self.read.clear();
    }

    /// Reads the visible files; what is there must be what the provider has, to the last byte. Returns their digests
    /// by storage key.
    fn check_media(&mut self) -> HashMap<String, String> {
        let media = self.data.join("media");
        let mut visible = HashMap::new();
        for path in files_under(&media) {
            let key = path.strip_prefix(&media).unwrap();
            let parts: Vec<&str> = key.iter().map(|part| part.to_str().unwrap()).collect();
            let [_, task_id, name] = parts[..] else {
                panic!("a file lies where none belongs: {}", key.display());
            };
            let expected = self
                .digests
                .entry(key.to_owned())
                .or_insert_with(|| sha256_of(task_id, name));
            let untouched = Untouched::of(&path);
            if self.read.get(key) == Some(&untouched) {
                visible.insert(parts.join("/"), expected.clone());
                continue;
            }
            let found = hex::encode(Sha256::digest(fs::read(&path).unwrap()));
            assert_eq!(
                *expected,
                found,
                "{} is visible and not the file that was announced",
                key.display()
            );
            self.files_checked += 1;
            self.read.insert(key.to_owned(), untouched);
            visible.insert(parts.join("/"), found);
        }
        visible
    }
}

/// Names of the files that the next server fetches: of all that wait, and of the first tasks to be announced to it.
pub(crate) async fn next_in_spool(data: &Path) -> Vec<String> {
    /// One in six announces files, two at most.
    const TASKS: i64 = 500;
    const FILES: i64 = 2;
    let mut claims: Vec<(i64, i64)> = Vec::new();
    let mut last_task = 0;
    if data.join("reelhook.db").exists() {
        let (_copy, mut database) = copy_of(data).await;
        if is_set_up(&mut database).await {
            let rows =
                sqlx::query("SELECT id, COALESCE(lease_token, 0) + 1, state FROM downloads ORDER BY id");
            for row in rows.fetch_all(&mut database).await.unwrap() {
                if matches!(row.get(2), "queued" | "downloading") {
                    claims.push((row.get(0), row.get(1)));
                }
            }
            let last = sqlx::query("SELECT COALESCE(max(id), 0) FROM tasks");
            last_task = last.fetch_one(&mut database).await.unwrap().get(0);
        }
    }
    // Ids of downloads begin with that of their task.
    let further = (1..=TASKS).map(|further| last_task + further);
    claims.extend(further.flat_map(|task| (0..FILES).map(move |file| (task << 24 | file, 1))));
    let name = |(row, token)| format!("{row}-{token}.part");
    claims.into_iter().map(name).collect()
}

async fn copy_of(data: &Path) -> (TempDir, SqliteConnection) {
    let copy = temporary();
    for name in ["reelhook.db", "reelhook.db-wal"] {
        let from = data.join(name);
        if from.exists() {
            fs::copy(from, copy.path().join(name)).unwrap();
        }
    }
    let options = SqliteConnectOptions::new()
        .filename(copy.path().join("reelhook.db"))
        .create_if_missing(true);
    let database = options.connect().await.expect("the database opens");
    (copy, database)
}

/// Everything below, but for hidden directories: no key begins with a dot.
fn files_under(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return files;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_file() {
            files.push(path);
        } else if !is_hidden {
            files.extend(files_under(&path));
        }
    }
    files
}

/// Whether a first start got through all migrations: it can fail before the first, and between any two.
async fn is_set_up(database: &mut SqliteConnection) -> bool {
    let begun = sqlx::query("SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations'");
    if begun.fetch_optional(&mut *database).await.unwrap().is_none() {
        return false;
    }
    let applied = sqlx::query("SELECT count(*) FROM _sqlx_migrations WHERE success");
    let applied: i64 = applied.fetch_one(database).await.unwrap().get(0);
    let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    applied == i64::try_from(fs::read_dir(migrations).unwrap().count()).unwrap()
}

async fn check_integrity(database: &mut SqliteConnection) {
    let verdict: String = sqlx::query("PRAGMA integrity_check")
        .fetch_one(&mut *database)
        .await
        .unwrap()
        .get(0);
    assert_eq!(verdict, "ok", "the database is damaged");
}

async fn check_soundness(database: &mut SqliteConnection) {
    for (what, sql) in WRONGS {
        let count: i64 = sqlx::query(sql).fetch_one(&mut *database).await.unwrap().get(0);
        assert_eq!(count, 0, "{what}");
    }
}

/// All four records of an acknowledged callback are there: delivery with its body, task, downloads.
async fn check_deliveries(database: &mut SqliteConnection, acknowledged: &HashMap<String, Acknowledged>) {
    let rows = sqlx::query(
        "SELECT task_id, deliveries,
                (SELECT count(*) FROM deliveries d WHERE d.task = t.id AND d.verdict <> 'rejected'
                    AND (d.body IS NOT NULL OR d.body_of IS NOT NULL)),
                (SELECT count(*) FROM downloads f WHERE f.id BETWEEN t.id << 24 AND (t.id << 24) + 16777215)
         FROM tasks t",
    )
    .fetch_all(database)
    .await
    .unwrap();
    let found: HashMap<String, (i64, i64, i64)> = rows
        .iter()
        .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3))))
        .collect();
    let mut lost = Vec::new();
    for (task_id, task) in acknowledged {
        let (counted, kept, downloads) = found.get(task_id).copied().unwrap_or_default();
        let files = i64::try_from(task.files.len()).unwrap();
        // Rows are kept up to a bound and counted beyond it; one callback is never sent that often here.
        if counted < task.times || kept < task.times || downloads != files {
            lost.push(format!(
                "{task_id}: {counted} counted and {kept} kept of {}, {downloads} downloads of {files}",
                task.times
            ));
        }
    }
    assert!(
        lost.is_empty(),
        "{} tasks lost acknowledged callbacks:\n{}",
        lost.len(),
        lost.join("\n")
    );
}

async fn check_stored(database: &mut SqliteConnection, visible: &HashMap<String, String>) {
    let rows = sqlx::query("SELECT storage_key, lower(hex(sha256)) FROM downloads WHERE state = 'stored'")
        .fetch_all(database)
        .await
        .unwrap();
    for row in rows {
        let (key, sha256): (String, String) = (row.get(0), row.get(1));
        assert_eq!(
            visible.get(&key),
            Some(&sha256),
            "{key} is called stored and is not there"
        );
    }
}
