//! What floods and giants may take of this machine.

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Row as _};

use crate::support::{Cdn, KEY, Program, TestServer, client, failure, mp4, skip, success, variable};

/// Rejected deliveries that one network may have in the ring: a quarter of it.
const QUARTER: i64 = 2_500;

#[tokio::test]
async fn a_flood_under_one_signature_leaves_disk_and_memory_bounded() {
    let flood = variable("REELHOOK_FLOOD").map_or(200, |count| count.parse().unwrap());
    let program = Program::configured(&format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n"));
    let mut serving = program.serve(&["--log-level", "warn,reelhook::cli=info"]);
    let timestamp = (reelhook::clock::Clock::system().now() / 1000).to_string();
    let signature = reelhook::provider::signature::sign(KEY, "t1", &timestamp);
    let (url, client) = (format!("{}/callbacks/kie", serving.url()), client());
    let send = |n: usize| {
        let padding = "x".repeat(1 << 20);
        let body = json!({"code": 501, "msg": format!("{n}{padding}"), "data": {"taskId": "t1"}});
        let request = client.post(&url).body(body.to_string());
        let request = request.header("x-webhook-timestamp", &timestamp);
        request.header("x-webhook-signature", &signature).send()
    };
    let database = program.path().join("data/reelhook.db");
    let on_disk = || {
        let length = |end: &str| {
            std::fs::metadata(format!("{}{end}", database.display())).map_or(0, |file| file.len())
        };
        length("") + length("-wal")
    };
    let mut early = 0;
    for n in 0..flood {
        let answer = send(n).await.unwrap();
        assert_eq!(answer.status(), 200);
        if n == 50 {
            early = on_disk();
        }
    }
    let late = on_disk();
    // Counters go through the write-ahead log, which is folded back every 4 MiB.
    assert!(
        late <= early + (8 << 20),
        "{early} bytes after 51 bodies, {late} after {flood}"
    );

    let status = std::fs::read_to_string(format!("/proc/{}/status", serving.id()));
    match status.ok().as_deref().and_then(peak_kib) {
        Some(peak) => assert!(peak < 256 * 1024, "it took {peak} KiB of memory"),
        None => skip("no /proc to read the memory from"),
    }
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    let mut connection = SqliteConnectOptions::new()
        .filename(&database)
        .connect()
        .await
        .unwrap();
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM deliveries), (SELECT count(body) FROM deliveries), deliveries, conflicts FROM tasks",
    );
    let row = row.fetch_one(&mut connection).await.unwrap();
    let counts: [i64; 4] = [0, 1, 2, 3].map(|column| row.try_get(column).unwrap());
    let flood = i64::try_from(flood).unwrap();
    assert_eq!(
        counts,
        [21, 21, flood, flood - 1],
        "rows are bounded, counters go on"
    );
}

/// The most memory a process ever had.
fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn of_a_hundred_thousand_files_sixty_four_are_fetched() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let urls: Vec<String> = (0..100_000).map(|n| format!("http://{}/{n}", cdn.addr)).collect();
    for n in 0..64 {
        cdn.file(&format!("/{n}"), &mp4(n, 1_000));
    }
    server.callback(&success("t1", &urls)).send().await.taken();
    let task = server.wait_settled("t1").await;
    let files = task["files"].as_array().unwrap();
    assert_eq!((files.len(), &task["media"]), (65, &json!("partial")));
    assert!(files[..64].iter().all(|file| file["state"] == "stored"));
    let last = &files[64];
    assert_eq!(
        (&last["state"], &last["error"]["code"]),
        (&json!("failed"), &json!("too_many_files"))
    );
    assert!(
        last["error"]["detail"].as_str().unwrap().contains("100000"),
        "{last}"
    );
    assert_eq!(cdn.all_hits(), 64);
    let accepted = server.deliveries("accepted").await;
    assert_eq!(accepted, [("t1".to_owned(), "too_many_files".to_owned())]);
}

#[tokio::test]
async fn conflicts_beyond_twenty_are_counted_only() {
    let server = TestServer::start().await;
    let body = |n: usize| success("t1", &[format!("http://10.0.0.1/{n}.mp4")]);
    for n in 0..31 {
        server.callback(&body(n)).send().await.taken();
    }
    for _ in 0..30 {
        server.callback(&body(0)).send().await.taken();
    }
    let task = server.wait_settled("t1").await;
    assert_eq!(
        (&task["conflicts"], &task["deliveries"]),
        (&json!(30), &json!(61))
    );
    let rows = server.number("SELECT count(*) FROM deliveries").await;
    assert_eq!(rows, 41, "1 accepted, 20 conflicts, 20 duplicates");
    let bodies = server.number("SELECT count(body) FROM deliveries").await;
    assert_eq!(bodies, 21, "identical bodies are stored once");
}

#[tokio::test]
async fn no_network_fills_the_ring_of_rejected_deliveries_and_known_ids_stay_longest() {
    let server = TestServer::with(&format!("sources.kie.hmac_keys = [\"{KEY}\"]")).await;
    let known = failure("known");
    server.callback(&known).signed(KEY).send().await.taken();
    server.callback(&known).signed("another key").send().await;
    // Neither of the two reasons has more than its own quarter.
    let refused = stream::iter(0..QUARTER + 100).map(|n| {
        let call = server.callback(&failure(&format!("t{n}")));
        let call = if n % 2 == 0 {
            call.signed("another key")
        } else {
            call
        };
        call.send()
    });
    let statuses: Vec<_> = refused
        .buffer_unordered(16)
        .map(|answer| answer.status.as_u16())
        .collect()
        .await;
    assert!(statuses.iter().all(|status| *status == 401));
    let rows = "SELECT count(*) FROM deliveries WHERE verdict = 'rejected'";
    assert_eq!(server.number(rows).await, QUARTER);
    let of_known = "SELECT count(*) FROM deliveries WHERE verdict = 'rejected' AND task_id = 'known'";
    assert_eq!(server.number(of_known).await, 1, "the oldest, and still there");
    let oldest = "SELECT count(*) FROM deliveries WHERE verdict = 'rejected' AND task_id IN ('t0', 't2')";
    assert_eq!(server.number(oldest).await, 0);
}

#[tokio::test]
async fn of_a_large_rejected_body_only_the_digest_is_kept() {
    let server = TestServer::start().await;
    let answer = server.callback_of("kie", "x".repeat(100_000), "").send().await;
    assert_eq!(answer.problem(), (400, "not_json".to_owned()));
    let digests = "SELECT count(*) FROM deliveries WHERE length(body_sha256) = 32 AND body IS NULL";
    assert_eq!(server.number(digests).await, 1);
}
