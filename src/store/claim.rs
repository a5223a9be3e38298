//! Claiming a download: the due one with the earliest deadline whose host is below its cap.

use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::downloads::{ClaimedDownload, Lease, parsed, role_from};
use super::summary;
use super::writer::Tx;
use crate::clock::millis;

/// Rows looked at in order of deadline before it is asked from host to host.
const LOOKED_AT: i64 = 256;

/// Finds a due row (queued, or left by a claim that ran out), fences it and returns it, in one statement each.
pub(super) fn claim(
    tx: &mut Tx<'_>,
    lease_for: Duration,
    per_host: u32,
) -> rusqlite::Result<Option<ClaimedDownload>> {
    let mut found = None;
    for statement in [CLAIM_EXPIRED, CLAIM_BY_DEADLINE, CLAIM_BY_HOST] {
        let until = tx.now.saturating_add(millis(lease_for));
        found = tx
            .db
            .prepare_cached(statement)?
            .query_row(
                params![tx.now, until, per_host, tx.upcoming_change(), LOOKED_AT],
                claimed,
            )
            .optional()?;
        if found.is_some() {
            break;
        }
    }
    let Some((task, claimed)) = found else {
        return Ok(None);
    };
    summary::refresh(tx, task)?;
    Ok(Some(claimed))
}

/// ?1 now, ?2 the lease's end, ?3 the cap per host, ?4 the change number, ?5 rows to look at.
macro_rules! claim_statement {
    ($candidate:literal) => {
        concat!(
            "UPDATE downloads SET state = 'downloading', lease_token = COALESCE(lease_token, 0) + 1, lease_until = ?2,
                                  updated_at = ?1, change_seq = ?4
             WHERE ?3 > 0 AND ?5 > 0 AND id = (",
            $candidate,
            ") RETURNING id, task, kind, idx, role, n, url, attempts, deadline, lease_token,
                (SELECT source FROM tasks t WHERE t.id = downloads.task),
                (SELECT task_id FROM tasks t WHERE t.id = downloads.task)"
        )
    };
}

/// A lease that ran out: its holder is gone or too late.
const CLAIM_EXPIRED: &str = claim_statement!(
    "SELECT id FROM downloads WHERE state = 'downloading' AND lease_until <= ?1 ORDER BY lease_until LIMIT 1"
);

/// The earliest deadline among the first rows of the queue and the first that waited for their moment: nearly always there
/// is one.
const CLAIM_BY_DEADLINE: &str = claim_statement!(
    "SELECT id FROM (
        SELECT * FROM (SELECT id, deadline, host FROM downloads
                       WHERE state = 'queued' AND next_at <= created_at ORDER BY deadline LIMIT ?5)
        UNION ALL
        SELECT * FROM (SELECT id, deadline, host FROM downloads
                       WHERE state = 'queued' AND next_at > created_at AND next_at <= ?1 ORDER BY next_at LIMIT ?5))
     WHERE host NOT IN (
        SELECT host FROM downloads WHERE state = 'downloading' AND lease_until > ?1
        GROUP BY host HAVING count(*) >= ?3)
     ORDER BY deadline LIMIT 1"
);

/// Hosts at their cap crowd the beginning of the queue: steps over them, from host to host.
const CLAIM_BY_HOST: &str = claim_statement!(
    "WITH RECURSIVE hosts (host) AS (
        SELECT min(host) FROM downloads WHERE state = 'queued' AND next_at <= created_at
        UNION ALL
        SELECT (SELECT min(d.host) FROM downloads d
                WHERE d.state = 'queued' AND d.next_at <= d.created_at AND d.host > hosts.host)
        FROM hosts WHERE hosts.host IS NOT NULL),
     waiting (host) AS (
        SELECT CASE WHEN EXISTS (SELECT 1 FROM downloads
                                 WHERE state = 'queued' AND next_at > created_at AND next_at <= ?1)
               THEN (SELECT min(host) FROM downloads WHERE state = 'queued' AND next_at > created_at) END
        UNION ALL
        SELECT (SELECT min(d.host) FROM downloads d
                WHERE d.state = 'queued' AND d.next_at > d.created_at AND d.host > waiting.host)
        FROM waiting WHERE waiting.host IS NOT NULL)
     SELECT id FROM (
        SELECT d.id, d.deadline, d.host FROM hosts JOIN downloads d ON d.id = (
            SELECT q.id FROM downloads q WHERE q.state = 'queued' AND q.next_at <= q.created_at
                AND q.host = hosts.host ORDER BY q.deadline LIMIT 1)
        UNION ALL
        SELECT d.id, d.deadline, d.host FROM waiting JOIN downloads d ON d.id = (
            SELECT q.id FROM downloads q WHERE q.state = 'queued' AND q.next_at > q.created_at
                AND q.host = waiting.host AND q.next_at <= ?1 ORDER BY q.next_at LIMIT 1)) first
     WHERE (SELECT count(*) FROM downloads b WHERE b.state = 'downloading' AND b.lease_until > ?1
            AND b.host = first.host) < ?3
     ORDER BY deadline LIMIT 1"
);

/// The row of the task, and the claim.
fn claimed(row: &Row<'_>) -> rusqlite::Result<(i64, ClaimedDownload)> {
    let claimed = ClaimedDownload {
        lease: Lease {
            download: row.get(0)?,
            token: row.get(9)?,
        },
        source: row.get(10)?,
        task_id: parsed(row, 11)?,
        kind: parsed(row, 2)?,
        index: row.get(3)?,
        role: role_from(row, 4)?,
        n: row.get(5)?,
        url: row.get(6)?,
        attempts: row.get(7)?,
        deadline: row.get(8)?,
    };
    Ok((row.get(1)?, claimed))
}
