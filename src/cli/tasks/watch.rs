//! `tasks watch`: what happens on a server, while it does.

use std::collections::{BTreeMap, HashMap};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::super::answers::{File, Task};
use super::super::client::{Answer, ClientError, Server};
use super::super::human::{self, STRONG, painted};
use super::super::{Exit, Session};
use super::card;
use super::events::{Event, Events};
use crate::provider::TaskId;

/// Arguments of `tasks watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these tasks, until all of them are finished; the server need not know them yet. Without any: all, until Ctrl-C
    task_ids: Vec<TaskId>,
}

/// Watches. Of named tasks it is fine only if all succeeded and every file is stored.
pub(super) async fn run(
    args: &Args,
    server: &Server,
    json: bool,
    session: &mut Session,
) -> anyhow::Result<Exit> {
    let ids: Vec<&str> = args.task_ids.iter().map(TaskId::as_str).collect();
    let mut watch = Watch::new(&ids, json);
    let interrupted = async {
        // Without a handler there is nothing to wait for: the signal ends the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let watched = watch.follow(&ids, server, session);
    tokio::select! {
        watched = watched => watched?,
        () = interrupted => {}
    }
    watch.bars.clear()?;
    Ok(watch.exit())
}

/// `file.stored` and `file.failed`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FileEvent {
    task_id: String,
    file: File,
}

/// `file.progress`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ProgressEvent {
    task_id: String,
    name: String,
    bytes: u64,
    total: Option<u64>,
}

/// `queue.paused`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PausedEvent {
    detail: String,
}

/// A download that is under way.
struct Running {
    bar: ProgressBar,
    since: Instant,
}

struct Watch {
    json: bool,
    /// Named tasks: whether all of it is stored, once that is decided.
    named: BTreeMap<String, Option<bool>>,
    /// What was last said of tasks that are not settled.
    said: HashMap<String, String>,
    /// By task and name.
    running: HashMap<(String, String), Running>,
    bars: MultiProgress,
}

impl Watch {
    fn new(ids: &[&str], json: bool) -> Self {
        Self {
            json,
            named: ids.iter().map(|id| ((*id).to_owned(), None)).collect(),
            said: HashMap::new(),
            running: HashMap::new(),
            bars: MultiProgress::new(),
        }
    }

    /// Until all named tasks are settled; for ever, if none is named.
    async fn follow(&mut self, ids: &[&str], server: &Server, session: &mut Session) -> anyhow::Result<()> {
        let joined = ids.join(",");
        let query = if ids.is_empty() {
            Vec::new()
        } else {
            vec![("task_id", joined.as_str())]
        };
        let mut events = Events::open(server, query).await?;
        self.look(ids, server, session).await?;
        while !self.is_over() {
            let event = events.next(session).await?;
            if event.name == "reset" {
                if ids.is_empty() {
                    session.note("more happened than could be told; some of it is left out");
                }
                self.look(ids, server, session).await?;
            }
            self.take(&event, session)?;
        }
        Ok(())
    }

