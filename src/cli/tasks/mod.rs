//! `tasks`: what a running server knows about tasks, and what a person can do with them.

use super::answers::{Queued, Task, TaskPage};
use super::client::{Server, ServerArgs};
use super::{Exit, Session, UsageError, human};
use crate::clock::{Millis, rfc3339};
use crate::provider::TaskId;

mod card;
mod events;
mod wait;
mod watch;

/// Arguments of `tasks`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List tasks, newest first
    List(ListArgs),
    /// Show one task with its outcomes and files
    Show {
        /// The task's id
        task_id: TaskId,
    },
    /// Wait until a task is finished and its files are stored; the exit code tells whether they are
    Wait(wait::Args),
    /// Watch what happens, live, with a bar for each running download
    Watch(watch::Args),
    /// Try the failed downloads of a task again
    Retry {
        /// The task's id
        task_id: TaskId,
    },
    /// Delete a task with its files; late callbacks will not revive it
    Delete {
        /// The task's id
        task_id: TaskId,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only tasks in this state
    #[arg(long, value_parser = ["pending", "succeeded", "failed"])]
    state: Option<String>,
    /// Only tasks whose files are in this state
    #[arg(long, value_parser = ["none", "queued", "downloading", "stored", "failed", "partial"])]
    media: Option<String>,
    /// Only tasks whose id begins with this
    #[arg(long, value_name = "PREFIX")]
    id: Option<String>,
    /// Only tasks with these words in the prompt
    #[arg(long, value_name = "WORDS")]
    words: Option<String>,
    /// Only tasks created since: a time such as 2026-11-21T09:30:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only tasks created until then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// How many, at most 200
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

/// Characters of a note at most; `tasks show` has all of it.
const NOTE: usize = 100;

/// A moment, or a distance from now.
#[derive(Debug, Clone, Copy)]
pub(super) enum When {
    At(Millis),
    Ago(Millis),
}

impl std::str::FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(at) = crate::clock::parse_rfc3339(text) {
            return Ok(Self::At(at));
        }
        let ago = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text);
        ago.map(|ago| Self::Ago(crate::clock::millis(ago)))
            .map_err(|_| "write a time such as 2026-11-21T09:30:00Z, or how long ago, such as 2h")
    }
}

impl When {
    /// As the server wants it.
    pub(super) fn rfc3339(self, now: Millis) -> String {
        rfc3339(match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.saturating_sub(ago),
        })
    }
}

/// Runs one of the commands.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let server = Server::new(&args.server, session)?;
    let json = args.server.json;
    match args.command {
        Command::List(list) => print_list(&list, &server, json, session).await,
        Command::Show { task_id } => show(&task_id, &server, json, session).await,
        Command::Wait(wait) => wait::run(&wait, &server, json, session).await,
        Command::Watch(watch) => watch::run(&watch, &server, json, session).await,
        Command::Retry { task_id } => retry(&task_id, &server, json, session).await,
        Command::Delete { task_id, yes } => {
            if !yes && !confirmed(&task_id, &server, session).await? {
                session.note("nothing was deleted");
                return Ok(Exit::Failed);
            }
            delete(&task_id, &server, json, session).await
        }
    }
}

