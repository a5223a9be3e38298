use serde_json::Value;

use super::*;
use crate::provider::payload::Document;

const FINE: &str = r#"{"code":200,"msg":"success"}"#;

#[tokio::test]
async fn a_signed_callback_is_sent_and_both_sides_are_shown() {
    let server = FakeServer::start(vec![(200, FINE)]).await;
    let line = format!(
        "trigger veo.success --to {}/callbacks/kie --key test-webhook-hmac-key --task-id veo_1",
        server.url
    );
    let ended = Shell::new().run(&line).await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    let seen = server.seen();
    let signature = crate::provider::signature::sign("test-webhook-hmac-key", "veo_1", "1795253400");
    assert_eq!(seen[0].line, "POST /callbacks/kie");
    assert_eq!(seen[0].signature, Some(signature.clone()));
    let document = Document::parse(seen[0].body.as_bytes()).unwrap();
    assert_eq!(document.task_id().as_str(), "veo_1");
    assert_eq!(
        document.event().media[0].url,
        format!("{}/sample.mp4", server.url)
    );
    for expected in [
        signature.as_str(),
        "\"taskId\": \"veo_1\"",
        "answered: 200 in ",
        FINE,
    ] {
        assert!(
            ended.out.contains(expected),
            "{expected} is missing:\n{}",
            ended.out
        );
    }
    assert!(!ended.out.contains("test-webhook-hmac-key"));
    let next = format!(" tasks show veo_1 --server {} --source kie\n", server.url);
    assert!(ended.err.ends_with(&next), "{}", ended.err);
}

#[tokio::test]
async fn without_to_the_configured_source_gets_it_with_its_key_and_token() {
    let server = FakeServer::start(vec![(200, FINE)]).await;
    let listen = server.url.strip_prefix("http://").unwrap();
    let shell = Shell::new().config(&format!(
        "listen = \"{listen}\"\n[sources.other]\nhmac_keys = [\"k\"]\ntokens = [\"tttttttttttttttttttttttt\"]\n"
    ));
    let ended = shell.run("trigger veo.success --source other").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    let seen = &server.seen()[0];
    assert_eq!(seen.line, "POST /callbacks/other?token=tttttttttttttttttttttttt");
    assert!(seen.signature.is_some());
    assert!(
        !format!("{ended:?}").contains("tttttttttttttttttttttttt"),
        "{ended:?}"
    );
    shell.run("trigger veo.success --source other --unsigned").await;
    assert_eq!(server.seen()[1].signature, None);
}

#[tokio::test]
async fn a_refusal_fails_and_is_shown() {
    let server = FakeServer::start(vec![(401, r#"{"code":"missing_signature"}"#)]).await;
    let ended = Shell::new()
        .run(&format!("trigger veo.failure --to {}/callbacks/kie", server.url))
        .await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.out.contains("rejected: 401 in ") && ended.out.contains("missing_signature"),
        "{}",
        ended.out
    );
    assert_eq!(server.seen()[0].signature, None);
}

#[tokio::test]
async fn json_holds_what_was_sent_and_what_came_back() {
    let server = FakeServer::start(vec![(200, FINE)]).await;
    let line = format!(
        "trigger veo.success --json --to {}/callbacks/kie?token=old --token new-token --video-url https://a.example/1.mp4",
        server.url
    );
    let ended = Shell::new().run(&line).await;
    let result: Value = serde_json::from_str(&ended.out).unwrap();
    assert!(result["task_id"].as_str().unwrap().starts_with("test_"));
    assert_eq!(result["received"]["status"], 200);
    assert_eq!(result["received"]["body"]["msg"], "success");
    assert!(
        result["sent"]["body"]
            .to_string()
            .contains("https://a.example/1.mp4")
    );
    assert!(!ended.out.contains("new-token"), "{}", ended.out);
    assert_eq!(server.lines(), ["POST /callbacks/kie?token=new-token"]);
}

#[tokio::test]
async fn every_sample_can_be_listed_and_sent() {
    let server = FakeServer::start(vec![(200, FINE)]).await;
    let list = Shell::new().run("trigger --list --json").await;
    let list: Vec<Value> = serde_json::from_str(&list.out).unwrap();
    assert!(list.len() > 10);
    let shown = Shell::new().run("trigger --list").await.out;
    for sample in list {
        let name = sample["name"].as_str().unwrap();
        assert!(shown.contains(name), "{shown}");
        let ended = Shell::new()
            .run(&format!("trigger {name} --to {}/callbacks/kie", server.url))
            .await;
        assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    }
}

#[tokio::test]
async fn an_unknown_event_is_a_usage_error_that_names_the_known_ones() {
    let ended = Shell::new().run("trigger veo.sucess").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("there are veo.success, "), "{}", ended.err);
    let ended = Shell::new().run("trigger nonsense").await;
    assert!(
        ended
            .err
            .ends_with("\"nonsense\"; `reelhook trigger --list` shows all\n"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn nobody_at_the_target_is_said_without_the_token() {
    let to = "http://127.0.0.1:1/callbacks/kie?token=secret-token";
    let ended = Shell::new().run(&format!("trigger veo.success --to {to}")).await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended
            .err
            .contains("no answer from http://127.0.0.1:1 (Connection refused"),
        "{}",
        ended.err
    );
    assert!(!format!("{ended:?}").contains("secret-token"), "{ended:?}");
}
