//! A delivery, from bytes to commit: verify, normalise, record.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::HeaderMap;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::clock::{Clock, Millis, millis};
use crate::config::{Live, Secret, Source, SourceName};
use crate::provider::encoding::decoded;
use crate::provider::payload::Document;
use crate::provider::rules::Verdict;
use crate::provider::signature::{self, Signed};
use crate::provider::{Kind, TaskId};
use crate::store::record::{
    Binding, Content, MAX_KEPT_BODY, NewDelivery, Recorded, Reference, UrlSaid, Verified, Via,
};
use crate::store::{Store, StoreError};

mod notes;
mod refusal;
mod remedy;
mod reverify;
mod room;

use notes::Notes;
pub use refusal::Refusal;
pub use remedy::{Ailing, REASONS, remedy};
pub use reverify::{Judged, Refused, Summary};
pub use room::{Memory, Room};

/// The sources that callbacks may come from, by name.
pub type Sources = BTreeMap<SourceName, Source>;

/// Headers that are kept with a delivery. Anything else may hold what is not ours to keep.
const KEPT_HEADERS: [&str; 8] = [
    "content-type",
    "content-encoding",
    "content-length",
    "user-agent",
    "x-request-id",
    "x-webhook-timestamp",
    "x-webhook-signature",
    "x-forwarded-for",
];

/// Bytes kept of the value of one.
const MAX_KEPT_VALUE: usize = 1024;

/// Longest ref of a submission, and more than ours are.
const MAX_REF: usize = 64;

/// Rejected deliveries in the writer's queue at one time, whether or not their senders still wait; past that they are answered but not kept, so that a flood of
/// them cannot fill the writer's queue.
const REJECTS_IN_FLIGHT: usize = 64;

/// One callback as it arrived.
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The sources in force when it was admitted: what was checked then must not change while the body arrives.
    pub sources: &'a Sources,
    /// The source in its path.
    pub source: &'a str,
    /// Its query, without the question mark.
    pub query: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Who sent it, as far as the proxies are believed.
    pub remote_addr: IpAddr,
    /// Its body, whole.
    pub body: Bytes,
    /// What the body holds of the memory that all share; it grows by what the body unpacks to.
    pub room: Room,
    /// Where it is noted how far it came and when, if anybody wants to know.
    pub observed: Option<&'a mut Observed>,
}

/// How far a callback came, and when.
#[derive(Debug, Default)]
pub struct Observed {
    /// When its checks began.
    pub began: Option<Instant>,
    /// When it had passed them all.
    pub examined: Option<Instant>,
    /// Which outcome it is about, then.
    pub about: Option<(Kind, u32)>,
}

impl Observed {
    fn begin(observed: &mut Option<&mut Self>) {
        if let Some(observed) = observed {
            observed.began = Some(Instant::now());
        }
    }

    fn passed(&mut self, verified: &Verified) {
        self.examined = Some(Instant::now());
        self.about = Some((verified.kind.clone(), verified.index));
    }
}

/// What became of a callback.
#[derive(Debug)]
pub struct Receipt {
    /// The task it is about, as far as it could be read.
    pub task_id: Option<TaskId>,
    /// Recorded (whatever the verdict), or why not.
    pub result: Result<Recorded, Refusal>,
    /// Whether to log it: false past the rate at which refusals are noted; their answers are held back, too.
    pub noted: bool,
}

/// Receives callbacks. Cheap to clone; clones share everything.
#[derive(Debug, Clone)]
pub struct Ingest {
    store: Store,
    clock: Clock,
    max_body: u64,
    sources: Live<Sources>,
    rejects: Arc<Semaphore>,
    notes: Arc<Notes>,
}

/// What the query of a callback URL says.
#[derive(Debug, Default)]
struct Query {
    token: Option<String>,
    kind: Option<String>,
    index: Option<String>,
    reference: Option<String>,
}