async fn print_list(
    args: &ListArgs,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let now = session.clock.now();
    let limit = args.limit.to_string();
    let (since, until) = (
        args.since.map(|at| at.rfc3339(now)),
        args.until.map(|at| at.rfc3339(now)),
    );
    let query: Vec<(&str, &str)> = [
        ("state", args.state.as_deref()),
        ("media", args.media.as_deref()),
        ("q", args.id.as_deref()),
        ("words", args.words.as_deref()),
        ("since", since.as_deref()),
        ("until", until.as_deref()),
        ("limit", Some(&limit)),
        ("cursor", args.cursor.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let answer = server.get(&["v1", "tasks"], &query).await?;
    if json {
        session.print(answer.0.trim_end())?;
        return Ok(Exit::Fine);
    }
    let page: TaskPage = answer.read()?;
    if page.tasks.is_empty() {
        session.note("no tasks");
    } else {
        let rows = page.tasks.iter().map(|task| row(task, now)).collect();
        let width = session.width();
        let headers = [
            "TASK", "SOURCE", "*STATE", "*MEDIA", "FILES", "SHA-256", "CREATED", "NOTE",
        ];
        session.print(&human::table_within(
            width,
            (&headers, &["SHA-256", "SOURCE"]),
            rows,
        ))?;
    }
    if let Some(cursor) = page.next_cursor {
        session.note(&format!("there may be more: --cursor {}", human::clean(&cursor)));
    }
    Ok(Exit::Fine)
}

fn row(task: &Task, now: Millis) -> Vec<String> {
    let stored = task.files.iter().filter(|file| file.state == "stored");
    let bytes: u64 = stored.clone().filter_map(|file| file.bytes).sum();
    let files = match (stored.count(), task.files.len()) {
        (_, 0) => String::new(),
        (0, total) => format!("0/{total}"),
        (count, total) => format!("{count}/{total}, {}", human::size(bytes)),
    };
    // Of the first result; `tasks show` and `--json` have all of them, whole.
    let first = task.files.iter().find_map(|file| file.sha256.as_deref());
    let checksum = first.map(|sha256| human::clean(sha256.get(..12).unwrap_or(sha256)));
    let checksum = checksum.unwrap_or_default();
    let created = task.created_at.as_deref().map(|at| human::age(now, at));
    vec![
        human::clean(&task.task_id),
        human::clean(&task.source),
        human::state(&task.state),
        human::state(&task.media),
        files,
        checksum,
        created.unwrap_or_default(),
        note(task),
    ]
}

/// The one thing about a task that a person should know first.
fn note(task: &Task) -> String {
    let file_error = task.files.iter().find_map(|file| file.error.as_ref());
    match (&task.failure, file_error) {
        _ if task.conflicts > 0 => format!("{} to settle", human::counted(task.conflicts, "conflict")),
        (Some(failure), _) => human::brief(&format!("{}: {}", failure.kind, failure.advice), NOTE),
        (None, Some(error)) => human::brief(&format!("{}: {}", error.code, error.detail), NOTE),
        (None, None) if task.paused.is_some() => "paused".to_owned(),
        (None, None) => task.resolution.as_deref().map(human::clean).unwrap_or_default(),
    }
}

async fn show(task_id: &TaskId, server: &Server, json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    let answer = server.get(&["v1", "tasks", task_id.as_str()], &[]).await?;
    if json {
        session.print(answer.0.trim_end())?;
    } else {
        let card = card::card(&answer.read()?, server, session.clock.now());
        session.print(card.text())?;
    }
    Ok(Exit::Fine)
}

async fn retry(task_id: &TaskId, server: &Server, json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    let answer = server.post(&["v1", "tasks", task_id.as_str(), "retry"]).await?;
    if json {
        session.print(answer.0.trim_end())?;
        return Ok(Exit::Fine);
    }
    let Queued { queued } = answer.read()?;
    session.print(&match queued {
        0 => format!("{task_id} has no failed downloads; nothing was queued"),
        queued => format!("{} of {task_id} queued again", human::counted(queued, "download")),
    })?;
    Ok(Exit::Fine)
}

async fn delete(
    task_id: &TaskId,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    server.delete(&["v1", "tasks", task_id.as_str()]).await?;
    session.print(&if json {
        serde_json::json!({"task_id": task_id, "deleted": true}).to_string()
    } else {
        format!("{task_id} is deleted, with its files")
    })?;
    Ok(Exit::Fine)
}

/// Asks the person at the terminal; without one, `--yes` must be there.
async fn confirmed(task_id: &TaskId, server: &Server, session: &mut Session) -> anyhow::Result<bool> {
    let task: Task = server
        .get(&["v1", "tasks", task_id.as_str()], &[])
        .await?
        .read()?;
    let count = u64::try_from(task.files.len()).unwrap_or(u64::MAX);
    let question = format!(
        "Delete {task_id} with {} for good?",
        human::counted(count, "file")
    );
    session.ask(&question)?.ok_or_else(|| {
        let message = "deleting cannot be undone, and nobody is at a terminal to ask; add --yes";
        UsageError(message.to_owned()).into()
    })
}
