//! What callbacks left open is asked for.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Cdn, KEY, Question, Reply, Says, ScriptedProvider, Setup, TestServer, failed_record, failure, generating,
    mp4, record, success, until,
};

const RECORD: &str = "veo/record-info";

/// Asks soon and often.
const QUICK: &str = "reconcile.after = \"100ms\"\nreconcile.every = \"100ms\"\nreconcile.max_per_second = 100\n\
                     downloads.retry_base = \"1ms\"\n";

async fn server(provider: &ScriptedProvider, more: &str) -> TestServer {
    TestServer::with(&format!("{QUICK}{more}{}", provider.source())).await
}

/// Announces a task, which is answered so; 0 for whatever is fine.
async fn expect(server: &TestServer, task: Value, status: u16) {
    let answer = server.post("/v1/tasks", &task).await;
    let fine = answer.status == status || status == 0 && answer.status.is_success();
    assert!(fine, "{}", answer.text());
}

/// The note of the one open question of a task, once it was asked so often.
async fn note(server: &TestServer, id: &str, asks: i64) -> Value {
    until("the question was asked", || async {
        let task = server.task(id).await;
        let asking = task["asking"].as_array().unwrap().clone();
        let asked = asking.first().filter(|ask| ask["asks"].as_i64() >= Some(asks));
        asked.map(|ask| ask["note"].clone())
    })
    .await
}

async fn repaired(server: &TestServer) -> i64 {
    server.get("/v1/stats").await.fine()["repaired"].as_i64().unwrap()
}

async fn vias(server: &TestServer, id: &str) -> Vec<(String, String)> {
    let page = server.get(&format!("/v1/tasks/{id}/deliveries")).await.fine();
    let mut all: Vec<_> = page["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| {
            let word = |name: &str| delivery[name].as_str().unwrap_or("-").to_owned();
            (word("via"), word("verdict"))
        })
        .collect();
    all.sort();
    all
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let own = |(via, verdict): &(&str, &str)| ((*via).to_owned(), (*verdict).to_owned());
    expected.iter().map(own).collect()
}

#[tokio::test]
async fn a_task_whose_callback_never_comes_is_asked_for_and_its_files_are_stored() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [generating("t1"), record("t1", &[url])]);
    let server = server(&provider, "").await;
    expect(&server, json!({"task_id": "t1"}), 201).await;
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["state"], &task["media"]),
        (&json!("succeeded"), &json!("stored"))
    );
    assert_eq!(task["outcomes"][0]["via"], "poll");
    assert_eq!(task["asking"], json!([]));
    assert_eq!(vias(&server, "t1").await, pairs(&[("poll", "accepted")]));
    assert_eq!(repaired(&server).await, 1);
    let asked = provider.asked(RECORD);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].path, "veo/record-info?taskId=t1");
    assert!(asked[1].at - asked[0].at >= Duration::from_millis(100));
}

#[tokio::test]
async fn nobody_is_asked_while_callbacks_come() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let server = server(&provider, "").await;
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    expect(&server, json!({"task_id": "known"}), 201).await;
    for id in ["known", "unknown"] {
        server
            .callback(&success(id, std::slice::from_ref(&url)))
            .send()
            .await
            .taken();
        server.wait_settled(id).await;
    }
    server.callback(&failure("failed")).send().await.taken();
    // Somebody else's question goes out after theirs would have.
    expect(&server, json!({"task_id": "silent"}), 201).await;
    provider.wait_asked(RECORD, 2).await;
    let asked = provider.asked(RECORD);
    assert!(
        asked.iter().all(|question| question.path.ends_with("=silent")),
        "{asked:?}"
    );
    assert_eq!(repaired(&server).await, 0);
}

#[tokio::test]
async fn a_task_that_reports_progress_is_asked_for_like_a_silent_one() {
    let provider = ScriptedProvider::start().await;
    let server = server(&provider, "").await;
    provider.says(RECORD, [failed_record("t1")]);
    let progress = json!({"code": 200, "msg": "", "data": {"taskId": "t1", "callbackType": "text"}});
    server.callback(&progress).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["state"], &task["code"], &task["failure"]["kind"]),
        (&json!("failed"), &json!(400), &json!("content_policy"))
    );
    assert_eq!(repaired(&server).await, 1);
}

