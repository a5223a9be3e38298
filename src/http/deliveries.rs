//! `/v1/deliveries`, and those of one task.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::openapi::words::{self, Cursor, Reason, TaskId, VERDICTS};
use super::problem::{Path, Problem};
use super::tasks::{cursor, find, limit, moment, one_of};
use super::views::{DeliveryView, remedy_of};
use crate::ingest::{Judged, REASONS, Refused, Summary};
use crate::provider::rules::Verdict;
use crate::store::accept::Accepted;
use crate::store::deliveries::{DeliveryFilter, DeliveryRecord};
use crate::store::reverify::RejectedFilter;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only those of which this was made.
    #[param(inline, value_type = Option<words::Verdict>)]
    verdict: Option<String>,
    /// Only those with this reason.
    #[param(example = "bad_signature")]
    reason: Option<String>,
    /// Only those of this source; of one task's: which one, where two sources share the id.
    #[param(example = "kie")]
    source: Option<String>,
    /// Deliveries on a page.
    #[param(value_type = Option<u8>, minimum = 1, maximum = 200, default = 50)]
    limit: Option<String>,
    /// `next_cursor` of the page before.
    #[param(inline, value_type = Option<Cursor>)]
    cursor: Option<String>,
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
struct DeliveryList<'a> {
    deliveries: Vec<DeliveryView<'a>>,
    /// Null at the end.
    #[schema(value_type = Option<Cursor>)]
    next_cursor: Option<String>,
}

/// Lists all deliveries, newest first.
///
/// A page may be short and still have a `next_cursor`: only null is the end. Of long bodies the first 64 KiB are shown.
#[utoipa::path(
    get,
    path = "/v1/deliveries",
    tag = "deliveries",
    operation_id = "list_deliveries",
    params(ListQuery),
    responses((status = 200, description = "A page of them.", body = DeliveryList)),
)]
pub(super) async fn list(
    State(app): State<App>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let filter = DeliveryFilter {
        source: query.source.clone(),
        ..filter(query)?
    };
    page(&app, &filter).await
}

/// Lists what arrived about one task.
///
/// Rejected ones only with `verdict=rejected`, and only those that came when the task was known.
#[utoipa::path(
    get,
    path = "/v1/tasks/{task_id}/deliveries",
    tag = "deliveries",
    operation_id = "list_deliveries_of_task",
    params(("task_id" = inline(TaskId), Path, description = "The task.", example = "veo_task_1"), ListQuery),
    responses(
        (status = 200, description = "A page of them.", body = DeliveryList),
        (status = 404, description = "unknown_task"),
        (status = 409, description = "ambiguous_source"),
    ),
)]
pub(super) async fn of_task(
    State(app): State<App>,
    Path(task_id): Path<String>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let task = find(&app, &task_id, query.source.as_deref()).await?;
    // One under a reused signature may have come in another source's name: the task alone decides.
    let filter = DeliveryFilter {
        task: Some(task.row),
        ..filter(query)?
    };
    page(&app, &filter).await
}

fn filter(query: ListQuery) -> Result<DeliveryFilter, Problem> {
    Ok(DeliveryFilter {
        task: None,
        verdict: one_of("verdict", query.verdict, &VERDICTS)?,
        reason: query.reason,
        source: None,
        before: cursor(query.cursor.as_deref())?,
        limit: limit(query.limit.as_deref())?,
    })
}

async fn page(app: &App, filter: &DeliveryFilter) -> Result<Response, Problem> {
    let page = app.store.list_deliveries(filter).await?;
    let (redactor, sources) = (app.redactor(), app.ingest.sources());
    let answer = DeliveryList {
        deliveries: page
            .items
            .iter()
            .map(|delivery| DeliveryView::listed(delivery, &redactor).advised(delivery, &sources))
            .collect(),
        next_cursor: page.next.map(|next| next.to_string()),
    };
    Ok(redactor.json(StatusCode::OK, &answer))
}

/// Shows one delivery with its whole body.
#[utoipa::path(
    get,
    path = "/v1/deliveries/{id}",
    tag = "deliveries",
    operation_id = "show_delivery",
    params(("id" = String, Path, description = "The delivery.", example = "3")),
    responses(
        (status = 200, description = "The delivery.", body = DeliveryView),
        (status = 404, description = "unknown_delivery"),
    ),
)]
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    Ok(shown(&app, &delivery))
}

