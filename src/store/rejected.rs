//! The ring of rejected deliveries: bounded by count and bytes, and no sender or reason may fill it alone.

use std::collections::HashMap;
use std::net::IpAddr;

use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::record::NewDelivery;
use super::writer::Tx;

/// Rejected deliveries kept at most.
const MAX_ROWS: i64 = 10_000;
/// Bytes of bodies and headers kept at most.
const MAX_BYTES: i64 = 64 * 1024 * 1024;
/// Larger bodies of rejected deliveries are kept as their digest only.
pub const MAX_KEPT_BODY: usize = 64 * 1024;
/// What a row costs beside its body and headers, roughly.
const ROW_OVERHEAD: i64 = 256;

/// What the bounds count of one rejected delivery.
#[derive(Debug)]
pub(super) struct RejectedRow {
    pub(super) reason: &'static str,
    pub(super) net: Option<String>,
    pub(super) size: i64,
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
    pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query("SELECT reason, net, size FROM deliveries WHERE verdict = 'rejected'")
            .fetch_all(connection)
            .await?;
        let mut ring = Self::default();
        for row in rows {
            let (reason, net): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            ring.count(&reason, net.as_deref(), row.try_get(2)?);
        }
        Ok(ring)
    }

    /// Counts a row that the transaction will write.
    pub(super) fn add(&mut self, row: &RejectedRow) {
        self.count(row.reason, row.net.as_deref(), row.size);
        let net = row.net.clone().unwrap_or_default();
        self.grown.push((row.reason.to_owned(), net));
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

/// Evicts until the ring is within its bounds: the oldest first, those about tasks we know last.
pub(super) async fn enforce_bounds(tx: &mut Tx<'_>) -> Result<(), sqlx::Error> {
    while let Some(excess) = tx.ring().excess() {
        let evict = match &excess {
            Excess::Net(net) => sqlx::query(
                "DELETE FROM deliveries WHERE id = (SELECT id FROM deliveries
                    WHERE verdict = 'rejected' AND net IS NULLIF($1, '') ORDER BY known, id LIMIT 1)
                 RETURNING reason, net, size",
            )
            .bind(net),
            Excess::Reason(reason) => sqlx::query(
                "DELETE FROM deliveries WHERE id = (SELECT id FROM deliveries
                    WHERE verdict = 'rejected' AND reason = $1 ORDER BY known, id LIMIT 1)
                 RETURNING reason, net, size",
            )
            .bind(reason),
            Excess::Any => sqlx::query(
                "DELETE FROM deliveries WHERE id = (SELECT id FROM deliveries
                    WHERE verdict = 'rejected' ORDER BY known, id LIMIT 1)
                 RETURNING reason, net, size",
            ),
        };
        let Some(row) = evict.fetch_optional(&mut *tx.connection).await? else {
            // The accounts are off (a row was removed by hand): count again.
            *tx.ring() = Ring::load(tx.connection).await?;
            return Ok(());
        };
        let (reason, net): (String, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        tx.ring()
            .forget(&reason, net.as_deref().unwrap_or_default(), row.try_get(2)?);
    }
    Ok(())
}

/// What a rejected delivery costs in the ring.
pub(super) fn size_of(delivery: &NewDelivery, body_kept: bool) -> i64 {
    let body = if body_kept { delivery.body.len() } else { 0 };
    ROW_OVERHEAD + i64::try_from(body + delivery.headers.len()).unwrap_or(i64::MAX / 2)
}

/// The network that shares a quota: /24 of an IPv4 address, /64 of an IPv6 one.
pub(super) fn net_of(addr: IpAddr) -> String {
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
        let row = RejectedRow {
            reason: "bad_signature",
            net: Some("192.0.2.0/24".to_owned()),
            size: 300,
        };
        for _ in 0..MAX_ROWS / 4 {
            ring.add(&row);
        }
        assert!(ring.excess().is_none());
        ring.add(&row);
        assert!(matches!(ring.excess(), Some(Excess::Net(_))));
    }
}
