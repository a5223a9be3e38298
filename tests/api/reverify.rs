//! Rejected deliveries that are judged again: after a key was put right, or on somebody's word.

use std::fmt::Write as _;
use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::provider::signature::sign;
use serde_json::{Value, json};

use crate::support::{
    Answer, Cdn, KEY, Program, Setup, TOKEN, TestServer, client, failure, mp4, success, until,
};

const NOW: i64 = 1_795_284_446;
const WRONG: &str = "[sources.kie]\nhmac_keys = [\"not-the-key-of-the-provider\"]\n";
const RIGHT: &str = "[sources.kie]\nhmac_keys = [\"test-webhook-hmac-key\"]\n";

/// A server of these sources whose clock stands still.
async fn server_of(sources: &str) -> (TestServer, Clock) {
    let clock = Clock::manual(NOW * 1000);
    let server = Setup::new(&format!("egress.allow_cidrs = [\"127.0.0.0/8\"]\n{sources}"))
        .clock(&clock)
        .start()
        .await;
    (server, clock)
}

async fn refused(server: &TestServer, rest: &str, body: &Value, reason: &str) {
    let answer = server.callback_to(rest, body).signed(KEY).send().await;
    assert_eq!(answer.problem().1, reason);
}

async fn reverify(server: &TestServer, id: i64) -> Answer {
    server
        .post(&format!("/v1/deliveries/{id}/reverify"), &json!({}))
        .await
}

async fn reverify_all(server: &TestServer, query: &str) -> Value {
    let path = format!("/v1/deliveries/reverify{query}");
    server.post(&path, &json!({})).await.fine()
}

async fn delivery(server: &TestServer, id: i64) -> Value {
    server.get(&format!("/v1/deliveries/{id}")).await.fine()
}

#[tokio::test]
async fn once_the_key_is_right_a_rejected_delivery_is_believed_and_its_file_stored() {
    let (cdn, (server, clock)) = (Cdn::start().await, server_of(WRONG).await);
    let body = success("t1", &[cdn.file("/video.mp4", &mp4(1, 2_000))]);
    refused(&server, "kie", &body, "bad_signature").await;
    let before = delivery(&server, 1).await;
    let remedy = before["remedy"].as_str().unwrap();
    assert!(remedy.contains("sources.kie.hmac_keys"), "{remedy}");

    let still = reverify(&server, 1).await.fine();
    assert_eq!(
        (&still["verdict"], &still["reason"]),
        (&json!("rejected"), &json!("bad_signature"))
    );
    assert_eq!(still["remedy"], before["remedy"]);
    assert_eq!(delivery(&server, 1).await, before);
    assert_eq!(cdn.all_hits(), 0);

    // Far past the tolerance: what counts is when it came.
    clock.advance(Duration::from_hours(72));
    server.take_over(RIGHT);
    let now = reverify(&server, 1).await.fine();
    let expected = json!({"id": "1", "task_id": "t1", "verdict": "accepted", "reason": "reverified",
                          "already": false, "queued": 1});
    assert_eq!(now, expected);
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["media"], &task["state"]),
        (&json!("stored"), &json!("succeeded"))
    );
    assert_eq!(task["received_at"], before["received_at"]);
    let after = delivery(&server, 1).await;
    assert_eq!(
        (&after["verdict"], &after["reason"]),
        (&json!("accepted"), &json!("reverified"))
    );
    for same in ["id", "body", "headers", "received_at", "remote_addr"] {
        assert_eq!(after[same], before[same]);
    }

    let again = reverify(&server, 1).await.fine();
    assert_eq!(
        (&again["verdict"], &again["already"]),
        (&json!("accepted"), &json!(true))
    );
    assert_eq!(server.task("t1").await["deliveries"], 1);
    assert_eq!(
        reverify(&server, 7).await.problem(),
        (404, "unknown_delivery".to_owned())
    );
}

