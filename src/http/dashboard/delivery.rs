//! `/deliveries/{id}`: what arrived, what was made of it, and what to do.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::deliveries::{Line, is_mendable, line, task_address};
use super::delivery_body::Evidence;
use super::frame::{Frame, Notice};
use super::proof::{Arrived, Proof};
use super::show::{At, Badge, Bytes};
use super::{done, page};
use crate::http::App;
use crate::http::deliveries::{accepted, load, rejudged};
use crate::http::problem::{Path, Problem};
use crate::http::redact::Redactor;
use crate::http::views::{Shown, remedy_of};
use crate::ingest::{Judged, Refused};
use crate::provider::encoding::beginning;
use crate::provider::payload::Document;
use crate::provider::rules::{State as TaskState, Verdict};
use crate::store::deliveries::{DeliveryFilter, DeliveryRecord};
use crate::store::tasks::TaskRecord;

/// Bytes of a body that are looked at to show it.
const MAX_READ: usize = 1024 * 1024;
/// Bytes that a body may unpack to, where what it says is read.
const MAX_UNPACKED: u64 = 64 * 1024 * 1024;
/// Other deliveries of the task that are listed, of those believed and of those rejected.
const OTHERS: i64 = 20;

#[derive(Template)]
#[template(path = "delivery.html")]
struct Page {
    frame: Frame,
    line: Line,
    received_at: At,
    remote_addr: Option<String>,
    remedy: Option<String>,
    /// Where its task is, if there is one.
    task: Option<String>,
    action: Action,
    headers: Vec<Header>,
    body: Option<Body>,
    body_bytes: Option<Bytes>,
    proof: Proof,
    claims: Option<Claims>,
    others: Vec<Line>,
}

/// What a person can do about a delivery.
enum Action {
    Nothing,
    /// It was rejected, and what decided over that is judged by the sources of now.
    Reverify {
        refused: Option<Refused>,
    },
    /// It lacks the right token: somebody has to answer for it.
    Vouch,
    /// It contradicts what stands.
    Settle,
    /// Its files wait to be confirmed.
    Confirm,
}

impl Action {
    fn is_some(&self) -> bool {
        !matches!(self, Self::Nothing)
    }
}

/// A kept header.
struct Header {
    name: String,
    value: String,
    is_covered: bool,
}

/// A body that can be shown.
struct Body {
    evidence: Evidence,
    is_text: bool,
    is_cut: bool,
}

/// What contradicts itself.
struct Claims {
    standing: Option<Claim>,
    this: Claim,
}

/// What is said of an outcome.
struct Claim {
    state: &'static str,
    code: Option<i64>,
    msg: String,
    files: Vec<Claimed>,
}

/// A file that is said to belong to it.
struct Claimed {
    name: String,
    url: String,
    state: Option<String>,
}

impl Page {
    fn tone(&self) -> &'static str {
        match self.line.verdict.as_str() {
            "rejected" => "bad",
            "conflict" => "warn",
            _ => "calm",
        }
    }
}

impl Claim {
    fn badge(&self) -> Badge<'_> {
        Badge(self.state)
    }
}

/// The page.
pub(super) async fn show(
    State(app): State<App>,
    frame: Frame,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    let task = task_of(&app, &delivery).await?;
    let redactor = app.redactor();
    let headers = headers(&delivery, &redactor);
    let proof = proof(&app, &delivery, &headers);
    page(&Page {
        line: line(&delivery, frame.now),
        received_at: At(delivery.received_at),
        remote_addr: delivery.remote_addr.clone(),
        remedy: remedy_of(&delivery, &app.ingest.sources()),
        task: task
            .as_ref()
            .map(|task| task_address(&task.task_id, &task.source)),
        action: action(&app, &delivery, task.as_ref()).await?,
        body: body(&delivery, proof, &redactor),
        body_bytes: delivery.body_bytes.map(Bytes),
        claims: claims(&delivery, task.as_ref(), &redactor),
        others: others(&app, &delivery, task.as_ref(), frame.now).await?,
        headers,
        proof,
        frame,
    })
}

/// The task that it says it is about, if there is one.
async fn task_of(app: &App, delivery: &DeliveryRecord) -> Result<Option<TaskRecord>, Problem> {
    let Some(task_id) = &delivery.task_id else {
        return Ok(None);
    };
    let mut found = app.store.tasks_by_id(task_id, Some(&delivery.source)).await?;
    Ok(found.pop())
}

async fn action(app: &App, delivery: &DeliveryRecord, task: Option<&TaskRecord>) -> Result<Action, Problem> {
    let reason = delivery.reason.as_deref().unwrap_or_default();
    Ok(match delivery.verdict.as_str() {
        "conflict" if delivery.body.is_some() => Action::Settle,
        "accepted" if task.is_some_and(|task| holds_files_of(task, delivery)) => Action::Confirm,
        "rejected" => match app.ingest.preview(delivery.id).await? {
            Some(refused) if matches!(refused.reason, "missing_token" | "bad_token") => Action::Vouch,
            Some(refused) if refused.reason == "body_not_kept" => Action::Nothing,
            Some(refused) if !is_mendable(reason) && refused.reason == reason => Action::Nothing,
            refused => Action::Reverify { refused },
        },
        _ => Action::Nothing,
    })
}

