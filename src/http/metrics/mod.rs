//! `GET /metrics`: everything we count and measure, for Prometheus.
//!
//! What is counted lies beside who counts it, as atomics; what is measured is read now. The page is made of both at each
//! scrape. Labels are bounded: names of configured sources and directories, and words of sets that are fixed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::App;
use super::problem::Problem;
use crate::clock::Millis;
use crate::store::StoreError;
use crate::store::asks::Reason as Ask;
use crate::store::scrub::Scrub;
use crate::store::tasks::Counts;
use crate::telemetry::{Disk, Process};
use crate::tls;

mod page;

use page::{Labels, Page, text};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long the store may take to tell its counts: a scrape is given up after ten seconds, as a rule, and everything else
/// is worth telling.
const PATIENCE: Duration = Duration::from_secs(3);

const TASK_STATES: [&str; 3] = ["pending", "succeeded", "failed"];
const FILE_STATES: [&str; 7] = [
    "queued",
    "held",
    "needs_url",
    "downloading",
    "stored",
    "failed",
    "deleted",
];
const ASKS: [Ask; 7] = [
    Ask::Silent,
    Ask::Full,
    Ask::Unconfirmed,
    Ask::Stale,
    Ask::NeedsUrl,
    Ask::Held,
    Ask::Conflict,
];
const PAUSES: [&str; 4] = ["disk_full", "storage", "network", "machine"];

/// What the store says, if it does.
struct Recorded {
    counts: Counts,
    scrub: Option<Scrub>,
}

impl Recorded {
    async fn read(app: &App) -> Result<Self, StoreError> {
        Ok(Self {
            counts: app.store.counts().await?,
            scrub: app.store.last_complete_scrub().await?,
        })
    }
}

/// Shows what is counted and measured, for Prometheus.
///
/// Every metric with its meaning is in `docs/metrics.md`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    operation_id = "show_metrics",
    responses((status = 200, description = "The metrics.", body = String, content_type = "application/openmetrics-text")),
)]
pub(super) async fn show(State(app): State<App>) -> Result<Response, Problem> {
    let recorded = tokio::time::timeout(PATIENCE, Recorded::read(&app)).await;
    // That the store does not answer is told as a metric.
    let recorded = recorded.ok().and_then(Result::ok);
    let page = text(move |page| {
        of_callbacks(page, &app)?;
        of_store(page, &app, recorded.is_some())?;
        of_downloads(page, &app)?;
        of_machine(page, &app)?;
        match &recorded {
            Some(recorded) => of_records(page, recorded, app.clock.now()),
            None => Ok(()),
        }
    });
    let page = page.map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], page).into_response())
}

fn of_callbacks(page: &mut Page<'_>, app: &App) -> fmt::Result {
    let meters = app.meters();
    let sources = meters.sources();
    let (mut verdicts, mut reasons) = (Vec::new(), Vec::new());
    for (source, counts) in &sources {
        let source = source.as_str();
        let by_verdict = |(verdict, count)| ([("source", source), ("verdict", verdict)], count);
        verdicts.extend(counts.verdicts().map(by_verdict));
        let by_reason = |(reason, count)| ([("source", source), ("reason", reason)], count);
        reasons.extend(counts.rejected.now().map(by_reason));
    }
    page.counters(
        ("reelhook_callbacks_total", "Callbacks answered, by verdict"),
        labelled(&verdicts),
    )?;
    page.counters(
        (
            "reelhook_callbacks_rejected_total",
            "Callbacks refused, by the code of the answer",
        ),
        labelled(&reasons),
    )?;
    page.histograms(
        (
            "reelhook_callback_ack_duration_seconds",
            "From the end of a callback's head to its answer 200",
        ),
        [(NONE, meters.acks.now())],
    )?;
    page.gauge(
        ("reelhook_event_readers", "Readers of /v1/events"),
        app.events().readers() as u64,
    )
}

