//! Rejected deliveries, judged again by the very checks of an arrival: with the sources of now, and the time of then.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{Arrival, Ingest, Memory, Origin, Query, Refusal, new_delivery};
use crate::clock::{Millis, millis};
use crate::config::Source;
use crate::provider::TaskId;
use crate::provider::rules::Verdict;
use crate::store::StoreError;
use crate::store::record::{Again, Content, NewDelivery, Recorded, Verified};
use crate::store::reverify::{RejectedDelivery, RejectedFilter, Reverified, UNKNOWN_QUERY};

/// Rows judged at one time: with their bodies they take 4 MiB at most, and they share a commit.
const STEP: i64 = 64;
/// How long a signature that was accepted late stays bound to its first use, should that go: others under it may lie among
/// the rejected.
const BOUND_FOR: Duration = Duration::from_hours(30 * 24);
/// The reason beside a verdict that came by judging again.
const NOTE: &str = "reverified";
/// The reason beside a verdict that a person answers for.
const BY_PERSON: &str = "accepted_by_person";

/// What came of judging a delivery again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// It passed, and was recorded as what the rules make of it.
    Recorded(Recorded),
    /// It was no rejected delivery, or is none any more: this is what it is.
    Already {
        /// Its verdict.
        verdict: String,
        /// And the reason, if there is one.
        reason: Option<String>,
    },
    /// It stays rejected.
    Refused(Refused),
    /// There is no such delivery.
    Gone,
}

/// Why a delivery stays rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stable reason: that of a refusal, or `body_not_kept`, `loopback_only`.
    pub reason: &'static str,
    /// A sentence about it.
    pub detail: String,
}

impl Refused {
    fn new(reason: &'static str, detail: &str) -> Self {
        Self {
            reason,
            detail: detail.to_owned(),
        }
    }
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        Self {
            reason: refusal.reason(),
            detail: refusal.to_string(),
        }
    }
}

/// What became of many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ReverifySummary)]
pub struct Summary {
    /// How many were judged.
    pub examined: u64,
    /// Believed, their files queued.
    pub accepted: u64,
    /// They told what was known.
    pub duplicate: u64,
    /// They contradict what stands, or their signature was used for something else meanwhile.
    pub conflict: u64,
    /// How many stay rejected, by the reason that they have now.
    pub still_rejected: BTreeMap<&'static str, u64>,
}

impl Summary {
    fn count(&mut self, judged: &Judged) {
        self.examined += 1;
        match judged {
            Judged::Recorded(recorded) => match recorded.verdict {
                Verdict::Accepted => self.accepted += 1,
                Verdict::Duplicate => self.duplicate += 1,
                Verdict::Conflict => self.conflict += 1,
                Verdict::Rejected => self.count_refused(recorded.reason.unwrap_or("rejected")),
            },
            Judged::Refused(refused) => self.count_refused(refused.reason),
            // Somebody else was first, or the ring let it go meanwhile: it is not ours to count.
            Judged::Already { .. } | Judged::Gone => self.examined -= 1,
        }
    }

    fn count_refused(&mut self, reason: &'static str) {
        *self.still_rejected.entry(reason).or_default() += 1;
    }
}

/// Who answers for where a delivery comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voucher {
    /// What is kept of its URL.
    Url,
    /// A person, for this one: its token was missing or wrong.
    Person,
}

/// Why a delivery is not recorded now.
enum Hindrance {
    Refused(Refused),
    /// Refused because of its time alone, and about this task.
    Late(Refusal, TaskId),
    /// Nothing can be judged at the moment.
    Store(StoreError),
}

impl From<Refusal> for Hindrance {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Busy => Self::Store(StoreError::Busy),
            Refusal::Draining => Self::Store(StoreError::Closed),
            Refusal::StoreUnavailable(error) => Self::Store(error),
            refusal => Self::Refused(Refused::from(&refusal)),
        }
    }
}

impl Ingest {
    /// Judges one rejected delivery again.
    pub async fn reverify(&self, id: i64) -> Result<Judged, StoreError> {
        match self.store.rejected_delivery(id).await? {
            Some(row) => self.judge(&row, Voucher::Url, &self.rooms()).await,
            None => self.what_it_is(id).await,
        }
    }