fn shown(app: &App, delivery: &DeliveryRecord) -> Response {
    let redactor = app.redactor();
    let view = DeliveryView::whole(delivery, &redactor).advised(delivery, &app.ingest.sources());
    redactor.json(StatusCode::OK, &view)
}

/// Settles a conflict in favour of this delivery, or vouches for one whose token was missing or wrong.
///
/// The outcome becomes what it says, and its open conflicts count as settled. Files that are stored stay; those that it does
/// not name and that are not stored fail as `superseded`. Of a rejected one the signature is verified all the same.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/accept",
    tag = "deliveries",
    operation_id = "accept_delivery",
    params(("id" = String, Path, description = "The delivery.", example = "3")),
    responses(
        (status = 200, description = "The delivery as it is now.", body = DeliveryView),
        (status = 404, description = "unknown_delivery"),
        (
            status = 409,
            description = "not_a_conflict, unknown_source, body_not_kept, missing_token, bad_token, missing_signature, \
                bad_query, not_json, no_task_id, task_ids_differ, duplicate_key, bad_task_id, stale, bad_signature",
        ),
    ),
)]
pub(super) async fn accept(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = accepted(&app, &id).await?;
    Ok(shown(&app, &delivery))
}

/// Accepts a delivery on somebody's word; what it is then.
pub(super) async fn accepted(app: &App, id: &str) -> Result<DeliveryRecord, Problem> {
    let delivery = load(app, id).await?;
    if delivery.verdict == Verdict::Rejected.as_str() {
        return vouched(app, delivery).await;
    }
    match app.store.accept_delivery(delivery.id).await? {
        Accepted::Done => {
            tracing::info!(
                delivery.id,
                task.id = delivery.task_id,
                "conflict settled by a person"
            );
            load(app, id).await
        }
        Accepted::NotFound => Err(unknown(id)),
        Accepted::NotAConflict => Err(not_a_conflict(id, &delivery.verdict)),
    }
}

async fn vouched(app: &App, delivery: DeliveryRecord) -> Result<DeliveryRecord, Problem> {
    let id = delivery.id.to_string();
    match app.ingest.vouch(delivery.id).await? {
        Judged::Recorded(recorded) => {
            let verdict = recorded.verdict.as_str();
            tracing::info!(
                delivery.id,
                task.id = delivery.task_id,
                verdict,
                "rejected delivery accepted by a person"
            );
            // Where there was no room for its row, it was counted only.
            let kept = app.store.delivery(delivery.id).await?;
            Ok(kept.unwrap_or(DeliveryRecord {
                verdict: verdict.to_owned(),
                reason: recorded.reason.map(str::to_owned),
                ..delivery
            }))
        }
        Judged::Already { verdict, .. } => Err(not_a_conflict(&id, &verdict)),
        Judged::Refused(refused) => Err(stays_rejected(refused)),
        Judged::Gone => Err(unknown(&id)),
    }
}

fn not_a_conflict(id: &str, verdict: &str) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "not_a_conflict",
        format!("delivery {id} is {verdict}: only a conflict, or one whose token was wrong, can be accepted"),
    )
}

fn stays_rejected(refused: Refused) -> Problem {
    Problem::new(StatusCode::CONFLICT, refused.reason, refused.detail)
}

/// What became of a rejected delivery.
#[derive(Serialize, ToSchema)]
#[schema(as = Reverified)]
struct ReverifiedView<'a> {
    id: &'a str,
    task_id: Option<&'a str>,
    #[schema(value_type = words::Verdict)]
    verdict: &'a str,
    /// Why, where the verdict alone does not say it.
    #[schema(example = "reverified")]
    reason: Option<&'a str>,
    /// Why it stays rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    /// What to do if it stays rejected, or is in conflict.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    remedy: Option<String>,
    /// It was not rejected: nothing was done.
    already: bool,
    /// Files to be fetched because of it.
    queued: usize,
}

