//! Deliveries: listed and shown.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::tasks::{Page, cut};
use super::{Store, StoreError};
use crate::clock::Millis;

/// Bodies in lists are cut to this; one delivery alone is shown whole.
pub const LISTED_BODY_BYTES: i64 = 64 * 1024;

/// A delivery as recorded.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Row id, and its public id.
    pub id: i64,
    /// The task it is about, as far as known.
    pub task_id: Option<String>,
    /// The source's name.
    pub source: String,
    /// When it was read completely.
    pub received_at: Millis,
    /// `callback`, `poll` or `api`.
    pub via: String,
    /// `accepted`, `duplicate`, `conflict` or `rejected`.
    pub verdict: String,
    /// Why, where the verdict does not say it all.
    pub reason: Option<String>,
    /// Which result it was about.
    pub kind: Option<String>,
    /// Which of several.
    pub index: Option<i64>,
    /// Who sent it.
    pub remote_addr: Option<String>,
    /// The kept headers, a JSON object.
    pub headers: String,
    /// The raw body, as far as kept and asked for.
    pub body: Option<Vec<u8>>,
    /// Its whole length; `None` if it is not kept.
    pub body_bytes: Option<i64>,
}

/// Which deliveries to list.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// Only of this task (row id). Without a verdict, rejected ones are left out.
    pub task: Option<i64>,
    /// Only of this verdict.
    pub verdict: Option<String>,
    /// Only those with this reason.
    pub reason: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
    /// Only rows before this one.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: i64,
}

impl Store {
    /// A page of deliveries, newest first; examines at most [`ROWS_EXAMINED`](super::tasks::ROWS_EXAMINED) rows.
    pub async fn list_deliveries(&self, filter: &DeliveryFilter) -> Result<Page<DeliveryRecord>, StoreError> {
        let before = filter.before.unwrap_or(i64::MAX);
        let floor = self.deliveries_floor(filter, before).await?;
        let mut rows = sqlx::query(page_statement(filter))
            .bind(before)
            .bind(floor)
            .bind(&filter.source)
            .bind(LISTED_BODY_BYTES)
            .bind(filter.limit + 1)
            .bind(filter.task)
            .bind(&filter.verdict)
            .bind(&filter.reason)
            .fetch_all(&self.readers)
            .await?;
        let more = cut(&mut rows, filter.limit);
        let items = rows.iter().map(delivery_record).collect::<Result<Vec<_>, _>>()?;
        let next = match items.last() {
            Some(last) if more => Some(last.id),
            _ => self.newest_before(NEWEST, floor).await?.map(|older| older + 1),
        };
        Ok(Page { items, next })
    }

    /// The last row a page may examine where it walks all deliveries and leaves some out; the partial indexes need no such
    /// bound.
    async fn deliveries_floor(&self, filter: &DeliveryFilter, before: i64) -> Result<i64, StoreError> {
        let leaves_out = filter.source.as_ref().or(filter.reason.as_ref());
        match (filter.task, filter.verdict.as_deref(), leaves_out) {
            (Some(_), _, _) | (_, Some("conflict" | "rejected"), _) | (_, None, None) => Ok(i64::MIN),
            _ => self.floor(NEWEST, before).await,
        }
    }

    /// One delivery with its whole body.
    pub async fn delivery(&self, id: i64) -> Result<Option<DeliveryRecord>, StoreError> {
        let row = sqlx::query(
            "SELECT d.id, d.task_id, d.source, d.received_at, d.via, d.verdict, d.reason, d.kind, d.idx,
                    d.remote_addr, d.headers, COALESCE(d.body, o.body) AS bytes,
                    length(COALESCE(d.body, o.body)) AS body_bytes
             FROM deliveries d LEFT JOIN deliveries o ON o.id = d.body_of WHERE d.id = $1",
        )
        .bind(id)
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.as_ref().map(delivery_record).transpose()?)
    }
}

const NEWEST: &str = "SELECT max(id) FROM deliveries WHERE id < $1";

/// Each shape of the question has the statement whose index serves it; the verdict stands in the text where a
/// partial index needs to see it.
fn page_statement(filter: &DeliveryFilter) -> &'static str {
    macro_rules! page {
        ($condition:literal) => {
            concat!(
                "SELECT d.id, d.task_id, d.source, d.received_at, d.via, d.verdict, d.reason, d.kind, d.idx,
                        d.remote_addr, d.headers, substr(COALESCE(d.body, o.body), 1, $4) AS bytes,
                        length(COALESCE(d.body, o.body)) AS body_bytes
                 FROM deliveries d LEFT JOIN deliveries o ON o.id = d.body_of
                 WHERE d.id < $1 AND d.id >= $2 AND ($3 IS NULL OR d.source = $3)
                   AND ($8 IS NULL OR d.reason = $8) AND ",
                $condition,
                " ORDER BY d.id DESC LIMIT $5"
            )
        };
    }
    match (filter.task, filter.verdict.as_deref()) {
        (Some(_), None) => page!("d.task = $6 AND d.verdict <> 'rejected'"),
        (Some(_), Some("rejected")) => page!("d.task = $6 AND d.verdict = 'rejected'"),
        (Some(_), Some(_)) => page!("d.task = $6 AND d.verdict <> 'rejected' AND d.verdict = $7"),
        (None, None) => page!("true"),
        (None, Some("conflict")) => page!("d.verdict = 'conflict'"),
        (None, Some("rejected")) => page!("d.verdict = 'rejected'"),
        (None, Some(_)) => page!("d.verdict = $7"),
    }
}

fn delivery_record(row: &SqliteRow) -> Result<DeliveryRecord, sqlx::Error> {
    Ok(DeliveryRecord {
        id: row.try_get("id")?,
        task_id: row.try_get("task_id")?,
        source: row.try_get("source")?,
        received_at: row.try_get("received_at")?,
        via: row.try_get("via")?,
        verdict: row.try_get("verdict")?,
        reason: row.try_get("reason")?,
        kind: row.try_get("kind")?,
        index: row.try_get("idx")?,
        remote_addr: row.try_get("remote_addr")?,
        headers: row.try_get("headers")?,
        body: row.try_get("bytes")?,
        body_bytes: row.try_get("body_bytes")?,
    })
}
