//! The simulated provider, and what is said to it.

use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::shutdown::Tasks;
use reelhook::simulate::{Account, Ledger, Settings, Simulator};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, RUNTIME, client, until};

/// A running simulator; it stops when dropped.
pub(crate) struct Provider {
    pub(crate) simulator: Simulator,
    tasks: Tasks,
    http: reqwest::Client,
}

impl Provider {
    /// One on which no test has to wait: tasks take 50 ms, failed callbacks are repeated at once, and no rate is too high.
    pub(crate) fn quick() -> Settings {
        let mut settings = Settings {
            takes: Duration::from_millis(50),
            film_bytes: 16 << 10,
            account: Account {
                submissions: None,
                queries: None,
                ..Account::default()
            },
            ..Settings::default()
        };
        settings.callbacks.spacing = Duration::from_millis(10);
        settings
    }

    pub(crate) async fn start(settings: Settings) -> Self {
        Self::with_clock(settings, &Clock::system()).await
    }

    pub(crate) async fn with_clock(settings: Settings, clock: &Clock) -> Self {
        let (tasks, clock) = (Tasks::new(), clock.clone());
        let of_it = tasks.clone();
        // What it spawns belongs to the runtime that it is started on.
        let started = RUNTIME.spawn(async move { Simulator::start(settings, clock, of_it).await });
        Self {
            simulator: started.await.unwrap().expect("the simulator starts"),
            tasks,
            http: client(),
        }
    }

    /// A request with the right key to an endpoint, such as `veo/generate`.
    pub(crate) fn request(&self, method: Method, endpoint: &str) -> reqwest::RequestBuilder {
        self.bare(method, endpoint)
            .bearer_auth(self.simulator.key().expose())
    }

    /// The same without a key.
    pub(crate) fn bare(&self, method: Method, endpoint: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}/api/v1/{endpoint}", self.simulator.url()))
    }

    /// What an endpoint answers, which is HTTP 200 whatever it says.
    pub(crate) async fn get(&self, endpoint: &str) -> Value {
        said(self.request(Method::GET, endpoint)).await
    }

    pub(crate) async fn post(&self, endpoint: &str, body: &Value) -> Value {
        let request = self.request(Method::POST, endpoint);
        said(
            request
                .header("content-type", "application/json")
                .body(body.to_string()),
        )
        .await
    }

    /// Submits, and gives the id of the task.
    pub(crate) async fn submit(&self, endpoint: &str, body: &Value) -> String {
        let answer = self.post(endpoint, body).await;
        assert_eq!(answer["code"], 200, "{answer}");
        answer["data"]["taskId"].as_str().expect("an id").to_owned()
    }

    /// A task with a prompt and these parameters.
    pub(crate) async fn generate(&self, parameters: &Value) -> String {
        let mut body = json!({ "prompt": "A red fox in the snow" });
        for (name, value) in parameters.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.submit("veo/generate", &body).await
    }

    /// A file as its host answers.
    pub(crate) async fn file(&self, url: &str, headers: &[(&str, &str)]) -> Answer {
        let request = headers.iter().fold(self.http.get(url), |request, (name, value)| {
            request.header(*name, *value)
        });
        Answer::of(request).await
    }

    /// The ledger once everything is finished and all callbacks are over.
    pub(crate) async fn settled(&self) -> Ledger {
        let probe = async || Some(self.simulator.ledger()).filter(Ledger::is_settled);
        until("everything is finished and announced", probe).await
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.tasks.begin_drain();
    }
}

async fn said(request: reqwest::RequestBuilder) -> Value {
    let answer = Answer::of(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json;charset=UTF-8");
    answer.json()
}