#[tokio::test]
async fn market_tasks_are_found_whoever_did_not_say_so() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let market = json!({"code": 200, "msg": "success", "data": {
        "taskId": "m1", "model": "veo-3-1", "state": "success", "param": "{}", "failCode": null, "failMsg": null,
        "resultJson": json!({"resultUrls": [url]}).to_string(), "costTime": 8, "completeTime": 1_755_599_644_000_i64,
        "createTime": 1_755_599_634_000_i64}});
    provider.says("jobs/recordInfo", [market]);
    let server = server(&provider, "").await;
    expect(&server, json!({"task_id": "m1"}), 201).await;
    assert_eq!(server.wait_settled("m1").await["media"], "stored");
    assert_eq!(
        (
            provider.asked(RECORD).len(),
            provider.asked("jobs/recordInfo").len()
        ),
        (1, 1)
    );
    provider.says("jobs/recordInfo", [generating("m2")]);
    expect(&server, json!({"task_id": "m2", "family": "market"}), 201).await;
    note(&server, "m2", 2).await;
    assert_eq!(provider.asked(RECORD).len(), 1, "the family was told");
    expect(&server, json!({"task_id": "s1", "family": "suno"}), 201).await;
    assert_eq!(note(&server, "s1", 1).await["code"], "no_query");
}

#[tokio::test]
async fn what_the_provider_has_no_record_of_is_given_up_as_lost() {
    let provider = ScriptedProvider::start().await;
    let server = server(&provider, "reconcile.give_up_after = \"600ms\"\n").await;
    expect(&server, json!({"task_id": "t1"}), 201).await;
    let unknown = note(&server, "t1", 1).await;
    assert_eq!(unknown["code"], "unknown");
    assert!(
        unknown["detail"].as_str().unwrap().contains("record is null"),
        "{unknown}"
    );
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["state"], &task["failure"]["kind"]),
        (&json!("failed"), &json!("lost"))
    );
    assert_eq!(repaired(&server).await, 0, "nothing was repaired");
    // And if it comes after all, it is taken.
    server.callback(&success("t1", &[])).send().await.taken();
    assert_eq!(server.task("t1").await["state"], "succeeded");

    let too_old = json!({"code": 422, "msg": "Temporarily supports records within 14 days.", "data": null});
    provider.says(RECORD, [too_old.clone()]);
    provider.says("jobs/recordInfo", [too_old]);
    expect(&server, json!({"task_id": "old", "family": "veo"}), 201).await;
    assert_eq!(server.wait_settled("old").await["failure"]["kind"], "lost");
    assert_eq!(
        provider.asked(RECORD).last().unwrap().path,
        "veo/record-info?taskId=old"
    );
}

#[tokio::test]
async fn a_conflict_is_settled_by_the_record() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let right = cdn.file("/right.mp4", &mp4(1, 1_000));
    let wrong = cdn.script("/wrong.mp4", [Reply::Status(500, vec![])]);
    provider.says(RECORD, [record("t1", std::slice::from_ref(&right))]);
    let server = server(&provider, "").await;
    server.callback(&success("t1", &[wrong])).send().await.taken();
    server.callback(&success("t1", &[right])).send().await.taken();
    let task = until("the conflict is settled", || async {
        let task = server.wait_settled("t1").await;
        (task["conflicts"] == 0).then_some(task)
    })
    .await;
    assert_eq!(task["media"], "stored");
    assert!(
        task["files"][0]["provider_url"]
            .as_str()
            .unwrap()
            .ends_with("/right.mp4")
    );
    assert_eq!(
        server.deliveries("conflict").await,
        [("t1".to_owned(), "settled".to_owned())]
    );
    assert_eq!(repaired(&server).await, 0);
}

