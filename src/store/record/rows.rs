//! Writing what a batch decided: one statement a table, all rows of the batch in one JSON parameter.

use std::net::IpAddr;
use std::time::Duration;

use serde::Serialize;
use sqlx::{QueryBuilder, Sqlite};

use super::known::{Known, OutcomeEntry};
use super::{Content, NewDelivery, Verdict, Via, to_json};
use crate::clock::{Millis, millis};
use crate::provider::Event;
use crate::provider::rules::Standing;
use crate::store::overrule::{self, Overruling};
use crate::store::writer::Tx;
use crate::store::{downloads, summary};

/// How long a binding is kept past its expiry: a delivery is judged fresh a moment before it is recorded, and clocks are
/// set back.
const BINDING_GRACE: Duration = Duration::from_hours(1);

/// Bodies per statement: a few fixed shapes, so that the statement cache holds them.
const BODIES_PER_STATEMENT: usize = 16;

#[derive(Debug, Serialize)]
pub(super) struct DeliveryRow {
    pub(super) id: i64,
    pub(super) task: Option<i64>,
    pub(super) outcome: Option<i64>,
    pub(super) source: String,
    pub(super) task_id: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) idx: Option<u32>,
    pub(super) received_at: Millis,
    pub(super) via: &'static str,
    pub(super) verdict: &'static str,
    pub(super) reason: Option<&'static str>,
    pub(super) remote_addr: Option<IpAddr>,
    pub(super) headers: String,
    pub(super) body: Option<i64>,
    pub(super) body_sha256: Option<String>,
    pub(super) net: Option<String>,
    pub(super) known: Option<bool>,
    pub(super) size: Option<i64>,
}

impl DeliveryRow {
    pub(super) fn of(
        id: i64,
        delivery: &NewDelivery,
        verdict: Verdict,
        reason: Option<&'static str>,
    ) -> Self {
        Self {
            id,
            task: None,
            outcome: None,
            source: delivery.source.clone(),
            task_id: None,
            kind: None,
            idx: None,
            received_at: delivery.received_at,
            via: delivery.via.as_str(),
            verdict: verdict.as_str(),
            reason,
            remote_addr: delivery.remote_addr,
            headers: delivery.headers.clone(),
            body: None,
            body_sha256: None,
            net: None,
            known: None,
            size: None,
        }
    }
}

#[derive(Debug, Serialize)]
struct TaskRow<'a> {
    id: i64,
    source: &'a str,
    task_id: &'a str,
    state: Option<&'static str>,
    media: Option<&'static str>,
    prompt: Option<&'a str>,
    received_at: Option<Millis>,
    deliveries: i64,
    change_seq: i64,
}

#[derive(Debug, Serialize)]
struct OutcomeRow<'a> {
    id: i64,
    task: i64,
    kind: &'a str,
    idx: u32,
    state: &'static str,
    code: Option<i64>,
    msg: &'a str,
    failure: Option<String>,
    resolution: Option<&'a str>,
    fallback: Option<bool>,
    credits: Option<f64>,
    via: &'static str,
    /// `None` if the delivery only refreshed the text: what is believed is not newer for that.
    received_at: Option<Millis>,
    digest: String,
    has_media: bool,
    accepted_rows: i64,
    duplicate_rows: i64,
    conflict_rows: i64,
    conflicts: i64,
}

impl<'a> OutcomeRow<'a> {
    /// The row without its place: what a delivery makes of an outcome.
    fn of(outcome: &OutcomeEntry, standing: Standing, event: &'a Event, via: Via) -> Self {
        Self {
            id: 0,
            task: 0,
            kind: "",
            idx: 0,
            state: standing.state.as_str(),
            code: event.code,
            msg: &event.msg,
            failure: event.failure.as_ref().map(to_json),
            resolution: event.resolution.as_deref(),
            fallback: event.fallback,
            credits: event.credits.filter(|credits| credits.is_finite()),
            via: via.as_str(),
            received_at: None,
            digest: hex::encode(standing.digest),
            has_media: standing.has_media,
            accepted_rows: outcome.accepted_rows,
            duplicate_rows: outcome.duplicate_rows,
            conflict_rows: outcome.conflict_rows,
            conflicts: outcome.conflicts,
        }
    }
}

#[derive(Debug, Serialize)]
struct CountRow {
    id: i64,
    accepted_rows: i64,
    duplicate_rows: i64,
    conflict_rows: i64,
    conflicts: i64,
}

#[derive(Debug, Serialize)]
struct BindingRow<'a> {
    key: String,
    source: &'a str,
    kind: &'a str,
    idx: u32,
    body: String,
    expires_at: Millis,
}

