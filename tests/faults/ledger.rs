//! What the server has answered 200, and must therefore never lose.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// The acknowledged callbacks by task id, and how many others there were.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tasks: Mutex<HashMap<String, Acknowledged>>,
    refused: AtomicU64,
}

/// What was acknowledged about one task.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acknowledged {
    /// How many of its callbacks were answered 200.
    pub(crate) times: i64,
    /// The names of the files that they announced.
    pub(crate) files: Vec<String>,
}

impl Ledger {
    pub(crate) fn note(&self, task_id: &str, files: &[String]) {
        let mut tasks = self.tasks.lock().unwrap();
        let task = tasks.entry(task_id.to_owned()).or_default();
        task.times += 1;
        task.files = files.to_vec();
    }

    pub(crate) fn note_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing is promised about a task any more once somebody asked for its deletion.
    pub(crate) fn forget(&self, task_id: &str) {
        self.tasks.lock().unwrap().remove(task_id);
    }

    /// Everything noted so far.
    pub(crate) fn tasks(&self) -> HashMap<String, Acknowledged> {
        self.tasks.lock().unwrap().clone()
    }

    /// How many callbacks were refused for now.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// How many callbacks were answered 200.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.tasks.lock().unwrap().values().map(|task| task.times).sum()
    }
}
