//! `/deliveries`: what arrived, and first of all what was turned away and why.

use askama::Template;
use axum::extract::rejection::{FormRejection, QueryRejection};
use axum::extract::{Form, Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::frame::Frame;
use super::page;
use super::show::{Ago, Badge, Copy, Count};
use crate::clock::Millis;
use crate::http::App;
use crate::http::deliveries::{RejectedQuery, all_rejudged};
use crate::http::problem::Problem;
use crate::http::tasks::{cursor, one_of};
use crate::ingest::{Ailing, REASONS, Summary, remedy};
use crate::store::deliveries::{DeliveryFilter, DeliveryRecord};
use crate::store::reverify::RejectedGroup;

const VERDICTS: [&str; 4] = ["accepted", "duplicate", "conflict", "rejected"];
/// Rows of a page.
const PAGE: i64 = 50;
/// What "lately" is, where rejected deliveries are summed up.
pub(super) const LATELY: Millis = 60 * 60 * 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ListQuery {
    verdict: String,
    reason: String,
    source: String,
    cursor: String,
    // What became of those that were judged again: numbers only, so that no link can have us say something.
    accepted: Option<u64>,
    duplicate: Option<u64>,
    conflict: Option<u64>,
    rejected: Option<u64>,
}

/// A field that was left empty wants nothing.
fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[derive(Template)]
#[template(path = "deliveries.html")]
struct Page {
    frame: Frame,
    groups: Vec<Group>,
    rejected: Count,
    lines: Vec<Line>,
    sources: Vec<String>,
    verdict: Option<String>,
    reason: Option<String>,
    source: Option<String>,
    first: Option<String>,
    next: Option<String>,
    judged: Option<Numbers>,
}

/// Rejected deliveries of a source with the same reason.
pub(super) struct Group {
    pub(super) source: String,
    pub(super) reason: String,
    count: Count,
    pub(super) recent: Option<Count>,
    pub(super) newest: Ago,
    pub(super) remedy: Option<String>,
    /// Whether judging them again can change anything.
    mendable: bool,
}

/// A row of the table.
pub(super) struct Line {
    pub(super) id: i64,
    pub(super) received: Ago,
    pub(super) verdict: String,
    pub(super) reason: Option<String>,
    pub(super) task_id: Option<String>,
    /// Where the task is, if the delivery made one or found it.
    pub(super) task: Option<String>,
    pub(super) source: String,
    pub(super) about: String,
    pub(super) via: String,
}

impl Line {
    pub(super) fn badge(&self) -> Badge<'_> {
        Badge(&self.verdict)
    }

    /// A button that copies its task id.
    pub(super) fn copy(&self) -> Option<Copy<'_>> {
        let text = self.task_id.as_deref()?;
        Some(Copy {
            text,
            what: "the task id",
        })
    }
}

/// What became of those that were judged again.
struct Numbers {
    examined: u64,
    accepted: u64,
    duplicate: u64,
    conflict: u64,
    rejected: u64,
}

impl Numbers {
    fn of(query: &ListQuery) -> Option<Self> {
        let (accepted, duplicate) = (query.accepted?, query.duplicate?);
        let (conflict, rejected) = (query.conflict?, query.rejected?);
        let parts = [accepted, duplicate, conflict, rejected];
        Some(Self {
            examined: parts.into_iter().fold(0, u64::saturating_add),
            accepted,
            duplicate,
            conflict,
            rejected,
        })
    }
}

impl Page {
    /// Whether a list of all is shown, and not of some.
    fn is_unfiltered(&self) -> bool {
        self.verdict.is_none() && self.reason.is_none() && self.source.is_none()
    }
}