#[tokio::test]
async fn what_was_stale_when_it_came_stays_so_unless_the_tolerance_grew() {
    let (server, clock) = server_of(RIGHT).await;
    let late = server
        .callback(&failure("t1"))
        .signed_at(KEY, NOW - 700)
        .send()
        .await;
    assert_eq!(late.problem().1, "stale");
    let remedy = delivery(&server, 1).await["remedy"].to_string();
    assert!(
        remedy.contains("11 min before it came") && remedy.contains("(5 min)"),
        "{remedy}"
    );
    clock.advance(Duration::from_hours(1));
    assert_eq!(reverify(&server, 1).await.fine()["reason"], "stale");
    server.take_over(&format!("{RIGHT}timestamp_tolerance = \"700s\"\n"));
    assert_eq!(reverify(&server, 1).await.fine()["verdict"], "accepted");
}

#[tokio::test]
async fn a_signature_used_meanwhile_makes_it_a_duplicate_or_a_conflict() {
    let (cdn, (server, _)) = (Cdn::start().await, server_of(WRONG).await);
    let genuine = success("t1", &[cdn.file("/genuine.mp4", &mp4(1, 2_000))]);
    let forged = success("t1", &[cdn.file("/forged.mp4", &mp4(2, 2_000))]);
    refused(&server, "kie", &genuine, "bad_signature").await;
    refused(&server, "kie", &forged, "bad_signature").await;
    refused(&server, "kie?kind=4k", &genuine, "bad_signature").await;
    server.take_over(RIGHT);
    server.callback(&genuine).signed(KEY).send().await.taken();
    let all = reverify_all(&server, "").await;
    let expected = json!({"examined": 3, "accepted": 0, "duplicate": 1, "conflict": 2, "still_rejected": {}});
    assert_eq!(all, expected);
    let conflicts = server.deliveries("conflict").await;
    assert_eq!(
        conflicts,
        vec![("t1".to_owned(), "signature_reused".to_owned()); 2]
    );
    let task = server.wait_settled("t1").await;
    assert_eq!((&task["deliveries"], &task["conflicts"]), (&json!(4), &json!(2)));
    assert_eq!((cdn.hits("/genuine.mp4"), cdn.hits("/forged.mp4")), (1, 0));
    // The body that two have is in the row of the earlier one, which was rejected first.
    let shared = "SELECT count(*) FROM deliveries WHERE body_of = 1 AND body IS NULL AND id > 1";
    assert_eq!(server.number(shared).await, 2);
    assert_eq!(delivery(&server, 3).await["body"], genuine.to_string());
}

#[tokio::test]
async fn a_signature_that_was_late_is_bound_even_where_its_task_is_deleted() {
    let two = |key: &str| {
        format!("[sources.kie]\nhmac_keys = [\"{key}\"]\n[sources.other]\nhmac_keys = [\"{key}\"]\n")
    };
    let (server, clock) = server_of(&two("not-the-key-of-the-provider")).await;
    let genuine = failure("t1");
    refused(&server, "kie", &genuine, "bad_signature").await;
    refused(&server, "other", &genuine, "bad_signature").await;
    clock.advance(Duration::from_hours(72));
    server.take_over(&two(KEY));
    assert_eq!(reverify(&server, 1).await.fine()["verdict"], "accepted");
    assert_eq!(server.delete("/v1/tasks/t1?source=kie").await.status, 204);
    // Something that has the writer look for expired bindings.
    clock.advance(Duration::from_mins(1));
    server.callback(&failure("t2")).signed(KEY).send().await.taken();
    let reused = reverify(&server, 2).await.fine();
    assert_eq!(
        (&reused["verdict"], &reused["reason"]),
        (&json!("conflict"), &json!("signature_reused"))
    );
}

#[tokio::test]
async fn of_two_who_verify_again_at_one_time_one_is_told_that_it_was_done() {
    let (cdn, (server, _)) = (Cdn::start().await, server_of(WRONG).await);
    let body = success("t1", &[cdn.file("/video.mp4", &mp4(1, 2_000))]);
    refused(&server, "kie", &body, "bad_signature").await;
    server.take_over(RIGHT);
    let asked = (0..8).map(|_| reverify(&server, 1));
    let answers: Vec<Value> = futures_util::future::join_all(asked)
        .await
        .iter()
        .map(Answer::fine)
        .collect();
    assert!(
        answers.iter().all(|answer| answer["verdict"] == "accepted"),
        "{answers:?}"
    );
    assert_eq!(
        answers.iter().filter(|answer| answer["already"] == false).count(),
        1
    );
    let task = server.wait_settled("t1").await;
    assert_eq!((&task["deliveries"], cdn.all_hits()), (&json!(1), 1));
}

