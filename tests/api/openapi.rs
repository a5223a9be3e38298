//! The API against its own description: schemathesis makes up requests from the OpenAPI document, good and bad, and compares what
//! comes back with what the document says.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Cdn, TestServer, failure, mp4, skip, success, variable};

/// Bearer of the API.
const API_TOKEN: &str = "token-of-the-api_0123456789abcdef";

/// How the requests are made up. A task that is unknown is not waited for. A source that is not configured is refused, and
/// no schema can know which are.
const SETTINGS: &str = r#"
[parameters]
"query.wait" = "0"

[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 401, 403, 404, 409, 416, 422]
"#;

/// A server that has something of everything, under the names that the document's examples have.
async fn furnished(cdn: &Cdn) -> TestServer {
    let server = TestServer::with(&format!(
        "[api]\ntokens = [\"{API_TOKEN}\"]\n[sources.kie]\nallow_unverified = true\n"
    ))
    .await;
    let film = cdn.file("/a.mp4", &mp4(1, 10_000));
    let other = cdn.file("/b.mp4", &mp4(1, 20_000));
    let gone = format!("http://{}/gone.mp4", cdn.addr);
    for body in [
        success("veo_task_1", &[film.clone(), other.clone()]),
        success("veo_task_1", &[other]),
        success("partial", &[film, "http://10.0.0.1/blocked.mp4".to_owned(), gone]),
        failure("failed"),
    ] {
        server.callback(&body).send().await.taken();
    }
    let refused = server.callback(&json!({"code": 200})).send().await;
    assert_eq!(refused.status, 400);
    let expected = json!({"task_id": "veo_task_2", "params": {"prompt": "A red fox in the snow"}});
    assert_eq!(server.post("/v1/tasks", &expected).await.status, 201);
    server.wait_settled("veo_task_1").await;
    server
}

/// Lets schemathesis loose; `None` where it is not installed.
fn schemathesis(server: &TestServer, dir: &Path) -> Option<Output> {
    let settings = dir.join("schemathesis.toml");
    fs::write(&settings, SETTINGS).unwrap();
    let seed = variable("REELHOOK_SEED").unwrap_or_else(|| "1".to_owned());
    let seconds = variable("REELHOOK_SECONDS").unwrap_or_else(|| "60".to_owned());
    let mut command = Command::new("schemathesis");
    command.current_dir(dir).arg("--config-file").arg(&settings);
    command
        .arg("run")
        .arg(format!("http://{}/openapi.json", server.addr));
    command.args(["--include-path-regex", "^/(v1/|healthz|readyz|openapi)"]);
    // Its answer has no end.
    command.args(["--exclude-path", "/v1/events"]);
    command.args(["--header", &format!("Authorization: Bearer {API_TOKEN}")]);
    command.args(["--seed", &seed, "--max-time", &seconds, "--max-examples", "20"]);
    command.args(["--generation-database", "none", "--request-timeout", "10"]);
    command.args(["--no-color", "--continue-on-failure", "--warnings", "off"]);
    command.output().ok()
}

#[tokio::test]
async fn answers_are_as_the_openapi_document_says() {
    let cdn = Cdn::start().await;
    let server = furnished(&cdn).await;
    let dir = tempfile::tempdir().unwrap();
    let (ran, server) = tokio::task::spawn_blocking(move || (schemathesis(&server, dir.path()), server))
        .await
        .unwrap();
    let Some(ran) = ran else {
        return skip("schemathesis is not installed: pip install schemathesis, in a venv on the PATH");
    };
    let report = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    // It looked at something: a filter that fits nothing is no success.
    assert!(report.contains("Tested: "), "{report}");
    drop(server);
}

#[tokio::test]
async fn the_document_is_open_and_everything_else_is_not() {
    let cdn = Cdn::start().await;
    let server = furnished(&cdn).await;
    let document = server
        .bare(reqwest::Method::GET, "/openapi.json")
        .send()
        .await
        .unwrap();
    assert_eq!(document.status(), 200);
    assert_eq!(document.headers()["content-type"], "application/json");
    let document: Value = serde_json::from_str(&document.text().await.unwrap()).unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(show) = operations.get("get").filter(|_| path.starts_with("/v1/")) else {
            continue;
        };
        assert!(show["security"].to_string().contains("bearer"), "{path}");
        let path = path.replace("{task_id}", "veo_task_1").replace("{id}", "1");
        let path = path.replace("{name}", "result-0.mp4");
        let answer = server.bare(reqwest::Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn the_page_for_people_has_every_operation_and_type_and_loads_nothing_from_elsewhere() {
    let cdn = Cdn::start().await;
    let server = furnished(&cdn).await;
    let answer = server.bare(reqwest::Method::GET, "/docs").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let page = answer.text().await.unwrap();
    let document: Value = server.get("/openapi.json").await.fine();
    let operations = document["paths"].as_object().unwrap().values();
    let operations = operations.flat_map(|item| item.as_object().unwrap().values());
    let mut names: Vec<&str> = operations
        .map(|one| one["operationId"].as_str().unwrap())
        .collect();
    let types = document["components"]["schemas"].as_object().unwrap().keys();
    names.extend(types.map(String::as_str));
    for name in names {
        assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
    }
    for part in page.split("href=\"").chain(page.split("src=\"")).skip(1) {
        let target = part.split('"').next().unwrap();
        if let Some(name) = target.strip_prefix('#') {
            assert!(page.contains(&format!("id=\"{name}\"")), "#{name} leads nowhere");
        }
        assert!(!target.contains("//"), "{target}");
    }
}

#[tokio::test]
async fn another_method_is_refused_with_those_that_there_are() {
    let server = TestServer::start().await;
    for (path, allowed) in [
        ("/v1/tasks", "GET,HEAD,POST"),
        ("/v1/scrub", "GET,HEAD,POST,DELETE"),
        ("/openapi.json", "GET,HEAD"),
        ("/callbacks/kie", "POST"),
    ] {
        let answer = server.bare(reqwest::Method::PUT, path).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{path}");
        assert_eq!(answer.headers()["allow"], allowed, "{path}");
        assert_eq!(
            answer.headers()["content-type"],
            "application/problem+json",
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_whole_number_may_be_written_with_a_point() {
    let server = TestServer::start().await;
    for (index, status) in [
        ("2.0", 201),
        ("-0.0", 201),
        ("1.5", 400),
        ("-1", 400),
        ("4294967296", 400),
    ] {
        let task = format!(r#"{{"task_id":"t{index}","index":{index}}}"#);
        let answer = server
            .post("/v1/tasks", &serde_json::from_str(&task).unwrap())
            .await;
        assert_eq!(answer.status, status, "{task}");
    }
}

#[tokio::test]
async fn an_array_is_no_object() {
    let server = TestServer::start().await;
    for (path, body) in [
        ("/v1/scrub", json!([])),
        ("/v1/scrub", json!([true])),
        ("/v1/tasks", json!([["t1"]])),
        (
            "/v1/tasks",
            json!([["t1", "kie", "video", 0, null, null, "later"]]),
        ),
    ] {
        assert_eq!(server.post(path, &body).await.status, 400, "{path} {body}");
    }
    assert_eq!(server.post("/v1/scrub", &json!({})).await.status, 202);
}