fn of_store(page: &mut Page<'_>, app: &App, is_up: bool) -> fmt::Result {
    let meters = app.store.meters();
    page.gauge(
        ("reelhook_store_up", "Whether the database answered this scrape"),
        u64::from(is_up),
    )?;
    page.gauge(
        (
            "reelhook_store_waiting_commands",
            "Commands waiting for the writer",
        ),
        app.store.waiting() as u64,
    )?;
    page.histograms(
        ("reelhook_store_commit_commands", "Commands committed together"),
        [(NONE, meters.batches.now())],
    )?;
    page.histograms(
        (
            "reelhook_store_commit_duration_seconds",
            "From the beginning of a transaction to the return of its commit",
        ),
        [(NONE, meters.commits.now())],
    )?;
    page.counter(
        (
            "reelhook_store_errors_total",
            "Commands that were not carried out because the database failed",
        ),
        meters.failed.now(),
    )?;
    page.counters(
        (
            "reelhook_storage_errors_total",
            "Failures of the storage, by what for",
        ),
        [
            (
                &[("operation", "download")] as Labels<'_>,
                app.downloads.counted().storage_failures.now(),
            ),
            (&[("operation", "serve")], app.meters().unserved.now()),
        ],
    )
}

fn of_downloads(page: &mut Page<'_>, app: &App) -> fmt::Result {
    let counted = app.downloads.counted();
    page.gauge(
        ("reelhook_downloads_running", "Transfers that run"),
        app.progress.running() as u64,
    )?;
    page.counter(
        (
            "reelhook_download_received_bytes_total",
            "Bytes that came from hosts, of files that did not get whole, too",
        ),
        counted.received.now(),
    )?;
    page.counter(
        (
            "reelhook_download_stored_bytes_total",
            "Bytes of files that were stored",
        ),
        counted.stored.now(),
    )?;
    let attempts = counted.attempts.iter();
    let attempts: Vec<_> = attempts
        .map(|(result, took)| ([("result", result)], took.now()))
        .collect();
    page.histograms(
        (
            "reelhook_download_attempt_duration_seconds",
            "Duration of attempts, by what they led to",
        ),
        labelled(&attempts),
    )?;
    let failures: Vec<_> = counted
        .failures
        .now()
        .map(|(code, count)| ([("code", code)], count))
        .collect();
    page.counters(
        (
            "reelhook_download_failures_total",
            "Attempts that failed, by code",
        ),
        labelled(&failures),
    )?;
    let reason = app.pause.reason();
    let is_paused = |code| u64::from(reason.as_ref().is_some_and(|reason| reason.code == code));
    let pauses = PAUSES.map(|code| ([("code", code)], is_paused(code)));
    page.gauges(
        ("reelhook_queue_paused", "Whether downloads are paused, by why"),
        labelled(&pauses),
    )
}

fn of_machine(page: &mut Page<'_>, app: &App) -> fmt::Result {
    let mut free = Vec::new();
    let mut size = Vec::new();
    for (name, path) in &app.settings.directories {
        if let Some(disk) = Disk::of(path) {
            free.push(([("directory", *name)], disk.free));
            size.push(([("directory", *name)], disk.size));
        }
    }
    page.gauges(
        ("reelhook_disk_free_bytes", "Free space where a directory lies"),
        labelled(&free),
    )?;
    page.gauges(
        (
            "reelhook_disk_size_bytes",
            "Size of the file system where a directory lies",
        ),
        labelled(&size),
    )?;
    page.counters(
        (
            "reelhook_spans_total",
            "Spans for the collector of traces, by what became of them",
        ),
        [
            (&[("result", "sent")] as Labels<'_>, app.spans.sent.now()),
            (&[("result", "dropped")], app.spans.dropped.now()),
        ],
    )?;
    let certificate = app.certificate.as_ref().and_then(tls::Served::now);
    page.known(
        (
            "reelhook_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires",
        ),
        certificate.map(|certificate| seconds(certificate.not_after())),
    )?;
    let process = Process::now();
    page.known(
        ("process_resident_memory_bytes", "Resident memory"),
        process.resident_bytes,
    )?;
    page.known(("process_open_fds", "Open file descriptors"), process.open_fds)?;
    page.known(("process_max_fds", "Most open file descriptors"), process.max_fds)?;
    if let Some(used) = process.cpu_seconds {
        page.counter(("process_cpu_seconds_total", "Processor time used"), used)?;
    }
    page.gauge(
        ("process_start_time_seconds", "When the server started"),
        seconds(app.started_at()),
    )?;
    page.gauge(
        ("reelhook_uptime_seconds", "Time since the server started"),
        seconds(app.clock.now() - app.started_at()),
    )?;
    page.info(("reelhook_build_info", "What is running"), BUILD)
}

/// The commit is known where the build was told it: a source archive has none.
const BUILD: Labels<'static> = &[
    ("version", env!("CARGO_PKG_VERSION")),
    (
        "commit",
        match option_env!("REELHOOK_COMMIT") {
            Some(commit) => commit,
            None => "unknown",
        },
    ),
];

