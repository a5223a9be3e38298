//! `/tasks/{task_id}`: one task, from what went wrong to the last byte.

use std::fmt;
use std::sync::Arc;

use askama::Template;
use askama::filters::{Html, HtmlSafe, escape};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;

use super::frame::{Frame, Notice};
use super::proof::{Arrived, Proof};
use super::show::{Ago, At, Badge, Copy, Took, pretty};
use super::told::{Asking, Attempt, Delivery, File, Task, name_of, told};
use super::{done, page};
use crate::clock::Millis;
use crate::http::App;
use crate::http::attempts::AttemptView;
use crate::http::problem::{Path, Problem};
use crate::http::tasks::{Select, find, remove};
use crate::http::views::{DeliveryView, Seen, TaskView};
use crate::ingest::Sources;
use crate::store::deliveries::{DeliveryFilter, DeliveryRecord};

/// Deliveries of each sort that the page shows; the list of all has the rest.
const DELIVERIES: i64 = 40;
/// Characters of a prompt that stand open.
const SHORT: usize = 600;

#[derive(Template)]
#[template(path = "task.html")]
struct Page {
    frame: Frame,
    task: Task,
    params: Option<String>,
    deliveries: Vec<Delivery>,
    sources: Arc<Sources>,
    steps: Vec<Step>,
    /// From the first delivery to the last byte.
    took: Option<Took>,
}

/// What happened at a moment.
struct Step {
    at: Millis,
    tone: &'static str,
    what: String,
    detail: Option<String>,
    /// Where more of it is told.
    href: Option<String>,
    /// How long after the one before it.
    gap: Option<Took>,
}

pub(super) async fn show(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
    mut frame: Frame,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let record = find(&app, &task_id, query.source.as_deref()).await?;
    let deliveries = deliveries_of(&app, record.row).await?;
    let attempts = app.store.attempts(record.row).await?;
    let redactor = app.redactor();
    let views: Vec<_> = deliveries
        .iter()
        .map(|delivery| DeliveryView::listed(delivery, &redactor))
        .collect();
    let deliveries: Vec<Delivery> = told(&app, &views)?;
    let attempts: Vec<_> = attempts.iter().map(AttemptView::from).collect();
    let attempts: Vec<Attempt> = told(&app, &attempts)?;
    let task: Task = told(&app, &TaskView::of(&record, &Seen::by(&app)))?;
    frame.events = format!("/v1/events?task_id={}&source={}", task.task_id, task.source);
    page(&Page {
        params: record
            .params
            .as_deref()
            .map(|params| pretty(&redactor.text(params))),
        steps: steps(&task, &deliveries, &attempts),
        took: took(&task, &attempts),
        sources: app.ingest.sources(),
        frame,
        task,
        deliveries,
    })
}

/// The newest of each sort, oldest first. What is accepted is asked for by itself: many that told nothing new, or
/// contradicted it, may have come since.
async fn deliveries_of(app: &App, task: i64) -> Result<Vec<DeliveryRecord>, Problem> {
    let mut found = Vec::new();
    for verdict in [Some("accepted"), None, Some("rejected")] {
        let of_task = DeliveryFilter {
            task: Some(task),
            verdict: verdict.map(str::to_owned),
            limit: DELIVERIES,
            ..DeliveryFilter::default()
        };
        found.extend(app.store.list_deliveries(&of_task).await?.items);
    }
    found.sort_by_key(|delivery| delivery.id);
    found.dedup_by_key(|delivery| delivery.id);
    Ok(found)
}

/// Queues the failed files again, and comes back.
pub(super) async fn retry(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    let queued = app.store.retry_task(task.row).await?;
    let notice = if queued > 0 {
        Notice::Retried
    } else {
        Notice::NothingToRetry
    };
    Ok(done(
        &format!("/tasks/{}?source={}", task.task_id, task.source),
        notice,
    ))
}

/// Deletes the task, and goes to the others.
pub(super) async fn delete(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<Select>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    remove(&app, task).await?;
    Ok(done("/tasks", Notice::Deleted))
}

#[expect(
    clippy::unused_self,
    clippy::trivially_copy_pass_by_ref,
    reason = "what templates call is a method, and they pass references"
)]
impl Page {
    fn ago(&self, at: &Millis) -> Ago {
        Ago {
            at: *at,
            now: self.frame.now,
        }
    }

    fn retry(&self) -> String {
        format!("/tasks/{}/retry?source={}", self.task.task_id, self.task.source)
    }