/// Judges a rejected delivery again, as if it arrived now.
///
/// After a key was put right. Its timestamp is compared with the time when it came, and a signature that was used meanwhile
/// makes it a duplicate or a conflict as ever. It keeps its id. Tokens are not kept: `missing_token` and `bad_token` stay.
#[utoipa::path(
    post,
    path = "/v1/deliveries/{id}/reverify",
    tag = "deliveries",
    operation_id = "reverify_delivery",
    params(("id" = String, Path, description = "The delivery.", example = "3")),
    responses(
        (status = 200, description = "What it is now, rejected or not.", body = ReverifiedView),
        (status = 404, description = "unknown_delivery"),
        (status = 409, description = "unknown_source, body_not_kept"),
    ),
)]
pub(super) async fn reverify(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    let judged = rejudged(&app, &delivery).await?;
    let mut view = ReverifiedView {
        id: &id,
        task_id: delivery.task_id.as_deref(),
        verdict: Verdict::Rejected.as_str(),
        reason: None,
        detail: None,
        remedy: None,
        already: false,
        queued: 0,
    };
    match &judged {
        Judged::Recorded(recorded) => {
            view.verdict = recorded.verdict.as_str();
            view.reason = recorded.reason;
            view.queued = recorded.queued;
        }
        Judged::Already { verdict, reason } => {
            (view.verdict, view.reason, view.already) = (verdict, reason.as_deref(), true);
        }
        Judged::Refused(refused) => {
            (view.reason, view.detail) = (Some(refused.reason), Some(refused.detail.as_str()));
        }
        Judged::Gone => return Err(unknown(&id)),
    }
    let now = DeliveryRecord {
        verdict: view.verdict.to_owned(),
        reason: view.reason.map(str::to_owned),
        ..delivery.clone()
    };
    view.remedy = remedy_of(&now, &app.ingest.sources());
    Ok(app.redactor().json(StatusCode::OK, &view))
}

/// Judges a delivery again that is there. It is an error if it cannot be judged: its source is no longer configured, or its body
/// not kept.
pub(super) async fn rejudged(app: &App, delivery: &DeliveryRecord) -> Result<Judged, Problem> {
    let judged = app.ingest.reverify(delivery.id).await?;
    match &judged {
        Judged::Refused(refused) if matches!(refused.reason, "unknown_source" | "body_not_kept") => {
            return Err(stays_rejected(refused.clone()));
        }
        Judged::Recorded(recorded) => {
            let verdict = recorded.verdict.as_str();
            tracing::info!(
                delivery.id,
                task.id = delivery.task_id,
                verdict,
                "rejected delivery verified again: {verdict}"
            );
        }
        _ => {}
    }
    Ok(judged)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RejectedQuery {
    /// Only those of this source.
    #[param(example = "kie")]
    pub(super) source: Option<String>,
    /// Only those that were refused for this.
    #[param(inline, value_type = Option<Reason>)]
    pub(super) reason: Option<String>,
    /// Only those received at this moment or after.
    #[param(format = DateTime)]
    pub(super) since: Option<String>,
}

/// Judges all rejected deliveries again.
///
/// In the order in which they came. Where the request is cut off, what was judged stands, and repeating it goes on with the
/// rest.
#[utoipa::path(
    post,
    path = "/v1/deliveries/reverify",
    tag = "deliveries",
    operation_id = "reverify_deliveries",
    params(RejectedQuery),
    responses((status = 200, description = "What became of them.", body = Summary)),
)]
pub(super) async fn reverify_all(
    State(app): State<App>,
    query: Result<Query<RejectedQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let summary = all_rejudged(&app, query).await?;
    Ok(app.redactor().json(StatusCode::OK, &summary))
}

/// Judges all rejected deliveries again that the query means; what became of them.
pub(super) async fn all_rejudged(app: &App, query: RejectedQuery) -> Result<Summary, Problem> {
    let filter = RejectedFilter {
        source: query.source,
        reason: one_of("reason", query.reason, &REASONS)?,
        since: moment("since", query.since.as_deref())?,
    };
    let summary = app.ingest.reverify_all(&filter).await?;
    let Summary {
        examined, accepted, ..
    } = summary;
    tracing::info!(examined, accepted, "rejected deliveries verified again");
    Ok(summary)
}

/// A delivery by the id in a path.
pub(super) async fn load(app: &App, id: &str) -> Result<DeliveryRecord, Problem> {
    let row = id.parse().map_err(|_| unknown(id))?;
    app.store.delivery(row).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_delivery",
        format!("there is no delivery {id}"),
    )
}
