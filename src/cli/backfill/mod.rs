//! `backfill`: tasks whose callbacks are not to be expected any more, announced from a file and asked about at once.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use jiff::fmt::friendly::SpanParser;
use serde_json::json;
use tokio::signal::unix::{self, SignalKind};

use super::answers::Announced;
use super::client::{Server, ServerArgs};
use super::{Exit, Session, human};
use crate::provider::Kind;

use backlog::{Backlog, Filling, Standing};
use follow::{Files, Followed};
use input::{Defaults, Format, Input};
use progress::Progress;

mod backlog;
mod follow;
mod input;
mod progress;
#[cfg(test)]
mod tests;

/// Tasks in one request, and bytes: the server takes as many, and 8 MiB.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Ids that are listed for a person; `--json` has all.
const LISTED: usize = 20;

/// Arguments of `backfill`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Task ids, one a line, or CSV, or JSON lines; - for standard input
    file: PathBuf,
    /// How it is written [default: told by its first line]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Which result is meant, where the file does not say
    #[arg(long, default_value = "video")]
    kind: Kind,
    /// Which of several is meant, where the file does not say
    #[arg(long, default_value_t = 0)]
    index: u32,
    /// The provider's API family, such as veo, where the file does not say
    #[arg(long, value_name = "NAME")]
    family: Option<String>,
    /// Announce the tasks and leave the rest to the server
    #[arg(long)]
    no_wait: bool,
    /// How long to wait for answers, such as 10m [default: until all are there]
    #[arg(long, value_parser = duration, conflicts_with = "no_wait")]
    timeout: Option<Duration>,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    SpanParser::new()
        .parse_unsigned_duration(text)
        .map_err(|_| "write a duration such as 90s or 10m")
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// As it should.
    Complete,
    /// The person has had enough.
    Interrupted,
    /// `--timeout` is over.
    TimedOut,
}

/// What came of a backfill so far.
struct Run {
    backlog: Backlog,
    announced: Announced,
    followed: Followed,
}

/// Announces, waits and reports. Fine only if every task is known to have succeeded or failed.
pub(super) async fn run(mut args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    // Of the entries, not of the requests: each may name its own.
    let source = args.server.take_source();
    let defaults = Defaults {
        source,
        kind: args.kind.clone(),
        index: args.index,
        family: args.family.clone(),
    };
    let server = Server::new(&args.server, session)?;
    let backlog = read(&args, &defaults)?;
    let mut run = Run {
        backlog,
        announced: Announced::default(),
        followed: Followed::default(),
    };
    let mut progress = Progress::of(run.backlog.len())?;
    let ended = carry_out(&args, &mut run, (&server, &mut progress), session).await;
    progress.clear();
    let end = ended.inspect_err(|_| note_how_to_go_on(session))?;
    if args.server.json {
        print_json(&args, &run, session)?;
    } else {
        print_report(&args, &run, session)?;
    }
    if end != End::Complete {
        note_how_to_go_on(session);
    }
    Ok(exit(&args, &run, end))
}

/// What the process ends with.
fn exit(args: &Args, run: &Run, end: End) -> Exit {
    let told = run.backlog.count(Standing::Found) + run.backlog.count(Standing::Failed);
    if end == End::Complete && (args.no_wait || told == run.backlog.len()) {
        Exit::Fine
    } else {
        Exit::Failed
    }
}

fn note_how_to_go_on(session: &mut Session) {
    session.note("To go on, run the same again: what was announced and answered is known by then.");
}

/// The whole file, before anything of it is sent.
fn read(args: &Args, defaults: &Defaults) -> anyhow::Result<Backlog> {
    let is_stdin = args.file == Path::new("-");
    let name = if is_stdin {
        "standard input".to_owned()
    } else {
        args.file.display().to_string()
    };
    let from: Box<dyn Read> = if is_stdin {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(&args.file).with_context(|| format!("cannot read {name}"))?)
    };
    let input = Input {
        name: &name,
        format: args.format,
        defaults,
    };
    let mut filling = Filling::new()?;
    input.read(from, &mut |entry| filling.add(&entry))?;
    let backlog = filling.filled()?;
    anyhow::ensure!(
        backlog.len() > 0,
        "{name} has no task ids: write one a line, CSV with a column task_id, or JSON lines"
    );
    Ok(backlog)
}