fn holds_files_of(task: &TaskRecord, delivery: &DeliveryRecord) -> bool {
    task.files.iter().any(|file| {
        file.state == "held"
            && Some(file.kind.as_str()) == delivery.kind.as_deref()
            && Some(file.index) == delivery.index
    })
}

fn headers(delivery: &DeliveryRecord, redactor: &Redactor) -> Vec<Header> {
    let kept: BTreeMap<String, String> = serde_json::from_str(&delivery.headers).unwrap_or_default();
    let header = |(name, value): (String, String)| Header {
        value: redactor.text(&value).into_owned(),
        is_covered: name == "x-webhook-timestamp",
        name,
    };
    kept.into_iter().map(header).collect()
}

fn proof(app: &App, delivery: &DeliveryRecord, headers: &[Header]) -> Proof {
    let arrived = Arrived {
        via: &delivery.via,
        verdict: &delivery.verdict,
        reason: delivery.reason.as_deref(),
        has_signature: headers.iter().any(|header| header.name == "x-webhook-signature"),
    };
    Proof::of(&arrived, app.ingest.sources().get(delivery.source.as_str()))
}

fn body(delivery: &DeliveryRecord, proof: Proof, redactor: &Redactor) -> Option<Body> {
    let shown = Shown::of(delivery, MAX_READ, redactor);
    let is_text = shown.text.is_some();
    let text = shown.text.or(shown.base64)?;
    let covered = delivery.task_id.as_deref().filter(|_| proof.is_signature());
    let evidence = Evidence::of(&text, covered);
    Some(Body {
        is_cut: shown.truncated || evidence.is_cut(),
        evidence,
        is_text,
    })
}

/// What a delivery in conflict says, and what stands instead.
fn claims(delivery: &DeliveryRecord, task: Option<&TaskRecord>, redactor: &Redactor) -> Option<Claims> {
    if delivery.verdict != Verdict::Conflict.as_str() {
        return None;
    }
    Some(Claims {
        standing: task.and_then(|task| standing(task, delivery, redactor)),
        this: said(delivery, redactor)?,
    })
}

fn said(delivery: &DeliveryRecord, redactor: &Redactor) -> Option<Claim> {
    let (plain, _) = beginning(delivery.body.as_deref()?, MAX_UNPACKED).ok()?;
    let event = Document::parse(&plain).ok()?.event();
    let files = event.media.iter().map(|media| Claimed {
        name: format!("{} {}", media.role.as_str(), media.n),
        url: redactor.text(&media.url).into_owned(),
        state: None,
    });
    Some(Claim {
        state: TaskState::from(event.class).as_str(),
        code: event.code,
        msg: redactor.text(&event.msg).into_owned(),
        files: files.collect(),
    })
}

fn standing(task: &TaskRecord, delivery: &DeliveryRecord, redactor: &Redactor) -> Option<Claim> {
    let is_of =
        |kind: &str, index: i64| Some(kind) == delivery.kind.as_deref() && Some(index) == delivery.index;
    let outcome = task
        .outcomes
        .iter()
        .find(|outcome| is_of(&outcome.kind, outcome.index))?;
    let files = task.files.iter().filter(|file| is_of(&file.kind, file.index));
    let claimed = files.map(|file| Claimed {
        name: file.name.clone(),
        url: redactor.text(&file.provider_url).into_owned(),
        state: Some(file.state.clone()),
    });
    Some(Claim {
        state: outcome.state.as_str(),
        code: outcome.code,
        msg: redactor
            .text(outcome.msg.as_deref().unwrap_or_default())
            .into_owned(),
        files: claimed.collect(),
    })
}

/// The newest other deliveries of the task.
async fn others(
    app: &App,
    delivery: &DeliveryRecord,
    task: Option<&TaskRecord>,
    now: i64,
) -> Result<Vec<Line>, Problem> {
    let Some(task) = task else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for verdict in [None, Some(Verdict::Rejected.as_str().to_owned())] {
        let filter = DeliveryFilter {
            task: Some(task.row),
            verdict,
            limit: OTHERS,
            ..DeliveryFilter::default()
        };
        found.extend(app.store.list_deliveries(&filter).await?.items);
    }
    found.retain(|other| other.id != delivery.id);
    found.sort_unstable_by_key(|other| std::cmp::Reverse(other.id));
    Ok(found.iter().map(|other| line(other, now)).collect())
}

/// Believes the delivery, on the word of whoever sent the form.
pub(super) async fn accept(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = accepted(&app, &id).await?;
    let notice = if delivery.verdict == Verdict::Conflict.as_str() {
        Notice::InConflict
    } else {
        Notice::Accepted
    };
    back(&app, delivery.id, notice).await
}

/// Judges the delivery again.
pub(super) async fn reverify(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    let notice = match rejudged(&app, &delivery).await? {
        Judged::Recorded(recorded) if recorded.verdict == Verdict::Conflict => Notice::InConflict,
        Judged::Refused(_) => Notice::StillRejected,
        Judged::Recorded(_) | Judged::Already { .. } | Judged::Gone => Notice::Reverified,
    };
    back(&app, delivery.id, notice).await
}

/// To the delivery, or to all of them if its row was not kept.
async fn back(app: &App, id: i64, notice: Notice) -> Result<Response, Problem> {
    let path = match app.store.delivery(id).await? {
        Some(_) => format!("/deliveries/{id}"),
        None => "/deliveries".to_owned(),
    };
    Ok(done(&path, notice))
}
