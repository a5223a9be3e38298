//! `/`: what failed and what to do, then whether it works.

use std::collections::BTreeMap;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::deliveries::{Group, LATELY, group_of};
use super::frame::Frame;
use super::page;
use super::show::{Ago, Badge, Bytes, Count};
use super::spark::Spark;
use super::trouble_list::{Trouble, troubles};
use crate::clock::Millis;
use crate::config::SourceName;
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::views::apis_paused;
use crate::store::reverify::RejectedGroup;
use crate::store::scrub::Scrub;
use crate::store::tasks::Counts;
use crate::store::troubles::Troubles;
use crate::telemetry::Minute;

/// Failures that are shown; the list of tasks has the others.
const SHOWN: usize = 8;
/// How long a failure is news, so that those that nobody mended don't hide the next.
const NEWS: Millis = 7 * 24 * 60 * 60 * 1000;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    headline: String,
    paused: Vec<Halt>,
    /// Callbacks that were turned away lately.
    refused: Vec<Group>,
    troubles: Vec<Trouble>,
    older: Count,
    lists: Vec<List>,
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

/// Where to find the tasks that are not shown.
struct List {
    path: &'static str,
    words: &'static str,
}

/// What somebody should know of first.
struct Needs {
    stands_still: bool,
    refused: i64,
    /// Files that are not as they should be.
    wrong: i64,
    is_full: bool,
    tasks: usize,
    /// Whether there are more tasks than that.
    more: bool,
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
    let mut troubled = app.store.troubles(now.saturating_sub(NEWS), limit).await?;
    let more = troubled.tasks.len() > SHOWN;
    troubled.tasks.truncate(SHOWN);
    let rejected = app.store.rejected_groups(now.saturating_sub(LATELY)).await?;
    let minutes = app.pulse.minutes(now);
    let scrub = app.store.last_complete_scrub().await?;
    let paused = halts(&app, now);
    let disks = app.storage.room_left();
    let (tasks, files) = (&counts.tasks, &counts.files);
    page(&Overview {
        headline: headline(&Needs {
            stands_still: !paused.is_empty(),
            refused: rejected.iter().map(|group| group.recent).sum(),
            wrong: scrub.as_ref().map_or(0, still_wrong),
            is_full: disks.iter().any(|(_, is_low)| *is_low),
            tasks: troubled.tasks.len(),
            more,
        }),
        paused,
        troubles: troubles(&troubled.tasks, now),
        older: Count(troubled.older),
        lists: lists(&troubled, more),
        is_new: tasks.values().sum::<i64>() == 0 && rejected.is_empty(),
        refused: refused(&app, rejected, now),
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
            .into_iter()
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

fn headline(needs: &Needs) -> String {
    let mut told = Vec::new();
    if needs.stands_still {
        told.push("something stands still".to_owned());
    }
    match needs.refused {
        0 => {}
        1 => told.push("one callback was refused".to_owned()),
        count => told.push(format!("{} callbacks were refused", Count(count))),
    }
    match needs.wrong {
        0 => {}
        1 => told.push("one stored file is damaged or missing".to_owned()),
        count => told.push(format!("{} stored files are damaged or missing", Count(count))),
    }
    if needs.is_full {
        told.push("a disk is at its reserve".to_owned());
    }
    match (needs.tasks, needs.more) {
        (0, _) => {}
        (1, false) => told.push("one task needs you".to_owned()),
        (count, false) => told.push(format!("{count} tasks need you")),
        (count, true) => told.push(format!("more than {count} tasks need you")),
    }
    if told.is_empty() {
        return "Nothing needs you".to_owned();
    }
    let mut line = told.join(", ");
    line[..1].make_ascii_uppercase();
    line
}

/// What a scrub found and did nothing about: one that repairs queues a file again, or has it fail, which its task tells.
fn still_wrong(scrub: &Scrub) -> i64 {
    if scrub.orders.repair {
        scrub.tally.unreadable
    } else {
        scrub.tally.wrong()
    }
}

/// What was turned away lately, with what to do about it.
fn refused(app: &App, groups: Vec<RejectedGroup>, now: Millis) -> Vec<Group> {
    let lately = groups.into_iter().filter(|group| group.recent > 0);
    lately.map(|group| group_of(app, group, now)).collect()
}

/// The lists that have what is not shown, and are not empty.
fn lists(troubles: &Troubles, more: bool) -> Vec<List> {
    if !more && troubles.older == 0 {
        return Vec::new();
    }
    let all = [
        (troubles.failed, "/tasks?state=failed", "Failed tasks"),
        (
            troubles.lost,
            "/tasks?media=failed",
            "Tasks whose files all failed",
        ),
        (
            troubles.partial,
            "/tasks?media=partial",
            "Tasks with some failed files",
        ),
    ];
    let filled = all.into_iter().filter(|(count, ..)| *count > 0);
    filled.map(|(_, path, words)| List { path, words }).collect()
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