#[tokio::test]
async fn a_record_that_contradicts_stored_files_is_flagged_and_undoes_nothing() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [failed_record("t1")]);
    let server = server(&provider, "").await;
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    server.callback(&failure("t1")).send().await.taken();
    until("the provider was asked", || async {
        (server.task("t1").await["asking"] == json!([])).then_some(())
    })
    .await;
    let task = server.task("t1").await;
    assert_eq!(
        (&task["state"], &task["media"]),
        (&json!("succeeded"), &json!("stored"))
    );
    let contradicts = ("t1".to_owned(), "contradicts_stored".to_owned());
    assert!(server.deliveries("accepted").await.contains(&contradicts));
}

#[tokio::test]
async fn with_confirm_nothing_is_fetched_before_the_api_agreed() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let forged = cdn.file("/forged.mp4", &mp4(1, 1_000));
    let right = cdn.file("/right.mp4", &mp4(2, 1_000));
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{QUICK}{source}")).await;
    provider.says(RECORD, [generating("t1")]);
    server
        .callback(&success("t1", std::slice::from_ref(&forged)))
        .send()
        .await
        .taken();
    let running = note(&server, "t1", 2).await;
    assert_eq!(running["code"], "running");
    let task = server.task("t1").await;
    assert_eq!(
        (&task["media"], &task["files"][0]["state"]),
        (&json!("queued"), &json!("held"))
    );
    assert_eq!(task["asking"][0]["reason"], "held");
    // The API's URLs are the ones that are fetched.
    provider.says(RECORD, [record("t1", std::slice::from_ref(&right))]);
    let task = server.wait_settled("t1").await;
    assert_eq!(task["media"], "stored");
    assert!(
        task["files"][0]["provider_url"]
            .as_str()
            .unwrap()
            .ends_with("/right.mp4")
    );
    assert_eq!(cdn.hits("/forged.mp4"), 0);
    assert_eq!(
        vias(&server, "t1").await,
        pairs(&[("callback", "accepted"), ("poll", "accepted")])
    );

    provider.says(RECORD, [record("t2", std::slice::from_ref(&right))]);
    server
        .callback(&success("t2", std::slice::from_ref(&right)))
        .send()
        .await
        .taken();
    assert_eq!(server.wait_settled("t2").await["media"], "stored");
    assert_eq!(
        vias(&server, "t2").await,
        pairs(&[("callback", "accepted"), ("poll", "duplicate")])
    );

    provider.says(RECORD, [failed_record("t3")]);
    server.callback(&success("t3", &[forged])).send().await.taken();
    let task = server.wait_settled("t3").await;
    assert_eq!(
        (&task["state"], &task["media"]),
        (&json!("failed"), &json!("failed"))
    );
    assert_eq!(cdn.hits("/forged.mp4"), 0);
    assert_eq!(repaired(&server).await, 0, "all three callbacks came");
}

#[tokio::test]
async fn held_files_that_nobody_confirms_fail_and_a_person_may_decide() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{QUICK}reconcile.give_up_after = \"500ms\"\n{source}")).await;
    server
        .callback(&success("t1", std::slice::from_ref(&url)))
        .send()
        .await
        .taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["error"]["code"], "unconfirmed");
    assert_eq!(cdn.hits("/a.mp4"), 0);

    provider.says(RECORD, [generating("t2")]);
    server.callback(&success("t2", &[url])).send().await.taken();
    let page = server.get("/v1/tasks/t2/deliveries").await.fine();
    let id = page["deliveries"][0]["id"].as_str().unwrap().to_owned();
    let accepted = server
        .post(&format!("/v1/deliveries/{id}/accept"), &json!({}))
        .await;
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(server.wait_settled("t2").await["media"], "stored");
}

#[tokio::test]
async fn an_expired_link_is_replaced_by_a_fresh_one() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let dead = cdn.script("/dead.mp4", [Reply::Status(403, vec![])]);
    let fresh = cdn.file("/fresh.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [record("t1", std::slice::from_ref(&dead))]);
    let maintenance = json!({"code": 455, "msg": "Service Unavailable"});
    let link = json!({"code": 200, "msg": "success", "data": fresh});
    provider.says("common/download-url", [maintenance, link]);
    let server = server(&provider, "").await;
    server
        .callback(&success("t1", std::slice::from_ref(&dead)))
        .send()
        .await
        .taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(task["media"], "stored", "{task}");
    assert_eq!(
        task["files"][0]["provider_url"],
        dead.as_str(),
        "what was announced"
    );
    assert_eq!(task["files"][0]["attempts"], 2);
    assert_eq!(cdn.hits("/dead.mp4"), 1);
    let asked = provider.asked("common/download-url");
    assert_eq!(asked[0].body, json!({"url": dead}));
    assert_eq!(task["asking"], json!([]));
}

