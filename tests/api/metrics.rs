//! `/metrics`, and that alerts, dashboard and documentation speak of what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Answer, Authority, Cdn, KEY, Reply, Setup, TOKEN, TestServer, client, mp4, success, until, web_client,
};

/// A page of metrics.
struct Page {
    /// Every sample, by name and labels as they are written.
    samples: BTreeMap<String, f64>,
    /// Names of the families, with what a counter and an info append.
    families: BTreeSet<String>,
    /// Names of samples, with all labels that any of the name has.
    labels: BTreeMap<String, BTreeSet<String>>,
}

impl Page {
    async fn of(request: reqwest::RequestBuilder) -> Self {
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(
            answer.header("content-type"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        );
        Self::parse(&answer.text())
    }

    fn parse(text: &str) -> Self {
        let mut page = Self {
            samples: BTreeMap::new(),
            families: BTreeSet::new(),
            labels: BTreeMap::new(),
        };
        let mut helped = "";
        for line in text.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(!help.is_empty(), "{name} has no help");
                    helped = name;
                }
                ["#", "TYPE", name, kind] => {
                    assert_eq!(name, helped, "each is explained");
                    let ending = match kind {
                        "counter" => "_total",
                        "info" => "_info",
                        _ => "",
                    };
                    page.families.insert(format!("{name}{ending}"));
                }
                ["#", "UNIT", name, unit] => assert!(name.ends_with(&format!("_{unit}")), "{line}"),
                ["#", "EOF"] => {}
                _ => page.take(line),
            }
        }
        assert!(text.ends_with("# EOF\n"));
        page
    }

    fn take(&mut self, line: &str) {
        let (sample, value) = line.rsplit_once(' ').expect("a name and a value");
        let (name, labels) = sample.split_once('{').unwrap_or((sample, ""));
        let names = labels
            .split(',')
            .filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        self.labels.entry(name.to_owned()).or_default().extend(names);
        let value = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(
            self.samples.insert(sample.to_owned(), value),
            None,
            "{sample} is told once"
        );
    }

    #[track_caller]
    fn value(&self, sample: &str) -> f64 {
        let found = self.samples.get(sample).copied();
        found.unwrap_or_else(|| panic!("no {sample} among {:#?}", self.samples.keys()))
    }

    /// Asserts values of samples.
    #[track_caller]
    fn tells(&self, expected: &[(&str, f64)]) {
        let found: Vec<_> = expected
            .iter()
            .map(|(sample, _)| (*sample, self.value(sample)))
            .collect();
        assert_eq!(found, expected);
    }
}

async fn metrics(server: &TestServer) -> Page {
    Page::of(server.request(Method::GET, "/metrics")).await
}

fn by_verdict(source: &str, verdict: &str) -> String {
    format!("reelhook_callbacks_total{{source=\"{source}\",verdict=\"{verdict}\"}}")
}

fn by_reason(source: &str, reason: &str) -> String {
    format!("reelhook_callbacks_rejected_total{{source=\"{source}\",reason=\"{reason}\"}}")
}

#[tokio::test]
async fn callbacks_are_counted_by_their_verdict() {
    let cdn = Cdn::start().await;
    let server = TestServer::start().await;
    let acks = "reelhook_callback_ack_duration_seconds_count";
    metrics(&server)
        .await
        .tells(&[(&by_verdict("kie", "accepted"), 0.0), (acks, 0.0)]);

    let one = success("t1", &[cdn.file("/a.mp4", &mp4(1, 2_000))]);
    let other = success("t1", &[cdn.file("/b.mp4", &mp4(2, 2_000))]);
    for body in [&one, &one, &one, &other] {
        server.callback(body).send().await.taken();
    }
    server.wait_settled("t1").await;
    let page = metrics(&server).await;
    page.tells(&[
        (&by_verdict("kie", "accepted"), 1.0),
        (&by_verdict("kie", "duplicate"), 2.0),
        (&by_verdict("kie", "conflict"), 1.0),
        (&by_verdict("kie", "rejected"), 0.0),
        (acks, 4.0),
        ("reelhook_callback_ack_duration_seconds_bucket{le=\"+Inf\"}", 4.0),
        ("reelhook_open_conflicts", 1.0),
        ("reelhook_asks{reason=\"conflict\"}", 1.0),
    ]);
    assert!(page.value("reelhook_callback_ack_duration_seconds_sum") > 0.0);
}