async fn carry_out(
    args: &Args,
    run: &mut Run,
    (server, progress): (&Server, &mut Progress),
    session: &mut Session,
) -> anyhow::Result<End> {
    let mut interrupts = unix::signal(SignalKind::interrupt())?;
    let time_out = async {
        match args.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let work = async {
        announce(run, (server, progress), session).await?;
        if !args.no_wait {
            follow::follow(run, (server, progress), session).await?;
        }
        Ok(End::Complete)
    };
    tokio::select! {
        ended = work => ended,
        _ = interrupts.recv() => Ok(End::Interrupted),
        () = time_out => Ok(End::TimedOut),
    }
}

/// Announces every task, in the order of the file.
async fn announce(
    run: &mut Run,
    (server, progress): (&Server, &mut Progress),
    session: &mut Session,
) -> anyhow::Result<()> {
    let mut entries = run.backlog.entries()?.peekable();
    while entries.peek().is_some() {
        let (mut body, mut length) = (String::from("["), 0);
        while length < BATCH && body.len() < BATCH_BYTES {
            let Some(entry) = entries.next() else { break };
            if length > 0 {
                body.push(',');
            }
            body.push_str(&entry?);
            length += 1;
        }
        body.push(']');
        let answer = server
            .patiently(|| server.post_text(&["v1", "tasks"], body.clone()))
            .await?;
        let announced: Announced = answer.read()?;
        run.announced.created += announced.created;
        run.announced.known += announced.known;
        progress.announced(run.announced.created + run.announced.known, session);
    }
    Ok(())
}

fn print_report(args: &Args, run: &Run, session: &mut Session) -> anyhow::Result<()> {
    let (backlog, count) = (&run.backlog, |standing| run.backlog.count(standing) as u64);
    let Announced { created, known } = run.announced;
    let twice = match backlog.duplicates {
        0 => String::new(),
        duplicates => format!(", {duplicates} more than once"),
    };
    session.print(&format!(
        "{}{twice}: {created} new, {known} known before",
        human::counted(backlog.len() as u64, "task")
    ))?;
    if args.no_wait {
        return Ok(());
    }
    let open = count(Standing::Open) + count(Standing::Stuck);
    session.print(&format!(
        "{} found, {} failed, {} unknown to the provider, {open} still open",
        count(Standing::Found),
        count(Standing::Failed),
        count(Standing::Unknown),
    ))?;
    let Files { announced, stored } = run.followed.files;
    if announced > 0 {
        let files = human::counted(announced, "file");
        session.print(&format!(
            "{files} announced, {stored} of them stored when looked at"
        ))?;
    }
    list("unknown", &[Standing::Unknown], backlog, session)?;
    list("open", &[Standing::Stuck, Standing::Open], backlog, session)?;
    if let (Some(why), true) = (&run.followed.waits, open > 0) {
        session.note(&format!("of those still open it is said: {why}"));
    }
    Ok(())
}

/// The first ids of some standings.
fn list(what: &str, standings: &[Standing], backlog: &Backlog, session: &mut Session) -> anyhow::Result<()> {
    let total: usize = standings.iter().map(|standing| backlog.count(*standing)).sum();
    let mut listed = 0;
    for standing in standings {
        let mut walk = backlog.walk(*standing)?;
        while listed < LISTED
            && let Some((_, item)) = walk.next(backlog)?
        {
            session.print(&format!("  {what}  {}", item.task_id))?;
            listed += 1;
        }
    }
    if total > listed {
        session.note(&format!("  {} more are {what}; --json lists all", total - listed));
    }
    Ok(())
}

/// One object, an id a line: a million of them need not fit into memory.
fn print_json(args: &Args, run: &Run, session: &mut Session) -> anyhow::Result<()> {
    let (backlog, count) = (&run.backlog, |standing| run.backlog.count(standing));
    let mut head = json!({
        "tasks": backlog.len(),
        "duplicates": backlog.duplicates,
        "new": run.announced.created,
        "known": run.announced.known,
    });
    if args.no_wait {
        session.print(&head.to_string())?;
        return Ok(());
    }
    head["found"] = count(Standing::Found).into();
    head["failed"] = count(Standing::Failed).into();
    head["files"] = json!({"announced": run.followed.files.announced, "stored": run.followed.files.stored});
    head["waits"] = json!(run.followed.waits);
    let head = head.to_string();
    session.print(head.strip_suffix('}').expect("an object ends so"))?;
    for (name, standings) in [
        ("unknown", &[Standing::Unknown][..]),
        ("open", &[Standing::Stuck, Standing::Open]),
    ] {
        session.print(&format!(",\"{name}\":["))?;
        let mut separator = "";
        for standing in standings {
            let mut walk = backlog.walk(*standing)?;
            while let Some((_, item)) = walk.next(backlog)? {
                session.print(&format!("{separator}{}", json!(item.task_id)))?;
                separator = ",";
            }
        }
        session.print("]")?;
    }
    session.print("}")?;
    Ok(())
}