fn of_records(page: &mut Page<'_>, recorded: &Recorded, now: Millis) -> fmt::Result {
    let Counts {
        tasks,
        files,
        oldest_queued_at,
        stored_bytes,
        asks,
        repaired,
    } = &recorded.counts;
    let count = |counts: &BTreeMap<String, i64>, state: &str| counts.get(state).copied().unwrap_or(0);
    let tasks = TASK_STATES.map(|state| ([("state", state)], count(tasks, state)));
    page.gauges(("reelhook_tasks", "Tasks by state"), labelled(&tasks))?;
    let files = FILE_STATES.map(|state| ([("state", state)], count(files, state)));
    page.gauges(("reelhook_files", "Files by state"), labelled(&files))?;
    page.gauge(
        ("reelhook_stored_bytes", "Bytes of all files that are stored"),
        *stored_bytes,
    )?;
    let waits = oldest_queued_at.map_or(0, |queued_at| (now - queued_at).max(0));
    page.gauge(
        (
            "reelhook_oldest_queued_age_seconds",
            "How long the file that is queued longest has waited; 0 if none is",
        ),
        seconds(waits),
    )?;
    let open = ASKS.map(|reason| ([("reason", reason.as_str())], count(asks, reason.as_str())));
    page.gauges(
        (
            "reelhook_asks",
            "Open questions to the provider, by the most urgent reason",
        ),
        labelled(&open),
    )?;
    page.gauge(
        (
            "reelhook_open_conflicts",
            "Outcomes about which callbacks contradict each other",
        ),
        count(asks, Ask::Conflict.as_str()),
    )?;
    page.counter(
        (
            "reelhook_repaired_tasks_total",
            "Tasks whose first final outcome came by asking",
        ),
        u64::try_from(*repaired).unwrap_or(0),
    )?;
    of_scrub(page, recorded.scrub.as_ref())
}

fn of_scrub(page: &mut Page<'_>, scrub: Option<&Scrub>) -> fmt::Result {
    page.known(
        (
            "reelhook_scrub_last_end_timestamp_seconds",
            "When all stored files had been read again for the last time",
        ),
        scrub.and_then(|scrub| scrub.ended_at).map(seconds),
    )?;
    let Some(tally) = scrub.map(|scrub| scrub.tally) else {
        return Ok(());
    };
    let wrong = [
        ([("wrong", "damaged")], tally.damaged),
        ([("wrong", "missing")], tally.missing),
        ([("wrong", "unreadable")], tally.unreadable),
    ];
    page.gauges(
        (
            "reelhook_scrub_last_files",
            "Files that were not as they should be when that ended",
        ),
        labelled(&wrong),
    )
}

const NONE: Labels<'static> = &[];

/// Lends out the labels of what was put together.
fn labelled<'l, V: Clone, const N: usize>(
    values: &'l [([(&'static str, &'l str); N], V)],
) -> impl Iterator<Item = (Labels<'l>, V)> {
    values
        .iter()
        .map(|(labels, value)| (labels.as_slice(), value.clone()))
}

#[expect(clippy::cast_precision_loss, reason = "2^53 milliseconds are far off")]
fn seconds(millis: Millis) -> f64 {
    millis as f64 / 1000.0
}
