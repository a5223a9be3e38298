//! Recording deliveries: look up what is known, let the rules decide, write the rows.

use std::net::IpAddr;

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::writer::{Command, Reply, Tx};
use super::{Store, StoreError, rejected, submissions};
use crate::clock::Millis;
use crate::provider::rules::{Authority, State, Verdict};
use crate::provider::{Event, Kind, TaskId};

mod binding;
mod outcome;
mod row;
mod verified;

pub(super) use binding::{keep as keep_bindings, purge as purge_bindings};
pub(super) use outcome::LAST as LAST_OUTCOME;
pub(super) use row::{Body, DeliveryRow, RingShare};

pub use super::rejected::MAX_KEPT_BODY;

/// Delivery rows kept per outcome and verdict; later ones are counted only. Those that change an outcome are
/// always kept.
pub const ROWS_PER_VERDICT: i64 = 20;

/// How a delivery reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// The provider called.
    Callback,
    /// We asked for the record.
    Poll,
    /// An answer of the provider's API that passed through us.
    Api,
}

impl Via {
    /// The word in JSON and the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Callback => "callback",
            Self::Poll => "poll",
            Self::Api => "api",
        }
    }

    fn authority(self) -> Authority {
        match self {
            Self::Callback => Authority::Callback,
            Self::Poll | Self::Api => Authority::Provider,
        }
    }
}

/// One arrival, ready to be recorded.
#[derive(Debug)]
pub struct NewDelivery {
    /// The source's name.
    pub source: String,
    /// How it reached us.
    pub via: Via,
    /// When it was read completely.
    pub received_at: Millis,
    /// Who sent it.
    pub remote_addr: Option<IpAddr>,
    /// The kept headers as a JSON object.
    pub headers: String,
    /// The raw body as it came; empty if it is one that is not kept, rejected and above [`MAX_KEPT_BODY`].
    pub body: Bytes,
    /// Bytes of the body, as it came.
    pub body_length: usize,
    /// SHA-256 of the body, as it came.
    pub body_digest: [u8; 32],
    /// What it is.
    pub content: Content,
    /// Set if it was rejected before and is judged again.
    pub again: Option<Again>,
    /// What it holds of the bounds on memory and queue until its commit, whoever still waits for that.
    pub held: Vec<OwnedSemaphorePermit>,
}

/// A rejected delivery that is judged again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Again {
    /// Its row, whose id it keeps.
    pub id: i64,
    /// What stands as the reason of its verdict where that has none of its own.
    pub note: &'static str,
}

/// What the provider's API said of a task when it was asked: recorded the way a callback is.
#[derive(Debug)]
pub struct ProviderAnswer {
    /// The source's name.
    pub source: String,
    /// Who asked.
    pub via: Via,
    /// When it was read completely.
    pub received_at: Millis,
    /// The task that was asked about.
    pub task_id: TaskId,
    /// Which result it is about.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
    /// What it says.
    pub event: Event,
    /// The raw body.
    pub body: Bytes,
}

impl From<ProviderAnswer> for NewDelivery {
    fn from(answer: ProviderAnswer) -> Self {
        Self {
            source: answer.source,
            via: answer.via,
            received_at: answer.received_at,
            remote_addr: None,
            headers: "{}".to_owned(),
            body_length: answer.body.len(),
            body_digest: Sha256::digest(&answer.body).into(),
            body: answer.body,
            content: Content::Verified(Box::new(Verified {
                task_id: answer.task_id,
                kind: answer.kind,
                index: answer.index,
                event: answer.event,
                binding: None,
                hold: false,
                reference: None,
            })),
            again: None,
            held: Vec::new(),
        }
    }
}

/// What a delivery carries.
#[derive(Debug)]
pub enum Content {
    /// It passed every check.
    Verified(Box<Verified>),
    /// It was refused.
    Rejected {
        /// The stable reason of the refusal.
        reason: &'static str,
        /// The task it claimed to be about, as far as it could be read.
        task_id: Option<TaskId>,
        /// What its URL said.
        url: UrlSaid,
    },
}

/// What the URL of a rejected delivery said that is needed to judge it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UrlSaid {
    /// The kind that it named.
    pub kind: Option<Kind>,
    /// The index that it named.
    pub index: Option<u32>,
    /// The rest, as a query: `token` if it had one of the source's, and `ref`.
    pub query: Option<String>,
}

