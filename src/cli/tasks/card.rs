//! One task as a card for a person to read.

use super::super::answers::{Ask, Failure, File, Outcome, Progress, Task};
use super::super::client::Server;
use super::super::human::{self, Card, FAINT, STRONG, painted};
use crate::clock::Millis;
use crate::download::is_retryable;

/// The whole card.
pub(super) fn card(task: &Task, server: &Server, now: Millis) -> Card {
    let mut writer = Writer {
        card: Card::default(),
        now,
    };
    writer.head(task);
    if task.outcomes.len() > 1 {
        writer.card.heading("outcomes");
        for outcome in &task.outcomes {
            writer.outcome(outcome);
        }
    }
    if !task.files.is_empty() {
        writer.card.heading("files");
        for file in &task.files {
            writer.file(file, server);
        }
    }
    if !task.asking.is_empty() {
        writer.card.heading("asking the provider");
        for ask in &task.asking {
            writer.ask(ask);
        }
    }
    writer.next_steps(task);
    writer.card
}

struct Writer {
    card: Card,
    now: Millis,
}

impl Writer {
    fn head(&mut self, task: &Task) {
        let (id, source) = (human::clean(&task.task_id), human::clean(&task.source));
        self.card
            .line(&format!("{}  {}", painted(STRONG, &id), painted(FAINT, &source)));
        let mut state = vec![human::state(&task.state)];
        state.extend(task.resolution.as_deref().map(human::clean));
        if task.fallback == Some(true) {
            state.push("by the fallback model".to_owned());
        }
        self.card.field("state", &state.join(", "));
        self.card.field("media", &human::state(&task.media));
        if let Some(paused) = &task.paused {
            self.card
                .field("paused", &format!("nothing is fetched: {}", human::clean(paused)));
        }
        self.message(task.code, task.msg.as_deref());
        self.failure(task.failure.as_ref());
        if let Some(prompt) = &task.prompt {
            self.card.field("prompt", &human::brief(prompt, 200));
        }
        if let Some(credits) = task.credits {
            self.card.field("credits", &credits.to_string());
        }
        self.moment("created", task.created_at.as_deref());
        self.moment("received", task.received_at.as_deref());
        self.moment("updated", task.updated_at.as_deref());
        let mut deliveries = task.deliveries.to_string();
        if task.conflicts > 0 {
            deliveries.push_str(", ");
            deliveries.push_str(&human::counted(task.conflicts, "open conflict"));
        }
        self.card.field("deliveries", &deliveries);
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
        let came = via
            .as_deref()
            .map(|via| painted(FAINT, &format!("via {}, {at}", human::clean(via))));
        let came = came.unwrap_or_default();
        self.card.line(&format!(
            "  {} {index}  {}  {came}",
            human::clean(kind),
            human::state(state)
        ));
        self.message(outcome.code, outcome.msg.as_deref());
        self.failure(outcome.failure.as_ref());
    }

    fn file(&mut self, file: &File, server: &Server) {
        let mut facts = vec![human::state(&file.state)];
        facts.extend(file.bytes.map(human::size));
        facts.extend(file.content_type.as_deref().map(human::clean));
        facts.extend(shape(file));
        if file.state != "stored" && file.attempts > 0 {
            facts.push(human::counted(file.attempts, "attempt"));
        }
        let name = painted(STRONG, &human::clean(&file.name));
        self.card.line(&format!("  {name}  {}", facts.join(", ")));
        if let Some(sha256) = &file.sha256 {
            self.card.field("sha256", &human::clean(sha256));
        }
        if file.state == "stored" {
            let url = file.url.as_deref().and_then(|url| server.base().join(url).ok());
            self.card.field("url", url.as_ref().map_or("", url::Url::as_str));
            return;
        }
        if file.state == "held" {
            self.card.field(
                "waits",
                "until the provider's API confirms it; nothing is fetched before",
            );
        }
        if let Some(progress) = &file.progress {
            self.card.field("fetched", &fetched(progress));
        }
        if let Some(error) = &file.error {
            let (detail, code) = (human::clean(&error.detail), human::clean(&error.code));
            self.card.field("error", &format!("{detail} ({code})"));
            let remedy = error.remedy.as_deref().map(human::clean);
            self.card.field("remedy", &remedy.unwrap_or_default());
        }
        let from = file.provider_url.as_deref().map(|url| human::brief(url, 160));
        self.card.field("from", &from.unwrap_or_default());
        self.moment("next try", file.next_attempt_at.as_deref());
        self.moment("expires", file.deadline.as_deref());
    }