#[tokio::test]
async fn refusals_are_counted_by_their_reason_and_strangers_name_no_source() {
    let config = format!("[sources.kie]\n[sources.signed]\nhmac_keys = [\"{KEY}\"]\n");
    let server = TestServer::with(&config).await;
    let call = || server.callback_to("signed", &success("t2", &[]));
    let unsigned = call().send().await;
    assert_eq!(unsigned.problem(), (401, "missing_signature".to_owned()));
    let forged = call().signed("another-key-than-theirs").send().await;
    assert_eq!(forged.problem(), (401, "bad_signature".to_owned()));
    for path in ["/callbacks/nobody", "/callbacks/%22%7D%0A"] {
        assert_eq!(Answer::of(server.bare(Method::POST, path)).await.status, 404);
    }
    let put = server.bare(Method::PUT, "/callbacks/kie");
    assert_eq!(Answer::of(put).await.status, 405);

    let page = metrics(&server).await;
    page.tells(&[
        (&by_verdict("signed", "rejected"), 2.0),
        (&by_reason("signed", "missing_signature"), 1.0),
        (&by_reason("signed", "bad_signature"), 1.0),
        (&by_reason("kie", "method_not_allowed"), 1.0),
        (&by_reason("(unknown)", "unknown_source"), 2.0),
        ("reelhook_callback_ack_duration_seconds_count", 0.0),
    ]);
    let sources = page
        .samples
        .keys()
        .filter_map(|sample| sample.split("source=\"").nth(1));
    let sources: BTreeSet<_> = sources.filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(sources, BTreeSet::from(["(unknown)", "kie", "signed"]));
}

#[tokio::test]
async fn downloads_and_commits_are_counted_by_what_came_of_them() {
    let cdn = Cdn::start().await;
    let server = TestServer::with("[downloads]\nmax_attempts = 2\nretry_base = \"1ms\"").await;
    let good = cdn.file("/good.mp4", &mp4(1, 30_000));
    let bad = cdn.script("/bad.mp4", [Reply::Status(500, Vec::new())]);
    for (task, url) in [("good", good), ("bad", bad)] {
        server.callback(&success(task, &[url])).send().await.taken();
        server.wait_settled(task).await;
    }
    let page = metrics(&server).await;
    let attempts =
        |result| format!("reelhook_download_attempt_duration_seconds_count{{result=\"{result}\"}}");
    page.tells(&[
        (&attempts("stored"), 1.0),
        (&attempts("retry"), 1.0),
        (&attempts("failed"), 1.0),
        (&attempts("lost"), 0.0),
        ("reelhook_download_failures_total{code=\"http_status\"}", 2.0),
        ("reelhook_download_failures_total{code=\"other\"}", 0.0),
        ("reelhook_download_received_bytes_total", 30_000.0),
        ("reelhook_download_stored_bytes_total", 30_000.0),
        ("reelhook_stored_bytes", 30_000.0),
        ("reelhook_files{state=\"stored\"}", 1.0),
        ("reelhook_files{state=\"failed\"}", 1.0),
        ("reelhook_files{state=\"queued\"}", 0.0),
        ("reelhook_tasks{state=\"succeeded\"}", 2.0),
        ("reelhook_oldest_queued_age_seconds", 0.0),
        ("reelhook_downloads_running", 0.0),
        ("reelhook_queue_paused{code=\"disk_full\"}", 0.0),
        ("reelhook_store_up", 1.0),
        ("reelhook_store_errors_total", 0.0),
        ("reelhook_storage_errors_total{operation=\"serve\"}", 0.0),
    ]);
    let commits = page.value("reelhook_store_commit_duration_seconds_count");
    assert!(commits >= 2.0);
    assert!(page.value("reelhook_store_commit_commands_sum") >= commits);
    assert_eq!(
        page.value("reelhook_store_commit_commands_count").to_bits(),
        commits.to_bits()
    );

    fs::remove_file(server.data_dir().join("media/kie/good/result-0.mp4")).unwrap();
    assert_eq!(server.get("/v1/tasks/good/files/result-0").await.status, 404);
    metrics(&server)
        .await
        .tells(&[("reelhook_storage_errors_total{operation=\"serve\"}", 1.0)]);
    assert_eq!(server.post("/v1/tasks/good/retry", &json!({})).await.status, 202);
    // What is looked for when it stops is that rows and files agree.
    assert_eq!(server.delete("/v1/tasks/good").await.status, 204);
}