/// A delivery that passed every check.
#[derive(Debug, Clone)]
pub struct Verified {
    /// The verified id.
    pub task_id: TaskId,
    /// Which result it is about.
    pub kind: Kind,
    /// Which of several.
    pub index: u32,
    /// What it says.
    pub event: Event,
    /// The signature's binding; `None` if the source is not signed.
    pub binding: Option<Binding>,
    /// Whether its files wait until the provider confirmed what it says.
    pub hold: bool,
    /// The submission that the callback URL names, if it names one.
    pub reference: Option<Reference>,
}

/// What a callback URL says of the submission that it was made for.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The submission's ref.
    pub text: String,
    /// Whether the URL leaves open which result it is about: then the submission says it.
    pub kind_is_open: bool,
    /// Whether the URL leaves open which of several it is about.
    pub index_is_open: bool,
    /// Whether nothing else proves that the callback comes from the provider: then the submission must be known and about
    /// this task.
    pub is_proof: bool,
}

/// A verified `(task id, timestamp, signature)`; bound to its first use until it expires.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    /// SHA-256 over the three.
    pub key: [u8; 32],
    /// When no tolerance would accept it any more.
    pub expires_at: Millis,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its row; `None` if it was counted only.
    pub delivery: Option<i64>,
    /// What it turned out to be.
    pub verdict: Verdict,
    /// Why, where the verdict does not say it all.
    pub reason: Option<&'static str>,
    /// How many downloads it queued.
    pub queued: usize,
}

impl Store {
    /// Records a delivery; returns once its commit is on disk. [`StoreError::Busy`] at once if the writer cannot
    /// keep up. A dropped future does not cancel the commit.
    pub async fn record_delivery(&self, delivery: NewDelivery) -> Result<Recorded, StoreError> {
        match self.write(Command::Record(Box::new(delivery))).await? {
            Reply::Recorded(recorded) => Ok(recorded),
            other => unreachable!("a delivery was answered with {other:?}"),
        }
    }
}

/// Records one delivery inside the writer's transaction, in the light of those before it.
pub(super) fn record(tx: &mut Tx<'_>, delivery: &NewDelivery) -> rusqlite::Result<Recorded> {
    match &delivery.content {
        Content::Verified(verified) => match &verified.reference {
            None => verified::record(tx, delivery, verified),
            Some(reference) => record_referring(tx, delivery, verified, reference),
        },
        Content::Rejected { reason, task_id, url } => {
            rejected::record(tx, delivery, (reason, task_id.as_ref()), url)
        }
    }
}

/// One that names a submission: that says what its URL leaves open, and its task learns what was asked for.
fn record_referring(
    tx: &mut Tx<'_>,
    delivery: &NewDelivery,
    verified: &Verified,
    reference: &Reference,
) -> rusqlite::Result<Recorded> {
    let submission = submissions::bind(tx, (&delivery.source, &verified.task_id), reference)?;
    let Some(submission) = submission else {
        if reference.is_proof {
            // Another callback bound it since it was looked up.
            let url = UrlSaid {
                kind: (!reference.kind_is_open).then(|| verified.kind.clone()),
                index: (!reference.index_is_open).then_some(verified.index),
                query: Some(format!("ref={}", reference.text)),
            };
            return rejected::record(tx, delivery, ("bad_token", Some(&verified.task_id)), &url);
        }
        return verified::record(tx, delivery, verified);
    };
    let recorded = if reference.kind_is_open || reference.index_is_open {
        let mut placed = verified.clone();
        if reference.kind_is_open {
            placed.kind.clone_from(&submission.kind);
        }
        if reference.index_is_open {
            placed.index = submission.index;
        }
        verified::record(tx, delivery, &placed)?
    } else {
        // Our own URLs leave nothing open.
        verified::record(tx, delivery, verified)?
    };
    submissions::describe(tx, &submission)?;
    Ok(recorded)
}

/// Reads a state as [`State::as_str`] wrote it.
pub(super) fn state_from(text: &str) -> State {
    match text {
        "succeeded" => State::Succeeded,
        "failed" => State::Failed,
        _ => State::Pending,
    }
}

/// Rows as the one parameter of a statement over `jsonb_each`.
pub(super) fn to_json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("rows are plain data")
}