impl Query {
    /// The first of each name counts.
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "token" => &mut parsed.token,
                "kind" => &mut parsed.kind,
                "index" => &mut parsed.index,
                "ref" => &mut parsed.reference,
                _ => continue,
            };
            place.get_or_insert_with(|| value.into_owned());
        }
        parsed
    }

    fn kind(&self) -> Result<Option<Kind>, Refusal> {
        let parse = |text: &String| text.parse().map_err(|_| Refusal::BadQuery("kind"));
        self.kind.as_ref().map(parse).transpose()
    }

    /// What it says of a submission. What is no ref of ours names none.
    fn reference(&self, is_proof: bool) -> Option<Reference> {
        let permitted = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let text = self.reference.as_ref()?;
        let is_ref = (1..=MAX_REF).contains(&text.len()) && text.bytes().all(permitted);
        is_ref.then(|| Reference {
            text: text.clone(),
            kind_is_open: self.kind.is_none(),
            index_is_open: self.index.is_none(),
            is_proof,
        })
    }

    fn index(&self) -> Result<u32, Refusal> {
        let parse = |text: &String| text.parse().map_err(|_| Refusal::BadQuery("index"));
        self.index.as_ref().map_or(Ok(0), parse)
    }

    /// What is kept of it with a refused delivery. The token is not, only that it was one of the source's.
    fn kept(&self, source: &Source) -> UrlSaid {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !source.tokens.is_empty() && check_token(source, self.token.as_deref()).is_ok() {
            query.append_key_only("token");
        }
        if let Some(reference) = self.reference(false) {
            query.append_pair("ref", &reference.text);
        }
        UrlSaid {
            kind: self.kind().ok().flatten(),
            index: self.index.as_ref().and(self.index().ok()),
            query: Some(query.finish()).filter(|query| !query.is_empty()),
        }
    }
}

impl Ingest {
    /// Receives for `sources`; bodies above `max_body` bytes, unpacked, are refused.
    pub fn new(store: Store, clock: Clock, sources: Sources, max_body: u64) -> Self {
        Self {
            store,
            clock,
            max_body,
            sources: Live::new(sources),
            rejects: Arc::new(Semaphore::new(REJECTS_IN_FLIGHT)),
            notes: Arc::new(Notes::new()),
        }
    }

    /// Replaces the sources, for callbacks from now on.
    pub fn replace_sources(&self, sources: Sources) {
        self.sources.replace(sources);
    }

    /// The sources in force.
    pub fn sources(&self) -> Arc<Sources> {
        self.sources.now()
    }

    /// Verifies, reads and records a callback. When this returns a recorded delivery, its commit is on disk; a
    /// dropped future does not cancel the commit.
    pub async fn receive(&self, mut arrival: Arrival<'_>) -> Receipt {
        let received_at = self.clock.now();
        let sources = arrival.sources;
        let Some(source) = sources.get(arrival.source) else {
            return Receipt {
                task_id: None,
                result: Err(Refusal::UnknownSource),
                noted: self.notes_refusal(arrival.remote_addr),
            };
        };
        Observed::begin(&mut arrival.observed);
        let query = Query::parse(arrival.query);
        let examined = match self.origin(source, arrival.source, &query).await {
            Ok(origin) => self.examine((sources, source), (&query, origin), &mut arrival, received_at),
            Err(refusal) => Err((refusal, None)),
        };
        match examined {
            Ok(verified) => {
                let task_id = Some(verified.task_id.clone());
                if let Some(observed) = &mut arrival.observed {
                    observed.passed(&verified);
                }
                let delivery = new_delivery(arrival, received_at, Content::Verified(Box::new(verified)));
                let recorded = self.store.record_delivery(delivery).await;
                let result = match recorded {
                    Ok(recorded) if recorded.verdict == Verdict::Rejected => Err(Refusal::BadToken),
                    recorded => recorded.map_err(Refusal::from),
                };
                Receipt {
                    task_id,
                    result,
                    noted: true,
                }
            }
            Err((refusal, task_id)) => {
                let noted = self.notes.admit(arrival.remote_addr, arrival.body.len());
                if noted {
                    let name = arrival.source;
                    let content = Content::Rejected {
                        reason: refusal.reason(),
                        task_id: task_id.clone(),
                        url: query.kept(source),
                    };
                    if refusal.is_recorded() {
                        self.record_refusal(new_delivery(arrival, received_at, content))
                            .await;
                    }
                    if let Some(task_id) = task_id.as_ref().filter(|_| source.api_key.is_some()) {
                        self.ask_after_stale(&refusal, (name, task_id), &query).await;
                    }
                }
                Receipt {
                    task_id,
                    result: Err(refusal),
                    noted,
                }
            }
        }
    }