#[tokio::test]
async fn a_record_with_other_urls_replaces_an_expired_one_and_a_link_that_is_refused_is_tried_again() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let dead = cdn.script("/dead.mp4", [Reply::Status(404, vec![])]);
    let moved = cdn.file("/moved.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [record("t1", &[moved])]);
    let server = server(&provider, "downloads.max_attempts = 3\n").await;
    server
        .callback(&success("t1", std::slice::from_ref(&dead)))
        .send()
        .await
        .taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    assert_eq!(provider.asked("common/download-url").len(), 0);

    provider.says(RECORD, [record("t2", std::slice::from_ref(&dead))]);
    provider.says(
        "common/download-url",
        [json!({"code": 422, "msg": "url is wrong", "data": null})],
    );
    server.callback(&success("t2", &[dead])).send().await.taken();
    let task = server.wait_settled("t2").await;
    assert_eq!(task["files"][0]["error"]["code"], "expired");
    assert_eq!(cdn.hits("/dead.mp4"), 1 + 3);
}

#[tokio::test]
async fn links_that_expire_each_time_come_to_an_end() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let dead = cdn.script("/dead.mp4", [Reply::Status(403, vec![])]);
    let server = server(&provider, "downloads.max_attempts = 4\n").await;
    let others = (0..50).map(|n| {
        record(
            "t1",
            &[cdn.script(&format!("/{n}.mp4"), [Reply::Status(403, vec![])])],
        )
    });
    provider.says(RECORD, others.collect::<Vec<_>>());
    server.callback(&success("t1", &[dead])).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["error"]["code"], "expired");
    assert_eq!(cdn.all_hits(), 4);
}

#[tokio::test]
async fn a_stale_callback_whose_signature_holds_has_the_provider_asked() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let forged = cdn.file("/forged.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [record("t1", &[url])]);
    let source = provider.source();
    let server = TestServer::with(&format!("{QUICK}{source}hmac_keys = [\"{KEY}\"]\n")).await;
    let stale = success("t1", &[forged]);
    let answer = server.callback(&stale).signed_at(KEY, 1_769_670_760).send().await;
    assert_eq!(answer.problem(), (401, "stale".to_owned()));
    let task = server.wait_settled("t1").await;
    assert_eq!(task["media"], "stored");
    assert_eq!(cdn.hits("/forged.mp4"), 0);
    assert_eq!(task["asking"], json!([]));
    // It is over: the same again asks nobody. Nor does one with a wrong signature.
    server.callback(&stale).signed_at(KEY, 1_769_670_760).send().await;
    let wrong = success("t2", &[]);
    server
        .callback(&wrong)
        .signed_at("another key", 1_769_670_760)
        .send()
        .await;
    assert_eq!(server.get("/v1/tasks/t2").await.status, 404);
    expect(&server, json!({"task_id": "t3"}), 201).await;
    provider.wait_asked(RECORD, 2).await;
    let asked: Vec<String> = provider
        .asked(RECORD)
        .into_iter()
        .map(|question| question.path)
        .collect();
    assert!(asked[1..].iter().all(|path| path.ends_with("=t3")), "{asked:?}");
}

