//! A provider that loses, repeats, reorders and fails, whose links expire: all tasks end as its own ledger says.
//!
//! `REELHOOK_PROVIDER_SEEDS` says how many seeds are tried, two unless it is set; `REELHOOK_PROVIDER_SEED` begins elsewhere.

use std::collections::BTreeSet;
use std::time::Duration;

use reelhook::config::Secret;
use reelhook::simulate::{CallbackState, Family, Kind, Ledger, LedgerPart, Settings, TaskState};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::random::Random;
use crate::support::{Answer, KEY, Program, Provider, Serving, TestServer, client, until, variable};

const TASKS: usize = 300;
/// How many of them get a 4K version as well.
const UPGRADES: usize = 20;

/// Callbacks are over, tries and all, well before anybody is asked.
fn settings(seed: u64) -> Settings {
    let mut settings = Provider::quick();
    settings.seed = seed;
    settings.hmac_key = Some(Secret::new(KEY));
    settings.takes = Duration::from_millis(300);
    settings.jitter = 0.9;
    settings.film_bytes = 8 << 10;
    settings.faults.drop = 0.3;
    settings.faults.duplicate = 0.3;
    settings.faults.fail = 0.1;
    settings.faults.reorder = Duration::from_millis(400);
    settings.links.expire = Duration::from_millis(1_500);
    settings
}

async fn receiver(provider: &Provider) -> TestServer {
    TestServer::with(&format!(
        "reconcile.after = \"8s\"\nreconcile.every = \"200ms\"\nreconcile.max_per_second = 200\n\
         downloads.retry_base = \"20ms\"\n\
         [sources.kie]\nhmac_keys = [\"{KEY}\"]\napi_url = \"{}\"\napi_key = \"{}\"\napi_queries = 1000\n",
        provider.simulator.url(),
        provider.simulator.key().expose()
    ))
    .await
}

/// Submits a task of one of the sorts there are and announces it.
async fn submit(provider: &Provider, server: &TestServer, n: usize) -> String {
    let callback = format!("http://{}/callbacks/kie", server.addr);
    let prompt = format!("Clouds over a harbour, take {n}");
    let (id, family) = match n % 4 {
        0 => {
            let body = json!({"model": "veo-3-1", "callBackUrl": callback, "input": {"prompt": prompt}});
            (provider.submit("jobs/createTask", &body).await, "market")
        }
        1 => {
            let portrait = json!({"prompt": prompt, "aspect_ratio": "9:16", "callBackUrl": callback});
            (provider.generate(&portrait).await, "veo")
        }
        _ => {
            let plain = json!({"prompt": prompt, "callBackUrl": callback});
            (provider.generate(&plain).await, "veo")
        }
    };
    announce(server, json!({"task_id": id, "family": family})).await;
    id
}

async fn announce(server: &TestServer, task: Value) {
    let answer = server.post("/v1/tasks", &task).await;
    assert!(answer.status.is_success(), "{}", answer.text());
}

/// Orders a 4K version of each.
async fn upgrade(provider: &Provider, server: &TestServer, ids: &[&str]) {
    for id in ids {
        let callback = format!("http://{}/callbacks/kie?kind=4k", server.addr);
        let body = json!({"taskId": id, "index": 0, "callBackUrl": callback});
        let answer = provider.post("veo/get-4k-video", &body).await;
        assert_eq!(answer["code"], 200, "{answer}");
        announce(server, json!({"task_id": id, "kind": "4k"})).await;
    }
}

/// Has each extended; the ids of the extensions.
async fn extend(provider: &Provider, server: &TestServer, ids: &[&str]) -> Vec<String> {
    let mut extensions = Vec::new();
    for id in ids {
        let callback = format!("http://{}/callbacks/kie", server.addr);
        let body = json!({"taskId": id, "prompt": "And then a boat comes in", "callBackUrl": callback});
        let extension = provider.submit("veo/extend", &body).await;
        announce(server, json!({"task_id": extension, "family": "veo-extend"})).await;
        extensions.push(extension);
    }
    extensions
}

/// What there is to say of a part, whoever says it: how it ended, and its files.
type Truth = (String, BTreeSet<(String, u64, String)>);

fn of_ledger(part: &LedgerPart) -> Truth {
    let state = match part.state {
        TaskState::Succeeded => "succeeded",
        TaskState::Failed => "failed",
        TaskState::Generating => "pending",
    };
    let word = |value: Value| value.as_str().unwrap().to_owned();
    let files = part.files.iter();
    let files = files.map(|file| {
        let role = word(serde_json::to_value(file.role).unwrap());
        (role, u64::from(file.n), file.sha256.clone())
    });
    (state.to_owned(), files.collect())
}

