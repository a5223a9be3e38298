use super::*;

const CREATED: &str = r#"{"created":1,"known":0}"#;
const SILENT: &str = r#"{"state":"pending","outcomes":[{"kind":"video","index":0,"state":"pending"}],
 "asking":[{"kind":"video","index":0,"asks":0,"note":null}]}"#;
const RUNNING: &str = r#"{"state":"pending","outcomes":[{"kind":"video","index":0,"state":"pending"}],
 "asking":[{"kind":"video","index":0,"asks":1,"note":{"code":"running","detail":"the provider is still at it"}}]}"#;
const MUTE: &str = r#"{"state":"pending","outcomes":[{"kind":"video","index":0,"state":"pending"}],
 "asking":[{"kind":"video","index":0,"asks":0,"note":{"code":"no_api_key","detail":"nobody can\u001b[2J be asked"}}]}"#;
/// Its 4K upgrade failed, the base video did not.
const MADE: &str = r#"{"state":"failed","outcomes":[{"kind":"4k","index":0,"state":"failed","failure":{"kind":"lost"}},
 {"kind":"video","index":0,"state":"succeeded"}],
 "files":[{"kind":"video","index":0,"state":"stored"},{"kind":"video","index":0,"state":"queued"},
          {"kind":"4k","index":0,"state":"failed"}]}"#;
const BUSY: &str = r#"{"title":"Service Unavailable","status":503,"code":"busy","detail":"later"}"#;

/// A backfill from a file.
async fn backfill(server: &FakeServer, file: &str, more: &str) -> Ended {
    let shell = Shell::new().env("REELHOOK_SERVER", &server.url);
    let path = shell.directory.path().join("ids");
    std::fs::write(&path, file).unwrap();
    shell.run(&format!("backfill {} {more}", path.display())).await
}

fn numbered(count: usize) -> String {
    let ids: Vec<String> = (0..count).map(|n| format!("t{n}")).collect();
    ids.join("\n")
}

#[tokio::test]
async fn a_thousand_are_announced_at_a_time_in_their_order() {
    let server = FakeServer::start(vec![(201, r#"{"created":600,"known":400}"#)]).await;
    let ended = backfill(
        &server,
        &numbered(2_001),
        "--no-wait --source paid --kind 4k --index 1",
    )
    .await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert_eq!(ended.out, "2001 tasks: 1800 new, 1200 known before\n");
    assert_eq!(server.lines(), ["POST /v1/tasks"; 3]);
    let sent: Vec<serde_json::Value> = server
        .seen()
        .iter()
        .flat_map(|seen| serde_json::from_str::<Vec<serde_json::Value>>(&seen.body).unwrap())
        .collect();
    let expected = |n: usize| serde_json::json!({"task_id": format!("t{n}"), "source": "paid", "kind": "4k", "index": 1, "ask": "now"});
    assert!(sent.iter().enumerate().all(|(n, sent)| *sent == expected(n)));
    assert_eq!(sent.len(), 2_001);
}

#[tokio::test]
async fn a_server_that_stumbles_is_asked_again_until_it_tells() {
    let answers = vec![
        (201, CREATED),
        (503, BUSY),
        (200, RUNNING),
        (502, "<html>"),
        (200, MADE),
    ];
    let server = FakeServer::start(answers).await;
    let ended = backfill(&server, "t1\n", "--source paid").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert_eq!(
        ended.out,
        "1 task: 1 new, 0 known before\n1 found, 0 failed, 0 unknown to the provider, 0 still open\n\
         2 files announced, 1 of them stored when looked at\n"
    );
    assert_eq!(server.lines()[1..], ["GET /v1/tasks/t1?source=paid"; 4]);
}

#[tokio::test]
async fn a_lost_task_is_unknown_and_the_outcome_that_is_meant_counts() {
    let server = FakeServer::start(vec![(200, CREATED), (200, MADE)]).await;
    let ended = backfill(&server, "t1\n", "--kind 4k").await;
    assert_eq!(ended.exit, Exit::Failed, "{ended:?}");
    assert!(
        ended.out.contains("1 unknown to the provider") && ended.out.contains("  unknown  t1\n"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_server_that_refuses_is_not_asked_again() {
    let refusal = r#"{"status":422,"code":"unknown_source","detail":"name the source of the task"}"#;
    let server = FakeServer::start(vec![(422, refusal)]).await;
    let ended = backfill(&server, "t1\n", "").await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, ""));
    assert!(
        ended.err.contains("name the source of the task (unknown_source)"),
        "{ended:?}"
    );
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn the_server_is_not_asked_about_what_is_not_yet_its_turn() {
    let ids = 400;
    let mut answers = vec![(201, r#"{"created":399,"known":1}"#)];
    answers.extend(vec![(200, SILENT); ids + 256]);
    answers.push((200, MUTE));
    let server = FakeServer::start(answers).await;
    let ended = backfill(&server, &numbered(ids), "").await;
    assert_eq!(ended.exit, Exit::Failed, "{ended:?}");
    // All, then the first 256 of which 200 in a row were not asked about, then all.
    assert_eq!(server.lines().len(), 1 + ids + 256 + ids);
    let listed = ended
        .out
        .lines()
        .filter(|line| line.starts_with("  open  t"))
        .count();
    assert_eq!(listed, 20, "{}", ended.out);
    assert!(ended.err.contains("380 more are open"), "{}", ended.err);
    assert!(
        ended.err.contains("it is said: nobody can\u{fffd}[2J be asked"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_file_without_ids_says_what_would_be_one() {
    let server = FakeServer::start(vec![(200, CREATED)]).await;
    for file in ["", "\n# nothing\n", "task_id,kind\n"] {
        let ended = backfill(&server, file, "").await;
        assert_eq!(ended.exit, Exit::Failed);
        assert!(
            ended.err.contains("ids has no task ids: write one a line"),
            "{ended:?}"
        );
    }
    assert!(server.lines().is_empty());
}