    /// Whether a refusal that never came here is to be logged: those share the rate of the ones that did.
    pub fn notes_refusal(&self, remote_addr: IpAddr) -> bool {
        self.notes.admit(remote_addr, 0)
    }

    /// What the URL proves: that of a source without signature may name a submission instead of a token, and only such a
    /// URL has it looked up.
    async fn origin(&self, source: &Source, name: &str, query: &Query) -> Result<Origin, Refusal> {
        let Err(refusal) = check_token(source, query.token.as_deref()) else {
            return Ok(Origin::Permitted);
        };
        let reference = query.reference(true).filter(|_| source.hmac_keys.is_empty());
        let Some(reference) = reference else {
            return Err(refusal);
        };
        match self.store.submission(name, &reference.text).await? {
            Some(bound) => Ok(Origin::Submission { bound, refusal }),
            None => Err(refusal),
        }
    }

    /// Every check, in the documented order of refusal; with a refusal comes the id as far as it was read.
    fn examine(
        &self,
        (sources, source): (&Sources, &Source),
        (query, origin): (&Query, Origin),
        arrival: &mut Arrival<'_>,
        now: Millis,
    ) -> Result<Verified, (Refusal, Option<TaskId>)> {
        let without_id = |refusal| (refusal, None);
        let signed = signature_headers(source, arrival.headers).map_err(without_id)?;
        let kind = query.kind().map_err(without_id)?;
        let index = query.index().map_err(without_id)?;
        let body = decoded(&arrival.body, self.max_body).map_err(|error| without_id(error.into()))?;
        if let Cow::Owned(unpacked) = &body {
            // Afterwards, as only now the length is known: at most one body a thread is ahead of its charge.
            let charged = arrival.room.grow(unpacked.len() as u64);
            charged.map_err(without_id)?;
        }
        let document = Document::parse(&body).map_err(|error| without_id(error.into()))?;
        let task_id = document.task_id().clone();
        let is_proof = match origin {
            Origin::Permitted => false,
            Origin::Submission {
                bound: Some(bound),
                refusal,
            } if bound != task_id.as_str() => return Err((refusal, Some(task_id))),
            Origin::Submission { .. } => true,
        };
        let binding = signed
            .map(|(timestamp, signature)| {
                let signed = Signed {
                    task_id: task_id.as_str(),
                    timestamp,
                    signature,
                };
                verify(sources, source, &signed, now)
            })
            .transpose()
            .map_err(|refusal| (refusal, Some(task_id.clone())))?;
        let event = document.event();
        Ok(Verified {
            task_id,
            // An explicit query wins; without it a 4K body is known by its shape.
            kind: kind
                .or_else(|| event.kind_by_shape.clone())
                .unwrap_or_else(Kind::video),
            index,
            event,
            binding,
            hold: source.confirm(),
            reference: query.reference(is_proof),
        })
    }

    /// Keeps what was refused with a 400 or 401, as far as there is room.
    async fn record_refusal(&self, mut delivery: NewDelivery) {
        let Content::Rejected { reason, .. } = delivery.content else {
            return;
        };
        let Ok(place) = self.rejects.clone().try_acquire_owned() else {
            return;
        };
        if delivery.body_length > MAX_KEPT_BODY {
            delivery.body = Bytes::new();
            delivery.held.clear();
        }
        delivery.held.push(place);
        // The answer is a refusal either way; a store that cannot keep it says so in its own log line.
        if let Err(error) = self.store.record_delivery(delivery).await {
            tracing::warn!(%error, reason, "a rejected delivery was not kept");
        }
    }