#[tokio::test]
async fn what_the_database_cannot_tell_is_missing_and_the_rest_is_there() {
    let server = TestServer::start().await;
    server.callback(&success("t1", &[])).send().await.taken();
    server.sabotage("ALTER TABLE counters RENAME TO hidden").await;
    let refused = server.callback(&success("t2", &[])).send().await;
    let page = metrics(&server).await;
    server.sabotage("ALTER TABLE hidden RENAME TO counters").await;
    assert_eq!(refused.problem(), (503, "store_unavailable".to_owned()));
    page.tells(&[
        ("reelhook_store_up", 0.0),
        (&by_verdict("kie", "accepted"), 1.0),
        (&by_reason("kie", "store_unavailable"), 1.0),
    ]);
    assert!(page.value("reelhook_store_errors_total") >= 1.0);
    assert!(!page.families.contains("reelhook_tasks"));
}

#[tokio::test]
async fn the_page_is_guarded_as_the_api_is() {
    let server = Setup::new(&format!("[api]\ntokens = [\"{TOKEN}\"]"))
        .start()
        .await;
    let bare = || server.bare(Method::GET, "/metrics");
    assert_eq!(
        Answer::of(bare()).await.problem(),
        (401, "missing_token".to_owned())
    );
    let wrong = bare().bearer_auth("nobody-has-given-this-away-yet");
    assert_eq!(Answer::of(wrong).await.problem(), (401, "bad_token".to_owned()));
    Page::of(bare().bearer_auth(TOKEN)).await;

    let open = TestServer::start().await;
    let forwarded = open
        .bare(Method::GET, "/metrics")
        .header("x-forwarded-for", "203.0.113.9");
    assert_eq!(
        Answer::of(forwarded).await.problem(),
        (403, "loopback_only".to_owned())
    );
    assert_eq!(open.post("/metrics", &json!({})).await.status, 405);
}

/// A page that has everything on it: of a server with a certificate that has scrubbed.
async fn full_page() -> Page {
    let authority = Authority::new();
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&["hooks.localhost"], 2100).put(dir.path());
    let files = dir.path().display();
    let server = Setup::new(&format!(
        "admin_listen = \"127.0.0.1:0\"
         [api]\ntokens = [\"{TOKEN}\"]
         [tls]\ncert_file = \"{files}/cert.pem\"\nkey_file = \"{files}/key.pem\""
    ))
    .start()
    .await;
    let web = web_client(authority.root(), "hooks.localhost", server.addr)
        .build()
        .unwrap();
    let url = format!("https://hooks.localhost:{}/callbacks/kie", server.addr.port());
    let taken = web
        .post(url)
        .body(success("t1", &[]).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(taken.status(), 200);

    let admin = format!("http://{}", server.api_addr());
    let plain = client();
    let begun = plain
        .post(format!("{admin}/v1/scrub"))
        .bearer_auth(TOKEN)
        .json_body(&json!({}));
    assert_eq!(begun.send().await.unwrap().status(), 202);
    until("the scrub has ended", || async {
        let page = Page::of(plain.get(format!("{admin}/metrics")).bearer_auth(TOKEN)).await;
        let has_ended = page
            .families
            .contains("reelhook_scrub_last_end_timestamp_seconds");
        has_ended.then_some(page)
    })
    .await
}

trait JsonBody {
    fn json_body(self, body: &Value) -> Self;
}

impl JsonBody for reqwest::RequestBuilder {
    fn json_body(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rules of `alerts.yml`, by name; asserts that each has all that an operator needs.
fn alerts() -> Vec<(String, String)> {
    let text = read("deploy/prometheus/alerts.yml");
    let rules: Vec<&str> = text.split("- alert: ").skip(1).collect();
    let of = |rule: &&str| {
        let name = rule.lines().next().expect("a name").to_owned();
        let field = |key: &str| {
            let found = rule.lines().find_map(|line| line.trim().strip_prefix(key));
            found
                .unwrap_or_else(|| panic!("{name} has no {key}"))
                .trim()
                .trim_matches('\'')
                .replace("''", "'")
        };
        assert!(
            ["critical", "warning", "info"].contains(&field("severity:").as_str()),
            "{name}"
        );
        assert!(!field("for:").is_empty() && !field("summary:").is_empty());
        let (_, description) = rule.split_once("description: >-").expect("what to do");
        assert!(
            description.trim().len() > 80,
            "{name} tells what it means and what to do"
        );
        (name.clone(), field("expr:"))
    };
    rules.iter().map(of).collect()
}

/// Every expression of the dashboard, with the title of its panel.
fn panels() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/reelhook.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|variable| variable["type"] == "datasource"));
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(panel["type"] == "row" || !targets.is_empty(), "{title}");
        for target in targets {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            found.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    let queries = variables
        .iter()
        .filter_map(|variable| variable["definition"].as_str());
    found.extend(queries.map(|query| ("a variable".to_owned(), query.to_owned())));
    let noted = dashboard["annotations"]["list"].as_array().unwrap().iter();
    found.extend(noted.map(|note| {
        (
            "an annotation".to_owned(),
            note["expr"].as_str().unwrap().to_owned(),
        )
    }));
    found
}

/// Names of metrics in an expression, each with the labels that it is selected by.
fn selected(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find(|c: char| c.is_ascii_alphabetic()) {
        let end = rest[at..]
            .find(|c| !is_word(c))
            .map_or(rest.len(), |length| at + length);
        let (name, after) = (&rest[at..end], &rest[end..]);
        rest = after;
        if name != "up" && !name.starts_with("reelhook_") && !name.starts_with("process_") {
            continue;
        }
        let mut labels = BTreeSet::new();
        if let Some((matchers, after)) = after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            let names = matchers
                .split(',')
                .filter_map(|matcher| matcher.split(['=', '!']).next());
            labels.extend(names.map(str::to_owned));
            rest = after;
        }
        found.push((name.to_owned(), labels));
    }
    found
}

