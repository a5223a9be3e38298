use super::*;

const TASK: &str = r#"{"task_id":"veo_1","source":"kie","state":"succeeded","code":200,"msg":"Made it.\u001b[2J",
 "failure":null,"resolution":"1080p","fallback":false,"prompt":"a cat","credits":null,
 "created_at":"2026-11-21T09:25:00.000Z","received_at":"2026-11-21T09:28:00.000Z","updated_at":null,
 "deliveries":2,"conflicts":1,"media":"partial","outcomes":[{"kind":"video","index":0,"state":"succeeded"}],
 "files":[
  {"name":"result-0.mp4","state":"stored","url":"/v1/tasks/veo_1/files/result-0.mp4?source=kie","bytes":1572864,
   "sha256":"abc123","content_type":"video/mp4","duration_ms":7960,"width":1280,"height":720,"codec":"h264",
   "attempts":1},
  {"name":"result-1.mp4","state":"failed","provider_url":"https://cdn.example.com/v.mp4","attempts":12,
   "next_attempt_at":null,"error":{"code":"http_status","detail":"the server answered 503"},
   "deadline":"2026-12-05T09:30:00.000Z"},
  {"name":"result-2.mp4","state":"queued","attempts":1,"next_attempt_at":"2026-11-21T09:30:40.000Z",
   "error":{"code":"network","detail":"connection reset"}}]}"#;

const FAILED: &str = r#"{"task_id":"veo_2","source":"kie","state":"failed","code":400,"msg":"No.","media":"none",
 "failure":{"kind":"content_policy","retryable":false,"advice":"Change the prompt."},
 "created_at":"2026-11-21T07:30:00.000Z"}"#;

fn at(server: &FakeServer) -> Shell {
    Shell::new()
        .env("REELHOOK_SERVER", &server.url)
        .env("REELHOOK_API_TOKEN", "secret-token")
}

fn page() -> String {
    format!("{{\"tasks\":[{TASK},{FAILED}],\"next_cursor\":\"c2\"}}")
}

#[tokio::test]
async fn tasks_are_listed_in_aligned_columns() {
    let page = page();
    let server = FakeServer::start(vec![(200, &page)]).await;
    let ended = at(&server)
        .run("tasks list --state succeeded --since 2h --source kie")
        .await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    let lines: Vec<&str> = ended.out.lines().collect();
    let column = |line: usize, word: &str| {
        lines[line]
            .find(word)
            .unwrap_or_else(|| panic!("{word}: {}", ended.out))
    };
    assert_eq!(column(0, "TASK"), column(1, "veo_1"));
    assert_eq!(column(0, "MEDIA"), column(1, "partial"));
    assert_eq!(column(0, "MEDIA"), column(2, "none"));
    assert_eq!(column(0, "NOTE"), column(1, "1 conflict to settle"));
    assert_eq!(column(0, "NOTE"), column(2, "content_policy"));
    assert!(
        lines[1].contains("1/3, 1.5 MiB") && lines[1].contains("5 min ago"),
        "{}",
        ended.out
    );
    assert!(ended.err.contains("--cursor c2"), "{}", ended.err);
    let query = "state=succeeded&since=2026-11-21T07%3A30%3A00.000Z&limit=50&source=kie";
    assert_eq!(server.lines(), [format!("GET /v1/tasks?{query}")]);
    assert_eq!(
        server.seen()[0].authorization.as_deref(),
        Some("Bearer secret-token")
    );
}

#[tokio::test]
async fn json_is_the_servers_own() {
    let page = page();
    let server = FakeServer::start(vec![(200, &page)]).await;
    let ended = at(&server).run("tasks list --json").await;
    assert_eq!((ended.out, ended.err.as_str()), (format!("{page}\n"), ""));
    let ended = at(&server).run("deliveries --json list").await;
    assert_eq!(ended.out, format!("{page}\n"));
}

