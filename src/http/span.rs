//! A callback as a span in the trace of its task.

use std::time::{Duration, Instant};

use crate::clock;
use crate::ingest::{Observed, Receipt, Refusal};
use crate::telemetry::traces::{Kind, SpanId, Tracer, Work};

/// Tells of a callback that began at this moment and is answered now, and of what it took to check and to record it.
/// One whose task is unknown, or that is not worth a log line, is not told of.
pub(super) fn tell(
    tracer: &Tracer,
    source: &str,
    (receipt, observed): (&Receipt, &Observed),
    started: Instant,
) {
    let Some(task_id) = receipt.task_id.as_ref().filter(|_| receipt.noted) else {
        return;
    };
    let Some(trace) = tracer.of_task(source, task_id.as_str()) else {
        return;
    };
    let (now, ended) = (Instant::now(), clock::since_1970());
    let at = |moment: Instant| ended.saturating_sub(now.saturating_duration_since(moment));
    let error = receipt.result.as_ref().err().map(Refusal::reason);
    // The one that announced files is whom their downloads go back to.
    let announced = receipt.result.as_ref().is_ok_and(|recorded| recorded.queued > 0);
    let about = observed.about.as_ref().filter(|_| announced);
    let id = about.map_or_else(SpanId::random, |(kind, index)| {
        trace.announcement(kind.as_str(), *index)
    });
    let work = |name, (began, ended): (Duration, Duration)| Work {
        name,
        kind: Kind::Internal,
        id: SpanId::random(),
        parent: Some(id),
        began,
        ended,
        attributes: Vec::new(),
        error: None,
    };
    let verified = observed.examined.map_or(ended, at);
    trace.tell(Work {
        error: error.filter(|_| observed.examined.is_none()),
        ..work("verify", (observed.began.map_or(ended, at), verified))
    });
    if observed.examined.is_some() {
        trace.tell(Work {
            error,
            ..work("commit", (verified, ended))
        });
    }
    let mut attributes = vec![
        ("reelhook.source", source.into()),
        ("reelhook.task_id", task_id.as_str().into()),
    ];
    if let Ok(recorded) = &receipt.result {
        attributes.push(("reelhook.verdict", recorded.verdict.as_str().into()));
        attributes.push(("reelhook.downloads", (recorded.queued as u64).into()));
    }
    if let Some(reason) = error.or_else(|| receipt.result.as_ref().ok()?.reason) {
        attributes.push(("reelhook.reason", reason.into()));
    }
    trace.tell(Work {
        name: "callback",
        kind: Kind::Server,
        id,
        parent: None,
        began: at(started),
        ended,
        attributes,
        error,
    });
}
