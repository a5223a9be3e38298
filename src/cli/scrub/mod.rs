//! `scrub`: whether all stored files are still whole, asked of a running server or found out without one.

use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::signal::unix::{self, SignalKind};

use super::answers::{Finding, Scrub, Scrubs};
use super::client::{Server, ServerArgs};
use super::{Exit, Session, human};

mod offline;

/// How often it is asked how far the scrub is.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 250 });

/// Arguments of `scrub`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    /// Fetch what is damaged or missing again, while its source has it
    #[arg(long)]
    repair: bool,
    /// Work on the data directory itself, while no server runs on it
    #[arg(long, conflicts_with_all = ["server", "token"])]
    offline: bool,
    /// Where the database lies [default: as configured]
    #[arg(long, value_name = "DIR", requires = "offline")]
    data_dir: Option<PathBuf>,
}

/// Scrubs and shows what was found. Fine only if everything was looked at and is whole.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let bar = bar()?;
    let ended = if args.offline {
        offline::scrub(&args, session, &bar).await
    } else {
        of_server(&args, session, &bar).await
    };
    bar.finish_and_clear();
    let ended = ended?;
    let scrub: Scrub = serde_json::from_value(ended.clone())?;
    if args.server.json {
        session.print(&ended.to_string())?;
    } else {
        show(&scrub, session)?;
    }
    if scrub.complete && scrub.wrong() == 0 {
        return Ok(Exit::Fine);
    }
    Ok(Exit::Failed)
}

/// Drawn on standard error, if that is a terminal.
fn bar() -> anyhow::Result<ProgressBar> {
    let template = "{bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left {msg}";
    Ok(ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?))
}

fn draw(bar: &ProgressBar, scrub: &Scrub) {
    bar.set_length(scrub.bytes_total.max(scrub.bytes));
    bar.set_position(scrub.bytes);
    let wrong = match scrub.wrong() {
        0 => String::new(),
        wrong => format!("({wrong} not whole)"),
    };
    let waits = scrub
        .waits
        .as_deref()
        .map(|waits| format!("waits: {}", human::clean(waits)));
    bar.set_message(waits.unwrap_or(wrong));
}

/// Has the server scrub and follows it; stops it where the person has had enough.
async fn of_server(args: &Args, session: &Session, bar: &ProgressBar) -> anyhow::Result<Value> {
    let server = Server::new(&args.server, session)?;
    // From here on, so that no scrub is begun which the person cannot stop.
    let mut interrupts = unix::signal(SignalKind::interrupt())?;
    let begun: Scrub = server
        .post_json(&["v1", "scrub"], &json!({"repair": args.repair}))
        .await?
        .read()?;
    tokio::select! {
        ended = follow(&server, &begun.id, bar) => return ended,
        _ = interrupts.recv() => {}
    }
    // If it has ended by now there is nothing to stop.
    server.delete(&["v1", "scrub"]).await.ok();
    follow(&server, &begun.id, bar).await
}

/// The scrub once it has ended.
async fn follow(server: &Server, id: &str, bar: &ProgressBar) -> anyhow::Result<Value> {
    loop {
        let answer = server.get(&["v1", "scrub"], &[]).await?;
        let scrubs: Scrubs = answer.read()?;
        match (scrubs.running, scrubs.last) {
            (Some(running), _) if running.id == id => draw(bar, &running),
            (_, Some(last)) if last.id == id => return Ok(answer.read::<Value>()?["last"].take()),
            // Cut off by a restart of the server, which goes on with it.
            _ => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn show(scrub: &Scrub, session: &mut Session) -> anyhow::Result<()> {
    if !scrub.findings.is_empty() {
        let rows = scrub.findings.iter().map(row).collect();
        session.print(&human::table(&["*WRONG", "TASK", "SOURCE", "FILE", "WHAT"], rows))?;
    }
    let listed = scrub.findings.len() as u64;
    if scrub.wrong() > listed {
        session.note(&format!("{} more are not listed", scrub.wrong() - listed));
    }
    let looked_at = format!(
        "{}, {}",
        human::counted(scrub.files, "file"),
        human::size(scrub.bytes)
    );
    let found = match scrub.wrong() {
        0 if scrub.complete => "all whole".to_owned(),
        0 => "nothing wrong so far".to_owned(),
        _ => format!(
            "{} damaged, {} missing, {} unreadable",
            scrub.damaged, scrub.missing, scrub.unreadable
        ),
    };
    let repaired = match scrub.repaired {
        0 => String::new(),
        repaired => format!("; {repaired} repaired or queued to be fetched again"),
    };
    session.print(&format!("{looked_at}: {found}{repaired}"))?;
    if let Some(reason) = &scrub.reason {
        session.note(&human::clean(reason));
    } else if !scrub.complete {
        session.note(&format!(
            "stopped after {} of {}",
            scrub.files,
            human::counted(scrub.files_total, "file")
        ));
    }
    Ok(())
}

fn row(finding: &Finding) -> Vec<String> {
    let then = if finding.queued {
        "; it is fetched again"
    } else {
        ""
    };
    vec![
        human::state("failed").replace("failed", &human::clean(&finding.wrong)),
        human::clean(&finding.task_id),
        human::clean(&finding.source),
        human::clean(&finding.name),
        format!("{}{then}", human::clean(&finding.detail)),
    ]
}