#[tokio::test]
async fn a_task_is_shown_with_its_files_and_what_to_do_next() {
    let server = FakeServer::start(vec![(200, TASK)]).await;
    let ended = at(&server).run("tasks show veo_1").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    for expected in [
        "state       succeeded, 1080p\n",
        "message     Made it.\u{fffd}[2J (200)\n",
        "created     5 min ago (2026-11-21T09:25:00.000Z)\n",
        "deliveries  2, 1 open conflict\n",
        "result-0.mp4  stored, 1.5 MiB, video/mp4, 1280×720 h264 8.0 s\n",
        "sha256      abc123\n",
        &format!(
            "url         {}/v1/tasks/veo_1/files/result-0.mp4?source=kie\n",
            server.url
        ),
        "result-1.mp4  failed, 12 attempts\n",
        "error       the server answered 503 (http_status)\n",
        "from        https://cdn.example.com/v.mp4\n",
        "expires     in 14 d (2026-12-05T09:30:00.000Z)\n",
        "next try    in 40 s (2026-11-21T09:30:40.000Z)\n",
        " tasks retry veo_1 --source kie\n",
        " deliveries list --task veo_1 --source kie\n",
    ] {
        assert!(
            ended.out.contains(expected),
            "{expected:?} is missing:\n{}",
            ended.out
        );
    }
}

#[tokio::test]
async fn what_the_provider_is_asked_is_shown_in_words() {
    let task = r#"{"task_id":"veo_3","source":"kie","state":"pending","media":"queued",
     "files":[{"name":"result-0.mp4","state":"held"}],
     "asking":[
      {"kind":"video","index":0,"reason":"silent","since":"2026-11-21T09:25:00.000Z","asks":3,
       "asked_at":"2026-11-21T09:29:40.000Z","next_ask_at":"2026-11-21T09:30:40.000Z",
       "note":{"code":"unauthorized","detail":"the provider's API refuses the key\u001b[2J"}},
      {"kind":"4k","index":1,"reason":"held","since":"2026-11-21T09:29:00.000Z","asks":0,
       "asked_at":null,"next_ask_at":"2026-11-21T09:30:00.000Z","note":null},
      {"kind":"4k","index":2,"reason":"stale","since":"2026-11-21T09:29:00.000Z","asks":1,
       "asked_at":null,"next_ask_at":null,"note":{"code":"no_api_key","detail":"source kie has no api_key"}}]}"#;
    let server = FakeServer::start(vec![(200, task)]).await;
    let ended = at(&server).run("tasks show veo_3").await;
    for expected in [
        "  video 0  silent since 5 min ago, asked 3 times, last 20 s ago, next in 40 s: \
         the provider's API refuses the key\u{fffd}[2J\n",
        "  4k 1  files wait for its confirmation since 60 s ago, not asked yet, next as soon as possible\n",
        "  4k 2  a callback came too late to be believed 60 s ago, asked 1 time: source kie has no api_key\n",
        "waits       until the provider's API confirms it",
    ] {
        assert!(ended.out.contains(expected), "{expected:?}:\n{}", ended.out);
    }
}

#[tokio::test]
async fn a_failed_task_is_shown_with_advice() {
    let server = FakeServer::start(vec![(200, FAILED)]).await;
    let ended = at(&server).run("tasks show veo_2").await;
    assert!(
        ended
            .out
            .contains("failure     content_policy, will fail again unless changed\n"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("advice      Change the prompt.\n"),
        "{}",
        ended.out
    );
}

#[tokio::test]
async fn an_error_of_the_server_is_a_sentence_and_a_code() {
    let problem = r#"{"type":"about:blank","title":"Not Found","status":404,"code":"unknown_task","detail":"there is no task veo_9"}"#;
    let server = FakeServer::start(vec![
        (404, problem),
        (401, "{\"code\":\"bad_token\",\"title\":\"Unauthorized\"}"),
    ])
    .await;
    let shell = at(&server);
    let ended = shell.run("tasks show veo_9").await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, ""));
    assert_eq!(ended.err, "error: there is no task veo_9 (unknown_task)\n");
    let ended = shell.run("tasks show veo_9").await;
    assert!(
        ended
            .err
            .starts_with("error: Unauthorized (bad_token); give one of the server's api.tokens"),
        "{ended:?}"
    );
    assert!(!ended.err.contains("secret-token"));
}

