//! One task as a card for a person to read.

use std::fmt::Write as _;

use super::super::answers::{Failure, File, Outcome, Task};
use super::super::client::Server;
use super::super::human::{self, FAINT, STRONG, painted};
use crate::clock::Millis;

/// The whole card, with line ends.
pub(super) fn card(task: &Task, server: &Server, now: Millis) -> String {
    let mut card = Card {
        text: String::new(),
        now,
    };
    card.head(task);
    if task.outcomes.len() > 1 {
        card.heading("outcomes");
        for outcome in &task.outcomes {
            card.outcome(outcome);
        }
    }
    if !task.files.is_empty() {
        card.heading("files");
        for file in &task.files {
            card.file(file, server);
        }
    }
    card.next_steps(task);
    card.text
}

struct Card {
    text: String,
    now: Millis,
}

impl Card {
    fn head(&mut self, task: &Task) {
        self.push(&format!(
            "{}  {}",
            painted(STRONG, &human::clean(&task.task_id)),
            painted(FAINT, &human::clean(&task.source))
        ));
        let mut state = human::state(&task.state);
        for detail in [
            task.resolution.as_deref(),
            task.fallback.unwrap_or(false).then_some("fallback model"),
        ] {
            if let Some(detail) = detail {
                let _ = write!(state, ", {}", human::clean(detail));
            }
        }
        self.field("state", &state);
        self.field("media", &human::state(&task.media));
        self.message(task.code, task.msg.as_deref());
        self.failure(task.failure.as_ref());
        if let Some(prompt) = &task.prompt {
            self.field("prompt", &human::brief(prompt, 200));
        }
        if let Some(credits) = task.credits {
            self.field("credits", &credits.to_string());
        }
        self.moment("created", task.created_at.as_deref());
        self.moment("received", task.received_at.as_deref());
        self.moment("updated", task.updated_at.as_deref());
        let conflicts = match task.conflicts {
            0 => String::new(),
            conflicts => format!(", {}", human::counted(conflicts, "open conflict")),
        };
        self.field("deliveries", &format!("{}{conflicts}", task.deliveries));
    }

    fn outcome(&mut self, outcome: &Outcome) {
        let Outcome {
            kind,
            index,
            state,
            via,
            ..
        } = outcome;
        let at = outcome
            .received_at
            .as_deref()
            .map(|at| human::age(self.now, at))
            .unwrap_or_default();
        self.push(&format!(
            "  {} {index}  {}  {}",
            human::clean(kind),
            human::state(state),
            painted(FAINT, &format!("via {}, {at}", human::clean(via)))
        ));
        self.message(outcome.code, outcome.msg.as_deref());
        self.failure(outcome.failure.as_ref());
    }

    fn file(&mut self, file: &File, server: &Server) {
        let mut facts = vec![human::state(&file.state)];
        facts.extend(file.bytes.map(human::size));
        facts.extend(file.content_type.as_deref().map(human::clean));
        if file.state != "stored" && file.attempts > 0 {
            facts.push(human::counted(file.attempts, "attempt"));
        }
        self.push(&format!(
            "  {}  {}",
            painted(STRONG, &human::clean(&file.name)),
            facts.join(", ")
        ));
        if let Some(sha256) = &file.sha256 {
            self.field("sha256", &human::clean(sha256));
        }
        if file.state == "stored" {
            let url = file.url.as_deref().and_then(|url| server.base().join(url).ok());
            self.field("url", url.as_ref().map_or("", url::Url::as_str));
            return;
        }
        if let Some(error) = &file.error {
            self.field(
                "error",
                &format!("{} ({})", human::clean(&error.detail), human::clean(&error.code)),
            );
        }
        self.field(
            "from",
            &file
                .provider_url
                .as_deref()
                .map(|url| human::brief(url, 160))
                .unwrap_or_default(),
        );
        self.moment("next try", file.next_attempt_at.as_deref());
        self.moment("expires", file.deadline.as_deref());
    }

    fn message(&mut self, code: Option<i64>, msg: Option<&str>) {
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        if let Some(msg) = msg {
            self.field("message", &format!("{}{code}", human::brief(msg, 300)));
        }
    }

    fn failure(&mut self, failure: Option<&Failure>) {
        let Some(failure) = failure else { return };
        let again = if failure.retryable {
            "worth submitting again"
        } else {
            "will fail again unless changed"
        };
        self.field("failure", &format!("{}, {again}", human::clean(&failure.kind)));
        self.field("advice", &human::clean(&failure.advice));
    }

    /// What a person may want to do now.
    fn next_steps(&mut self, task: &Task) {
        let at = format!(
            "{} --source {}",
            human::clean(&task.task_id),
            human::clean(&task.source)
        );
        let failed = task.files.iter().any(|file| file.state == "failed");
        if failed {
            self.push(&format!(
                "\nTo try the failed downloads again: reelhook tasks retry {at}"
            ));
        }
        if task.conflicts > 0 {
            self.push(&format!(
                "\nDeliveries contradict each other. To see them: reelhook deliveries list --task {at}\n\
                 To believe one of them: reelhook deliveries accept ID"
            ));
        }
    }

    fn heading(&mut self, title: &str) {
        self.push(&format!("\n{title}"));
    }

    /// A line with a label; none if there is nothing to say.
    fn field(&mut self, label: &str, value: &str) {
        if !value.is_empty() {
            self.push(&format!("    {}{value}", painted(FAINT, &format!("{label:<12}"))));
        }
    }

    fn moment(&mut self, label: &str, at: Option<&str>) {
        if let Some(at) = at {
            self.field(
                label,
                &format!("{} ({})", human::age(self.now, at), human::clean(at)),
            );
        }
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}