    fn delete(&self) -> String {
        format!("/tasks/{}/delete?source={}", self.task.task_id, self.task.source)
    }

    fn zip(&self) -> String {
        format!(
            "/v1/tasks/{}/files.zip?source={}",
            self.task.task_id, self.task.source
        )
    }

    /// Files by result, in the order in which they came: a base video beside its 4K upgrade, results beside their origins.
    fn groups(&self) -> Vec<(String, Vec<&File>)> {
        let mut groups: Vec<(String, Vec<&File>)> = Vec::new();
        for file in &self.task.files {
            match groups.iter_mut().find(|(name, _)| *name == file.result()) {
                Some((_, files)) => files.push(file),
                None => groups.push((file.result(), vec![file])),
            }
        }
        groups
    }

    /// Files that are in trouble, each trouble once.
    fn troubles(&self) -> Vec<(&File, usize)> {
        let mut troubles: Vec<(&File, usize)> = Vec::new();
        for file in &self.task.files {
            let Some(error) = file.error.as_ref().filter(|_| file.url.is_none()) else {
                continue;
            };
            let same = |(other, _): &&mut (&File, usize)| {
                other.state == file.state
                    && other.error.as_ref().is_some_and(|other| other.code == error.code)
            };
            match troubles.iter_mut().find(same) {
                Some((_, count)) => *count += 1,
                None => troubles.push((file, 1)),
            }
        }
        troubles
    }

    fn is_long(&self, prompt: &str) -> bool {
        prompt.chars().count() > SHORT
    }

    fn beginning(&self, prompt: &str) -> String {
        prompt.chars().take(SHORT).collect()
    }

    fn reason(&self, asking: &Asking) -> &'static str {
        match asking.reason.as_str() {
            "silent" => "no final word came",
            "conflict" => "deliveries contradict each other",
            "held" => "files wait for its confirmation",
            "needs_url" => "the link to a file has expired",
            "full" => "only its record names the whole film",
            "stale" => "a callback came too late to be believed",
            "unconfirmed" => "a failure is to be confirmed",
            _ => "something is open",
        }
    }

    fn result(&self, asking: &Asking) -> String {
        name_of(&asking.kind, asking.index)
    }

    fn body<'p>(&'p self, body: &str, proof: &Proof) -> Marked<'p> {
        Marked {
            text: pretty(body),
            covered: Some(self.task.task_id.as_str()).filter(|_| proof.is_signature()),
        }
    }

    fn proof(&self, delivery: &Delivery) -> Proof {
        let arrived = Arrived {
            via: &delivery.via,
            verdict: &delivery.verdict,
            reason: delivery.reason.as_deref(),
            has_signature: delivery.headers.contains_key("x-webhook-signature"),
        };
        Proof::of(&arrived, self.sources.get(self.task.source.as_str()))
    }

    /// How many deliveries count for the task and are not shown. Rejected ones count for none.
    fn hidden(&self) -> i64 {
        let counted = self
            .deliveries
            .iter()
            .filter(|delivery| delivery.verdict != "rejected");
        let shown = i64::try_from(counted.count()).unwrap_or(i64::MAX);
        self.task.deliveries.saturating_sub(shown)
    }
}

impl Step {
    fn moment(&self) -> At {
        At(self.at)
    }
}

impl Delivery {
    fn moment(&self) -> At {
        At(self.received_at)
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "what templates call gets references"
    )]
    fn lines(&self, proof: &Proof) -> Vec<(&str, String, bool)> {
        let signed = proof.is_signature();
        (self.headers.iter())
            .map(|(name, value)| {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                (name.as_str(), value, signed && name == "x-webhook-timestamp")
            })
            .collect()
    }
}

/// A body with the task id marked where it stands for itself: the only part of it that a signature covers, if one holds.
struct Marked<'a> {
    text: String,
    covered: Option<&'a str>,
}

impl HtmlSafe for Marked<'_> {}

impl fmt::Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |text: &str| escape(text.to_owned(), Html).map_err(|_| fmt::Error);
        let Some(covered) = self.covered else {
            return f.write_str(&plain(&self.text)?.to_string());
        };
        let quoted = format!("\"{covered}\"");
        let mut rest = self.text.as_str();
        while let Some((before, after)) = rest.split_once(&quoted) {
            write!(f, "{}", plain(before)?)?;
            let named =
                before.trim_end().ends_with("\"taskId\":") || before.trim_end().ends_with("\"task_id\":");
            let id = plain(&quoted)?;
            if named {
                write!(f, "<mark>{id}</mark>")?;
            } else {
                write!(f, "{id}")?;
            }
            rest = after;
        }
        write!(f, "{}", plain(rest)?)
    }
}