/// Labels in `by (…)` and `on (…)` of an expression.
fn grouped(expression: &str) -> BTreeSet<String> {
    let lists = expression
        .split(" by (")
        .skip(1)
        .chain(expression.split(" on (").skip(1));
    let lists = lists.filter_map(|rest| rest.split_once(')'));
    lists
        .flat_map(|(list, _)| list.split(',').map(|label| label.trim().to_owned()))
        .collect()
}

#[tokio::test]
async fn alerts_and_dashboard_use_only_what_is_exported() {
    // Prometheus itself adds these.
    let added = BTreeSet::from(["instance".to_owned(), "job".to_owned()]);
    let page = full_page().await;
    let (alerts, panels) = (alerts(), panels());
    assert!(
        alerts.len() >= 15 && panels.len() >= 30,
        "{} and {}",
        alerts.len(),
        panels.len()
    );
    for (place, expression) in alerts.iter().chain(&panels) {
        let metrics = selected(expression);
        assert!(!metrics.is_empty(), "{place}: {expression}");
        let mut available = added.clone();
        for (name, labels) in metrics {
            let exported = match name.as_str() {
                "up" => &added,
                _ => page
                    .labels
                    .get(&name)
                    .unwrap_or_else(|| panic!("{place}: {name} is not exported")),
            };
            available.extend(exported.iter().cloned());
            for label in labels.difference(&added) {
                assert!(exported.contains(label), "{place}: {name} has no label {label}");
            }
        }
        let unknown: Vec<_> = grouped(expression).difference(&available).cloned().collect();
        assert!(unknown.is_empty(), "{place}: nothing has {unknown:?}");
    }
}

#[tokio::test]
async fn values_that_alerts_select_by_are_exported() {
    let page = full_page().await;
    let exported: BTreeSet<&str> = page
        .samples
        .keys()
        .flat_map(|sample| sample.split('"').skip(1).step_by(2))
        .collect();
    for (place, expression) in alerts().iter().chain(&panels()) {
        for (matcher, quoted) in matchers(expression) {
            if ["job", "instance"].contains(&matcher.as_str()) {
                continue;
            }
            for value in quoted.split('|') {
                assert!(exported.contains(value), "{place}: no {matcher} is {value}");
            }
        }
    }
}

/// Labels in an expression with what they are compared to.
fn matchers(expression: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = expression.split('"').collect();
    let pairs = parts.chunks_exact(2);
    pairs
        .map(|pair| {
            let label = pair[0].trim_end_matches(['=', '~', '!']);
            let begins = label.rfind(['{', ',']).map_or(0, |at| at + 1);
            (label[begins..].to_owned(), pair[1].to_owned())
        })
        .collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_nothing_else_is() {
    let page = full_page().await;
    let documented = read("docs/metrics.md");
    let rows = documented
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let rows = rows.filter(|(name, _)| name.starts_with("reelhook_") || name.starts_with("process_"));
    let rows: BTreeMap<String, String> = rows
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), page.families);
    for (name, row) in rows {
        let samples = page.labels.iter().filter(|(sample, _)| sample.starts_with(&name));
        let exported: BTreeSet<&str> = samples
            .flat_map(|(_, labels)| labels)
            .map(String::as_str)
            .collect();
        let exported: BTreeSet<&str> = exported.into_iter().filter(|label| *label != "le").collect();
        let column = row.split('|').nth(2).expect("a column of labels");
        let told: BTreeSet<&str> = column.split('`').skip(1).step_by(2).collect();
        assert_eq!(told, exported, "{name}");
    }
}
