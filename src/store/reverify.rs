//! Rejected deliveries that are judged again: read for that, and recorded as what they turn out to be.

use rusqlite::{OptionalExtension, params};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::record::{self, Again, NewDelivery, Recorded};
use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError};
use crate::clock::Millis;

/// What stands in the place of the query of a URL if nothing is known of it.
pub const UNKNOWN_QUERY: &str = "unknown";

/// A rejected delivery with all that is kept of it.
#[derive(Debug, Clone)]
pub struct RejectedDelivery {
    /// Its row.
    pub id: i64,
    /// The source's name.
    pub source: String,
    /// When it was read completely.
    pub received_at: Millis,
    /// Why it was refused then.
    pub reason: String,
    /// The kind that its URL named.
    pub kind: Option<String>,
    /// The index that its URL named.
    pub index: Option<i64>,
    /// What else its URL said: `token` if it had one of the source's, and `ref`. [`UNKNOWN_QUERY`] of old ones.
    pub query: Option<String>,
    /// Who sent it.
    pub remote_addr: Option<String>,
    /// The kept headers, a JSON object.
    pub headers: String,
    /// The raw body; `None` if only its digest is kept.
    pub body: Option<Vec<u8>>,
}

/// Which rejected deliveries to judge again.
#[derive(Debug, Clone, Default)]
pub struct RejectedFilter {
    /// Only of this source.
    pub source: Option<String>,
    /// Only those refused for this reason.
    pub reason: Option<String>,
    /// Only those that came then or later.
    pub since: Option<Millis>,
}

/// Rejected deliveries of a source with the same reason.
#[derive(Debug, Clone)]
pub struct RejectedGroup {
    /// The source's name.
    pub source: String,
    /// Why they were refused.
    pub reason: String,
    /// How many are kept.
    pub count: i64,
    /// How many of them came lately.
    pub recent: i64,
    /// When the newest came.
    pub newest_at: Millis,
    /// The kept headers of that one, a JSON object.
    pub headers: String,
}

/// What a rejected delivery became that was judged again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverified {
    /// It was recorded, under its own id.
    Recorded(Recorded),
    /// It is not rejected, or somebody else was first: this is what it is.
    Already {
        /// Its verdict.
        verdict: String,
        /// And the reason, if there is one.
        reason: Option<String>,
    },
    /// There is no such delivery (any more).
    Gone,
}

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT id, source, received_at, reason, kind, idx, query, remote_addr, headers, body
             FROM deliveries WHERE verdict = 'rejected' AND ",
            $condition
        )
    };
}
impl Store {
    /// A rejected delivery with its whole body; `None` if there is none of this id.
    pub async fn rejected_delivery(&self, id: i64) -> Result<Option<RejectedDelivery>, StoreError> {
        let row = sqlx::query(select!("id = $1"))
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.as_ref().map(rejected_delivery).transpose()?)
    }

    /// The next rejected deliveries after a row and up to another, oldest first, with their bodies: at most `limit`.
    pub async fn rejected_deliveries(
        &self,
        filter: &RejectedFilter,
        (after, upto): (i64, i64),
        limit: i64,
    ) -> Result<Vec<RejectedDelivery>, StoreError> {
        let rows = sqlx::query(select!(
            "id > $1 AND id <= $2 AND ($3 IS NULL OR source = $3) AND ($4 IS NULL OR reason = $4)
             AND ($5 IS NULL OR received_at >= $5) ORDER BY id LIMIT $6"
        ))
        .bind(after)
        .bind(upto)
        .bind(&filter.source)
        .bind(&filter.reason)
        .bind(filter.since)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows.iter().map(rejected_delivery).collect::<Result<_, _>>()?)
    }

    /// What is rejected, by source and reason, the most frequent since `lately` first. It looks at the whole ring.
    pub async fn rejected_groups(&self, lately: Millis) -> Result<Vec<RejectedGroup>, StoreError> {
        // Of bare columns beside one `max`, SQLite takes the row that has it.
        let rows = sqlx::query(
            "SELECT source, reason, count(*) AS count, sum(received_at >= $1) AS recent, headers, max(received_at) AS newest_at
             FROM deliveries WHERE verdict = 'rejected'
             GROUP BY source, reason ORDER BY recent DESC, count DESC, newest_at DESC",
        )
        .bind(lately)
        .fetch_all(&self.readers)
        .await?;
        let group = |row: &SqliteRow| {
            Ok(RejectedGroup {
                source: row.try_get("source")?,
                reason: row.try_get("reason")?,
                count: row.try_get("count")?,
                recent: row.try_get("recent")?,
                newest_at: row.try_get("newest_at")?,
                headers: row.try_get("headers")?,
            })
        };
        Ok(rows.iter().map(group).collect::<Result<_, sqlx::Error>>()?)
    }

    /// The newest rejected delivery; 0 if there is none.
    pub async fn newest_rejected(&self) -> Result<i64, StoreError> {
        let row = sqlx::query("SELECT COALESCE(max(id), 0) FROM deliveries WHERE verdict = 'rejected'")
            .fetch_one(&self.readers)
            .await?;
        Ok(row.try_get(0)?)
    }

    /// Records a delivery that was rejected ([`NewDelivery::again`] says as which row) and has passed every check by now. It
    /// keeps its id; in one transaction it leaves the ring of rejected ones and becomes what the rules make of it.
    pub async fn reverify_delivery(&self, delivery: NewDelivery) -> Result<Reverified, StoreError> {
        match self.write(Command::Reverify(Box::new(delivery))).await? {
            Reply::Reverified(reverified) => Ok(reverified),
            other => unreachable!("a delivery judged again was answered with {other:?}"),
        }
    }
}

/// Takes the row out of the ring and records the delivery in its place.
pub(super) fn reverify(tx: &mut Tx<'_>, delivery: &NewDelivery) -> rusqlite::Result<Reverified> {
    let again = delivery.again.as_ref();
    let Again { id, note } = *again.expect("only what has a row is judged again");
    let taken: Option<(String, Option<String>, i64)> = tx
        .db
        .prepare_cached(
            "DELETE FROM deliveries WHERE id = ?1 AND verdict = 'rejected' RETURNING reason, net, size",
        )?
        .query_row(params![id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let Some((reason, net, size)) = taken else {
        return what_it_is(tx, id);
    };
    tx.ring().forget_row(&reason, net.as_deref(), size);
    let recorded = record::record(tx, delivery)?;
    Ok(Reverified::Recorded(Recorded {
        reason: recorded.reason.or(Some(note)),
        ..recorded
    }))
}

fn what_it_is(tx: &Tx<'_>, id: i64) -> rusqlite::Result<Reverified> {
    let found = tx
        .db
        .prepare_cached("SELECT verdict, reason FROM deliveries WHERE id = ?1")?
        .query_row(params![id], |row| {
            Ok(Reverified::Already {
                verdict: row.get(0)?,
                reason: row.get(1)?,
            })
        })
        .optional()?;
    Ok(found.unwrap_or(Reverified::Gone))
}

fn rejected_delivery(row: &SqliteRow) -> Result<RejectedDelivery, sqlx::Error> {
    Ok(RejectedDelivery {
        id: row.try_get("id")?,
        source: row.try_get("source")?,
        received_at: row.try_get("received_at")?,
        reason: row.try_get("reason")?,
        kind: row.try_get("kind")?,
        index: row.try_get("idx")?,
        query: row.try_get("query")?,
        remote_addr: row.try_get("remote_addr")?,
        headers: row.try_get("headers")?,
        body: row.try_get("body")?,
    })
}