#[tokio::test]
async fn what_the_url_said_still_counts() {
    let sources = |key: &str| format!("[sources.kie]\nhmac_keys = [\"{key}\"]\ntokens = [\"{TOKEN}\"]\n");
    let (server, _) = server_of(&sources("not-the-key-of-the-provider")).await;
    let rest = format!("kie?token={TOKEN}&kind=cover&index=2&ref=abc");
    refused(&server, &rest, &failure("t1"), "bad_signature").await;
    let query = server.word("SELECT query FROM deliveries").await;
    assert_eq!(
        query, "token&ref=abc",
        "that its token was right, and not the token"
    );
    let kept = delivery(&server, 1).await;
    assert_eq!((&kept["kind"], &kept["index"]), (&json!("cover"), &json!(2)));
    // By its token alone, which was right when it came.
    server.take_over(&format!("[sources.kie]\ntokens = [\"{TOKEN}\"]\n"));
    assert_eq!(reverify(&server, 1).await.fine()["verdict"], "accepted");
    let outcome = &server.task("t1").await["outcomes"][0];
    assert_eq!(
        (&outcome["kind"], &outcome["index"]),
        (&json!("cover"), &json!(2))
    );
}

#[tokio::test]
async fn a_source_that_verifies_by_tokens_now_does_not_believe_what_had_none() {
    let (server, _) = server_of(WRONG).await;
    refused(&server, "kie", &failure("t1"), "bad_signature").await;
    server.take_over(&format!("[sources.kie]\ntokens = [\"{TOKEN}\"]\n"));
    assert_eq!(reverify(&server, 1).await.fine()["reason"], "missing_token");
    server.take_over("[sources.kie]\n");
    assert_eq!(reverify(&server, 1).await.fine()["reason"], "loopback_only");
    server.take_over("[sources.kie]\nallow_unverified = true\n");
    assert_eq!(reverify(&server, 1).await.fine()["verdict"], "accepted");
}

#[tokio::test]
async fn a_wrong_token_is_only_taken_on_the_word_of_a_person_and_never_beside_a_wrong_signature() {
    let (server, _) = server_of(&format!("{RIGHT}tokens = [\"{TOKEN}\"]\n")).await;
    refused(
        &server,
        "kie?token=of-nobody-at-all-000000",
        &failure("t1"),
        "bad_token",
    )
    .await;
    refused(&server, "kie", &failure("t2"), "missing_token").await;
    let forged = server.callback(&failure("t3")).signed("another key").send().await;
    assert_eq!(forged.problem().1, "missing_token");
    let all = reverify_all(&server, "").await;
    assert_eq!(all["still_rejected"], json!({"bad_token": 1, "missing_token": 2}));
    assert_eq!(reverify(&server, 1).await.fine()["reason"], "bad_token");

    let accept = async |id: i64| {
        server
            .post(&format!("/v1/deliveries/{id}/accept"), &json!({}))
            .await
    };
    for (id, task) in [(1, "t1"), (2, "t2")] {
        let taken = accept(id).await.fine();
        let now = (&taken["verdict"], &taken["reason"], &taken["task_id"]);
        assert_eq!(
            now,
            (&json!("accepted"), &json!("accepted_by_person"), &json!(task))
        );
    }
    assert_eq!(accept(3).await.problem(), (409, "bad_signature".to_owned()));
    assert_eq!(delivery(&server, 3).await["verdict"], "rejected");
    assert_eq!(accept(1).await.problem(), (409, "not_a_conflict".to_owned()));
}

#[tokio::test]
async fn nobody_can_vouch_for_what_was_refused_for_another_reason() {
    let (server, _) = server_of(WRONG).await;
    refused(&server, "kie", &failure("t1"), "bad_signature").await;
    let accepted = server.post("/v1/deliveries/1/accept", &json!({})).await;
    assert_eq!(accepted.problem(), (409, "not_a_conflict".to_owned()));
}

