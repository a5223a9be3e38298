//! `deliveries`: what arrived at a running server, and settling what contradicts itself.

use std::time::Duration;

use super::answers::{Delivery, DeliveryPage, Judged, Reverified};
use super::client::{Server, ServerArgs};
use super::human::{self, Card, STRONG, painted};
use super::tasks::When;
use super::{Exit, Session, UsageError};
use crate::clock::Millis;
use crate::http::{Arrived, Proof, pretty};
use crate::ingest::REASONS;
use crate::provider::TaskId;

/// How much longer than usual all rejected deliveries may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// Arguments of `deliveries`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List deliveries, newest first
    List(ListArgs),
    /// Show one delivery as it arrived
    Show {
        /// The delivery's id
        #[arg(value_parser = delivery_id)]
        id: String,
    },
    /// Settle a conflict in favour of this delivery, or answer for one whose token was wrong
    Accept {
        /// The delivery's id
        #[arg(value_parser = delivery_id)]
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Verify rejected deliveries again, after a key was put right
    Reverify(ReverifyArgs),
}

#[derive(Debug, clap::Args)]
struct ReverifyArgs {
    /// The deliveries' ids
    #[arg(value_parser = delivery_id, value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All rejected ones; --source, --reason and --since choose among them
    #[arg(long)]
    all: bool,
    /// Only those that were refused for this reason: a word of `deliveries list`
    #[arg(long, requires = "all", value_parser = REASONS)]
    reason: Option<String>,
    /// Only those received since: a time such as 2026-11-21T09:30:00Z, or how long ago, such as 2h
    #[arg(long, value_name = "TIME", requires = "all")]
    since: Option<When>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those of this task
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Only those that were judged so
    #[arg(long, value_parser = ["accepted", "duplicate", "conflict", "rejected"])]
    verdict: Option<String>,
    /// Only those with this reason
    #[arg(long)]
    reason: Option<String>,
    /// How many, at most 200
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    limit: u16,
    /// Where the page before ended
    #[arg(long)]
    cursor: Option<String>,
}

/// An id that can stand in a path as it is.
fn delivery_id(text: &str) -> Result<String, &'static str> {
    let permitted = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if text.is_empty() || !text.bytes().all(permitted) {
        return Err("a delivery's id is made of A-Z a-z 0-9 _ -, as `reelhook deliveries list` shows it");
    }
    Ok(text.to_owned())
}

/// Runs one of the commands.
pub(super) async fn run(args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    let server = Server::new(&args.server, session)?;
    let json = args.server.json;
    match args.command {
        Command::List(list) => print_list(&list, &server, json, session).await,
        Command::Show { id } => show(&id, &server, json, session).await,
        Command::Accept { id, yes } => {
            if !yes && !confirmed(&id, &server, session).await? {
                session.note("nothing was accepted");
                return Ok(Exit::Failed);
            }
            accept(&id, &server, json, session).await
        }
        Command::Reverify(which) if which.all => reverify_all(&which, &server, json, session).await,
        Command::Reverify(which) => reverify(&which.ids, &server, json, session).await,
    }
}

async fn print_list(
    args: &ListArgs,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let path = match &args.task {
        Some(task) => vec!["v1", "tasks", task.as_str(), "deliveries"],
        None => vec!["v1", "deliveries"],
    };
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    query.extend(args.verdict.as_deref().map(|verdict| ("verdict", verdict)));
    query.extend(args.reason.as_deref().map(|reason| ("reason", reason)));
    query.extend(args.cursor.as_deref().map(|cursor| ("cursor", cursor)));
    let answer = server.get(&path, &query).await?;
    if json {
        session.print(answer.0.trim_end())?;
        return Ok(Exit::Fine);
    }
    let page: DeliveryPage = answer.read()?;
    if page.deliveries.is_empty() {
        session.note("no deliveries");
    } else {
        let now = session.clock.now();
        let rows = page
            .deliveries
            .iter()
            .map(|delivery| row(delivery, now))
            .collect();
        let headers = [
            "DELIVERY", "TASK", "SOURCE", "ABOUT", "*VERDICT", "REASON", "VIA", "RECEIVED",
        ];
        let spare = ["VIA", "ABOUT", "SOURCE"];
        session.print(&human::table_within(session.width(), (&headers, &spare), rows))?;
    }
    if page.deliveries.iter().any(|delivery| delivery.remedy.is_some()) {
        let program = human::program();
        session.note(&format!(
            "`{program} deliveries show ID` says what to do about one"
        ));
    }
    if let Some(cursor) = page.next_cursor {
        session.note(&format!("there may be more: --cursor {}", human::clean(&cursor)));
    }
    Ok(Exit::Fine)
}

fn row(delivery: &Delivery, now: Millis) -> Vec<String> {
    let text = |text: &Option<String>| text.as_deref().map(human::clean).unwrap_or_default();
    vec![
        human::clean(&delivery.id),
        text(&delivery.task_id),
        text(&delivery.source),
        about(delivery),
        human::state(&delivery.verdict),
        text(&delivery.reason),
        human::clean(&delivery.via),
        delivery
            .received_at
            .as_deref()
            .map(|at| human::age(now, at))
            .unwrap_or_default(),
    ]
}

fn about(delivery: &Delivery) -> String {
    let kind = delivery.kind.as_deref().map(human::clean).unwrap_or_default();
    let index = delivery
        .index
        .map(|index| format!(" {index}"))
        .unwrap_or_default();
    format!("{kind}{index}")
}

async fn show(id: &str, server: &Server, json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    let answer = server.get(&["v1", "deliveries", id], &[]).await?;
    if json {
        session.print(answer.0.trim_end())?;
    } else {
        let shown = card(&answer.read()?, session.clock.now());
        session.print(shown.text())?;
    }
    Ok(Exit::Fine)
}