    /// How the named tasks are now.
    async fn look(&mut self, ids: &[&str], server: &Server, session: &mut Session) -> anyhow::Result<()> {
        for id in ids {
            let url = server.url(&["v1", "tasks", id], &[]);
            match server.patiently(|| server.get_at(url.clone())).await {
                Ok(Answer(text)) => {
                    let data = RawValue::from_string(text)?;
                    let name = "task.updated".to_owned();
                    self.take(&Event { name, id: None, data }, session)?;
                }
                Err(ClientError::Refused {
                    status: StatusCode::NOT_FOUND,
                    ..
                }) if !self.json => session.note(&format!("{id} is not known yet; waiting for its callback")),
                Err(ClientError::Refused {
                    status: StatusCode::NOT_FOUND,
                    ..
                }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        !self.named.is_empty() && self.named.values().all(Option::is_some)
    }

    fn exit(&self) -> Exit {
        if self.named.values().all(|stored| *stored == Some(true)) {
            Exit::Fine
        } else {
            Exit::Failed
        }
    }

    fn take(&mut self, event: &Event, session: &mut Session) -> anyhow::Result<()> {
        let data = event.data.get();
        if self.json {
            let told = json!({"event": event.name, "id": event.id, "data": event.data});
            session.print(&told.to_string())?;
            session.flush()?;
        }
        match event.name.as_str() {
            "task.updated" => self.task(&serde_json::from_str(data)?, session),
            "file.progress" => self.progress(&serde_json::from_str(data)?),
            "file.stored" | "file.failed" => self.file(&serde_json::from_str(data)?, session),
            "queue.paused" => {
                let paused: PausedEvent = serde_json::from_str(data)?;
                self.say(
                    &format!("nothing is fetched: {}", human::clean(&paused.detail)),
                    session,
                )
            }
            "queue.resumed" => self.say("downloads go on", session),
            _ => Ok(()),
        }
    }

    fn task(&mut self, task: &Task, session: &mut Session) -> anyhow::Result<()> {
        if let Some(stored) = self.named.get_mut(&task.task_id) {
            // A task that is tried again is open again.
            *stored = task.is_settled().then(|| task.is_stored());
        }
        self.running.retain(|(id, name), running| {
            let mut files = task.files.iter();
            let stays =
                *id != task.task_id || files.any(|file| file.name == *name && file.state == "downloading");
            if !stays {
                self.bars.remove(&running.bar);
            }
            stays
        });
        let line = line_of(task);
        let was_said = self.said.get(&task.task_id) == Some(&line);
        if task.is_settled() {
            self.said.remove(&task.task_id);
        } else {
            self.said.insert(task.task_id.clone(), line.clone());
        }
        if was_said {
            Ok(())
        } else {
            self.say(&line, session)
        }
    }

    fn file(&mut self, event: &FileEvent, session: &mut Session) -> anyhow::Result<()> {
        let FileEvent { task_id, file } = event;
        let running = self.running.remove(&(task_id.clone(), file.name.clone()));
        let took = running.as_ref().map(|running| running.since.elapsed());
        if let Some(running) = running {
            self.bars.remove(&running.bar);
        }
        let mut facts = Vec::new();
        if file.state == "stored" {
            facts.extend(file.bytes.map(human::size));
            facts.extend(took.map(|took| format!("in {} s", took.as_secs())));
            facts.extend(card::shape(file));
        } else if let Some(error) = &file.error {
            facts.push(format!(
                "{} ({})",
                human::clean(&error.detail),
                human::clean(&error.code)
            ));
            facts.extend(error.remedy.as_deref().map(human::clean));
        }
        let name = human::clean(&file.name);
        let line = format!(
            "{}  {name} {}: {}",
            painted(STRONG, &human::clean(task_id)),
            human::state(&file.state),
            facts.join(", ")
        );
        self.say(&line, session)
    }

    fn progress(&mut self, event: &ProgressEvent) -> anyhow::Result<()> {
        let key = (event.task_id.clone(), event.name.clone());
        if !self.running.contains_key(&key) {
            let template = "{msg}  {bar:24} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}";
            let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(template)?);
            bar.set_message(format!(
                "{} {}",
                human::brief(&event.task_id, 24),
                human::brief(&event.name, 24)
            ));
            let bar = self.bars.add(bar);
            bar.reset_eta();
            let since = Instant::now();
            self.running.insert(key.clone(), Running { bar, since });
        }
        if let Some(Running { bar, .. }) = self.running.get(&key) {
            bar.set_length(event.total.unwrap_or(event.bytes).max(event.bytes));
            bar.set_position(event.bytes);
        }
        Ok(())
    }

    /// Writes a line above the bars; to programs the events were told already.
    fn say(&self, line: &str, session: &mut Session) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        self.bars
            .suspend(|| session.print(line).and_then(|()| session.flush()))?;
        Ok(())
    }
}

/// `veo_1  succeeded, 1 of 2 files stored, downloading`, or why it failed and what to do.
fn line_of(task: &Task) -> String {
    let mut facts = vec![human::state(&task.state)];
    let failure = task.failure.as_ref().filter(|_| task.state == "failed");
    facts.extend(failure.map(|failure| human::clean(&failure.kind)));
    if !task.files.is_empty() {
        let stored = task.files.iter().filter(|file| file.state == "stored").count();
        facts.push(format!(
            "{stored} of {} stored",
            human::counted(task.files.len() as u64, "file")
        ));
        if task.media != "stored" {
            facts.push(human::state(&task.media));
        }
    }
    let line = format!(
        "{}  {}",
        painted(STRONG, &human::clean(&task.task_id)),
        facts.join(", ")
    );
    match failure.map(|failure| human::clean(&failure.advice)) {
        Some(advice) => format!("{line}: {advice}"),
        None => line,
    }
}