#[tokio::test]
async fn what_no_key_can_mend_stays_rejected_and_says_why() {
    let (server, _) = server_of(RIGHT).await;
    refused(&server, "kie?index=x", &failure("t1"), "bad_query").await;
    let bodies = [
        "no json",
        "{}",
        r#"{"taskId":"a","task_id":"b"}"#,
        r#"{"code":1,"code":2,"taskId":"t"}"#,
    ];
    for body in bodies {
        server.callback_of("kie", body, "t1").signed(KEY).send().await;
    }
    let large = format!("{{\"taskId\":\"a/b\",\"x\":\"{}\"}}", "x".repeat(70_000));
    server.callback_of("kie", large, "a/b").signed(KEY).send().await;
    let all = reverify_all(&server, "").await;
    let expected = json!({"bad_query": 1, "not_json": 1, "no_task_id": 1, "task_ids_differ": 1, "duplicate_key": 1,
                          "body_not_kept": 1});
    assert_eq!((&all["examined"], &all["still_rejected"]), (&json!(6), &expected));
    assert_eq!(
        reverify(&server, 6).await.problem(),
        (409, "body_not_kept".to_owned())
    );
    let listed = server.get("/v1/deliveries?verdict=rejected").await.fine();
    let remedies: Vec<_> = listed["deliveries"].as_array().unwrap().iter().collect();
    assert!(
        remedies.iter().all(|delivery| delivery["remedy"].is_string()),
        "{listed}"
    );
    server.take_over("[sources.other]\nhmac_keys = [\"x\"]\n");
    assert_eq!(
        reverify(&server, 2).await.problem(),
        (409, "unknown_source".to_owned())
    );
    let remedy = delivery(&server, 2).await["remedy"].to_string();
    assert!(remedy.contains("[sources.kie]"), "{remedy}");
}

#[tokio::test]
async fn a_deleted_task_is_not_revived_and_a_confirming_source_still_holds_its_files() {
    let (cdn, (server, _)) = (Cdn::start().await, server_of(WRONG).await);
    let body = success("t1", &[cdn.file("/video.mp4", &mp4(1, 2_000))]);
    refused(&server, "kie", &body, "bad_signature").await;
    let other = success("t2", &[cdn.file("/other.mp4", &mp4(2, 2_000))]);
    refused(&server, "kie", &other, "bad_signature").await;
    server.post("/v1/tasks", &json!({"task_id": "t1"})).await;
    assert_eq!(server.delete("/v1/tasks/t1").await.status, 204);
    server.take_over(&format!(
        "{RIGHT}confirm = true\napi_key = \"k\"\napi_url = \"http://kie.invalid\"\n"
    ));
    let late = reverify(&server, 1).await.fine();
    assert_eq!(
        (&late["verdict"], &late["reason"]),
        (&json!("duplicate"), &json!("deleted"))
    );
    assert_eq!(server.get("/v1/tasks/t1").await.status, 404);
    assert_eq!(reverify(&server, 2).await.fine()["queued"], 0);
    assert_eq!(server.task("t2").await["files"][0]["state"], "held");
    assert_eq!(cdn.all_hits(), 0);
}

