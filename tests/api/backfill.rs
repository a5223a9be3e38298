//! Tasks from before are announced from a file and asked about at once.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::support::{
    Cdn, Program, ScriptedProvider, TestServer, failure, generating, mp4, record, success, until,
};

const RECORD: &str = "veo/record-info";

/// Asks often, but of itself only about tasks that were silent for three minutes.
async fn server(provider: &ScriptedProvider) -> TestServer {
    let quick = "reconcile.every = \"100ms\"\nreconcile.max_per_second = 100\n";
    TestServer::with(&format!("{quick}{}", provider.source())).await
}

/// A directory with a file, and the words that backfill from it.
fn program(server: &TestServer, file: &str) -> (Program, [String; 4]) {
    let program = Program::new();
    program.write("ids", file.as_bytes());
    let server = format!("http://{}", server.addr);
    (
        program,
        ["backfill", "ids", "--server", &server].map(str::to_owned),
    )
}

fn with<'a>(words: &'a [String; 4], more: &[&'a str]) -> Vec<&'a str> {
    words
        .iter()
        .map(String::as_str)
        .chain(more.iter().copied())
        .collect()
}

#[tokio::test]
async fn an_id_is_announced_asked_about_at_once_and_found() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [generating("t1"), record("t1", &[url])]);
    let server = server(&provider).await;
    let (program, words) = program(&server, "# from before\r\nt1\r\n\nt1");
    let ended = program.run(&with(&words, &["--family", "veo"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = "1 task, 1 more than once: 1 new, 0 known before\n\
                    1 found, 0 failed, 0 unknown to the provider, 0 still open\n1 file announced, ";
    assert!(ended.out.starts_with(expected), "{ended:?}");
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    assert_eq!(provider.all_asked(), 2);
    let again = program.run(&words.each_ref().map(String::as_str));
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(
        again.out.contains("0 new, 1 known before\n1 found, "),
        "{again:?}"
    );
    assert!(
        again.out.contains("1 file announced, 1 of them stored"),
        "{again:?}"
    );
    assert_eq!(provider.all_asked(), 2, "what is known is not asked for");
}

#[tokio::test]
async fn what_the_provider_does_not_know_is_listed_and_running_it_again_goes_on() {
    let provider = ScriptedProvider::start().await;
    let server = server(&provider).await;
    server.callback(&success("made", &[])).send().await.taken();
    server.callback(&failure("refused")).send().await.taken();
    let file = "made,task_id,family,prompt\n1,made,veo,\n2,refused,veo,\n3,nowhere,veo,\"a, b\"\n";
    let (program, words) = program(&server, file);
    let ended = program.run(&with(&words, &["--json"]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        report,
        json!({"tasks": 3, "duplicates": 0, "new": 1, "known": 2, "found": 1, "failed": 1,
               "files": {"announced": 0, "stored": 0}, "waits": null, "unknown": ["nowhere"], "open": []})
    );
    assert_eq!(server.task("nowhere").await["prompt"], "a, b");
    let shown = program.run(&with(&words, &[]));
    assert!(
        shown.out.contains("1 unknown to the provider") && shown.out.contains("  unknown  nowhere\n"),
        "{shown:?}"
    );

    server.callback(&success("nowhere", &[])).send().await.taken();
    let again = program.run(&with(&words, &["--json"]));
    assert_eq!(again.code, Some(0), "{again:?}");
    let report: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(
        (&report["new"], &report["known"], &report["found"]),
        (&json!(0), &json!(3), &json!(2))
    );
}

#[tokio::test]
async fn where_nobody_can_be_asked_nothing_is_waited_for() {
    let server = TestServer::start().await;
    let (program, words) = program(&server, "{\"taskId\":\"t1\"}\n");
    let ended = program.run(&with(&words, &[]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.out.contains("1 still open") && ended.out.contains("  open  t1\n"),
        "{ended:?}"
    );
    assert!(ended.err.contains("set sources.kie.api_key"), "{ended:?}");
    assert_eq!(
        server.task("t1").await["state"],
        "pending",
        "it is recorded all the same"
    );
    let ended = program.run(&with(&words, &["--no-wait"]));
    assert_eq!(
        (ended.code, ended.out.as_str()),
        (Some(0), "1 task: 0 new, 1 known before\n")
    );
}

#[tokio::test]
async fn nothing_is_sent_of_a_file_with_a_bad_line() {
    let server = TestServer::start().await;
    let mut file = String::new();
    for n in 0..1_500 {
        writeln!(file, "t{n}").unwrap();
    }
    file.push_str("not an id\n");
    let (program, words) = program(&server, &file);
    let ended = program.run(&with(&words, &[]));
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{ended:?}");
    assert!(
        ended.err.contains("ids:1501: \"not an id\" is no task id"),
        "{ended:?}"
    );
    assert_eq!(server.get("/v1/stats").await.fine()["tasks"], json!({}));
}

#[tokio::test]
async fn standard_input_is_read_and_who_waits_no_longer_is_told_how_to_go_on() {
    let provider = ScriptedProvider::start().await;
    provider.says(RECORD, [generating("t1")]);
    let server = server(&provider).await;
    let script = format!(
        "printf 't1\\n' | \"$0\" backfill - --family veo --timeout 1s --server http://{}",
        server.addr
    );
    let ended = Program::new().run_in_shell(&script);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.out.contains("1 new") && ended.out.contains("1 still open"),
        "{ended:?}"
    );
    assert!(ended.err.contains("run the same again"), "{ended:?}");
}

#[tokio::test]
async fn an_interrupt_ends_it_with_what_is_known() {
    let provider = ScriptedProvider::start().await;
    provider.says(RECORD, [generating("t1")]);
    let server = server(&provider).await;
    let (program, words) = program(&server, "t1\n");
    let mut running = program.start(&with(&words, &["--family", "veo", "--json"]));
    provider.wait_asked(RECORD, 2).await;
    running.signal("INT");
    assert_eq!(running.wait(), Some(1), "{}", running.err.text());
    let report: Value = serde_json::from_str(&running.out.text()).unwrap();
    assert_eq!((&report["new"], &report["open"]), (&json!(1), &json!(["t1"])));
    assert!(
        running.err.text().contains("run the same again"),
        "{}",
        running.err.text()
    );
}

#[tokio::test]
async fn a_server_that_restarts_meanwhile_is_waited_for() {
    let provider = ScriptedProvider::start().await;
    provider.says(RECORD, [generating("t1")]);
    let api = |port: u16| format!("listen = \"127.0.0.1:{port}\"\n{}", provider.source());
    let program = Program::configured(&api(0));
    let first = program.serve_as_configured();
    program.write("config.toml", api(first.addr.port()).as_bytes());
    program.write("ids", b"t1\n");
    let mut running = program.start(&["backfill", "ids", "--family", "veo"]);
    provider.wait_asked(RECORD, 1).await;
    drop(first);
    let second = program.serve_as_configured();
    let body = failure("t1").to_string();
    let url = format!("{}/callbacks/kie", second.url());
    let client = crate::support::client();
    until("the second server takes the callback", || async {
        let sent = client.post(&url).body(body.clone()).send().await.ok()?;
        sent.status().is_success().then_some(())
    })
    .await;
    assert_eq!(
        running.wait(),
        Some(0),
        "{}{}",
        running.out.text(),
        running.err.text()
    );
    assert!(running.out.text().contains("1 failed"), "{}", running.out.text());
}
