//! Claiming a download: the due one with the earliest deadline whose host is below its cap.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use rusqlite::{OptionalExtension, Row, params};

use super::downloads::{Caps, ClaimedDownload, Lease, parsed, role_from};
use super::writer::Tx;
use super::{attempts, summary};
use crate::clock::{Millis, millis};

/// Hosts below their cap that one claim looks at: there are one to five in practice.
const HOSTS: usize = 512;
/// Downloads that one claim brings back into the queue because they are due again.
const DUE: u16 = 256;

/// After which host the next claim begins to look: one that met too many hosts to look at all leaves the rest to it.
#[derive(Debug, Default)]
pub(super) struct Rotation(Option<String>);

/// Finds a due row (queued, or left by a claim that ran out), fences it and returns it.
pub(super) fn claim(
    tx: &mut Tx<'_>,
    lease_for: Duration,
    caps: &Caps,
) -> rusqlite::Result<Option<ClaimedDownload>> {
    if caps.per_host == 0 {
        return Ok(None);
    }
    let returned = tx.execute(RETURN_DUE, params![tx.now, DUE])?;
    let found = match expired(tx)? {
        Some(expired) => {
            attempts::note_lost(tx, expired)?;
            Some(expired)
        }
        None => earliest(tx, caps)?,
    };
    let Some(download) = found else {
        if returned == usize::from(DUE) {
            // There may be more that are due, of other hosts: asked again, the next claim goes on.
            tx.note_queued();
        }
        return Ok(None);
    };
    let until = tx.now.saturating_add(millis(lease_for));
    let (task, claimed) = tx
        .db
        .prepare_cached(CLAIM)?
        .query_row(params![download, tx.now, until, tx.upcoming_change()], claimed)?;
    summary::refresh(tx, task)?;
    Ok(Some(claimed))
}

const RETURN_DUE: &str = "
    UPDATE downloads SET waits_until = NULL, state = 'queued' WHERE id IN (
        SELECT id FROM downloads WHERE waits_until <= ?1 ORDER BY waits_until LIMIT ?2)";

/// What no other claim can have taken meanwhile: there is one writer, and this is its transaction.
const CLAIM: &str = "
    UPDATE downloads SET state = 'downloading', lease_token = COALESCE(lease_token, 0) + 1, lease_until = ?3,
                         updated_at = ?2, change_seq = ?4
    WHERE id = ?1 RETURNING id, task, kind, idx, role, n, COALESCE(fetch_url, url), attempts, deadline, lease_token,
        (SELECT source FROM tasks t WHERE t.id = downloads.task),
        (SELECT task_id FROM tasks t WHERE t.id = downloads.task), host, created_at";

/// A lease that ran out: its holder is gone or too late.
fn expired(tx: &Tx<'_>) -> rusqlite::Result<Option<i64>> {
    tx.db
        .prepare_cached(
            "SELECT id FROM downloads WHERE state = 'downloading' AND lease_until <= ?1 ORDER BY lease_until LIMIT 1",
        )?
        .query_row(params![tx.now], |row| row.get(0))
        .optional()
}

/// The first download of a host.
struct First {
    host: String,
    id: i64,
    deadline: Millis,
}

/// The earliest deadline of all hosts below their cap; among the next [`HOSTS`] of them, in rotation, where there are more.
fn earliest(tx: &mut Tx<'_>, caps: &Caps) -> rusqlite::Result<Option<i64>> {
    let capped = capped(tx, caps)?;
    let began_after = tx.rotation.0.take();
    let (mut at, mut wrapped) = (began_after.clone(), began_after.is_none());
    let mut best: Option<First> = None;
    let mut looked_at = 0;
    loop {
        let Some(first) = first_after(tx, at.as_deref())? else {
            if wrapped {
                break;
            }
            (at, wrapped) = (None, true);
            continue;
        };
        let is_again = wrapped && began_after.as_ref().is_some_and(|began| first.host > *began);
        if is_again {
            break;
        }
        if looked_at == HOSTS {
            tx.rotation.0 = at;
            break;
        }
        at = Some(first.host.clone());
        if !capped.contains(&first.host) {
            looked_at += 1;
            if best.as_ref().is_none_or(|best| first.deadline < best.deadline) {
                best = Some(first);
            }
        }
    }
    Ok(best.map(|best| best.id))
}

/// The hosts that nothing more is fetched from for now.
fn capped(tx: &Tx<'_>, caps: &Caps) -> rusqlite::Result<HashSet<String>> {
    let mut busy: HashMap<String, u32> = HashMap::new();
    tx.all(
        "SELECT host, count(*) FROM downloads WHERE state = 'downloading' AND lease_until > ?1 GROUP BY host",
        params![tx.now],
        |row| Ok(busy.insert(row.get(0)?, row.get(1)?)),
    )?;
    let closed = caps.exceptions.keys().filter(|host| !busy.contains_key(*host));
    for host in closed.cloned().collect::<Vec<_>>() {
        busy.insert(host, 0);
    }
    let is_capped = |(host, running): (String, u32)| {
        let cap = caps.exceptions.get(&host).copied().unwrap_or(caps.per_host);
        (running >= cap).then_some(host)
    };
    Ok(busy.into_iter().filter_map(is_capped).collect())
}

macro_rules! first_of {
    ($host:literal) => {
        concat!(
            "SELECT host, id, deadline FROM downloads WHERE state = 'queued' AND waits_until IS NULL ",
            $host,
            " ORDER BY host, deadline, created_at LIMIT 1"
        )
    };
}

/// The first download of the next host, in the order of their names.
fn first_after(tx: &Tx<'_>, host: Option<&str>) -> rusqlite::Result<Option<First>> {
    let first = |row: &Row<'_>| {
        Ok(First {
            host: row.get(0)?,
            id: row.get(1)?,
            deadline: row.get(2)?,
        })
    };
    let found = match host {
        None => tx.all(first_of!(""), [], first)?,
        Some(host) => tx.all(first_of!("AND host > ?1"), params![host], first)?,
    };
    Ok(found.into_iter().next())
}

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
        host: row.get(12)?,
        queued_at: row.get(13)?,
        attempts: row.get(7)?,
        deadline: row.get(8)?,
    };
    Ok((row.get(1)?, claimed))
}