#[tokio::test]
async fn only_what_was_asked_for_is_judged_again() {
    let sources = |key: &str| {
        format!("[sources.kie]\nhmac_keys = [\"{key}\"]\n[sources.other]\nhmac_keys = [\"{key}\"]\n")
    };
    let (server, clock) = server_of(&sources("not-the-key-of-the-provider")).await;
    refused(&server, "kie", &failure("t1"), "bad_signature").await;
    refused(&server, "other", &failure("t2"), "bad_signature").await;
    server
        .callback_of("kie", "no json", "t3")
        .signed(KEY)
        .send()
        .await;
    clock.advance(Duration::from_mins(10));
    refused(&server, "kie", &failure("t4"), "bad_signature").await;
    server.take_over(&sources(KEY));
    let examined = async |query: &str| {
        let all = reverify_all(&server, query).await;
        (
            all["examined"].as_u64().unwrap(),
            all["accepted"].as_u64().unwrap(),
        )
    };
    assert_eq!(examined("?reason=not_json").await, (1, 0));
    assert_eq!(examined("?source=other").await, (1, 1));
    let since = delivery(&server, 4).await["received_at"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(examined(&format!("?since={since}")).await, (1, 1));
    assert_eq!(examined("?reason=bad_signature").await, (1, 1));
    let bad = server
        .post("/v1/deliveries/reverify?reason=nonsense", &json!({}))
        .await;
    assert_eq!(bad.problem(), (400, "bad_request".to_owned()));
}

async fn page(server: &TestServer, path: &str) -> String {
    let answer = server.get_with(path, &[("accept", "text/html")]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

/// What a form leads to.
async fn sent(server: &TestServer, path: &str, form: &str) -> (u16, String) {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    let request = client
        .build()
        .unwrap()
        .post(format!("http://{}{path}", server.addr))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form.to_owned());
    let answer = Answer::of(request).await;
    (answer.status.as_u16(), answer.header("location").to_owned())
}

#[tokio::test]
async fn the_pages_say_what_was_turned_away_and_have_it_judged_again() {
    let (server, _) = server_of(WRONG).await;
    for task in ["t1", "t2"] {
        refused(&server, "kie", &failure(task), "bad_signature").await;
    }
    let list = page(&server, "/deliveries").await;
    assert!(
        list.contains("2 turned away") && list.contains("sources.kie.hmac_keys"),
        "{list}"
    );
    let one = page(&server, "/deliveries/1").await;
    assert!(
        one.contains("still be refused as <code>bad_signature</code>"),
        "{one}"
    );
    let still = sent(&server, "/deliveries/1/reverify", "").await;
    assert_eq!(still, (303, "/deliveries/1?notice=still_rejected".to_owned()));

    server.take_over(RIGHT);
    let one = page(&server, "/deliveries/1").await;
    assert!(one.contains("it passes"), "{one}");
    assert_eq!(
        delivery(&server, 1).await["verdict"],
        "rejected",
        "looking changes nothing"
    );
    let good = sent(&server, "/deliveries/1/reverify", "").await;
    assert_eq!(good, (303, "/deliveries/1?notice=reverified".to_owned()));
    let (status, led_to) = sent(&server, "/deliveries/reverify", "source=kie&reason=bad_signature").await;
    assert_eq!(
        (status, led_to.as_str()),
        (303, "/deliveries?accepted=1&duplicate=0&conflict=0&rejected=0")
    );
    let told = page(&server, &led_to).await;
    assert!(
        told.contains("1 verified again:") && !told.contains("turned away"),
        "{told}"
    );
    let rows = page(
        &server,
        "/deliveries?verdict=accepted&source=kie&reason=reverified",
    )
    .await;
    assert_eq!(rows.matches("data-key=").count(), 2, "{rows}");
}

#[tokio::test]
async fn a_conflict_shows_both_claims_and_hostile_data_stays_text() {
    let (server, _) = server_of(RIGHT).await;
    let evil = "<script>alert(1)</script>\u{202e}\"><img src=x onerror=alert(2)>";
    let stands = success("t1", &["https://cdn.invalid/stands.mp4".to_owned()]);
    let mut other = success("t1", &[format!("https://cdn.invalid/{evil}.mp4")]);
    other["msg"] = json!(evil);
    other[evil] = json!(evil);
    server.callback(&stands).signed_at(KEY, NOW).send().await.taken();
    server
        .callback(&other)
        .signed_at(KEY, NOW + 1)
        .send()
        .await
        .taken();
    let shown = page(&server, "/deliveries/2").await;
    assert!(
        !shown.contains("<script>alert") && !shown.contains("<img src=x"),
        "{shown}"
    );
    for expected in [
        "Two claims",
        "https://cdn.invalid/stands.mp4",
        "Believe this delivery",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let marked = "covered by the signature\">&#34;t1&#34;</mark>";
    assert_eq!(shown.matches(marked).count(), 1, "{shown}");
    let accepted = sent(&server, "/deliveries/2/accept", "").await;
    assert_eq!(accepted, (303, "/deliveries/2?notice=accepted".to_owned()));
    assert_eq!(sent(&server, "/deliveries/99/accept", "").await.0, 404);
}

/// So many rejected rows of `kie`, of which every tenth is signed with the right key.
fn ring_of(count: i64) -> &'static str {
    let mut rows = String::new();
    for n in 1..=count {
        let body = failure(&format!("t{n}")).to_string();
        let key = if n % 10 == 0 { KEY } else { "another key" };
        let signature = sign(key, &format!("t{n}"), &NOW.to_string());
        let headers = json!({"x-webhook-timestamp": NOW.to_string(), "x-webhook-signature": signature});
        let comma = if n == 1 { "" } else { "," };
        let bytes = hex::encode(body);
        write!(
            rows,
            "{comma}({n},'kie','t{n}',{NOW}000,'callback','rejected','bad_signature','{headers}',x'00',0,300,x'{bytes}')"
        )
        .unwrap();
    }
    let sql = format!(
        "INSERT INTO deliveries (id, source, task_id, received_at, via, verdict, reason, headers, body_sha256, known, size, body)
         VALUES {rows}; UPDATE counters SET value = {count} WHERE name = 'delivery'"
    );
    Box::leak(sql.into_boxed_str())
}

#[tokio::test]
async fn a_full_ring_is_judged_in_steps_and_callbacks_are_taken_meanwhile() {
    let (server, _) = server_of(RIGHT).await;
    server.sabotage(ring_of(10_000)).await;
    let server = server.halt().await.start().await;
    let all = reverify_all(&server, "");
    let mut taken = 0;
    let meanwhile = async {
        loop {
            let body = failure(&format!("fresh-{taken}"));
            server.callback(&body).signed(KEY).send().await.taken();
            taken += 1;
        }
    };
    let all = tokio::select! {
        all = all => all,
        () = meanwhile => unreachable!("it goes on"),
    };
    let expected = json!({"examined": 10_000, "accepted": 1_000, "duplicate": 0, "conflict": 0,
                          "still_rejected": {"bad_signature": 9_000}});
    assert_eq!(all, expected);
    assert!(taken > 10, "{taken} callbacks were taken meanwhile");
    assert_eq!(
        server
            .number("SELECT count(*) FROM deliveries WHERE verdict = 'rejected'")
            .await,
        9_000
    );
}

#[test]
fn a_server_that_dies_half_way_leaves_each_delivery_judged_or_not() {
    let program = Program::configured(WRONG);
    let http = client();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let now = Clock::system().now() / 1000;
    let serving = program.serve(&[]);
    let call = async |url: &str, n: usize| {
        let id = format!("t{n}");
        let request = http
            .post(format!("{url}/callbacks/kie"))
            .header("x-webhook-timestamp", now.to_string())
            .header("x-webhook-signature", sign(KEY, &id, &now.to_string()))
            .body(failure(&id).to_string());
        Answer::of(request).await
    };
    runtime.block_on(async {
        for n in 0..500 {
            assert_eq!(call(&serving.url(), n).await.problem().1, "bad_signature");
        }
    });
    drop(serving);
    program.write("config.toml", RIGHT.as_bytes());
    let post = |url: String| http.post(format!("{url}/v1/deliveries/reverify"));
    for step in ["rows_written:5", "commit_returned:5", "batch_taken:5"] {
        let mut serving = program.serve_with(&[("REELHOOK_ABORT_AT", step)]);
        let cut = runtime.block_on(async { post(serving.url()).send().await });
        assert!(cut.is_err(), "{step}: it died before it answered");
        serving.wait();
    }
    let serving = program.serve(&[]);
    let rest = runtime.block_on(async { Answer::of(post(serving.url())).await.fine() });
    let (examined, accepted) = (
        rest["examined"].as_u64().unwrap(),
        rest["accepted"].as_u64().unwrap(),
    );
    assert!(0 < examined && examined < 500 && accepted == examined, "{rest}");
    let tasks = runtime.block_on(until("all are known", async || {
        let stats = http.get(format!("{}/v1/stats", serving.url()));
        let stats = Answer::of(stats).await.fine();
        stats["tasks"]["failed"].as_u64()
    }));
    assert_eq!(tasks, 500, "each once");
}
