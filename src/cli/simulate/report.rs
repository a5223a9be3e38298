//! What a simulator tells of itself: where it is, what happens, what it all came to.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::super::human::{self, FAINT, GOOD, painted};
use crate::simulate::{CallbackState, Event, Kind, Ledger, Simulator, TaskState};

/// Where it is and what to write into a configuration, so that a server works with it.
pub(super) fn greeting(simulator: &Simulator) -> String {
    let settings = simulator.settings();
    let (url, key) = (simulator.url(), simulator.key().expose());
    let mut text = format!("simulated provider at {url}, key {key}, seed {}\n", settings.seed);
    let mut line = |line: &str| {
        let _ = write!(text, "\n  {line}");
    };
    line("[sources.kie]");
    line(&format!("api_url = \"{url}\""));
    line(&format!("api_key = \"{key}\""));
    match &settings.hmac_key {
        Some(key) => line(&format!("hmac_keys = [\"{}\"]", key.expose())),
        None => line("# Callbacks are not signed; --hmac-key signs them."),
    }
    line("[egress]");
    line(&format!("allow_cidrs = [\"{}\"]", network(simulator)));
    let _ = write!(text, "\n\nledger at {url}/_sim/ledger\n");
    text
}

/// What a server has to be permitted to fetch from.
fn network(simulator: &Simulator) -> String {
    let listen = simulator.settings().media_listen.unwrap_or(simulator.addr());
    match listen.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => {
            if ip.is_ipv4() {
                "127.0.0.0/8".to_owned()
            } else {
                "::1/128".to_owned()
            }
        }
        ip => ip.to_string(),
    }
}

/// The same for a program, as one line.
pub(super) fn greeting_json(simulator: &Simulator) -> Value {
    json!({
        "event": "listening",
        "url": simulator.url(),
        "key": simulator.key().expose(),
        "seed": simulator.settings().seed,
    })
}

/// What happened, in a line.
pub(super) fn line(event: &Event) -> String {
    match event {
        Event::Accepted {
            task_id,
            family,
            kind,
            ..
        } => {
            let what = match kind {
                Kind::Video => format!("{family:?}").to_lowercase(),
                kind => kind.as_str().to_owned(),
            };
            format!("{task_id}  accepted  {what}")
        }
        Event::Finished {
            task_id,
            kind,
            code: 200,
            ..
        } => {
            format!("{task_id}  {}  {}", painted(GOOD, "finished"), kind.as_str())
        }
        Event::Finished {
            task_id,
            kind,
            code,
            msg,
            ..
        } => {
            let word = human::state("failed");
            format!(
                "{task_id}  {word}    {} {code}: {}",
                kind.as_str(),
                human::brief(msg, 60)
            )
        }
        Event::Called {
            task_id,
            kind,
            copy,
            attempt,
            status,
            ..
        } => {
            let status = status.map_or("no answer".to_owned(), |status| status.to_string());
            let again = if *copy > 0 { ", a duplicate" } else { "" };
            format!(
                "{task_id}  callback  {} try {attempt}{again}: {status}",
                kind.as_str()
            )
        }
        Event::Dropped { task_id, kind, .. } => {
            format!(
                "{task_id}  {}   {} is never announced",
                painted(FAINT, "dropped"),
                kind.as_str()
            )
        }
    }
}

/// How many there are of each.
#[derive(Debug, Default)]
struct Totals {
    tasks: usize,
    /// Succeeded, failed, not finished.
    results: [usize; 3],
    /// Answered, given up, dropped, not over.
    callbacks: [usize; 4],
}

impl Totals {
    fn of(ledger: &Ledger) -> Self {
        let mut totals = Self {
            tasks: ledger.tasks.len(),
            ..Self::default()
        };
        for part in ledger.tasks.iter().flat_map(|task| &task.parts) {
            totals.results[match part.state {
                TaskState::Succeeded => 0,
                TaskState::Failed => 1,
                TaskState::Generating => 2,
            }] += 1;
            let sort = match part.callback.state {
                CallbackState::Answered => 0,
                CallbackState::Failed => 1,
                CallbackState::Dropped => 2,
                CallbackState::Pending => 3,
                CallbackState::None => continue,
            };
            totals.callbacks[sort] += 1;
        }
        totals
    }

    /// Tables for a person.
    fn text(&self) -> String {
        let [succeeded, failed, generating] = self.results;
        let [answered, unanswered, dropped, pending] = self.callbacks;
        let rows = [
            ("tasks", self.tasks),
            ("results succeeded", succeeded),
            ("results failed", failed),
            ("results not finished", generating),
            ("callbacks answered 200", answered),
            ("callbacks given up", unanswered),
            ("callbacks dropped", dropped),
            ("callbacks not over", pending),
        ];
        let rows = rows.map(|(what, count)| vec![what.to_owned(), count.to_string()]);
        human::table(&["WHAT", "COUNT"], rows.into())
    }

    /// The same for a program.
    fn json(&self) -> Value {
        let [succeeded, failed, generating] = self.results;
        let [answered, unanswered, dropped, pending] = self.callbacks;
        json!({
            "event": "ended",
            "tasks": self.tasks,
            "results": { "succeeded": succeeded, "failed": failed, "generating": generating },
            "callbacks": { "answered": answered, "failed": unanswered, "dropped": dropped, "pending": pending },
        })
    }
}

/// What it all came to.
pub(super) fn ending(ledger: &Ledger, json: bool) -> String {
    let totals = Totals::of(ledger);
    if json {
        totals.json().to_string()
    } else {
        format!("\n{}", totals.text())
    }
}
