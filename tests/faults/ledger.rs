//! What the server has answered 200, and must therefore never lose.

use std::collections::HashMap;
use std::sync::Mutex;

/// The acknowledged callbacks by task id.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<String, Acknowledged>>);

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
        let mut tasks = self.0.lock().unwrap();
        let task = tasks.entry(task_id.to_owned()).or_default();
        task.times += 1;
        task.files = files.to_vec();
    }

    /// Everything noted so far.
    pub(crate) fn tasks(&self) -> HashMap<String, Acknowledged> {
        self.0.lock().unwrap().clone()
    }

    /// How many callbacks were answered 200.
    pub(crate) fn acknowledged(&self) -> i64 {
        self.0.lock().unwrap().values().map(|task| task.times).sum()
    }
}