#[tokio::test]
async fn what_a_stale_callback_says_beside_its_task_opens_nothing() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let source = provider.source();
    let server = TestServer::with(&format!("{QUICK}{source}hmac_keys = [\"{KEY}\"]\n")).await;
    provider.says(RECORD, [record("t1", std::slice::from_ref(&url))]);
    let stale = success("t1", &[]);
    for kind in ["kie?kind=aaa1", "kie?kind=4k", "kie?index=7", "kie"] {
        let call = server.callback_to(kind, &stale).signed_at(KEY, 1_769_670_760);
        assert_eq!(call.send().await.problem(), (401, "stale".to_owned()));
    }
    let task = server.wait_settled("t1").await;
    assert_eq!(task["outcomes"].as_array().unwrap().len(), 1, "{task}");
    assert_eq!(task["outcomes"][0]["kind"], "video");

    // An upgrade that failed is not asked for again: that would order another.
    let failed =
        json!({"code": 500, "msg": "The 4K version of this video is unavailable.", "data": {"taskId": "t1"}});
    provider.says("veo/get-4k-video", [failed]);
    expect(&server, json!({"task_id": "t1", "kind": "4k"}), 200).await;
    until("it failed", || async {
        let task = server.task("t1").await;
        (task["outcomes"][1]["state"] == "failed").then_some(())
    })
    .await;
    until("its failure is some time ago", || async {
        let call = server
            .callback_to("kie?kind=4k", &stale)
            .signed_at(KEY, 1_769_670_760);
        call.send().await;
        expect(&server, json!({"task_id": "t9", "ask": "now"}), 0).await;
        (provider.asked(RECORD).len() >= 6).then_some(())
    })
    .await;
    assert_eq!(provider.asked("veo/get-4k-video").len(), 1);
}

#[tokio::test]
async fn with_confirm_a_failure_is_asked_about_too() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{QUICK}{source}")).await;
    provider.says(RECORD, [generating("t1"), record("t1", &[url])]);
    server.callback(&failure("t1")).send().await.taken();
    assert_eq!(server.task("t1").await["state"], "failed");
    let task = until("the truth is known", || async {
        let task = server.wait_settled("t1").await;
        (task["state"] == "succeeded").then_some(task)
    })
    .await;
    assert_eq!((&task["media"], &task["asking"]), (&json!("stored"), &json!([])));
}

#[tokio::test]
async fn what_is_urgent_does_not_wait_behind_what_is_silent() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let slow = QUICK.replace("max_per_second = 100", "max_per_second = 10");
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{slow}{source}")).await;
    provider.says(RECORD, [generating("x")]);
    let many: Vec<Value> = (0..500)
        .map(|n| json!({"task_id": format!("silent-{n}"), "family": "veo", "ask": "now"}))
        .collect();
    expect(&server, json!(many), 201).await;
    provider.wait_asked(RECORD, 3).await;
    provider.says(RECORD, [record("held", std::slice::from_ref(&url))]);
    server.callback(&success("held", &[url])).send().await.taken();
    let before = provider.asked(RECORD).len();
    assert_eq!(server.wait_settled("held").await["media"], "stored");
    let asked = provider.asked(RECORD);
    let at = asked
        .iter()
        .position(|question| question.path.ends_with("=held"))
        .unwrap();
    assert!(at <= before + 5, "asked as number {at} after {before}");
}

#[tokio::test]
async fn an_endpoint_in_trouble_hides_neither_the_other_nor_fresh_links() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let dead = cdn.script("/dead.mp4", [Reply::Status(403, vec![])]);
    let fresh = cdn.file("/fresh.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [json!({"code": 505, "msg": "Feature disabled"})]);
    provider.says(
        "common/download-url",
        [json!({"code": 200, "msg": "success", "data": fresh})],
    );
    let server = server(&provider, "").await;
    server.callback(&success("t1", &[dead])).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");

    let market = json!({"code": 200, "msg": "success", "data": {"taskId": "m1", "model": "m", "state": "fail",
        "failCode": "500", "failMsg": "Internal server error", "param": "{}", "costTime": 0, "resultJson": ""}});
    provider.says("jobs/recordInfo", [market]);
    expect(&server, json!({"task_id": "m1"}), 201).await;
    assert_eq!(server.wait_settled("m1").await["state"], "failed");
}

