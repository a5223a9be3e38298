//! What needs somebody, in one line each: what it is, why, and what to do.

use super::show::{Ago, Badge};
use crate::clock::Millis;
use crate::download::remedy;
use crate::provider::failure::Failure;
use crate::provider::rules::State;
use crate::store::tasks::{FileRecord, OutcomeRecord, TaskRecord};

/// Characters of a reason; the task's page has the whole.
const LONGEST: usize = 300;

/// A task with something wrong.
pub(super) struct Trouble {
    pub(super) task_id: String,
    pub(super) source: String,
    /// Where more of it is.
    pub(super) path: String,
    pub(super) badge: Badge<'static>,
    pub(super) when: Ago,
    pub(super) reason: String,
    pub(super) remedy: String,
    /// Whether something is lost, or only to be decided.
    pub(super) is_bad: bool,
}

/// Why it is listed, the worst first.
struct Why {
    badge: &'static str,
    reason: String,
    remedy: String,
}

pub(super) fn troubles(tasks: &[TaskRecord], now: Millis) -> Vec<Trouble> {
    tasks.iter().map(|task| trouble(task, now)).collect()
}

fn trouble(task: &TaskRecord, now: Millis) -> Trouble {
    let why = failed_task(task)
        .or_else(|| failed_files(task))
        .unwrap_or_else(|| conflict(task));
    Trouble {
        path: task_path(&task.source, &task.task_id),
        task_id: task.task_id.clone(),
        source: task.source.clone(),
        badge: Badge(why.badge),
        when: Ago {
            at: task.updated_at,
            now,
        },
        reason: cut(&why.reason),
        remedy: why.remedy,
        is_bad: why.badge != "conflict",
    }
}

/// The page of a task.
pub(super) fn task_path(source: &str, task_id: &str) -> String {
    let part = |text: &str| -> String { url::form_urlencoded::byte_serialize(text.as_bytes()).collect() };
    format!("/tasks/{}?source={}", part(task_id), part(source))
}

fn failed_task(task: &TaskRecord) -> Option<Why> {
    let outcome = task.main_outcome().filter(|_| task.state == State::Failed)?;
    let advice = failure(outcome).map(|failure| failure.advice);
    let said = outcome.msg.as_deref().unwrap_or("The provider gave no reason");
    let code = outcome
        .code
        .map_or(String::new(), |code| format!(" (code {code})"));
    Some(Why {
        badge: "failed",
        reason: format!("{said}{code}"),
        remedy: advice.unwrap_or_else(|| "Open it and look at what the provider sent.".to_owned()),
    })
}

/// Stored as JSON by ourselves.
fn failure(outcome: &OutcomeRecord) -> Option<Failure> {
    serde_json::from_str(outcome.failure.as_deref()?).ok()
}

fn failed_files(task: &TaskRecord) -> Option<Why> {
    let failed = |file: &&FileRecord| {
        let superseded = matches!(&file.error, Some((code, _)) if code == "superseded");
        file.state == "failed" && !superseded
    };
    let first = task.files.iter().find(failed)?;
    let count = task.files.iter().filter(failed).count();
    let (code, detail) = first.error.as_ref()?;
    let all = task.files.iter().filter(|file| file.state != "deleted").count();
    Some(Why {
        badge: if count == all { "failed" } else { "partial" },
        reason: format!("{count} of {all} files failed; {}: {detail}", first.name),
        remedy: remedy(code)
            .unwrap_or("Open it and fetch its files again.")
            .to_owned(),
    })
}

fn conflict(task: &TaskRecord) -> Why {
    Why {
        badge: "conflict",
        reason: match task.conflicts {
            1 => "A delivery contradicts what is believed.".to_owned(),
            count => format!("{count} deliveries contradict what is believed."),
        },
        remedy: "Open it, compare the deliveries, and accept the one that is right.".to_owned(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "ü".repeat(400);
        assert_eq!(cut(&long), format!("{}…", "ü".repeat(LONGEST)));
    }

    #[test]
    fn paths_hold_whatever_ids_hold() {
        assert_eq!(task_path("kie", "a*b:c"), "/tasks/a*b%3Ac?source=kie");
        assert_eq!(task_path("k", "../x?y#<"), "/tasks/..%2Fx%3Fy%23%3C?source=k");
    }
}