    /// A callback that is only too late was sent by the provider once, or by somebody who kept one: what it says is not
    /// believed, but whether there is news of its task can be asked.
    async fn ask_after_stale(&self, refusal: &Refusal, (source, task_id): (&str, &TaskId), query: &Query) {
        if !refusal.is_only_late() {
            return;
        }
        let (Ok(kind), Ok(index)) = (query.kind(), query.index()) else {
            return;
        };
        let about = (kind.unwrap_or_else(Kind::video), index);
        if let Err(error) = self.store.ask_after_stale(source, task_id, about).await {
            tracing::warn!(%error, "the provider is not asked about a stale callback: {error}");
        }
    }
}

/// What the URL of a callback proves of where it comes from.
enum Origin {
    /// It has a token, or the source wants none.
    Permitted,
    /// It lacks the token and names a submission, which is bound to this task or to none yet.
    Submission {
        bound: Option<String>,
        /// What it is refused with if it is about another task.
        refusal: Refusal,
    },
}

fn check_token(source: &Source, presented: Option<&str>) -> Result<(), Refusal> {
    if source.tokens.is_empty() {
        return Ok(());
    }
    let presented = presented.ok_or(Refusal::MissingToken)?;
    if Secret::any_matches(&source.tokens, presented.as_bytes()) {
        Ok(())
    } else {
        Err(Refusal::BadToken)
    }
}

/// Timestamp and signature, if the source signs; both are then compulsory.
fn signature_headers<'h>(
    source: &Source,
    headers: &'h HeaderMap,
) -> Result<Option<(&'h str, &'h str)>, Refusal> {
    if source.hmac_keys.is_empty() {
        return Ok(None);
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    match (text("x-webhook-timestamp"), text("x-webhook-signature")) {
        (Some(timestamp), Some(signature)) => Ok(Some((timestamp, signature))),
        _ => Err(Refusal::MissingSignature),
    }
}

fn verify(sources: &Sources, source: &Source, signed: &Signed<'_>, now: Millis) -> Result<Binding, Refusal> {
    let keys = source.hmac_keys.iter().map(Secret::expose);
    let verified = signature::verify(keys, signed, now, source.timestamp_tolerance)?;
    let mut key = Sha256::new();
    key.update(signed.task_id);
    key.update([0]);
    key.update(verified.timestamp.to_le_bytes());
    key.update(verified.mac);
    // Another source may share the key and be more patient: the binding has to outlast them all.
    let patience = sources
        .values()
        .map(|source| source.timestamp_tolerance)
        .max()
        .unwrap_or_default();
    Ok(Binding {
        key: key.finalize().into(),
        expires_at: verified
            .timestamp
            .saturating_mul(1000)
            .saturating_add(millis(patience)),
    })
}

fn new_delivery(arrival: Arrival<'_>, received_at: Millis, content: Content) -> NewDelivery {
    NewDelivery {
        source: arrival.source.to_owned(),
        via: Via::Callback,
        received_at,
        remote_addr: Some(arrival.remote_addr),
        headers: kept(arrival.headers),
        body_digest: Sha256::digest(&arrival.body).into(),
        body_length: arrival.body.len(),
        body: arrival.body,
        content,
        again: None,
        held: arrival.room.into_permit().into_iter().collect(),
    }
}

/// The kept headers as a JSON object, the first of each name.
fn kept(headers: &HeaderMap) -> String {
    let mut json = String::with_capacity(512);
    let mut last = None;
    for (name, value) in headers {
        // Values of one name come in a row.
        if !KEPT_HEADERS.contains(&name.as_str()) || last.replace(name) == Some(name) {
            continue;
        }
        json.push(if json.is_empty() { '{' } else { ',' });
        let value = String::from_utf8_lossy(value.as_bytes());
        let end = value.floor_char_boundary(MAX_KEPT_VALUE);
        let value = serde_json::to_string(&value[..end]).expect("a text is JSON");
        json.extend(["\"", name.as_str(), "\":", value.as_str()]);
    }
    json.push_str(if json.is_empty() { "{}" } else { "}" });
    json
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Busy => Self::Busy,
            StoreError::Closed => Self::Draining,
            error @ StoreError::Database(_) => Self::StoreUnavailable(error),
        }
    }
}

#[cfg(test)]
mod tests;