/// The page, newest first.
pub(super) async fn list(
    State(app): State<App>,
    frame: Frame,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let judged = Numbers::of(&query);
    let before = cursor(given(query.cursor).as_deref())?;
    let filter = DeliveryFilter {
        verdict: one_of("verdict", given(query.verdict), &VERDICTS)?,
        reason: given(query.reason),
        source: given(query.source),
        before,
        limit: PAGE,
        task: None,
    };
    let now = frame.now;
    let groups = app.store.rejected_groups(now.saturating_sub(LATELY)).await?;
    let found = app.store.list_deliveries(&filter).await?;
    let rejected = groups.iter().map(|group| group.count).sum();
    let groups = groups.into_iter().map(|group| group_of(&app, group, now));
    page(&Page {
        groups: groups.collect(),
        rejected: Count(rejected),
        lines: found.items.iter().map(|delivery| line(delivery, now)).collect(),
        sources: app.ingest.sources().keys().map(ToString::to_string).collect(),
        first: before.map(|_| address(&filter, None)),
        next: found.next.map(|next| address(&filter, Some(next))),
        verdict: filter.verdict,
        reason: filter.reason,
        source: filter.source,
        judged,
        frame,
    })
}

pub(super) fn group_of(app: &App, group: RejectedGroup, now: Millis) -> Group {
    let ailing = Ailing {
        source: &group.source,
        verdict: "rejected",
        reason: &group.reason,
        received_at: group.newest_at,
        headers: &group.headers,
    };
    Group {
        remedy: remedy(&app.ingest.sources(), &ailing),
        mendable: is_mendable(&group.reason),
        count: Count(group.count),
        recent: Some(Count(group.recent)).filter(|recent| recent.0 > 0),
        newest: Ago {
            at: group.newest_at,
            now,
        },
        source: group.source,
        reason: group.reason,
    }
}

/// Whether a key or a setting decides over it, and not what arrived.
pub(super) fn is_mendable(reason: &str) -> bool {
    matches!(reason, "bad_signature" | "missing_signature" | "stale")
}

pub(super) fn line(delivery: &DeliveryRecord, now: Millis) -> Line {
    let is_recorded = delivery.verdict != "rejected" && delivery.reason.as_deref() != Some("deleted");
    let task_id = delivery.task_id.clone();
    Line {
        id: delivery.id,
        received: Ago {
            at: delivery.received_at,
            now,
        },
        verdict: delivery.verdict.clone(),
        reason: delivery.reason.clone(),
        task: task_id
            .as_deref()
            .filter(|_| is_recorded)
            .map(|id| task_address(id, &delivery.source)),
        task_id,
        source: delivery.source.clone(),
        about: about(delivery),
        via: delivery.via.clone(),
    }
}

/// Which result a delivery is about, as far as it said.
pub(super) fn about(delivery: &DeliveryRecord) -> String {
    let index = delivery.index.filter(|index| *index > 0);
    let index = index.map(|index| format!(" {index}")).unwrap_or_default();
    let kind = delivery.kind.as_deref().unwrap_or_default();
    format!("{kind}{index}").trim().to_owned()
}

/// Where the page of a task is. Its id needs no encoding in a path.
pub(super) fn task_address(task_id: &str, source: &str) -> String {
    format!("/tasks/{task_id}?source={source}")
}

/// This page with these filters, from there on.
fn address(filter: &DeliveryFilter, cursor: Option<i64>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let cursor = cursor.map(|cursor| cursor.to_string());
    let pairs = [
        ("verdict", &filter.verdict),
        ("reason", &filter.reason),
        ("source", &filter.source),
        ("cursor", &cursor),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    format!("/deliveries?{}", query.finish())
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Which {
    source: String,
    reason: String,
}

/// Judges again what the form means, and says what became of it.
pub(super) async fn reverify_all(
    State(app): State<App>,
    form: Result<Form<Which>, FormRejection>,
) -> Result<Response, Problem> {
    let Form(which) = form.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
    let query = RejectedQuery {
        source: given(which.source),
        reason: given(which.reason),
        since: None,
    };
    let summary = all_rejudged(&app, query).await?;
    let Summary {
        accepted,
        duplicate,
        conflict,
        ..
    } = summary;
    let rejected: u64 = summary.still_rejected.values().sum();
    let numbers =
        format!("accepted={accepted}&duplicate={duplicate}&conflict={conflict}&rejected={rejected}");
    Ok(Redirect::to(&format!("/deliveries?{numbers}")).into_response())
}
