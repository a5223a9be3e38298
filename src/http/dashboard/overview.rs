//! `/`: what failed and what to do, then whether it works.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::frame::Frame;
use super::page;
use super::show::{Ago, Badge, Bytes, Count};
use super::spark::Spark;
use super::trouble_list::{Trouble, troubles};
use crate::config::SourceName;
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::views::apis_paused;
use crate::store::scrub::Scrub;
use crate::store::tasks::Counts;
use crate::telemetry::Minute;

/// Failures that are shown; the list of tasks has the others.
const SHOWN: usize = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    headline: String,
    paused: Vec<Halt>,
    troubles: Vec<Trouble>,
    more: bool,
    is_new: bool,
    sources: Vec<String>,
    hours: [Hour; 2],
    tasks: [(&'static str, Count); 3],
    downloads: [(&'static str, Count); 4],
    oldest: Option<Ago>,
    stored: Bytes,
    repaired: Count,
    asks: Count,
    conflicts: Count,
    scrub: Option<Scrubbed>,
    disks: Vec<Disk>,
}

/// Something that stands still, and why.
struct Halt {
    what: String,
    detail: String,
    since: Ago,
}

/// A chart, and its numbers.
struct Hour {
    total: Count,
    parts: Vec<(Badge<'static>, Count)>,
    spark: Spark,
}

struct Scrubbed {
    ended: Ago,
    files: Count,
    wrong: i64,
}

struct Disk {
    free: Bytes,
    is_low: bool,
}

pub(super) async fn show(State(app): State<App>, frame: Frame) -> Result<Response, Problem> {
    let now = frame.now;
    let counts = app.store.counts().await?;
    let limit = i64::try_from(SHOWN).unwrap_or(i64::MAX).saturating_add(1);
    let mut troubled = app.store.troubled_tasks(limit).await?;
    let more = troubled.len() > SHOWN;
    troubled.truncate(SHOWN);
    let minutes = app.pulse.minutes(now);
    let scrub = app.store.last_complete_scrub().await?;
    let paused = halts(&app, now);
    let disks = app.storage.room_left().into_iter();
    let (tasks, files) = (&counts.tasks, &counts.files);
    page(&Overview {
        headline: headline(&paused, troubled.len(), more),
        paused,
        troubles: troubles(&troubled, now),
        more,
        is_new: tasks.values().sum::<i64>() == 0,
        sources: app.ingest.sources().keys().map(SourceName::to_string).collect(),
        hours: [callbacks(&minutes), downloads(&minutes)],
        tasks: ["pending", "succeeded", "failed"].map(|state| (state, of(tasks, &[state]))),
        downloads: [
            ("queued", of(files, &["queued", "needs_url"])),
            ("held", of(files, &["held"])),
            ("downloading", of(files, &["downloading"])),
            ("failed", of(files, &["failed"])),
        ],
        oldest: counts.oldest_queued_at.map(|at| Ago { at, now }),
        stored: Bytes(counts.stored_bytes),
        repaired: Count(counts.repaired),
        asks: Count(counts.asks.values().sum()),
        conflicts: open_conflicts(&counts),
        scrub: scrub.map(|scrub| scrubbed(&scrub, now)),
        disks: disks
            .map(|(free, is_low)| Disk {
                free: Bytes(i64::try_from(free).unwrap_or(i64::MAX)),
                is_low,
            })
            .collect(),
        frame,
    })
}

fn of(counts: &BTreeMap<String, i64>, states: &[&str]) -> Count {
    Count(states.iter().filter_map(|state| counts.get(*state)).sum())
}

fn open_conflicts(counts: &Counts) -> Count {
    of(&counts.asks, &["conflict"])
}

fn headline(paused: &[Halt], troubled: usize, more: bool) -> String {
    match (paused.is_empty(), troubled, more) {
        (false, ..) => "Something stands still".to_owned(),
        (true, 0, _) => "Nothing needs you".to_owned(),
        (true, 1, false) => "One task needs you".to_owned(),
        (true, count, false) => format!("{count} tasks need you"),
        (true, count, true) => format!("More than {count} tasks need you"),
    }
}

/// Why nothing is fetched, and which providers are left alone.
fn halts(app: &App, now: i64) -> Vec<Halt> {
    let queue = app.pause.reason().map(|reason| Halt {
        what: "Downloads are paused".to_owned(),
        detail: reason.detail,
        since: Ago {
            at: reason.since,
            now,
        },
    });
    let apis = app.apis.now();
    let of_apis = apis_paused(app).into_keys().filter_map(|source| {
        let pause = apis.get(&source)?.pause()?;
        Some(Halt {
            what: format!("The provider of source {source} is left alone"),
            detail: pause.detail,
            since: Ago { at: pause.since, now },
        })
    });
    queue.into_iter().chain(of_apis).collect()
}

fn callbacks(minutes: &[Minute]) -> Hour {
    let all = [
        ("accepted", "good", column(minutes, |minute| minute.accepted)),
        ("duplicate", "calm", column(minutes, |minute| minute.duplicate)),
        ("conflict", "warn", column(minutes, |minute| minute.conflict)),
        ("rejected", "bad", column(minutes, |minute| minute.rejected)),
    ];
    hour("Callbacks", all.to_vec())
}

fn downloads(minutes: &[Minute]) -> Hour {
    let all = [
        ("stored", "good", column(minutes, |minute| minute.stored)),
        ("failed", "bad", column(minutes, |minute| minute.failed)),
    ];
    hour("Files", all.to_vec())
}

fn column(minutes: &[Minute], count: impl Fn(&Minute) -> u64) -> Vec<u64> {
    minutes.iter().map(count).collect()
}

fn hour(title: &'static str, parts: Vec<(&'static str, &'static str, Vec<u64>)>) -> Hour {
    let sum = |counts: &[u64]| i64::try_from(counts.iter().sum::<u64>()).unwrap_or(i64::MAX);
    let told: Vec<String> = parts
        .iter()
        .map(|(word, _, counts)| format!("{} {word}", sum(counts)))
        .collect();
    Hour {
        total: Count(parts.iter().map(|(_, _, counts)| sum(counts)).sum()),
        parts: parts
            .iter()
            .map(|(word, _, counts)| (Badge(word), Count(sum(counts))))
            .collect(),
        spark: Spark {
            title,
            told: format!("{} in the last hour", told.join(", ")),
            layers: parts
                .into_iter()
                .map(|(_, class, counts)| (class, counts))
                .collect(),
        },
    }
}

fn scrubbed(scrub: &Scrub, now: i64) -> Scrubbed {
    let tally = &scrub.tally;
    Scrubbed {
        ended: Ago {
            at: scrub.ended_at.unwrap_or(scrub.began_at),
            now,
        },
        files: Count(tally.files),
        wrong: tally.damaged + tally.missing + tally.unreadable,
    }
}
