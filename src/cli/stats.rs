//! `stats`: what a running server counts.

use super::answers::{ApiPause, Stats};
use super::client::{Server, ServerArgs};
use super::human::{self, Card};
use super::{Exit, Session};
use crate::clock::Millis;

/// Arguments of `stats`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    server: ServerArgs,
}

/// Shows the counts.
pub(super) async fn run(mut args: Args, session: &mut Session) -> anyhow::Result<Exit> {
    // It counts all sources together.
    args.server.take_source();
    let server = Server::new(&args.server, session)?;
    let answer = server.get(&["v1", "stats"], &[]).await?;
    if args.server.json {
        session.print(answer.0.trim_end())?;
    } else {
        session.print(card(&answer.read()?, session.clock.now()).text())?;
    }
    Ok(Exit::Fine)
}

fn card(stats: &Stats, now: Millis) -> Card {
    let mut card = Card::default();
    card.field("tasks", &by_state(&stats.tasks));
    card.field("files", &by_state(&stats.files));
    card.field("stored", &human::size(stats.stored_bytes));
    card.moment("oldest", stats.oldest_queued_at.as_deref(), now);
    if let Some(paused) = &stats.paused {
        let since = stats.paused_since.as_deref().map(|at| human::age(now, at));
        let since = since.map(|age| format!(" (since {age})")).unwrap_or_default();
        card.field("paused", &format!("{}{since}", human::clean(paused)));
    }
    if stats.repaired > 0 {
        card.field(
            "repaired",
            &format!(
                "{} whose callback never came; is the callback URL right?",
                human::counted(stats.repaired, "task")
            ),
        );
    }
    let open = stats.asks.open.iter();
    let open: Vec<String> = open
        .map(|(reason, count)| format!("{count} {}", human::clean(reason)))
        .collect();
    card.field("asking", &open.join(", "));
    for (source, pause) in &stats.asks.paused {
        card.field("not asked", &not_asked(source, pause, now));
    }
    if let Some(scrub) = &stats.scrub {
        let ended = scrub.ended_at.as_deref().map(|at| human::age(now, at));
        let wrong = match scrub.damaged + scrub.missing + scrub.unreadable {
            0 => "all whole".to_owned(),
            wrong => format!("{} wrong", human::counted(wrong, "file")),
        };
        card.field(
            "last scrub",
            &format!(
                "{}: {} read, {wrong}",
                ended.unwrap_or_default(),
                human::counted(scrub.files, "file")
            ),
        );
    }
    card
}

/// `2 succeeded, 1 failed`
fn by_state(counts: &std::collections::BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    let counts = counts
        .iter()
        .map(|(state, count)| format!("{count} {}", human::state(state)));
    counts.collect::<Vec<_>>().join(", ")
}

fn not_asked(source: &str, pause: &ApiPause, now: Millis) -> String {
    let until = pause.until.as_deref().map(|at| human::age(now, at));
    format!(
        "{}: {} (again {})",
        human::clean(source),
        human::clean(&pause.detail),
        until.unwrap_or_default()
    )
}
