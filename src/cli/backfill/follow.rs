//! Waiting until the provider told what became of the tasks, by asking our own server in a bounded way.
//!
//! The server asks the provider in the order in which tasks were announced. So a scan goes along those that are open, and
//! ends where nothing was asked yet. One goes to the end now and then, as some may be ahead of their turn, and at first, if some
//! were known before.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::super::answers::{Ask, Note, Task};
use super::super::client::{ClientError, Server};
use super::super::{Session, human};
use super::Run;
use super::backlog::{Backlog, Item, Standing, Walk};
use super::progress::Progress;

/// Requests under way at one time.
const IN_FLIGHT: usize = 4;
/// Tasks looked at before anything is noted.
const CHUNK: usize = 64;
/// As many in a row that were not asked about end a scan.
const UNASKED: usize = 200;
/// Shortest pause between two scans.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// A scan that takes longer than this is followed by a shorter pause than it took.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Shortest time between two scans to the end.
const WHOLE_EVERY: Duration = Duration::from_secs(30);
/// Codes of notes that nobody can be asked, however long one waits.
const HOPELESS: [&str; 4] = ["no_api_key", "no_source", "no_query", "not_ordered"];

/// What was seen of all tasks.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Of those that are settled.
    pub(super) files: Files,
    /// What was last said about one that is open.
    pub(super) waits: Option<String>,
}

/// Files, as they were when their tasks were looked at.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Files {
    pub(super) announced: u64,
    pub(super) stored: u64,
}

/// What the server says of a task.
struct Look {
    standing: Standing,
    /// Whether the provider was asked about it; since it was announced, which takes away the note of what came before.
    asked: bool,
    files: Files,
    waits: Option<String>,
}

/// Waits until nothing is open that an answer may still come for.
pub(super) async fn follow(
    run: &mut Run,
    (server, progress): (&Server, &mut Progress),
    session: &mut Session,
) -> anyhow::Result<()> {
    let mut whole_at = Instant::now();
    if run.announced.known == 0 {
        // There is nothing yet that is known already.
        whole_at += WHOLE_EVERY;
    }
    loop {
        let began = Instant::now();
        let whole = began >= whole_at;
        scan(run, whole, (server, progress), session).await?;
        if run.backlog.count(Standing::Open) == 0 {
            return Ok(());
        }
        let took = began.elapsed();
        if whole {
            whole_at = began + WHOLE_EVERY.max(took * 20);
        }
        tokio::time::sleep(took.clamp(PAUSE, LONGEST_PAUSE)).await;
    }
}

/// Looks at those that are open, in their order.
async fn scan(
    run: &mut Run,
    whole: bool,
    (server, progress): (&Server, &mut Progress),
    session: &mut Session,
) -> anyhow::Result<()> {
    let mut walk = run.backlog.walk(Standing::Open)?;
    let mut unasked = 0;
    while whole || unasked < UNASKED {
        let chunk = chunk(&mut walk, &run.backlog)?;
        if chunk.is_empty() {
            break;
        }
        let looks = stream::iter(chunk)
            .map(|(place, item)| async move { Ok::<_, anyhow::Error>((place, look(server, &item).await?)) });
        let looks: Vec<(usize, Look)> = looks.buffered(IN_FLIGHT).try_collect().await?;
        for (place, look) in looks {
            unasked = if look.asked { 0 } else { unasked + 1 };
            run.backlog.note(place, look.standing);
            run.followed.files.announced += look.files.announced;
            run.followed.files.stored += look.files.stored;
            run.followed.waits = look.waits.or(run.followed.waits.take());
        }
        let open = run.backlog.count(Standing::Open) + run.backlog.count(Standing::Stuck);
        let settled = (run.backlog.len() - open) as u64;
        progress.settled(settled, run.followed.waits.as_deref(), session);
    }
    Ok(())
}

fn chunk(walk: &mut Walk, backlog: &Backlog) -> anyhow::Result<Vec<(usize, Item)>> {
    let mut chunk = Vec::with_capacity(CHUNK);
    while chunk.len() < CHUNK
        && let Some(item) = walk.next(backlog)?
    {
        chunk.push(item);
    }
    Ok(chunk)
}

async fn look(server: &Server, item: &Item) -> anyhow::Result<Look> {
    let source = item.source.as_ref().map(|source| ("source", source.as_str()));
    let query: Vec<_> = source.into_iter().collect();
    let path = ["v1", "tasks", item.task_id.as_str()];
    match server.patiently(|| server.get(&path, &query)).await {
        Ok(answer) => Ok(judge(&answer.read()?, item)),
        // Somebody deleted it meanwhile.
        Err(ClientError::Refused {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(Look::at(Standing::Unknown)),
        Err(error) => Err(error.into()),
    }
}

impl Look {
    fn at(standing: Standing) -> Self {
        Self {
            standing,
            asked: true,
            files: Files::default(),
            waits: None,
        }
    }
}

/// What the task as the server shows it says of an entry.
fn judge(task: &Task, item: &Item) -> Look {
    let is_meant = |kind: &str, index| kind == item.kind.as_str() && index == item.index;
    let outcome = task
        .outcomes
        .iter()
        .find(|outcome| is_meant(&outcome.kind, outcome.index));
    let lost = outcome
        .and_then(|outcome| outcome.failure.as_ref())
        .is_some_and(|failure| failure.kind == "lost");
    match outcome.map_or("pending", |outcome| outcome.state.as_str()) {
        "succeeded" => {
            let files = task.files.iter().filter(|file| is_meant(&file.kind, file.index));
            Look {
                files: Files {
                    announced: files.clone().count() as u64,
                    stored: files.filter(|file| file.state == "stored").count() as u64,
                },
                ..Look::at(Standing::Found)
            }
        }
        "failed" if lost => Look::at(Standing::Unknown),
        "failed" => Look::at(Standing::Failed),
        _ => open(task.asking.iter().find(|ask| is_meant(&ask.kind, ask.index))),
    }
}

/// A task that nothing final is known of.
fn open(ask: Option<&Ask>) -> Look {
    let note = ask.and_then(|ask| ask.note.as_ref());
    let standing = match note.map(|note| note.code.as_str()) {
        Some("unknown") => Standing::Unknown,
        Some(code) if HOPELESS.contains(&code) => Standing::Stuck,
        _ => Standing::Open,
    };
    Look {
        asked: note.is_some(),
        waits: note
            .filter(|_| standing != Standing::Unknown)
            .map(|Note { detail, .. }| human::brief(detail, 120)),
        ..Look::at(standing)
    }
}