    /// Takes a delivery that lacked the right token, on somebody's word that it is genuine. Its signature is verified all the
    /// same where the source has keys, and what else was wrong with one is not a matter of words.
    pub async fn vouch(&self, id: i64) -> Result<Judged, StoreError> {
        let Some(row) = self.store.rejected_delivery(id).await? else {
            return self.what_it_is(id).await;
        };
        let refused = self.would_be_refused(&row).await?;
        if refused.is_some_and(|refused| is_about_token(refused.reason)) {
            return self.judge(&row, Voucher::Person, &self.rooms()).await;
        }
        Ok(Judged::Refused(Refused::new(
            "not_a_conflict",
            &format!(
                "delivery {id} was refused as {}: only a wrong or missing token can be vouched for; verify it again instead",
                row.reason
            ),
        )))
    }

    /// For which reason a rejected delivery would stay so if it was judged now; `None` if it would pass, or is not rejected.
    pub async fn preview(&self, id: i64) -> Result<Option<Refused>, StoreError> {
        match self.store.rejected_delivery(id).await? {
            Some(row) => self.would_be_refused(&row).await,
            None => Ok(None),
        }
    }

    async fn would_be_refused(&self, row: &RejectedDelivery) -> Result<Option<Refused>, StoreError> {
        match self.examine_again(row, Voucher::Url, &self.rooms()).await {
            Ok(_) => Ok(None),
            Err(Hindrance::Refused(refused)) => Ok(Some(refused)),
            Err(Hindrance::Late(refusal, _)) => Ok(Some(Refused::from(&refusal))),
            Err(Hindrance::Store(error)) => Err(error),
        }
    }

    /// Judges all rejected deliveries again that are there now and pass the filter, in the order of their arrival and some at a
    /// time, so that callbacks that arrive meanwhile wait no longer than usual. Where it ends early, what was judged stands.
    pub async fn reverify_all(&self, filter: &RejectedFilter) -> Result<Summary, StoreError> {
        let mut summary = Summary::default();
        let rooms = self.rooms();
        let upto = self.store.newest_rejected().await?;
        let mut after = 0;
        loop {
            let rows = self
                .store
                .rejected_deliveries(filter, (after, upto), STEP)
                .await?;
            let Some(last) = rows.last() else {
                return Ok(summary);
            };
            after = last.id;
            // Polled in this order, they reach the writer in it.
            let step = rows.iter().map(|row| self.judge(row, Voucher::Url, &rooms));
            for judged in future::join_all(step).await {
                summary.count(&judged?);
            }
        }
    }

    /// What bodies may unpack to that are judged again: apart from the memory that arrivals share.
    fn rooms(&self) -> Memory {
        Memory::of(self.max_body)
    }

    async fn what_it_is(&self, id: i64) -> Result<Judged, StoreError> {
        Ok(match self.store.delivery(id).await? {
            Some(delivery) => Judged::Already {
                verdict: delivery.verdict,
                reason: delivery.reason,
            },
            None => Judged::Gone,
        })
    }

    async fn judge(
        &self,
        row: &RejectedDelivery,
        voucher: Voucher,
        rooms: &Memory,
    ) -> Result<Judged, StoreError> {
        let delivery = match self.examine_again(row, voucher, rooms).await {
            Ok(delivery) => delivery,
            Err(Hindrance::Refused(refused)) => return Ok(Judged::Refused(refused)),
            Err(Hindrance::Late(refusal, task_id)) => {
                let source = (row.source.as_str(), &task_id);
                self.ask_after_stale(&refusal, source, &query_of(row)).await;
                return Ok(Judged::Refused(Refused::from(&refusal)));
            }
            Err(Hindrance::Store(error)) => return Err(error),
        };
        Ok(match self.store.reverify_delivery(delivery).await? {
            // The submission that its URL names became another task's just now.
            Reverified::Recorded(Recorded {
                verdict: Verdict::Rejected,
                ..
            }) => Judged::Refused(Refused::new("bad_token", &Refusal::BadToken.to_string())),
            Reverified::Recorded(recorded) => Judged::Recorded(recorded),
            Reverified::Already { verdict, reason } => Judged::Already { verdict, reason },
            Reverified::Gone => Judged::Gone,
        })
    }

