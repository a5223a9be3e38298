//! A client of the provider's API that submits one request after the other, of every sort there is.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use url::Url;

use crate::config::Secret;
use crate::simulate::{Event, Kind};

/// What the films are said to show.
const PROMPTS: [&str; 6] = [
    "A red fox in the snow",
    "A lighthouse in a storm, seen from the sea",
    "Rain on a tin roof, close-up",
    "A paper boat on its way down a gutter",
    "Clouds over the steppe, time-lapse",
    "An old tram climbs a hill at dusk",
];

/// Where to submit, and whom to tell.
#[derive(Debug, Clone)]
pub(in super::super) struct Target {
    /// The API, without a slash at the end.
    pub(in super::super) api: String,
    /// Its key.
    pub(in super::super) key: Secret,
    /// The `callBackUrl` of everything submitted; none where the API puts in its own.
    pub(in super::super) callback: Option<Url>,
}

/// What submits.
#[derive(Debug)]
pub(in super::super) struct Trickle {
    target: Target,
    client: reqwest::Client,
    made: usize,
    /// What is asked for once a task is finished.
    then: HashMap<String, Then>,
}

/// What follows a task that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Uhd,
    Extend,
}

impl Trickle {
    pub(in super::super) fn new(target: Target) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(20))
            // It talks to this machine only, by plain HTTP.
            .tls_certs_only([])
            .build()
            .context("cannot set up an HTTP client")?;
        Ok(Self {
            target,
            client,
            made: 0,
            then: HashMap::new(),
        })
    }

    /// How many tasks it submitted, what followed them aside.
    pub(in super::super) fn made(&self) -> usize {
        self.made
    }

    /// Submits the next task: upright and wide films, some to be upgraded or extended, and jobs of the Market.
    pub(in super::super) async fn next(&mut self) -> anyhow::Result<()> {
        let nth = self.made;
        let prompt = PROMPTS[nth % PROMPTS.len()];
        let film = |ratio| json!({ "prompt": prompt, "model": "veo3_fast", "aspect_ratio": ratio });
        let (endpoint, body) = match nth % 5 {
            1 => ("veo/generate", film("9:16")),
            3 => (
                "jobs/createTask",
                json!({ "model": "veo-3-1", "input": { "prompt": prompt, "duration": 8 } }),
            ),
            _ => ("veo/generate", film("16:9")),
        };
        let answer = self.submit(endpoint, body, Kind::Video).await?;
        self.made += 1;
        let task_id = answer["taskId"].as_str().context("the answer names no task")?;
        let then = match nth % 5 {
            2 => Then::Uhd,
            4 => Then::Extend,
            _ => return Ok(()),
        };
        self.then.insert(task_id.to_owned(), then);
        Ok(())
    }

    /// Asks for what is to follow a task that is finished, if anything is.
    pub(in super::super) async fn follow(&mut self, event: &Event) -> anyhow::Result<()> {
        let Event::Finished {
            task_id,
            kind: Kind::Video,
            code,
            ..
        } = event
        else {
            return Ok(());
        };
        let (endpoint, body, kind) = match self.then.remove(task_id) {
            Some(Then::Uhd) if *code == 200 => (
                "veo/get-4k-video",
                json!({ "taskId": task_id, "index": 0 }),
                Kind::Uhd,
            ),
            Some(Then::Extend) if *code == 200 => {
                let body = json!({ "taskId": task_id, "prompt": "and then the sun comes out" });
                ("veo/extend", body, Kind::Video)
            }
            _ => return Ok(()),
        };
        self.submit(endpoint, body, kind).await?;
        Ok(())
    }

    async fn submit(&self, endpoint: &str, mut body: Value, kind: Kind) -> anyhow::Result<Value> {
        if let Some(callback) = &self.target.callback {
            let mut callback = callback.clone();
            if kind != Kind::Video {
                // The callback itself does not say what it is about.
                callback.query_pairs_mut().append_pair("kind", kind.as_str());
            }
            body["callBackUrl"] = json!(callback);
        }
        self.post(endpoint, &body).await
    }

    async fn post(&self, endpoint: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .client
            .post(format!("{}/api/v1/{endpoint}", self.target.api))
            .bearer_auth(self.target.key.expose())
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body.to_string());
        let answer = request.send().await.map_err(reqwest::Error::without_url)?;
        let text = answer.text().await.map_err(reqwest::Error::without_url)?;
        let answer: Value = serde_json::from_str(&text).context("the answer is not JSON")?;
        match &answer["code"] {
            code if *code == 200 => Ok(answer["data"].clone()),
            code => anyhow::bail!("{endpoint} was answered {code}: {}", answer["msg"]),
        }
    }
}

/// The next thing that happened; `None` once nothing happens any more. What was missed by being slow is passed over.
pub(in super::super) async fn next_event(events: &mut Receiver<Event>) -> Option<Event> {
    loop {
        match events.recv().await {
            Ok(event) => return Some(event),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return None,
        }
    }
}