fn of_task(task: &Value, kind: &str) -> Truth {
    let of_kind = |list: &str| -> Vec<Value> {
        let all = task[list].as_array().unwrap().iter();
        all.filter(|one| one["kind"] == kind).cloned().collect()
    };
    let files = of_kind("files").into_iter().map(|file| {
        let role = file["role"].as_str().unwrap().to_owned();
        let sha256 = file["sha256"].as_str().unwrap_or("none").to_owned();
        (role, file["n"].as_u64().unwrap(), sha256)
    });
    let outcomes = of_kind("outcomes");
    let state = outcomes
        .first()
        .map_or("nothing", |outcome| outcome["state"].as_str().unwrap());
    (state.to_owned(), files.collect())
}

/// All tasks, once nothing is awaited of any and nobody is asked about any.
async fn settled(server: &TestServer, ids: &[String]) -> Vec<Value> {
    let mut tasks = Vec::new();
    for id in ids {
        let began = std::time::Instant::now();
        let done = || async {
            let task = server.task(id).await;
            let is_open = task["asking"] != json!([])
                || matches!(task["media"].as_str(), Some("queued" | "downloading"));
            if is_open && began.elapsed() > Duration::from_secs(15) {
                eprintln!("still open: {task:#}");
            }
            (!is_open).then_some(task)
        };
        tasks.push(until(&format!("{id} is settled"), done).await);
    }
    tasks
}

fn never_called(ledger: &Ledger) -> usize {
    let unheard = |part: &&LedgerPart| part.callback.state != CallbackState::Answered;
    let bases = ledger.tasks.iter().map(|task| &task.parts[0]);
    bases.filter(unheard).count()
}

async fn one_seed(seed: u64) {
    eprintln!("seed {seed} (REELHOOK_PROVIDER_SEED={seed} REELHOOK_PROVIDER_SEEDS=1 tries it alone)");
    let provider = Provider::start(settings(seed)).await;
    let server = receiver(&provider).await;
    let mut ids = Vec::new();
    for n in 0..TASKS {
        ids.push(submit(&provider, &server, n).await);
    }
    let ledger = provider.settled().await;
    let tasks = settled(&server, &ids).await;
    for task in &tasks {
        let id = task["task_id"].as_str().unwrap();
        let truth = &ledger.task(id).unwrap().parts[0];
        assert_eq!(
            of_task(task, "video"),
            of_ledger(truth),
            "seed {seed}: {task:#} {truth:#?}"
        );
        assert_eq!(task["conflicts"], 0, "seed {seed}: {task:#}");
    }
    let repaired = server.get("/v1/stats").await.fine()["repaired"].clone();
    assert_eq!(repaired, json!(never_called(&ledger)), "seed {seed}");
    let dropped = never_called(&ledger);
    assert!(
        (TASKS / 5..TASKS / 2).contains(&dropped),
        "seed {seed}: {dropped} were dropped"
    );

    second_wave(&provider, &server, &tasks).await;
}

/// Some of the finished videos get a 4K version and are extended.
async fn second_wave(provider: &Provider, server: &TestServer, tasks: &[Value]) {
    let ledger = provider.simulator.ledger();
    let is_veo = |task: &&Value| {
        let id = task["task_id"].as_str().unwrap();
        task["state"] == "succeeded" && ledger.task(id).unwrap().family == Family::Veo
    };
    let chosen = tasks.iter().filter(is_veo).take(UPGRADES);
    let chosen: Vec<&str> = chosen.map(|task| task["task_id"].as_str().unwrap()).collect();
    upgrade(provider, server, &chosen).await;
    let extensions = extend(provider, server, &chosen).await;
    let ledger = provider.settled().await;
    for task in settled(server, &extensions).await {
        let truth = &ledger.task(task["task_id"].as_str().unwrap()).unwrap().parts[0];
        assert_eq!(of_task(&task, "video"), of_ledger(truth), "{task:#} {truth:#?}");
    }
    let ids: Vec<String> = chosen.iter().map(|id| (*id).to_owned()).collect();
    for task in settled(server, &ids).await {
        let truth = ledger.task(task["task_id"].as_str().unwrap()).unwrap();
        assert_eq!(of_task(&task, "video"), of_ledger(&truth.parts[0]), "{task:#}");
        let upgrade = truth.part(Kind::Uhd, 0).unwrap();
        assert_eq!(of_task(&task, "4k"), of_ledger(upgrade), "{task:#} {upgrade:#?}");
    }
}