    /// `video 0  silent since 5 min ago, asked 3 times, last 20 s ago, next in 40 s: what came of it`
    fn ask(&mut self, ask: &Ask) {
        let mut facts = vec![match &ask.since {
            Some(since) => format!("{} {}", why(&ask.reason), human::age(self.now, since)),
            None => human::clean(&ask.reason),
        }];
        facts.push(match ask.asks {
            0 => "not asked yet".to_owned(),
            asks => format!("asked {}", human::counted(asks, "time")),
        });
        let asked = ask.asked_at.as_deref();
        facts.extend(asked.map(|at| format!("last {}", human::age(self.now, at))));
        let next = ask.next_ask_at.as_deref();
        facts.extend(next.map(|at| match human::age(self.now, at) {
            ahead if ahead.starts_with("in ") => format!("next {ahead}"),
            _ => "next as soon as possible".to_owned(),
        }));
        let (kind, told) = (human::clean(&ask.kind), facts.join(", "));
        let note = ask.note.as_ref().map(|note| human::brief(&note.detail, 300));
        let note = note.map(|note| format!(": {note}")).unwrap_or_default();
        self.card.line(&format!("  {kind} {}  {told}{note}", ask.index));
    }

    fn message(&mut self, code: Option<i64>, msg: Option<&str>) {
        let code = code.map(|code| format!(" ({code})")).unwrap_or_default();
        let msg = human::brief(msg.unwrap_or_default(), 300);
        let told = format!("{msg}{code}");
        if !told.is_empty() {
            self.card.field("message", told.trim_start());
        }
    }

    fn failure(&mut self, failure: Option<&Failure>) {
        let Some(failure) = failure else { return };
        let again = if failure.retryable {
            "worth submitting again"
        } else {
            "will fail again unless changed"
        };
        self.card
            .field("failure", &format!("{}, {again}", human::clean(&failure.kind)));
        self.card.field("advice", &human::clean(&failure.advice));
    }

    /// What a person may want to do now.
    fn next_steps(&mut self, task: &Task) {
        let at = format!(
            "{} --source {}",
            human::clean(&task.task_id),
            human::clean(&task.source)
        );
        let program = human::program();
        let can_retry = |file: &File| {
            let error = file.error.as_ref().filter(|_| file.state == "failed");
            error.is_some_and(|error| is_retryable(&error.code))
        };
        if task.files.iter().any(can_retry) {
            let retry = format!("To try the failed downloads again: {program} tasks retry {at}");
            self.card.heading(&retry);
        }
        if task.conflicts > 0 {
            self.card.heading(&format!(
                "Deliveries contradict each other. To see them: {program} deliveries list --task {at}"
            ));
            self.card
                .line(&format!("To believe one of them: {program} deliveries accept ID"));
        }
    }

    fn moment(&mut self, label: &str, at: Option<&str>) {
        self.card.moment(label, at, self.now);
    }
}

/// Why something is asked, up to the moment since when.
fn why(reason: &str) -> String {
    let why = match reason {
        "silent" => "silent since",
        "conflict" => "deliveries contradict each other since",
        "unconfirmed" => "a failure is to be confirmed since",
        "full" => "the whole film is wanted since",
        "held" => "files wait for its confirmation since",
        "needs_url" => "a file needs another link since",
        "stale" => "a callback came too late to be believed",
        other => return format!("{}, since", human::clean(other)),
    };
    why.to_owned()
}

/// `12 MiB of 40 MiB (30 %), 2 MiB/s`
fn fetched(progress: &Progress) -> String {
    let Progress {
        bytes,
        total,
        bytes_per_second,
    } = *progress;
    let of_total = total.filter(|total| *total > 0).map_or(String::new(), |total| {
        format!(
            " of {} ({} %)",
            human::size(total),
            bytes.saturating_mul(100) / total
        )
    });
    format!(
        "{}{of_total}, {}/s",
        human::size(bytes),
        human::size(bytes_per_second)
    )
}

/// `1280×720 h264 8.0 s`, as far as it is known.
pub(super) fn shape(file: &File) -> Option<String> {
    let size = match (file.width, file.height) {
        (Some(width), Some(height)) => Some(format!("{width}×{height}")),
        _ => None,
    };
    let codec = file.codec.as_deref().map(human::clean);
    let duration = file.duration_ms.map(|ms| {
        let tenths = ms.saturating_add(50) / 100;
        format!("{}.{} s", tenths / 10, tenths % 10)
    });
    let known: Vec<String> = [size, codec, duration].into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join(" "))
}