/// All that happened, in order.
fn steps(task: &Task, deliveries: &[Delivery], attempts: &[Attempt]) -> Vec<Step> {
    let mut steps = Vec::new();
    if task
        .received_at
        .is_none_or(|received_at| received_at > task.created_at)
    {
        steps.push(step(task.created_at, "calm", "The task was announced".to_owned()));
    }
    steps.extend(deliveries.iter().map(of_delivery));
    for asking in task.asking.iter().filter(|asking| asking.asks > 0) {
        let Some(at) = asking.asked_at else { continue };
        let times = if asking.asks == 1 {
            "once".to_owned()
        } else {
            format!("{} times", asking.asks)
        };
        let mut asked = step(at, "busy", format!("The provider was asked, {times} so far"));
        asked.detail = asking.note.as_ref().map(|note| note.detail.clone());
        steps.push(asked);
    }
    steps.extend(attempts.iter().map(of_attempt));
    for file in &task.files {
        if let Some(at) = file.next_attempt_at {
            steps.push(step(
                at,
                "busy",
                format!("The next attempt at {} is due", file.name),
            ));
        }
    }
    steps.sort_by_key(|step| step.at);
    let mut before = None;
    for step in &mut steps {
        step.gap = before.map(|before: Millis| Took(step.at.saturating_sub(before)));
        before = Some(step.at);
    }
    steps
}

fn step(at: Millis, tone: &'static str, what: String) -> Step {
    Step {
        at,
        tone,
        what,
        detail: None,
        href: None,
        gap: None,
    }
}

fn of_delivery(delivery: &Delivery) -> Step {
    let how = match delivery.via.as_str() {
        "poll" => "The provider's answer came",
        "api" => "The provider's API told a client",
        _ => "A callback came",
    };
    let result = delivery
        .kind
        .as_deref()
        .map(|kind| name_of(kind, delivery.index.unwrap_or(0)));
    let about = result.map_or(String::new(), |result| format!(" about {result}"));
    let (tone, verdict) = match delivery.verdict.as_str() {
        "accepted" => ("good", "and was accepted"),
        "duplicate" => ("calm", "that told nothing new"),
        "conflict" => ("warn", "that contradicts what is known"),
        _ => ("bad", "and was rejected"),
    };
    let mut step = step(delivery.received_at, tone, format!("{how}{about}, {verdict}"));
    step.detail = delivery.remedy.clone().or_else(|| delivery.reason.clone());
    step.href = Some(format!("/deliveries/{}", delivery.id));
    step
}

fn of_attempt(attempt: &Attempt) -> Step {
    let name = &attempt.name;
    let took = Took(attempt.ended_at.saturating_sub(attempt.began_at));
    let (tone, what) = match attempt.outcome.as_str() {
        "stored" => {
            let bytes = super::show::Bytes(attempt.bytes.unwrap_or(0));
            ("good", format!("{name} was stored: {bytes} in {took}"))
        }
        "refreshed" => (
            "good",
            format!("A fresh link to {name} was obtained, after {took}"),
        ),
        "not_refreshed" => ("warn", format!("There was no fresh link to {name}")),
        "stopped" | "interrupted" => ("warn", format!("Fetching {name} was cut off after {took}")),
        code => ("bad", format!("An attempt at {name} failed after {took}: {code}")),
    };
    let mut step = step(attempt.ended_at, tone, what);
    step.detail.clone_from(&attempt.detail);
    step
}

/// From the first delivery to the last byte, once all is stored.
fn took(task: &Task, attempts: &[Attempt]) -> Option<Took> {
    let last = attempts
        .iter()
        .filter(|attempt| attempt.outcome == "stored")
        .map(|attempt| attempt.ended_at)
        .max()?;
    (task.media == "stored").then(|| Some(Took(last.saturating_sub(task.received_at?))))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_marked_and_what_strangers_wrote_stays_text() {
        let body = r#"{"data":{"taskId":"t1","note":"t1","x":"<script>\"t1\""}}"#;
        for (covered, marks) in [(Some("t1"), 1), (None, 0)] {
            let text = pretty(body);
            let shown = Marked { text, covered }.to_string();
            assert_eq!(shown.matches("<mark>").count(), marks, "{shown}");
            assert!(!shown.contains("<script"), "{shown}");
        }
    }
}