#[tokio::test]
async fn every_task_ends_as_the_providers_ledger_says() {
    let number = |name: &str, otherwise| variable(name).map_or(otherwise, |text| text.parse().unwrap());
    let first: u64 = number("REELHOOK_PROVIDER_SEED", 1);
    for seed in first..first + number("REELHOOK_PROVIDER_SEEDS", 2) {
        one_seed(seed).await;
    }
}

/// Tasks of which no callback comes.
const SILENT: usize = 30;
const KILLS: usize = 3;

/// No callback at all, files that take half a second each, and links that do not wait for the last of them.
async fn mute_provider(seed: u64) -> Provider {
    let mut settings = Provider::quick();
    settings.seed = seed;
    settings.takes = Duration::from_millis(600);
    settings.jitter = 0.9;
    settings.film_bytes = 64 << 10;
    settings.links.speed = Some(128 << 10);
    settings.links.expire = Duration::from_secs(2);
    settings.faults.drop = 1.0;
    settings.faults.fail = 0.1;
    Provider::start(settings).await
}

/// The program, asking soon and often.
fn program(provider: &Provider) -> Program {
    Program::configured(&format!(
        "reconcile.after = \"100ms\"\nreconcile.every = \"100ms\"\nreconcile.max_per_second = 100\n\
         egress.allow_cidrs = [\"127.0.0.0/8\"]\n\
         [sources.kie]\nhmac_keys = [\"{KEY}\"]\napi_url = \"{}\"\napi_key = \"{}\"\napi_queries = 1000\n",
        provider.simulator.url(),
        provider.simulator.key().expose()
    ))
}

async fn ask(serving: &Serving, path: &str) -> Answer {
    Answer::of(client().request(Method::GET, format!("{}{path}", serving.url()))).await
}

/// Submits the tasks and has a server await them.
async fn announce_to(serving: &Serving, provider: &Provider) -> Vec<String> {
    let mut tasks = Vec::new();
    for _ in 0..SILENT {
        tasks.push(json!({"task_id": provider.generate(&json!({})).await}));
    }
    let request = client().post(format!("{}/v1/tasks", serving.url()));
    let request = request.header("content-type", "application/json");
    let answer = Answer::of(request.body(json!(tasks).to_string())).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let id = |task: &Value| task["task_id"].as_str().unwrap().to_owned();
    tasks.iter().map(id).collect()
}

/// Whether each file of a task, as it is served, is the one that the ledger names.
async fn is_served_whole(serving: &Serving, task: &Value) {
    for file in task["files"].as_array().unwrap() {
        let served = ask(serving, file["url"].as_str().unwrap()).await;
        assert_eq!(served.status, 200, "{file}");
        assert_eq!(
            file["sha256"],
            hex::encode(Sha256::digest(&served.body)),
            "{file}"
        );
    }
}

#[tokio::test]
async fn a_server_that_is_killed_while_it_asks_and_downloads_repairs_each_task_once() {
    let seed = variable("REELHOOK_PROVIDER_SEED").map_or_else(
        || getrandom::u64().unwrap(),
        |seed| seed.parse().expect("a number"),
    );
    eprintln!("REELHOOK_PROVIDER_SEED={seed}");
    let (provider, mut random) = (mute_provider(seed).await, Random::new(seed));
    let program = program(&provider);
    let mut serving = program.serve(&[]);
    let ids = announce_to(&serving, &provider).await;
    for _ in 0..KILLS {
        // A timer, not a condition: that nobody can say what the server is doing right then is the point.
        tokio::time::sleep(Duration::from_millis(100 + random.below(700))).await;
        drop(serving);
        serving = program.serve(&[]);
    }
    let ledger = provider.settled().await;
    for id in &ids {
        let task = until(&format!("{id} is settled"), || async {
            let task = ask(&serving, &format!("/v1/tasks/{id}?wait=5s")).await.fine();
            let is_open = task["asking"] != json!([])
                || matches!(task["media"].as_str(), Some("queued" | "downloading"));
            (!is_open).then_some(task)
        })
        .await;
        let truth = &ledger.task(id).unwrap().parts[0];
        assert_eq!(of_task(&task, "video"), of_ledger(truth), "{task:#} {truth:#?}");
        is_served_whole(&serving, &task).await;
    }
    assert_eq!(ask(&serving, "/v1/stats").await.fine()["repaired"], SILENT);
}
