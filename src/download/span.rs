//! An attempt as a span in the trace of its task.

use std::time::Duration;

use crate::clock;
use crate::store::downloads::{ClaimedDownload, Settlement};
use crate::telemetry::traces::{Kind, SpanId, Tracer, Work};

/// Tells of an attempt that took so long and ended just now; `None` is one whose lease was lost.
pub(super) fn tell(
    tracer: &Tracer,
    claim: &ClaimedDownload,
    (settled, took): (Option<&Settlement>, Duration),
) {
    let Some(trace) = tracer.of_task(&claim.source, claim.task_id.as_str()) else {
        return;
    };
    let ended = clock::since_1970();
    let mut attributes = vec![
        ("reelhook.source", claim.source.as_str().into()),
        ("reelhook.task_id", claim.task_id.as_str().into()),
        ("reelhook.kind", claim.kind.as_str().into()),
        ("reelhook.index", claim.index.into()),
        ("reelhook.role", claim.role.as_str().into()),
        ("reelhook.n", claim.n.into()),
        ("reelhook.failed_attempts", claim.attempts.into()),
        ("server.address", claim.host.as_str().into()),
    ];
    attributes.push((
        "reelhook.result",
        settled.map_or("lost", Settlement::result).into(),
    ));
    if let Some(Settlement::Stored { name, bytes, .. }) = settled {
        attributes.push(("reelhook.file", name.as_str().into()));
        attributes.push(("reelhook.bytes", (*bytes).into()));
    }
    trace.tell(Work {
        name: "download",
        kind: Kind::Client,
        id: SpanId::random(),
        parent: Some(trace.announcement(claim.kind.as_str(), claim.index)),
        began: ended.saturating_sub(took),
        ended,
        attributes,
        error: settled.and_then(Settlement::error).map(|error| error.code),
    });
}
