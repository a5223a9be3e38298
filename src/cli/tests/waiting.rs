use super::*;

const PENDING: &str = r#"{"task_id":"t","state":"pending","media":"none"}"#;
const QUEUED: &str = r#"{"task_id":"t","state":"succeeded","media":"queued"}"#;
const STORED: &str = r#"{"task_id":"t","state":"succeeded","media":"stored","files":[{"state":"stored"}]}"#;
const UNKNOWN: &str = r#"{"code":"unknown_task","detail":"there is no task t"}"#;

async fn waited(answers: Vec<(u16, &str)>, timeout: &str) -> (Ended, Vec<String>) {
    let server = FakeServer::start(answers).await;
    let ended = Shell::new()
        .run(&format!(
            "tasks wait t --timeout {timeout} --server {}",
            server.url
        ))
        .await;
    (ended, server.lines())
}

#[tokio::test]
async fn a_stored_task_ends_the_wait_well() {
    let (ended, lines) = waited(vec![(200, STORED)], "10m").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert_eq!(lines, ["GET /v1/tasks/t?wait=30s"]);
}

#[tokio::test]
async fn a_task_is_asked_for_until_its_files_are_settled() {
    let (ended, lines) = waited(vec![(200, PENDING), (200, QUEUED), (200, STORED)], "1m").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn failure_partial_media_and_no_media_end_the_wait_badly() {
    for (answer, word) in [
        (r#"{"task_id":"t","state":"failed","media":"none"}"#, ""),
        (
            r#"{"task_id":"t","state":"succeeded","media":"partial","files":[{}]}"#,
            "",
        ),
        (
            r#"{"task_id":"t","state":"succeeded","media":"none"}"#,
            "announced no files",
        ),
    ] {
        let (ended, _) = waited(vec![(200, answer)], "1m").await;
        assert_eq!(ended.exit, Exit::Failed, "{answer}");
        assert!(ended.err.contains(word), "{ended:?}");
    }
}

#[tokio::test]
async fn a_wait_that_takes_too_long_says_so() {
    let (ended, lines) = waited(vec![(200, PENDING)], "0s").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert_eq!(ended.err, "t is not settled after 0s\n");
    assert_eq!(lines, ["GET /v1/tasks/t?wait=0s"]);
}

#[tokio::test]
async fn a_task_unknown_so_far_and_a_restarting_server_are_waited_for() {
    let (ended, lines) = waited(vec![(404, UNKNOWN), (502, "bad gateway"), (200, STORED)], "1m").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert_eq!(ended.err, "t is not known yet; waiting for its callback\n");
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_server_never_reached_is_not_waited_for() {
    let ended = Shell::new().run("tasks wait t --server http://127.0.0.1:1").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.err.contains("no answer from http://127.0.0.1:1/"),
        "{}",
        ended.err
    );
}
