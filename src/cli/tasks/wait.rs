//! `tasks wait`: until a task is finished and its files are settled.

use std::time::Duration;

use jiff::fmt::friendly::{SpanParser, SpanPrinter};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::super::answers::Task;
use super::super::client::{Answer, ClientError, Server};
use super::super::{Exit, Session};
use super::card;
use crate::provider::TaskId;

/// How long the server is asked to hold one request.
const HOLD: Duration = Duration::from_secs(30);

/// How long to wait before asking again: nothing says that the server held the request.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 2_000 });

/// Arguments of `tasks wait`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The task's id; the server need not know it yet
    task_id: TaskId,
    /// How long to wait, such as 90s or 2h
    #[arg(long, default_value = "10m", value_parser = duration)]
    timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    SpanParser::new()
        .parse_unsigned_duration(text)
        .map_err(|_| "write a duration such as 90s or 10m")
}

/// Waits, then shows the task. Fine only if it succeeded and every file is stored.
pub(super) async fn run(
    args: &Args,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let Some(answer) = settled(args, server, session).await? else {
        let waited = SpanPrinter::new().unsigned_duration_to_string(&args.timeout);
        session.note(&format!("{} is not settled after {waited}", args.task_id));
        return Ok(Exit::Failed);
    };
    let task: Task = answer.read()?;
    if json {
        session.print(answer.0.trim_end())?;
    } else {
        session.print(card::card(&task, server, session.clock.now()).text())?;
    }
    if task.is_stored() {
        return Ok(Exit::Fine);
    }
    if task.state == "succeeded" && task.files.is_empty() {
        session.note("it succeeded, but announced no files");
    }
    Ok(Exit::Failed)
}

/// The answer once the task is settled; `None` if it is not in time.
async fn settled(args: &Args, server: &Server, session: &mut Session) -> anyhow::Result<Option<Answer>> {
    let deadline = Instant::now() + args.timeout;
    let mut was_reached = false;
    let mut was_noted = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // At least one round with the server's current word, even with `--timeout 0s`.
        match ask(&args.task_id, server, left.min(HOLD)).await {
            Ok(answer) if answer.read::<Task>()?.is_settled() => return Ok(Some(answer)),
            Ok(_) => {}
            // Its callback may still come: the caller knows the id before we do.
            Err(ClientError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => {
                if !was_noted {
                    session.note(&format!(
                        "{} is not known yet; waiting for its callback",
                        args.task_id
                    ));
                    was_noted = true;
                }
            }
            // A server that was there a moment ago is being restarted, or is draining.
            Err(error) if was_reached && error.is_passing() => {}
            Err(error) => return Err(error.into()),
        }
        was_reached = true;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        tokio::time::sleep(PAUSE.min(left)).await;
    }
}

async fn ask(task_id: &TaskId, server: &Server, hold: Duration) -> Result<Answer, ClientError> {
    let wait = format!("{}s", hold.as_secs());
    let url = server.url(&["v1", "tasks", task_id.as_str()], &[("wait", &wait)]);
    server.get_within(url, hold).await
}
