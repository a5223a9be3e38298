//! The server's live events, and how a connection that broke is made again.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::Response;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

use super::super::Session;
use super::super::client::Server;

/// The server breaks any silence long before.
const SILENCE: Duration = Duration::from_mins(1);
/// How long a server that was there may be gone, and how often it is tried meanwhile.
const RESTART: Duration = Duration::from_mins(2);
const RETRY_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });
/// More than any event has.
const MOST_BYTES: usize = 64 << 20;

/// What was told.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) name: String,
    pub(super) id: Option<i64>,
    pub(super) data: Box<RawValue>,
}

/// The events that a query selects.
pub(super) struct Events<'a> {
    server: &'a Server,
    query: Vec<(&'a str, &'a str)>,
    open: Option<Response>,
    unread: Vec<u8>,
    last_id: Option<String>,
    was_noted: bool,
}

impl<'a> Events<'a> {
    /// Opens them; from then on nothing is missed.
    pub(super) async fn open(server: &'a Server, query: Vec<(&'a str, &'a str)>) -> anyhow::Result<Self> {
        let mut events = Self {
            open: Some(server.follow(&query, None).await?),
            server,
            query,
            unread: Vec::new(),
            last_id: None,
            was_noted: false,
        };
        // It tells at once where we are, in case the connection breaks before anything happens.
        if let Some(opening) = events.block().await {
            events.note_id(&opening);
        }
        Ok(events)
    }

    /// The next one, for which a connection that broke is made again.
    pub(super) async fn next(&mut self, session: &mut Session) -> anyhow::Result<Event> {
        loop {
            let Some(block) = self.block().await else {
                self.reopen(session).await?;
                continue;
            };
            let id = self.note_id(&block);
            let name = field(&block, "event: ");
            let data = field(&block, "data: ");
            if let (Some(name), Some(data)) = (name, data) {
                return Ok(Event {
                    name: name.to_owned(),
                    id,
                    data: RawValue::from_string(data.to_owned())
                        .context("the server's event is not what was expected")?,
                });
            }
        }
    }

    fn note_id(&mut self, block: &str) -> Option<i64> {
        let id = field(block, "id: ")?;
        self.last_id = Some(id.to_owned());
        id.parse().ok()
    }

    /// What comes up to an empty line; `None` if the connection ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8_lossy(&block).into_owned());
            }
            let chunk = timeout(SILENCE, self.open.as_mut()?.chunk()).await;
            match chunk {
                Ok(Ok(Some(bytes))) if self.unread.len() < MOST_BYTES => {
                    self.unread.extend_from_slice(&bytes);
                }
                _ => {
                    self.open = None;
                    self.unread.clear();
                }
            }
        }
    }

    async fn reopen(&mut self, session: &mut Session) -> anyhow::Result<()> {
        if !self.was_noted {
            session.note("the connection ended; making it again, from where it was");
            self.was_noted = true;
        }
        let give_up_at = Instant::now() + RESTART;
        loop {
            tokio::time::sleep(RETRY_PAUSE).await;
            match self.server.follow(&self.query, self.last_id.as_deref()).await {
                Ok(response) => {
                    self.open = Some(response);
                    return Ok(());
                }
                Err(error) if error.is_passing() && Instant::now() < give_up_at => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The rest of the line that begins so.
fn field<'b>(block: &'b str, name: &str) -> Option<&'b str> {
    block.lines().find_map(|line| line.strip_prefix(name))
}