#[tokio::test]
async fn trouble_gives_nothing_up_and_what_cannot_be_asked_stays_pending() {
    let provider = ScriptedProvider::start().await;
    let server = server(&provider, "reconcile.give_up_after = \"200ms\"\n").await;
    provider.says(RECORD, [json!({"code": 500, "msg": "Timeout"})]);
    expect(&server, json!({"task_id": "t1", "family": "veo"}), 201).await;
    expect(&server, json!({"task_id": "s1", "family": "suno"}), 201).await;
    provider.wait_asked(RECORD, 4).await;
    for (id, code) in [("t1", "provider_failed"), ("s1", "no_query")] {
        let task = server.task(id).await;
        assert_eq!(
            (&task["state"], &task["asking"][0]["note"]["code"]),
            (&json!("pending"), &json!(code))
        );
    }
    // An upgrade that answers as another task is not ordered again and again.
    let another = json!({"code": 200, "msg": "success", "data": {"taskId": "n1", "resultUrls": null, "imageUrls": null}});
    provider.says("veo/get-4k-video", [another]);
    expect(&server, json!({"task_id": "u1", "kind": "4k"}), 201).await;
    assert_eq!(server.wait_settled("u1").await["failure"]["kind"], "lost");
    assert_eq!(provider.asked("veo/get-4k-video").len(), 1);
}

#[tokio::test]
async fn only_the_success_whose_files_wait_can_be_accepted_over_the_providers_silence() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{QUICK}{source}")).await;
    provider.says(RECORD, [generating("t1")]);
    server.callback(&failure("t1")).send().await.taken();
    server.callback(&success("t1", &[url])).send().await.taken();
    let page = server.get("/v1/tasks/t1/deliveries").await.fine();
    let accept = async |n: usize| {
        let id = page["deliveries"][n]["id"].as_str().unwrap();
        server
            .post(&format!("/v1/deliveries/{id}/accept"), &json!({}))
            .await
    };
    assert_eq!(accept(1).await.status, 409, "the failure that came first");
    assert_eq!(server.task("t1").await["files"][0]["state"], "held");
    assert_eq!(accept(0).await.status, 200);
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
}

#[tokio::test]
async fn a_4k_upgrade_is_asked_for_only_if_it_was_ordered() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/4k.mp4", &mp4(1, 1_000));
    let done = json!({"code": 422, "msg": "The video has been generated successfully",
        "data": {"taskId": "t1", "resultUrls": [url], "imageUrls": null}});
    provider.says("veo/get-4k-video", [done]);
    let source = provider.source().replace("confirm = false", "confirm = true");
    let server = TestServer::with(&format!("{QUICK}{source}")).await;
    expect(&server, json!({"task_id": "t1", "kind": "4k", "index": 1}), 201).await;
    assert_eq!(
        server.wait_settled("t1").await["files"][0]["name"],
        "4k-1-result-0.mp4"
    );
    let asked = provider.asked("veo/get-4k-video");
    assert_eq!(asked[0].body["taskId"], "t1");
    assert_eq!(asked[0].body["index"], 1);

    let callback = success("t2", &[url]);
    server.callback_to("kie?kind=4k", &callback).send().await.taken();
    assert_eq!(note(&server, "t2", 1).await["code"], "not_ordered");
    assert_eq!(
        provider.asked("veo/get-4k-video").len(),
        1,
        "that would have cost"
    );
}

#[tokio::test]
async fn a_1080p_version_is_asked_for_until_it_is_there() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/hd.mp4", &mp4(1, 1_000));
    let wait = json!({"code": 400, "msg": "1080P is processing. It should be ready in 1-2 minutes. Please check back shortly."});
    let done = json!({"code": 200, "msg": "success", "data": {"resultUrl": url}});
    provider.says("veo/get-1080p-video", [wait, done]);
    let server = server(&provider, "").await;
    expect(&server, json!({"task_id": "t1", "kind": "1080p"}), 201).await;
    let task = server.wait_settled("t1").await;
    assert_eq!(task["files"][0]["name"], "1080p-0-result-0.mp4");
    assert_eq!(
        provider.asked("veo/get-1080p-video")[0].path,
        "veo/get-1080p-video?taskId=t1&index=0"
    );
}

