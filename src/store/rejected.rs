//! The ring of rejected deliveries: bounded by count and bytes, and no sender or reason may fill it alone.

use std::collections::HashMap;
use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::record::{Body, DeliveryRow, NewDelivery, Recorded, RingShare, UrlSaid};
use super::tasks;
use super::writer::Tx;
use crate::provider::rules::Verdict;
use crate::provider::{Kind, TaskId};

/// Rejected deliveries kept at most.
const MAX_ROWS: i64 = 10_000;
/// Bytes of bodies and headers kept at most.
const MAX_BYTES: i64 = 64 * 1024 * 1024;
/// Larger bodies of rejected deliveries are kept as their digest only.
pub const MAX_KEPT_BODY: usize = 64 * 1024;
/// What a row costs beside its body and headers, roughly.
const ROW_OVERHEAD: i64 = 256;

/// Records a refused delivery; the ring's bounds are enforced once for the whole transaction.
pub(super) fn record(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    (reason, task_id): (&'static str, Option<&TaskId>),
    url: &UrlSaid,
) -> rusqlite::Result<Recorded> {
    let task_id = task_id.map(TaskId::as_str);
    let task = match task_id {
        Some(task_id) => tasks::find(tx, &delivery.source, task_id)?,
        None => None,
    };
    let kept = delivery.body_length <= MAX_KEPT_BODY;
    let net = delivery.remote_addr.map(net_of);
    let size = size_of(delivery, kept);
    tx.ring().add(reason, net.as_deref(), size);
    let row = DeliveryRow {
        delivery,
        verdict: Verdict::Rejected,
        reason: Some(reason),
        task,
        outcome: None,
        task_id,
        kind: url.kind.as_ref().map(Kind::as_str),
        idx: url.index,
        binding: None,
        body: if kept { Body::Here } else { Body::Digest },
        share: Some(RingShare {
            net,
            known: task.is_some(),
            size,
        }),
    };
    let id = row.insert(tx)?;
    if let Some(query) = &url.query {
        // A column of its own statement: the others, which are appended by the thousand, have none.
        tx.execute(
            "UPDATE deliveries SET query = ?2 WHERE id = ?1",
            params![id, query],
        )?;
    }
    Ok(Recorded {
        delivery: Some(id),
        verdict: Verdict::Rejected,
        reason: Some(reason),
        queued: 0,
    })
}

/// Rows and bytes.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    rows: i64,
    bytes: i64,
}

impl Share {
    fn add(&mut self, bytes: i64) {
        self.rows += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: i64) {
        self.rows -= 1;
        self.bytes -= bytes;
    }

    /// Whether it is past one `part`-th of the ring.
    fn exceeds(self, part: i64) -> bool {
        self.rows > MAX_ROWS / part || self.bytes > MAX_BYTES / part
    }
}

/// The ring's accounts, kept in memory beside the rows.
#[derive(Debug, Default)]
pub(super) struct Ring {
    total: Share,
    by_reason: HashMap<String, Share>,
    by_net: HashMap<String, Share>,
    /// Reasons and nets that grew and were not looked at since: only these can have outgrown their quota.
    grown: Vec<(String, String)>,
}

impl Ring {
    /// Counts what is stored; at most [`MAX_ROWS`] rows.
    pub(super) fn load(db: &Connection) -> rusqlite::Result<Self> {
        let mut rejected = db.prepare(
            "SELECT reason, net, size FROM deliveries INDEXED BY rejected_by_id WHERE verdict = 'rejected'",
        )?;
        let mut rows = rejected.query([])?;
        let mut ring = Self::default();
        while let Some(row) = rows.next()? {
            let (reason, net, size) = share_in(row)?;
            ring.count(&reason, net.as_deref(), size);
        }
        Ok(ring)
    }

    /// Counts a row that the transaction writes.
    pub(super) fn add(&mut self, reason: &str, net: Option<&str>, size: i64) {
        self.count(reason, net, size);
        self.grown
            .push((reason.to_owned(), net.unwrap_or_default().to_owned()));
    }

    fn count(&mut self, reason: &str, net: Option<&str>, size: i64) {
        self.total.add(size);
        self.by_reason.entry(reason.to_owned()).or_default().add(size);
        self.by_net
            .entry(net.unwrap_or_default().to_owned())
            .or_default()
            .add(size);
    }