impl Known {
    /// Writes everything that the batch changed, parents before children, summaries last.
    pub(super) async fn write(self, tx: &mut Tx<'_>, deliveries: &[&NewDelivery]) -> Result<(), sqlx::Error> {
        self.write_bodies(tx, deliveries).await?;
        self.write_tasks(tx).await?;
        self.write_outcomes(tx, deliveries).await?;
        self.write_counts(tx).await?;
        downloads::insert(tx, &self.files).await?;
        for (key, at) in &self.overruled {
            let Content::Verified(verified) = &deliveries[*at].content else {
                continue;
            };
            let by = Overruling {
                kind: &verified.kind,
                index: verified.index,
                media: &verified.event.media,
                received_at: deliveries[*at].received_at,
            };
            overrule::files(tx, self.tasks[&key.task].id, &by).await?;
        }
        self.write_deliveries(tx).await?;
        self.write_bindings(tx).await?;
        self.write_tombstones(tx).await?;
        let stale = self.tasks.values().filter(|task| task.is_stale());
        summary::refresh(tx, &stale.map(|task| task.id).collect::<Vec<_>>()).await
    }

    async fn write_bodies(&self, tx: &mut Tx<'_>, deliveries: &[&NewDelivery]) -> Result<(), sqlx::Error> {
        let mut brought = Vec::new();
        let mut referenced = Vec::new();
        for (digest, body) in &self.bodies {
            match body.brought_by {
                Some(at) => brought.push((body.id, digest, &deliveries[at].body, body.added_refs)),
                None if body.added_refs > 0 => referenced.push((body.id, body.added_refs)),
                None => {}
            }
        }
        for chunk in brought.chunks(BODIES_PER_STATEMENT) {
            let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO bodies (id, digest, bytes, refs) ");
            insert.push_values(chunk, |mut row, (id, digest, bytes, refs)| {
                row.push_bind(*id)
                    .push_bind(digest.as_slice())
                    .push_bind(bytes.as_ref())
                    .push_bind(*refs);
            });
            insert.build().execute(&mut *tx.connection).await?;
        }
        if referenced.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "UPDATE bodies SET refs = refs + (r.value->>1) FROM jsonb_each($1) r WHERE bodies.id = r.value->>0",
        )
        .bind(to_json(&referenced))
        .execute(&mut *tx.connection)
        .await?;
        Ok(())
    }

    async fn write_tasks(&self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        let (mut made, mut met) = (Vec::new(), Vec::new());
        for (key, task) in self.tasks.iter().filter(|(_, task)| task.deliveries > 0) {
            let rows = if task.made.is_some() { &mut made } else { &mut met };
            rows.push(TaskRow {
                id: task.id,
                source: &key.source,
                task_id: &key.task_id,
                state: task.made.map(|(state, _)| state.as_str()),
                media: task.made.map(|(_, media)| media),
                prompt: task.prompt.as_deref(),
                received_at: task.received_at,
                deliveries: task.deliveries,
                change_seq: tx.next_change(),
            });
        }
        let insert = "INSERT INTO tasks (id, source, task_id, state, media, prompt, created_at, received_at, updated_at,
                                         deliveries, conflicts, change_seq)
             SELECT value->>'id', value->>'source', value->>'task_id', value->>'state', value->>'media',
                    value->>'prompt', value->>'received_at', value->>'received_at', $2, value->>'deliveries', 0,
                    value->>'change_seq'
             FROM jsonb_each($1)";
        let update = "UPDATE tasks SET
                deliveries = deliveries + (r.value->>'deliveries'), prompt = COALESCE(prompt, r.value->>'prompt'),
                received_at = COALESCE(received_at, r.value->>'received_at'), updated_at = $2,
                change_seq = r.value->>'change_seq'
             FROM jsonb_each($1) r WHERE tasks.id = r.value->>'id'";
        let now = tx.now;
        run(tx, insert, &made, Some(now)).await?;
        run(tx, update, &met, Some(now)).await
    }

    async fn write_outcomes(&self, tx: &mut Tx<'_>, deliveries: &[&NewDelivery]) -> Result<(), sqlx::Error> {
        let (mut made, mut met) = (Vec::new(), Vec::new());
        for (key, outcome) in &self.outcomes {
            let (Some(at), Some(standing)) = (outcome.said_by, outcome.standing) else {
                continue;
            };
            let Content::Verified(verified) = &deliveries[at].content else {
                continue;
            };
            let task = self.tasks[&key.task].id;
            let rows = if outcome.made { &mut made } else { &mut met };
            rows.push(OutcomeRow {
                id: outcome.id,
                task,
                kind: &key.kind,
                idx: key.index,
                received_at: outcome.adopted.then_some(deliveries[at].received_at),
                ..OutcomeRow::of(outcome, standing, &verified.event, deliveries[at].via)
            });
        }
        let insert = "INSERT INTO outcomes (id, task, kind, idx, state, code, msg, failure, resolution, fallback, credits,
                                            via, received_at, digest, has_media, accepted_rows, duplicate_rows,
                                            conflict_rows, conflicts)
             SELECT value->>'id', value->>'task', value->>'kind', value->>'idx', value->>'state', value->>'code',
                    value->>'msg', value->>'failure', value->>'resolution', value->>'fallback', value->>'credits',
                    value->>'via', value->>'received_at', unhex(value->>'digest'), value->>'has_media',
                    value->>'accepted_rows', value->>'duplicate_rows', value->>'conflict_rows', value->>'conflicts'
             FROM jsonb_each($1)";
        let update = "UPDATE outcomes SET
                state = r.value->>'state', code = r.value->>'code', msg = r.value->>'msg',
                failure = r.value->>'failure', resolution = COALESCE(r.value->>'resolution', resolution),
                fallback = COALESCE(r.value->>'fallback', fallback), credits = COALESCE(r.value->>'credits', credits),
                via = r.value->>'via', received_at = COALESCE(r.value->>'received_at', received_at),
                digest = unhex(r.value->>'digest'), has_media = r.value->>'has_media',
                accepted_rows = r.value->>'accepted_rows', duplicate_rows = r.value->>'duplicate_rows',
                conflict_rows = r.value->>'conflict_rows', conflicts = r.value->>'conflicts'
             FROM jsonb_each($1) r WHERE outcomes.id = r.value->>'id'";
        run(tx, insert, &made, None).await?;
        run(tx, update, &met, None).await
    }

    async fn write_counts(&self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        let rows: Vec<CountRow> = self
            .outcomes
            .values()
            .filter(|outcome| outcome.counted && outcome.said_by.is_none())
            .map(|outcome| CountRow {
                id: outcome.id,
                accepted_rows: outcome.accepted_rows,
                duplicate_rows: outcome.duplicate_rows,
                conflict_rows: outcome.conflict_rows,
                conflicts: outcome.conflicts,
            })
            .collect();
        let update = "UPDATE outcomes SET
                accepted_rows = r.value->>'accepted_rows', duplicate_rows = r.value->>'duplicate_rows',
                conflict_rows = r.value->>'conflict_rows', conflicts = r.value->>'conflicts'
             FROM jsonb_each($1) r WHERE outcomes.id = r.value->>'id'";
        run(tx, update, &rows, None).await
    }

    async fn write_deliveries(&self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        let insert = "INSERT INTO deliveries (id, task, outcome, source, task_id, kind, idx, received_at, via, verdict,
                                              reason, remote_addr, headers, body, body_sha256, net, known, size)
             SELECT value->>'id', value->>'task', value->>'outcome', value->>'source', value->>'task_id',
                    value->>'kind', value->>'idx', value->>'received_at', value->>'via', value->>'verdict',
                    value->>'reason', value->>'remote_addr', value->>'headers', value->>'body',
                    unhex(value->>'body_sha256'), value->>'net', value->>'known', value->>'size'
             FROM jsonb_each($1)";
        run(tx, insert, &self.rows, None).await
    }

    async fn write_bindings(&self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        let rows: Vec<BindingRow<'_>> = self
            .bindings
            .values()
            .filter_map(|bound| {
                let made = bound.made?;
                Some(BindingRow {
                    key: hex::encode(made.key),
                    source: &bound.to.task.source,
                    kind: &bound.to.kind,
                    idx: bound.to.index,
                    body: hex::encode(bound.body),
                    expires_at: made.expires_at,
                })
            })
            .collect();
        let insert = "INSERT INTO bindings (key, source, kind, idx, body, expires_at)
             SELECT unhex(value->>'key'), value->>'source', value->>'kind', value->>'idx', unhex(value->>'body'),
                    value->>'expires_at'
             FROM jsonb_each($1)";
        run(tx, insert, &rows, None).await?;
        let orphans: Vec<(String, i64)> = self
            .bindings
            .iter()
            .filter(|(_, bound)| bound.added_orphans > 0)
            .map(|(key, bound)| (hex::encode(key), bound.orphans))
            .collect();
        let update = "UPDATE bindings SET orphans = r.value->>1 FROM jsonb_each($1) r
             WHERE bindings.key = unhex(r.value->>0)";
        run(tx, update, &orphans, None).await?;
        if rows.is_empty() {
            return Ok(());
        }
        // As many again as were added: the table stays as large as what is still valid, and no batch stalls.
        sqlx::query(
            "DELETE FROM bindings WHERE key IN
                (SELECT key FROM bindings WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
        )
        .bind(tx.now.saturating_sub(millis(BINDING_GRACE)))
        .bind(i64::try_from(rows.len() * 2).unwrap_or(i64::MAX))
        .execute(&mut *tx.connection)
        .await?;
        Ok(())
    }

    async fn write_tombstones(&self, tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
        for (key, tombstone) in self
            .tombstones
            .iter()
            .filter(|(_, tombstone)| tombstone.added > 0)
        {
            sqlx::query("UPDATE tombstones SET late = late + $1 WHERE task_id = $2 AND source = $3")
                .bind(tombstone.added)
                .bind(&key.task_id)
                .bind(&key.source)
                .execute(&mut *tx.connection)
                .await?;
        }
        Ok(())
    }
}

/// Runs a statement over all rows at once, if there are any.
async fn run<T: Serialize>(
    tx: &mut Tx<'_>,
    statement: &'static str,
    rows: &[T],
    now: Option<Millis>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let query = sqlx::query(statement).bind(to_json(rows));
    let query = match now {
        Some(now) => query.bind(now),
        None => query,
    };
    query.execute(&mut *tx.connection).await?;
    Ok(())
}
