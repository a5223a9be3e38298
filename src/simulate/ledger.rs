//! What everything really came to: the truth that a receiver must arrive at.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Simulator;
use super::tasks::{Callback, Family, Kind, Part, Role, State, Task};
use crate::clock::rfc3339;

/// Everything a simulator did, task by task in the order they were made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ledger {
    /// The seed it all follows from.
    pub seed: u64,
    /// What the account has left.
    pub credits: f64,
    /// Requests by endpoint, such as `veo/generate`: all of them, refused ones as well.
    pub requests: BTreeMap<String, u64>,
    /// Answers by body code.
    pub answers: BTreeMap<u16, u64>,
    /// The tasks that are not yet forgotten.
    pub tasks: Vec<LedgerTask>,
}

impl Ledger {
    /// A task by its id.
    pub fn task(&self, id: &str) -> Option<&LedgerTask> {
        self.tasks.iter().find(|task| task.task_id == id)
    }

    /// Requests to an endpoint, such as `veo/generate`.
    pub fn requests_to(&self, endpoint: &str) -> u64 {
        self.requests.get(endpoint).copied().unwrap_or_default()
    }

    /// Whether everything is finished and nothing is being sent or will be.
    pub fn is_settled(&self) -> bool {
        let mut parts = self.tasks.iter().flat_map(|task| &task.parts);
        parts.all(|part| part.state != TaskState::Generating && part.callback.state != CallbackState::Pending)
    }
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LedgerTask {
    /// Its id.
    pub task_id: String,
    /// Which part of the API made it.
    pub family: Family,
    /// What itself came to: the state of its first part.
    pub state: TaskState,
    /// The task itself, then what was asked for of it later.
    pub parts: Vec<LedgerPart>,
}

impl LedgerTask {
    /// The part of a kind and index, 0 for most.
    pub fn part(&self, kind: Kind, index: u32) -> Option<&LedgerPart> {
        self.parts
            .iter()
            .find(|part| part.kind == kind && part.index == index)
    }
}

/// A result on its own.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LedgerPart {
    /// What it is.
    pub kind: Kind,
    /// Which result of the task it was made of.
    pub index: u32,
    /// How far it is.
    pub state: TaskState,
    /// 200 or the code of the failure; `None` while it is not finished.
    pub code: Option<u16>,
    /// What the failure says.
    pub msg: Option<String>,
    /// When it is or was finished, as RFC 3339.
    pub finished_at: String,
    /// Its files, if it succeeded.
    pub files: Vec<LedgerFile>,
    /// How that was announced.
    pub callback: LedgerCallback,
}

/// A file, whatever its URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerFile {
    /// What it is to its task.
    pub role: Role,
    /// Which of that role.
    pub n: u32,
    /// SHA-256 in hexadecimal.
    pub sha256: String,
    /// Length.
    pub bytes: u64,
}

/// What became of a callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerCallback {
    /// In a word.
    pub state: CallbackState,
    /// Of each copy the statuses of the answers in order, `None` where there was none.
    pub attempts: Vec<Vec<Option<u16>>>,
}

/// How far a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Not finished.
    Generating,
    /// It is there.
    Succeeded,
    /// It will never be.
    Failed,
}

/// How far a callback is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CallbackState {
    /// None was asked for.
    None,
    /// It is still to be sent, or being sent.
    Pending,
    /// It is never tried.
    Dropped,
    /// At least one copy was answered 200.
    Answered,
    /// All tries are used up, and none was answered 200.
    Failed,
}

/// How much of it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    /// All but the files, which would have to be made for their checksums.
    Outline,
    /// All.
    Files,
}

pub(super) fn of(simulator: &Simulator, detail: Detail) -> Ledger {
    let book = simulator.book();
    Ledger {
        seed: simulator.0.settings.seed,
        credits: book.credits,
        requests: book.requests.clone(),
        answers: book.answers.clone(),
        tasks: book
            .tasks
            .values()
            .map(|task| simulator.entry(task, detail))
            .collect(),
    }
}

impl Simulator {
    fn entry(&self, task: &Task, detail: Detail) -> LedgerTask {
        let parts: Vec<LedgerPart> = task
            .parts
            .iter()
            .map(|part| self.part_entry(task, part, detail))
            .collect();
        LedgerTask {
            task_id: task.id.clone(),
            family: task.family,
            state: parts[0].state,
            parts,
        }
    }

    fn part_entry(&self, task: &Task, part: &Part, detail: Detail) -> LedgerPart {
        let (state, code, msg) = match part.state(self.0.clock.now()) {
            State::Generating => (TaskState::Generating, None, None),
            State::Succeeded => (TaskState::Succeeded, Some(200), None),
            State::Failed(mishap) => (TaskState::Failed, Some(mishap.code), Some(mishap.msg.to_owned())),
        };
        let files = match state {
            TaskState::Succeeded if detail == Detail::Files => self.file_entries(task, part),
            _ => Vec::new(),
        };
        LedgerPart {
            kind: part.kind,
            index: part.index,
            state,
            code,
            msg,
            finished_at: rfc3339(part.ready),
            files,
            callback: callback_entry(&part.callback),
        }
    }

    fn file_entries(&self, task: &Task, part: &Part) -> Vec<LedgerFile> {
        let settings = &self.0.settings;
        let files = Role::ALL
            .into_iter()
            .flat_map(|role| task.files(part, role, settings.results));
        let entry = |file| {
            let sum = self.0.films.sum(task, file, settings.film_bytes);
            LedgerFile {
                role: file.role,
                n: file.n,
                sha256: hex::encode(sum.sha256),
                bytes: sum.bytes,
            }
        };
        files.map(entry).collect()
    }
}

fn callback_entry(callback: &Callback) -> LedgerCallback {
    let answered = |copy: &super::tasks::Copy| copy.answers.contains(&Some(200));
    let state = if callback.url.is_none() {
        CallbackState::None
    } else if callback.dropped {
        CallbackState::Dropped
    } else if callback.copies.is_empty() || callback.copies.iter().any(|copy| !copy.over) {
        CallbackState::Pending
    } else if callback.copies.iter().any(answered) {
        CallbackState::Answered
    } else {
        CallbackState::Failed
    };
    let attempts = callback.copies.iter().map(|copy| copy.answers.clone());
    LedgerCallback {
        state,
        attempts: attempts.collect(),
    }
}
