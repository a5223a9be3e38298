//! The row of a delivery.

use std::net::IpAddr;

use rusqlite::{OptionalExtension, params};

use super::{Binding, NewDelivery};
use crate::provider::rules::Verdict;
use crate::store::writer::{Tx, next};

/// A delivery's row, before it has an id.
#[derive(Debug)]
pub(in crate::store) struct DeliveryRow<'d> {
    pub(in crate::store) delivery: &'d NewDelivery,
    pub(in crate::store) verdict: Verdict,
    pub(in crate::store) reason: Option<&'static str>,
    /// The task and the outcome that it is counted on.
    pub(in crate::store) task: Option<i64>,
    pub(in crate::store) outcome: Option<i64>,
    /// What it says it is about.
    pub(in crate::store) task_id: Option<&'d str>,
    pub(in crate::store) kind: Option<&'d str>,
    pub(in crate::store) idx: Option<u32>,
    /// Set on the first use of a signature.
    pub(in crate::store) binding: Option<Binding>,
    pub(in crate::store) body: Body,
    /// What the ring counts of it, if it was rejected.
    pub(in crate::store) share: Option<RingShare>,
}

/// Where the body of a delivery is.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Body {
    /// Only its digest is kept.
    Digest,
    /// In the row.
    Here,
    /// In the row of an earlier delivery that had the same.
    Of(i64),
}

/// What the ring of rejected deliveries has to know of a row.
#[derive(Debug)]
pub(in crate::store) struct RingShare {
    pub(in crate::store) net: Option<String>,
    pub(in crate::store) known: bool,
    pub(in crate::store) size: i64,
}

impl DeliveryRow<'_> {
    /// Writes the row; its id.
    pub(in crate::store) fn insert(&self, tx: &mut Tx<'_>) -> rusqlite::Result<i64> {
        let delivery = self.delivery;
        let again = delivery.again.as_ref();
        let id = again.map_or_else(|| next(&mut tx.ids.delivery), |again| again.id);
        let (body, body_of) = match self.body {
            Body::Digest => (None, None),
            Body::Here => (Some(&*delivery.body), None),
            Body::Of(owner) => (None, Some(owner)),
        };
        tx.execute(
            "INSERT INTO deliveries (id, task, outcome, source, task_id, kind, idx, received_at, via, verdict, reason,
                                     remote_addr, headers, body_sha256, binding, bound_until, net, known, size,
                                     body_of, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)",
            params![
                id,
                self.task,
                self.outcome,
                delivery.source,
                self.task_id,
                self.kind,
                self.idx,
                delivery.received_at,
                delivery.via.as_str(),
                self.verdict.as_str(),
                self.reason.or(again.map(|again| again.note)),
                delivery.remote_addr.as_ref().map(IpAddr::to_string),
                delivery.headers,
                delivery.body_digest,
                self.binding.as_ref().map(|binding| binding.key),
                self.binding.map(|binding| binding.expires_at),
                self.share.as_ref().and_then(|share| share.net.as_deref()),
                self.share.as_ref().map(|share| share.known),
                self.share.as_ref().map(|share| share.size),
                body_of,
                body,
            ],
        )?;
        Ok(id)
    }
}

/// The delivery of the task that has the same body, if one has: the body is then kept once.
///
/// Those of rejected ones do not count: their ring lets them go by rules of its own.
pub(super) fn owner_of_body(tx: &Tx<'_>, task: i64, digest: &[u8; 32]) -> rusqlite::Result<Option<i64>> {
    tx.db
        .prepare_cached(
            "SELECT id FROM deliveries
             WHERE task = ?1 AND body_sha256 = ?2 AND body IS NOT NULL AND verdict <> 'rejected' LIMIT 1",
        )?
        .query_row(params![task, digest], |row| row.get(0))
        .optional()
}