fn card(delivery: &Delivery, now: Millis) -> Card {
    let mut card = Card::default();
    let clean = |text: &Option<String>| text.as_deref().map(human::clean).unwrap_or_default();
    card.line(&painted(STRONG, &human::clean(&delivery.id)));
    let reason = delivery
        .reason
        .as_deref()
        .map(|reason| format!(" ({})", human::clean(reason)));
    card.field(
        "verdict",
        &format!(
            "{}{}",
            human::state(&delivery.verdict),
            reason.unwrap_or_default()
        ),
    );
    card.field("to do", &clean(&delivery.remedy));
    card.field("task", &clean(&delivery.task_id));
    card.field("source", &clean(&delivery.source));
    card.field("about", &about(delivery));
    card.moment("received", delivery.received_at.as_deref(), now);
    card.field("via", &human::clean(&delivery.via));
    card.field("from", &clean(&delivery.remote_addr));
    let source = delivery.source.as_deref().unwrap_or_default();
    let arrived = Arrived {
        via: &delivery.via,
        verdict: &delivery.verdict,
        reason: delivery.reason.as_deref(),
        has_signature: delivery.headers.contains_key("x-webhook-signature"),
    };
    // What the server's source has for keys and tokens is not told here.
    let proof = Proof::of(&arrived, None);
    card.field("proof", &human::clean(&proof.sentence(source)));
    card.heading("headers");
    for (name, value) in &delivery.headers {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        card.line(&format!("    {}: {}", human::clean(name), human::clean(&value)));
    }
    if let Some(body) = &delivery.body {
        card.heading("body");
        card.line(&human::clean_lines(&pretty(body)));
    } else if let Some(base64) = &delivery.body_base64 {
        card.heading("body, not UTF-8, as Base64");
        card.line(&human::clean(base64));
    }
    card
}

/// Asks the person at the terminal about what was rejected; without one, `--yes` must be there. A conflict is settled
/// without a question, and can be settled otherwise later.
async fn confirmed(id: &str, server: &Server, session: &mut Session) -> anyhow::Result<bool> {
    let delivery: Delivery = server.get(&["v1", "deliveries", id], &[]).await?.read()?;
    if delivery.verdict != "rejected" {
        return Ok(true);
    }
    let task = delivery
        .task_id
        .as_deref()
        .map_or_else(|| "no task".to_owned(), human::clean);
    let question = format!(
        "Delivery {id} about {task} did not have the right token. Do you know that the provider sent it, and answer for that?"
    );
    session.ask(&question)?.ok_or_else(|| {
        let message = "somebody has to answer for a delivery without the right token, and nobody is at a terminal to ask; \
                       add --yes";
        UsageError(message.to_owned()).into()
    })
}

async fn accept(id: &str, server: &Server, json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    let answer = server.post(&["v1", "deliveries", id, "accept"]).await?;
    if json {
        session.print(answer.0.trim_end())?;
        return Ok(Exit::Fine);
    }
    let delivery: Delivery = answer.read()?;
    if delivery.verdict == "conflict" {
        session.print(&format!(
            "delivery {id} passed, and contradicts what stands; accept it again to have it believed"
        ))?;
    } else {
        session.print(&format!("delivery {id} is what we believe from now on"))?;
    }
    Ok(Exit::Fine)
}

/// One after the other; failed if one of them stays rejected.
async fn reverify(
    ids: &[String],
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let mut exit = Exit::Fine;
    for id in ids {
        let answer = server.post(&["v1", "deliveries", id, "reverify"]).await?;
        let judged: Reverified = answer.read()?;
        if judged.verdict == "rejected" {
            exit = Exit::Failed;
        }
        if json {
            session.print(answer.0.trim_end())?;
        } else {
            session.print(&became(id, &judged))?;
        }
    }
    Ok(exit)
}

fn became(id: &str, judged: &Reverified) -> String {
    let text = |text: &Option<String>| text.as_deref().map(human::clean).unwrap_or_default();
    let more = if judged.already {
        "already, nothing to do".to_owned()
    } else if judged.verdict == "rejected" {
        format!("{}: {}", text(&judged.reason), text(&judged.detail))
    } else if judged.queued > 0 {
        format!("{} to fetch", human::counted(judged.queued, "file"))
    } else {
        text(&judged.reason)
    };
    let line = format!("{id}  {}  {more}", human::state(&judged.verdict));
    match &judged.remedy {
        Some(remedy) => format!("{line}\n    {}", human::clean(remedy)),
        None => line,
    }
}

async fn reverify_all(
    which: &ReverifyArgs,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let since = which.since.map(|since| since.rfc3339(session.clock.now()));
    let mut query = Vec::new();
    query.extend(which.reason.as_deref().map(|reason| ("reason", reason)));
    query.extend(since.as_deref().map(|since| ("since", since)));
    let url = server.url(&["v1", "deliveries", "reverify"], &query);
    let answer = server.post_within(url, PATIENCE).await?;
    if json {
        session.print(answer.0.trim_end())?;
        return Ok(Exit::Fine);
    }
    let judged: Judged = answer.read()?;
    let mut card = Card::default();
    card.line(&painted(STRONG, &format!("{} verified again", judged.examined)));
    let counts = [
        ("accepted", judged.accepted),
        ("duplicate", judged.duplicate),
        ("conflict", judged.conflict),
    ];
    for (verdict, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        card.field(verdict, &count.to_string());
    }
    for (reason, count) in &judged.still_rejected {
        card.field("rejected", &format!("{count} still: {}", human::clean(reason)));
    }
    session.print(card.text())?;
    Ok(Exit::Fine)
}