    /// What is to be recorded of it, if it passes now.
    async fn examine_again(
        &self,
        row: &RejectedDelivery,
        voucher: Voucher,
        rooms: &Memory,
    ) -> Result<NewDelivery, Hindrance> {
        let sources = self.sources();
        let source = sources.get(row.source.as_str()).ok_or(Refusal::UnknownSource)?;
        if row.reason == "bad_query" {
            return Err(Refusal::BadQuery("kind or index").into());
        }
        let query = query_of(row);
        let origin = match voucher {
            Voucher::Person => Origin::Permitted,
            Voucher::Url => self.origin_again(source, row, &query).await?,
        };
        let Some(body) = &row.body else {
            let detail = "its body was too large to be kept, only its digest is; what it said has to be asked of the provider";
            return Err(Hindrance::Refused(Refused::new("body_not_kept", detail)));
        };
        let headers = headers_of(row);
        let remote_addr = row.remote_addr.as_ref().and_then(|addr| addr.parse().ok());
        let mut arrival = Arrival {
            sources: &sources,
            source: &row.source,
            query: "",
            headers: &headers,
            remote_addr: remote_addr.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            body: Bytes::copy_from_slice(body),
            room: rooms.room(),
            observed: None,
        };
        let examined = self.examine(
            (&sources, source),
            (&query, origin),
            &mut arrival,
            row.received_at,
        );
        let verified = match examined {
            Ok(verified) => bound_for_long(verified, self.clock.now()),
            Err((refusal, Some(task_id))) if refusal.is_only_late() && source.api_key.is_some() => {
                return Err(Hindrance::Late(refusal, task_id));
            }
            Err((refusal, _)) => return Err(refusal.into()),
        };
        // Only what it unpacked to was charged, and that is gone.
        arrival.room = rooms.room();
        let delivery = new_delivery(arrival, row.received_at, Content::Verified(Box::new(verified)));
        Ok(NewDelivery {
            remote_addr,
            headers: row.headers.clone(),
            again: Some(Again {
                id: row.id,
                note: match voucher {
                    Voucher::Url => NOTE,
                    Voucher::Person => BY_PERSON,
                },
            }),
            ..delivery
        })
    }

    /// What the URL proved, as far as that is known. The token itself is not kept: whether it was right was decided then.
    async fn origin_again(
        &self,
        source: &Source,
        row: &RejectedDelivery,
        query: &Query,
    ) -> Result<Origin, Hindrance> {
        match row.reason.as_str() {
            "missing_token" => return Err(Refusal::MissingToken.into()),
            "bad_token" => return Err(Refusal::BadToken.into()),
            _ => {}
        }
        if source.is_unverified() && !source.allow_unverified {
            let detail = "the source verifies nothing, and whether it came from this machine is not known any more; give the \
                          source a key";
            return Err(Hindrance::Refused(Refused::new("loopback_only", detail)));
        }
        // Of an old one it is known only that it had the token, if the source had any then: beside a signature that will do.
        let is_old = row.query.as_deref() == Some(UNKNOWN_QUERY);
        if query.token.is_some() || (is_old && !source.hmac_keys.is_empty()) {
            return Ok(Origin::Permitted);
        }
        Ok(self.origin(source, &row.source, query).await?)
    }
}

fn is_about_token(reason: &str) -> bool {
    matches!(reason, "missing_token" | "bad_token")
}

/// The query of its URL, as far as kept; the token, if it was right, is there without its value.
fn query_of(row: &RejectedDelivery) -> Query {
    Query {
        kind: row.kind.clone(),
        index: row.index.map(|index| index.to_string()),
        ..Query::parse(row.query.as_deref().unwrap_or_default())
    }
}

/// The kept headers, those of the signature among them.
fn headers_of(row: &RejectedDelivery) -> HeaderMap {
    let kept: BTreeMap<String, String> = serde_json::from_str(&row.headers).unwrap_or_default();
    let header = |(name, value): (String, String)| {
        Some((
            HeaderName::try_from(name).ok()?,
            HeaderValue::from_maybe_shared(Bytes::from(value)).ok()?,
        ))
    };
    kept.into_iter().filter_map(header).collect()
}

/// Its signature is accepted past its time, and others under it may lie among the rejected.
fn bound_for_long(mut verified: Verified, now: Millis) -> Verified {
    if let Some(binding) = &mut verified.binding {
        binding.expires_at = binding.expires_at.max(now.saturating_add(millis(BOUND_FOR)));
    }
    verified
}
