//! `/v1/deliveries`, and those of one task.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::App;
use super::problem::{Path, Problem};
use super::tasks::{cursor, find, limit, one_of};
use super::views::DeliveryView;
use crate::store::accept::Accepted;
use crate::store::deliveries::{DeliveryFilter, DeliveryRecord};

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    verdict: Option<String>,
    source: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct DeliveryList<'a> {
    deliveries: Vec<DeliveryView<'a>>,
    next_cursor: Option<String>,
}

/// All deliveries, newest first.
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

/// The deliveries of one task; rejected ones only if asked for by name.
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
        verdict: one_of(
            "verdict",
            query.verdict,
            &["accepted", "duplicate", "conflict", "rejected"],
        )?,
        source: None,
        before: cursor(query.cursor.as_deref())?,
        limit: limit(query.limit.as_deref())?,
    })
}

async fn page(app: &App, filter: &DeliveryFilter) -> Result<Response, Problem> {
    let page = app.store.list_deliveries(filter).await?;
    let redactor = app.redactor();
    let answer = DeliveryList {
        deliveries: page
            .items
            .iter()
            .map(|delivery| DeliveryView::listed(delivery, &redactor))
            .collect(),
        next_cursor: page.next.map(|next| next.to_string()),
    };
    Ok(redactor.json(StatusCode::OK, &answer))
}

/// One delivery with its whole body.
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    let redactor = app.redactor();
    Ok(redactor.json(StatusCode::OK, &DeliveryView::whole(&delivery, &redactor)))
}

/// A person settles a conflict in favour of this delivery.
pub(super) async fn accept(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Problem> {
    let delivery = load(&app, &id).await?;
    match app.store.accept_delivery(delivery.id).await? {
        Accepted::Done => {
            tracing::info!(
                delivery.id,
                task.id = delivery.task_id,
                "conflict settled by a person"
            );
            show(State(app), Path(id)).await
        }
        Accepted::NotFound => Err(unknown(&id)),
        Accepted::NotAConflict => Err(Problem::new(
            StatusCode::CONFLICT,
            "not_a_conflict",
            format!(
                "delivery {id} is {}: only a conflict can be accepted",
                delivery.verdict
            ),
        )),
    }
}

async fn load(app: &App, id: &str) -> Result<DeliveryRecord, Problem> {
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
