//! `deliveries`: what arrived at a running server, and settling what contradicts itself.

use super::answers::{Delivery, DeliveryPage};
use super::client::{Server, ServerArgs};
use super::human::{self, Card, STRONG, painted};
use super::{Exit, Session};
use crate::clock::Millis;
use crate::provider::TaskId;

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
    /// Settle a conflict: believe this delivery
    Accept {
        /// The delivery's id
        #[arg(value_parser = delivery_id)]
        id: String,
    },
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only those of this task
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Only those that were judged so
    #[arg(long, value_parser = ["accepted", "duplicate", "conflict", "rejected"])]
    verdict: Option<String>,
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
        Command::Accept { id } => accept(&id, &server, json, session).await,
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
        session.print(&human::table(&headers, rows))?;
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
    card.field("task", &clean(&delivery.task_id));
    card.field("source", &clean(&delivery.source));
    card.field("about", &about(delivery));
    card.moment("received", delivery.received_at.as_deref(), now);
    card.field("via", &human::clean(&delivery.via));
    card.field("from", &clean(&delivery.remote_addr));
    card.heading("headers");
    for (name, value) in &delivery.headers {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        card.line(&format!("    {}: {}", human::clean(name), human::clean(&value)));
    }
    if let Some(body) = &delivery.body {
        card.heading("body");
        card.line(&human::clean_lines(body));
    } else if let Some(base64) = &delivery.body_base64 {
        card.heading("body, not UTF-8, as Base64");
        card.line(&human::clean(base64));
    }
    card
}

async fn accept(id: &str, server: &Server, json: bool, session: &mut Session) -> anyhow::Result<Exit> {
    let answer = server.post(&["v1", "deliveries", id, "accept"]).await?;
    if json {
        session.print(answer.0.trim_end())?;
    } else {
        session.print(&format!("delivery {id} is what we believe from now on"))?;
    }
    Ok(Exit::Fine)
}