    fn forget(&mut self, reason: &str, net: &str, size: i64) {
        self.total.remove(size);
        for (shares, name) in [(&mut self.by_reason, reason), (&mut self.by_net, net)] {
            if let Some(share) = shares.get_mut(name) {
                share.remove(size);
                if share.rows <= 0 {
                    shares.remove(name);
                }
            }
        }
    }

    /// Forgets a row that was deleted together with its task.
    pub(super) fn forget_row(&mut self, reason: &str, net: Option<&str>, size: i64) {
        self.forget(reason, net.unwrap_or_default(), size);
    }

    /// What must give way next, if anything must.
    fn excess(&mut self) -> Option<Excess> {
        let over = |shares: &HashMap<String, Share>, name: &str| {
            shares.get(name).is_some_and(|share| share.exceeds(4))
        };
        while let Some((reason, net)) = self.grown.last() {
            if over(&self.by_net, net) {
                return Some(Excess::Net(net.clone()));
            }
            if over(&self.by_reason, reason) {
                return Some(Excess::Reason(reason.clone()));
            }
            self.grown.pop();
        }
        self.total.exceeds(1).then_some(Excess::Any)
    }
}

enum Excess {
    Net(String),
    Reason(String),
    Any,
}

macro_rules! evict_first {
    ($condition:literal) => {
        concat!(
            "DELETE FROM deliveries WHERE id = (SELECT id FROM deliveries
                WHERE verdict = 'rejected' AND ",
            $condition,
            " ORDER BY known, id LIMIT 1) RETURNING reason, net, size"
        )
    };
}

/// Evicts until the ring is within its bounds: the oldest first, those about tasks we know last.
pub(super) fn enforce_bounds(tx: &mut Tx<'_>) -> rusqlite::Result<()> {
    while let Some(excess) = tx.ring().excess() {
        let evicted = match &excess {
            Excess::Net(net) => evict(tx, evict_first!("net IS NULLIF(?1, '')"), net)?,
            Excess::Reason(reason) => evict(tx, evict_first!("reason = ?1"), reason)?,
            Excess::Any => evict(tx, evict_first!("?1 = ''"), "")?,
        };
        let Some((reason, net, size)) = evicted else {
            // The accounts are off (a row was removed by hand): count again.
            return tx.recount_ring();
        };
        tx.ring()
            .forget(&reason, net.as_deref().unwrap_or_default(), size);
    }
    Ok(())
}

/// Reason, net and size of a row.
type Evicted = (String, Option<String>, i64);

fn evict(tx: &Tx<'_>, statement: &str, of: &str) -> rusqlite::Result<Option<Evicted>> {
    tx.db
        .prepare_cached(statement)?
        .query_row(params![of], share_in)
        .optional()
}

fn share_in(row: &Row<'_>) -> rusqlite::Result<Evicted> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// What a rejected delivery costs in the ring.
fn size_of(delivery: &NewDelivery, body_kept: bool) -> i64 {
    let body = if body_kept { delivery.body.len() } else { 0 };
    ROW_OVERHEAD + i64::try_from(body + delivery.headers.len()).unwrap_or(i64::MAX / 2)
}

/// The network that shares a quota: /24 of an IPv4 address, /64 of an IPv6 one.
fn net_of(addr: IpAddr) -> String {
    match addr.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_share_a_quota() {
        let net = |text: &str| net_of(text.parse().unwrap());
        assert_eq!(net("192.0.2.1"), net("192.0.2.254"));
        assert_eq!(net("::ffff:192.0.2.9"), net("192.0.2.1"));
        assert_ne!(net("192.0.2.1"), net("192.0.3.1"));
        assert_eq!(net("2001:db8:1:2::1"), net("2001:db8:1:2:ffff::1"));
        assert_ne!(net("2001:db8:1:2::1"), net("2001:db8:1:3::1"));
    }

    #[test]
    fn no_net_may_hold_more_than_a_quarter() {
        let mut ring = Ring::default();
        for _ in 0..MAX_ROWS / 4 {
            ring.add("bad_signature", Some("192.0.2.0/24"), 300);
        }
        assert!(ring.excess().is_none());
        ring.add("bad_signature", Some("192.0.2.0/24"), 300);
        assert!(matches!(ring.excess(), Some(Excess::Net(_))));
    }
}