#[tokio::test]
async fn the_whole_film_of_an_extension_is_stored_too() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let clip = cdn.file("/clip.mp4", &mp4(1, 1_000));
    let film = cdn.file("/film.mp4", &mp4(2, 2_000));
    let mut whole = record("x1", std::slice::from_ref(&clip));
    whole["data"]["response"]["fullResultUrls"] = json!([film]);
    provider.says(RECORD, [whole]);
    let server = server(&provider, "").await;
    expect(&server, json!({"task_id": "x1", "family": "veo-extend"}), 201).await;
    server.callback(&success("x1", &[clip])).send().await.taken();
    let task = until("the film is stored", || async {
        let task = server.wait_settled("x1").await;
        (task["files"].as_array().unwrap().len() == 2).then_some(task)
    })
    .await;
    assert_eq!(task["media"], "stored");
    assert_eq!(
        (&task["files"][1]["role"], &task["files"][1]["name"]),
        (&json!("full"), &json!("full-0.mp4"))
    );
    assert_eq!(task["asking"], json!([]));
    assert_eq!(repaired(&server).await, 0, "the callback came");
}

#[tokio::test]
async fn who_announces_an_extension_after_its_callback_gets_the_whole_film() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let clip = cdn.file("/clip.mp4", &mp4(1, 1_000));
    let film = cdn.file("/film.mp4", &mp4(2, 2_000));
    let mut whole = record("x1", std::slice::from_ref(&clip));
    whole["data"]["response"]["fullResultUrls"] = json!([film]);
    provider.says(RECORD, [whole]);
    let server = server(&provider, "").await;
    server.callback(&success("x1", &[clip])).send().await.taken();
    let announced = json!({"task_id": "x1", "family": "veo-extend"});
    server.post("/v1/tasks", &announced).await.fine();
    until("the film is stored", || async {
        let task = server.wait_settled("x1").await;
        (task["files"][1]["role"] == "full").then_some(())
    })
    .await;
}

#[tokio::test]
async fn every_way_to_be_refused_is_told_apart_and_none_is_a_hot_loop() {
    for (says, code) in [
        (
            Says::Text(502, "text/html", "<html>bad gateway</html>".to_owned()),
            "provider_gateway",
        ),
        (json!({"code": 500, "msg": "Timeout"}).into(), "provider_failed"),
        (
            json!({"code": 401, "msg": "You do not have access permissions"}).into(),
            "unauthorized",
        ),
        (
            json!({"code": 402, "msg": "Insufficient credits"}).into(),
            "no_credits",
        ),
        (json!({"code": 455, "msg": "maintenance"}).into(), "maintenance"),
        (json!({"code": 429, "msg": "slow down"}).into(), "rate_limited"),
    ] {
        let provider = ScriptedProvider::start().await;
        provider.says(RECORD, [says]);
        let server = server(&provider, "").await;
        expect(&server, json!({"task_id": "t1", "family": "veo"}), 201).await;
        let note = note(&server, "t1", 1).await;
        assert_eq!(note["code"], code, "{note}");
        assert!(!note["detail"].as_str().unwrap().is_empty());
        let (asked, began) = (provider.all_asked(), std::time::Instant::now());
        // Somebody waits for it meanwhile: nothing changes for half a second.
        server.get("/v1/tasks/t1?wait=500ms").await.fine();
        if matches!(code, "unauthorized" | "rate_limited") {
            expect(&server, json!({"task_id": "t2"}), 201).await;
            let another = server.task("t2").await["asking"][0].clone();
            assert_eq!(
                (&another["asks"], &another["note"]["code"]),
                (&json!(0), &json!(code))
            );
            let stats = server.get("/v1/stats").await.fine();
            assert_eq!(stats["asks"]["paused"]["kie"]["code"], code, "{stats}");
        }
        let more = provider.all_asked() - asked;
        assert!(
            began.elapsed() >= Duration::from_millis(400) && more <= 6,
            "{code}: asked {more} times more"
        );
    }
}