#[tokio::test]
async fn something_else_at_that_address_is_recognised() {
    let server = FakeServer::start(vec![
        (502, "<html>Bad Gateway</html>"),
        (200, "<html>hello</html>"),
    ])
    .await;
    let shell = at(&server);
    let ended = shell.run("tasks list").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended
            .err
            .contains("answered 502 Bad Gateway, and not in the way of reelhook"),
        "{}",
        ended.err
    );
    let ended = shell.run("tasks list").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("is not what was expected"), "{}", ended.err);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let ended = Shell::new()
        .config("listen = \"127.0.0.1:1\"\n")
        .run("tasks list")
        .await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended
            .err
            .contains("no answer from http://127.0.0.1:1/ (Connection refused"),
        "{}",
        ended.err
    );
    assert!(ended.err.contains(" serve`"), "{}", ended.err);
    let ended = Shell::new()
        .env("REELHOOK_SERVER", "nonsense")
        .run("healthcheck")
        .await;
    assert!(
        ended
            .err
            .contains("REELHOOK_SERVER is \"nonsense\", which is not a URL"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn a_configured_token_goes_to_the_configured_server_only() {
    let server = FakeServer::start(vec![(200, "{}")]).await;
    let listen = server.url.strip_prefix("http://").unwrap();
    let shell = Shell::new().config(&format!(
        "listen = \"{listen}\"\napi.tokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n"
    ));
    shell.run("tasks list").await;
    shell.run(&format!("tasks list --server {}", server.url)).await;
    let seen: Vec<_> = server.seen().into_iter().map(|seen| seen.authorization).collect();
    assert_eq!(seen, [Some("Bearer aaaaaaaaaaaaaaaaaaaaaaaa".to_owned()), None]);
}

#[tokio::test]
async fn a_server_behind_a_path_keeps_it_and_ids_are_encoded() {
    let server = FakeServer::start(vec![(200, "{}")]).await;
    let ended = Shell::new()
        .run(&format!("tasks show a:b*~ --server {}/reel/", server.url))
        .await;
    assert_eq!(ended.exit, Exit::Fine);
    assert_eq!(server.lines(), ["GET /reel/v1/tasks/a:b*~"]);
}

#[tokio::test]
async fn retry_tells_how_many_downloads_were_queued() {
    let server = FakeServer::start(vec![(202, r#"{"queued":2}"#), (202, r#"{"queued":0}"#)]).await;
    let shell = at(&server);
    assert_eq!(
        shell.run("tasks retry veo_1").await.out,
        "2 downloads of veo_1 queued again\n"
    );
    assert!(
        shell
            .run("tasks retry veo_1")
            .await
            .out
            .contains("no failed downloads")
    );
    assert_eq!(server.lines()[0], "POST /v1/tasks/veo_1/retry");
}

#[tokio::test]
async fn deleting_needs_a_yes() {
    let server = FakeServer::start(vec![(200, TASK)]).await;
    let ended = at(&server).run("tasks delete veo_1").await;
    assert_eq!(ended.exit, Exit::Usage);
    assert!(ended.err.contains("add --yes"), "{}", ended.err);
    let ended = at(&server).answering("\n").run("tasks delete veo_1").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.err.contains("Delete veo_1 with 3 files for good? [y/N]"),
        "{}",
        ended.err
    );
    assert!(
        server.lines().iter().all(|line| line.starts_with("GET ")),
        "{:?}",
        server.lines()
    );
    let ended = at(&server).answering("y\n").run("tasks delete veo_1").await;
    assert_eq!(ended.exit, Exit::Fine);
    assert_eq!(server.lines().last().unwrap(), "DELETE /v1/tasks/veo_1");
    assert_eq!(at(&server).run("tasks delete veo_1 --yes").await.exit, Exit::Fine);
}

#[tokio::test]
async fn deliveries_are_listed_shown_and_accepted() {
    let delivery = r#"{"id":"d1","task_id":"veo_1","source":"kie","received_at":"2026-11-21T09:29:00Z","via":"callback",
        "verdict":"conflict","reason":"signature_reused","kind":"video","index":0,"remote_addr":"203.0.113.9",
        "headers":{"content-type":"application/json"},"body":"{\"code\":200}\n\u001b"}"#;
    let page = format!("{{\"deliveries\":[{delivery}],\"next_cursor\":null}}");
    let server = FakeServer::start(vec![
        (200, &page),
        (200, &page),
        (200, delivery),
        (200, delivery),
        (200, "{}"),
    ])
    .await;
    let shell = at(&server);
    let ended = shell.run("deliveries list --verdict conflict").await;
    assert!(
        ended.out.contains("signature_reused") && ended.out.contains("video 0"),
        "{}",
        ended.out
    );
    shell.run("deliveries list --task veo_1").await;
    let ended = shell.run("deliveries show d1").await;
    assert!(
        ended.out.contains("verdict     conflict (signature_reused)\n"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.contains("content-type: application/json\n"),
        "{}",
        ended.out
    );
    assert!(
        ended.out.ends_with("body\n{\"code\":200}\n\u{fffd}\n"),
        "{:?}",
        ended.out
    );
    assert_eq!(shell.run("deliveries accept d1").await.exit, Exit::Fine);
    let expected = [
        "GET /v1/deliveries?limit=50&verdict=conflict",
        "GET /v1/tasks/veo_1/deliveries?limit=50",
        "GET /v1/deliveries/d1",
        "GET /v1/deliveries/d1",
        "POST /v1/deliveries/d1/accept",
    ];
    assert_eq!(server.lines(), expected);
}

const NO_TOKEN: &str = r#"{"id":"7","task_id":"veo_1","source":"kie","via":"callback","verdict":"rejected",
    "reason":"bad_token","remedy":"Give the provider the right URL.","headers":{"x-webhook-signature":"s"},
    "body":"{\"code\":200,\"data\":{\"taskId\":\"veo_1\"}}"}"#;

#[tokio::test]
async fn nobody_answers_for_a_wrong_token_without_being_asked() {
    let server = FakeServer::start(vec![(200, NO_TOKEN)]).await;
    let ended = at(&server).run("deliveries accept 7").await;
    assert_eq!(ended.exit, Exit::Usage, "{ended:?}");
    assert_eq!(server.lines(), ["GET /v1/deliveries/7"]);
    assert_eq!(
        at(&server).run("deliveries accept 7 --yes").await.exit,
        Exit::Fine
    );
    assert_eq!(server.lines()[1], "POST /v1/deliveries/7/accept");
    let shown = at(&server).run("deliveries show 7").await.out;
    for expected in [
        "to do       Give the provider the right URL.\n",
        "proof       It carries a signature that was not looked at",
        "\n  \"data\": {\n    \"taskId\": \"veo_1\"\n",
    ] {
        assert!(shown.contains(expected), "{shown}");
    }
}

#[tokio::test]
async fn rejected_deliveries_are_verified_again_one_or_all() {
    let good = r#"{"id":"1","verdict":"accepted","reason":"reverified","already":false,"queued":2}"#;
    let still = r#"{"id":"2","verdict":"rejected","reason":"stale","detail":"too old","remedy":"Look.","already":false}"#;
    let all =
        r#"{"examined":37,"accepted":31,"duplicate":4,"conflict":0,"still_rejected":{"bad_signature":2}}"#;
    let server = FakeServer::start(vec![(200, good), (200, still), (200, all)]).await;
    let ended = at(&server).run("deliveries reverify 1 2").await;
    assert_eq!(ended.exit, Exit::Failed, "{ended:?}");
    assert_eq!(
        ended.out,
        "1  accepted  2 files to fetch\n2  rejected  stale: too old\n    Look.\n"
    );
    let ended = at(&server)
        .run("deliveries reverify --all --source kie --reason bad_signature --since 2h")
        .await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    for expected in [
        "37 verified again",
        "accepted    31",
        "duplicate   4",
        "rejected    2 still: bad_signature",
    ] {
        assert!(ended.out.contains(expected), "{}", ended.out);
    }
    assert!(!ended.out.contains("conflict"), "{}", ended.out);
    let query = "reason=bad_signature&since=2026-11-21T07%3A30%3A00.000Z&source=kie";
    let expected = [
        "POST /v1/deliveries/1/reverify".to_owned(),
        "POST /v1/deliveries/2/reverify".to_owned(),
        format!("POST /v1/deliveries/reverify?{query}"),
    ];
    assert_eq!(server.lines(), expected);
}

#[tokio::test]
async fn health_is_asked_of_the_configured_address() {
    let server = FakeServer::start(vec![(200, "ok"), (503, "draining")]).await;
    let port = server.url.rsplit(':').next().unwrap();
    let shell = Shell::new().config(&format!(
        "listen = \"0.0.0.0:{port}\"\napi.tokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n[sources.kie]\nhmac_keys = [\"k\"]\n"
    ));
    assert_eq!(shell.run("healthcheck").await.exit, Exit::Fine);
    assert_eq!(server.lines(), ["GET /healthz"]);
    assert_eq!(shell.run("healthcheck").await.exit, Exit::Failed);
}
