//! Traces: one of each task, from its callback to the stored file, sent to an OpenTelemetry collector.
//!
//! Nothing of it is written down: the ids are computed from the names of source, task and outcome, so that a download finds
//! its trace and its parent however much later it runs. Where no collector is configured, nothing is done at all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::Counter;

mod export;

pub use export::{Collector, Exporter};

/// Spans that may wait to be sent; what comes while so many wait is dropped.
const WAITING: usize = 2048;

/// Begins traces. Cheap to clone; clones send to the same collector. The default sends nothing.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Sending>>);

#[derive(Debug)]
struct Sending {
    spans: mpsc::Sender<Span>,
    share: Share,
    dropped: Arc<Sent>,
}

/// What became of spans.
#[derive(Debug, Default)]
pub struct Sent {
    /// Taken by the collector.
    pub sent: Counter,
    /// Dropped, because too many waited or the collector did not take them.
    pub dropped: Counter,
}

/// The part of all tasks that is traced: a number in 2^32, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u64);

impl Share {
    /// So many in a million, at most all.
    pub fn of_millionths(millionths: u32) -> Self {
        Self((u64::from(millionths) << 32) / 1_000_000)
    }

    /// Whether a trace belongs to it. The same of everything about a task, at any time.
    fn has(self, trace: TraceId) -> bool {
        let [.., a, b, c, d] = trace.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) < self.0
    }
}

/// Which trace: one of each task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct TraceId([u8; 16]);

/// Which span of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanId([u8; 8]);

impl SpanId {
    /// One that nobody else has.
    pub fn random() -> Self {
        Self(getrandom::u64().unwrap_or(1).max(1).to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(f, &self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hexadecimal(f, &self.0)
    }
}

fn hexadecimal(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// What kind of work a span is, as numbered by the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Within this process.
    Internal = 1,
    /// An answer to somebody's request.
    Server = 2,
    /// A request of ours.
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A text. Never one that may hold a secret.
    Text(String),
    /// A number.
    Number(u64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

/// A piece of work.
#[derive(Debug, Clone)]
pub struct Work {
    /// What it is called.
    pub name: &'static str,
    /// Of what kind it is.
    pub kind: Kind,
    /// Which span it is.
    pub id: SpanId,
    /// What it is part of, or was caused by.
    pub parent: Option<SpanId>,
    /// When it began, since 1970.
    pub began: Duration,
    /// When it ended, since 1970.
    pub ended: Duration,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// The stable code of why it failed, if it did.
    pub error: Option<&'static str>,
}

/// A piece of work in its trace.
#[derive(Debug)]
struct Span {
    trace: TraceId,
    work: Work,
}

/// The trace of a task.
#[derive(Debug, Clone)]
pub struct Trace {
    to: Arc<Sending>,
    id: TraceId,
}

impl Tracer {
    /// Sends `share` of all traces by the exporter, which has to be run. `sent` counts what becomes of them.
    pub fn new(share: Share, sent: Arc<Sent>) -> (Self, Waiting) {
        let (spans, waiting) = mpsc::channel(WAITING);
        let sending = Sending {
            spans,
            share,
            dropped: sent,
        };
        (Self(Some(Arc::new(sending))), Waiting(waiting))
    }

    /// Whether there is a collector.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The trace of a task, if it is sent anywhere.
    pub fn of_task(&self, source: &str, task_id: &str) -> Option<Trace> {
        let to = self.0.clone()?;
        let digest = digest(&["task", source, task_id]);
        let id = TraceId(std::array::from_fn(|n| digest[n]));
        to.share.has(id).then_some(Trace { to, id })
    }
}

/// Spans that wait to be sent.
#[derive(Debug)]
pub struct Waiting(mpsc::Receiver<Span>);

impl Trace {
    /// The span of the callback that announced the files of an outcome: the one that downloads go back to.
    pub fn announcement(&self, kind: &str, index: u32) -> SpanId {
        let digest = digest(&["announcement", &self.id.to_string(), kind, &index.to_string()]);
        SpanId(std::array::from_fn(|n| digest[n]))
    }

    /// Has a span sent, unless too many wait. Never blocks.
    pub fn tell(&self, work: Work) {
        let span = Span { trace: self.id, work };
        if self.to.spans.try_send(span).is_err() {
            self.to.dropped.dropped.increment();
        }
    }
}

/// Of words none of which has a zero byte.
fn digest(words: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update("reelhook");
    for word in words {
        digest.update([0]);
        digest.update(word);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracer(millionths: u32) -> (Tracer, Waiting, Arc<Sent>) {
        let sent = Arc::new(Sent::default());
        let (tracer, waiting) = Tracer::new(Share::of_millionths(millionths), sent.clone());
        (tracer, waiting, sent)
    }

    fn work() -> Work {
        Work {
            name: "download",
            kind: Kind::Client,
            id: SpanId::random(),
            parent: None,
            began: Duration::ZERO,
            ended: Duration::ZERO,
            attributes: Vec::new(),
            error: None,
        }
    }

    #[test]
    fn ids_are_the_same_after_a_restart_and_differ_between_tasks() {
        let ids = |source, task| {
            let trace = tracer(1_000_000).0.of_task(source, task).unwrap();
            (trace.id.to_string(), trace.announcement("video", 0).to_string())
        };
        assert_eq!(ids("kie", "a"), ids("kie", "a"));
        assert_ne!(ids("kie", "a"), ids("kie", "b"));
        assert_ne!(ids("kie", "a"), ids("other", "a"));
        assert_eq!((ids("kie", "a").0.len(), ids("kie", "a").1.len()), (32, 16));
        let trace = tracer(1_000_000).0.of_task("kie", "a").unwrap();
        assert_ne!(trace.announcement("video", 0), trace.announcement("video", 1));
        assert_ne!(trace.announcement("video", 0), trace.announcement("4k", 0));
    }

    #[test]
    fn a_share_of_all_tasks_is_traced() {
        let traced = |millionths| {
            let (tracer, _waiting, _) = tracer(millionths);
            (0..1000)
                .filter(|n| tracer.of_task("kie", &n.to_string()).is_some())
                .count()
        };
        assert_eq!((traced(0), traced(1_000_000)), (0, 1000));
        assert!((400..600).contains(&traced(500_000)));
        assert!(Tracer::default().of_task("kie", "a").is_none());
    }

    #[test]
    fn what_nobody_takes_is_dropped_and_counted() {
        let (tracer, waiting, sent) = tracer(1_000_000);
        let trace = tracer.of_task("kie", "a").unwrap();
        for _ in 0..WAITING + 3 {
            trace.tell(work());
        }
        assert_eq!(sent.dropped.now(), 3);
        drop(waiting);
        trace.tell(work());
        assert_eq!(sent.dropped.now(), 4);
    }
}