#[tokio::test]
async fn an_api_whose_name_is_gone_is_waited_for() {
    let provider = ScriptedProvider::start().await;
    let source = provider
        .source()
        .replace(&provider.addr.to_string(), "gone.invalid");
    let server = TestServer::with(&format!("{QUICK}{source}")).await;
    expect(&server, json!({"task_id": "t1"}), 201).await;
    let note = note(&server, "t1", 1).await;
    assert_eq!(note["code"], "provider_unreachable", "{note}");
    assert_eq!(server.task("t1").await["state"], "pending");
}

#[tokio::test]
async fn a_source_without_a_key_says_so_and_asks_once_it_has_one() {
    let (provider, cdn) = (ScriptedProvider::start().await, Cdn::start().await);
    let url = cdn.file("/a.mp4", &mp4(1, 1_000));
    provider.says(RECORD, [record("t1", &[url])]);
    let keyless = format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n{QUICK}");
    let server = Setup::new(&keyless).start().await;
    expect(&server, json!({"task_id": "t1"}), 201).await;
    let task = server.task("t1").await;
    assert_eq!(task["asking"][0]["note"]["code"], "no_api_key");
    assert_eq!(task["asking"][0]["next_ask_at"], Value::Null);
    // It survives the restart with which the key comes.
    let data_dir = server.data_dir();
    let stopped = server.halt().await;
    let with_key = format!("{keyless}{}", provider.source());
    let server = Setup::new(&with_key).data_dir(&data_dir).start().await;
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    drop(server);
    drop(stopped);
}

/// Tasks that one request announces, and the requests: a hundred thousand questions that are all due.
const ANNOUNCED: (usize, usize) = (1_000, 100);
const PER_SECOND: usize = 50;

/// No second holds more questions than it may. One may go out late, and the next in time; four are under way at one time,
/// each may arrive late, and lead to another.
fn keep_the_pace(asked: &[Question]) {
    for (n, first) in asked.iter().enumerate() {
        let within = asked[n..]
            .iter()
            .take_while(|other| other.at - first.at < Duration::from_secs(1));
        assert!(within.count() <= PER_SECOND + 2 + 8, "from the {n}th on");
    }
}

#[tokio::test]
async fn a_question_that_takes_two_requests_counts_as_two() {
    let provider = ScriptedProvider::start().await;
    let server = TestServer::with(&format!(
        "reconcile.every = \"1h\"\nreconcile.max_per_second = {PER_SECOND}\n{}api_queries = 1000\n",
        provider.source()
    ))
    .await;
    // Nobody says of which family they are, and neither endpoint knows them.
    let tasks: Vec<_> = (0..100)
        .map(|n| json!({"task_id": format!("t{n}"), "ask": "now"}))
        .collect();
    expect(&server, json!(tasks), 201).await;
    provider.wait_asked("jobs/recordInfo", 100).await;
    let mut asked = provider.asked(RECORD);
    asked.extend(provider.asked("jobs/recordInfo"));
    asked.sort_by_key(|question| question.at);
    assert_eq!(asked.len(), 200);
    keep_the_pace(&asked);
}

#[tokio::test]
async fn a_hundred_thousand_due_questions_go_out_no_faster_than_they_may() {
    let provider = ScriptedProvider::start().await;
    provider.says(RECORD, [generating("any")]);
    let server = TestServer::with(&format!(
        "reconcile.every = \"1h\"\nreconcile.max_per_second = {PER_SECOND}\n{}api_queries = 1000\n",
        provider.source()
    ))
    .await;
    for request in 0..ANNOUNCED.1 {
        let awaited = |n| json!({"task_id": format!("t{request}-{n}"), "family": "veo", "ask": "now"});
        let tasks: Vec<_> = (0..ANNOUNCED.0).map(awaited).collect();
        expect(&server, json!(tasks), 201).await;
    }
    let before = provider.all_asked();
    provider.wait_asked(RECORD, before + 3 * PER_SECOND).await;
    let asked = provider.asked(RECORD);
    keep_the_pace(&asked);
    let mut paths: Vec<_> = asked.iter().map(|question| &question.path).collect();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), asked.len(), "each is asked about once an hour");
    // What must always hold is looked for row by row, which takes minutes with so many.
    server.halt().await;
}
