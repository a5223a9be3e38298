//! Databases that earlier versions left, and what becomes of them.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use super::*;

const MIGRATIONS: [(i64, &str, &str); 2] = [
    (1, "init", include_str!("../../migrations/0001_init.sql")),
    (
        2,
        "lean_ingest",
        include_str!("../../migrations/0002_lean_ingest.sql"),
    ),
];

/// A database of an earlier version with these rows, as this version takes it over.
async fn taken_over(version: usize, rows: &'static str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let mut old = connect(dir.path()).await;
    let migrations = MIGRATIONS[..version].iter().map(|(version, name, sql)| {
        let sql = sql.into_sql_str();
        Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    migrator.run(&mut old).await.unwrap();
    sqlx::raw_sql(rows).execute(&mut old).await.unwrap();
    sqlx::Connection::close(old).await.unwrap();
    Bench::open_in(dir, Clock::manual(1_795_284_446_000)).await
}

/// A database as the first version left it, with a conflict, a duplicate and a rejected delivery.
const FIRST_VERSION: &str = "
    INSERT INTO bodies (id, digest, bytes, refs) VALUES (1, zeroblob(32), CAST('shared' AS BLOB), 2), (2, x'01', CAST('other' AS BLOB), 1);
    INSERT INTO tasks VALUES (1, 'kie', 't', 'succeeded', 'stored', NULL, NULL, 'a prompt', 1, 1, 1, 3, 1, 7);
    INSERT INTO tasks VALUES (2, 'kie', 'expected', 'pending', 'none', 'veo', '{}', NULL, 1, NULL, 1, 0, 0, 8);
    INSERT INTO outcomes (id, task, kind, idx, state, digest, has_media, accepted_rows, duplicate_rows, conflict_rows,
                          conflicts, received_at)
        VALUES (1, 1, 'video', 0, 'succeeded', zeroblob(32), 1, 1, 1, 1, 1, 1);
    INSERT INTO downloads (id, task, kind, idx, role, n, name, url, host, state, deadline, next_at, attempts, bytes,
                           sha256, content_type, storage_key, created_at, updated_at, change_seq)
        VALUES (1, 1, 'video', 0, 'result', 0, 'result-0.mp4', 'https://x.example/1', 'x.example', 'stored', 9, 1, 1, 3,
                zeroblob(32), 'video/mp4', 'kie/t/result-0.mp4', 1, 1, 7);
    INSERT INTO deliveries (id, task, outcome, source, task_id, kind, idx, received_at, via, verdict, headers, body)
        VALUES (1, 1, 1, 'kie', 't', 'video', 0, 1, 'callback', 'accepted', '{}', 1),
               (2, 1, 1, 'kie', 't', 'video', 0, 1, 'callback', 'duplicate', '{}', 1),
               (3, 1, 1, 'kie', 't', 'video', 0, 1, 'callback', 'conflict', '{}', 2);
    INSERT INTO deliveries (id, source, received_at, via, verdict, reason, headers, body_sha256, size)
        VALUES (4, 'kie', 1, 'callback', 'rejected', 'not_json', '{}', zeroblob(32), 300);
    INSERT INTO bindings (key, source, kind, idx, body, expires_at)
        VALUES (x'0101010101010101010101010101010101010101010101010101010101010101', 'kie', 'video', 0, zeroblob(32),
                1795284446000);
    UPDATE counters SET value = 8 WHERE name = 'change_seq';
    UPDATE counters SET value = 4 WHERE name = 'delivery'";

#[tokio::test]
async fn a_database_of_the_first_version_is_taken_over_whole() {
    let bench = taken_over(1, FIRST_VERSION).await;
    bench.is_sound().await;
    let task = bench.task("t").await.unwrap();
    assert_eq!(
        (task.deliveries, task.files.len(), task.outcomes.len()),
        (3, 1, 1)
    );
    assert!(bench.task("expected").await.is_some());
    for (id, body) in [(1, "shared"), (2, "shared"), (3, "other")] {
        let delivery = bench.store.delivery(id).await.unwrap().unwrap();
        assert_eq!(delivery.body.as_deref(), Some(body.as_bytes()));
    }
    assert_eq!(
        bench.number("SELECT count(body) FROM deliveries").await,
        2,
        "the shared one once"
    );
    let counts = bench.store.counts().await.unwrap();
    assert_eq!((counts.tasks["succeeded"], counts.tasks["pending"]), (1, 1));
    assert_eq!((counts.files["stored"], counts.stored_bytes), (1, 3));
    let accepted = bench.store.accept_delivery(3).await.unwrap();
    assert_eq!(accepted, Accepted::NotAConflict, "its body says nothing");
    // Ids go on where they were, and signatures stay bound.
    let another = success("t", &["https://x.example/2"]);
    let replayed = bench.receive_signed(&another, "4k", 1_795_284_446_000).await;
    assert_eq!(replayed.reason, Some("signature_reused"));
    assert_eq!(bench.receive(&failure("new")).await.delivery, Some(6));
}

/// A database as the second version left it: tasks whose outcomes and downloads came in turns, one with a conflict counted
/// on another outcome than it is about, and downloads in each part of the queue.
const SECOND_VERSION: &str = "
    INSERT INTO tasks VALUES
        (3, 'kie', 't', 'succeeded', 'queued', NULL, NULL, 'a prompt', 10, 10, 10, 3, 1, 7),
        (5, 'kie', 'u', 'failed', 'stored', NULL, NULL, NULL, 11, 11, 11, 1, 0, 8);
    INSERT INTO outcomes (task, kind, idx, id, state, msg, resolution, credits, via, received_at, digest, has_media,
                          accepted_rows, duplicate_rows, conflict_rows, conflicts) VALUES
        (3, 'video', 0, 1, 'succeeded', 'first', '1080p', 1.5, 'callback', 10, zeroblob(32), 1, 1, 0, 0, 0),
        (5, 'video', 0, 2, 'failed', NULL, NULL, NULL, 'callback', 11, zeroblob(32), 0, 1, 0, 0, 0),
        (3, '4k', 7, 4, 'succeeded', 'second', NULL, NULL, 'callback', 12, zeroblob(32), 1, 1, 0, 1, 1);
    INSERT INTO downloads (id, task, kind, idx, role, n, name, url, host, state, deadline, next_at, attempts, lease_token,
                           bytes, sha256, content_type, storage_key, error_code, error_detail, created_at, updated_at,
                           change_seq) VALUES
        (1, 3, 'video', 0, 'result', 0, 'result-0.mp4', 'https://x.example/1', 'x.example', 'queued', 1000, 10, 0, NULL,
         NULL, NULL, NULL, NULL, NULL, NULL, 10, 10, 7),
        (2, 5, 'video', 0, 'result', 0, 'result-0.mp4', 'https://x.example/2', 'x.example', 'stored', 2000, 11, 1, 1,
         3, zeroblob(32), 'video/mp4', 'kie/u/result-0.mp4', NULL, NULL, 11, 12, 8),
        (4, 3, '4k', 7, 'result', 0, '4k-7-result-0.mp4', 'https://y.example/3', 'y.example', 'queued', 900,
         1795284447000, 2, 2, NULL, NULL, NULL, NULL, 'network', 'it broke off', 12, 13, 9);
    INSERT INTO deliveries (id, task, outcome, source, task_id, kind, idx, received_at, via, verdict, reason, headers,
                            body_sha256, binding, bound_until, net, known, size, body_of, body) VALUES
        (6, 3, 1, 'kie', 't', 'video', 0, 10, 'callback', 'accepted', NULL, '{}', zeroblob(32), zeroblob(32),
         1795284446000, NULL, NULL, NULL, NULL, CAST('body' AS BLOB)),
        (7, 5, 2, 'kie', 'u', 'video', 0, 11, 'callback', 'accepted', NULL, '{}', x'01', NULL, NULL, NULL, NULL, NULL,
         NULL, CAST('other' AS BLOB)),
        (8, 3, 4, 'kie', 't', '4k', 7, 12, 'callback', 'accepted', NULL, '{}', zeroblob(32), NULL, NULL, NULL, NULL, NULL,
         6, NULL),
        (9, 3, 4, 'kie', 't', 'hd', 0, 13, 'callback', 'conflict', 'signature_reused', '{}', x'02', NULL, NULL, NULL, NULL,
         NULL, NULL, CAST('{\"code\":501,\"msg\":\"no\",\"data\":{\"taskId\":\"t\"}}' AS BLOB)),
        (10, 3, NULL, 'kie', 't', NULL, NULL, 14, 'callback', 'rejected', 'bad_signature', '{}', x'03', NULL, NULL,
         '192.0.2.0/24', 1, 300, NULL, CAST('refused' AS BLOB));
    UPDATE counters SET value = 9 WHERE name = 'change_seq';
    UPDATE counters SET value = 10 WHERE name = 'delivery';
    UPDATE counters SET value = 4 WHERE name = 'outcome';
    UPDATE counters SET value = 3 WHERE name = 'stored_bytes';
    UPDATE counters SET value = 1 WHERE name IN ('tasks.succeeded', 'tasks.failed', 'files.stored');
    UPDATE counters SET value = 2 WHERE name = 'files.queued'";

#[tokio::test]
async fn a_database_of_the_second_version_is_taken_over_whole() {
    let bench = taken_over(2, SECOND_VERSION).await;
    bench.is_sound().await;
    let task = bench.task("t").await.unwrap();
    let outcomes: Vec<_> = task
        .outcomes
        .iter()
        .map(|outcome| {
            (
                outcome.kind.as_str(),
                outcome.index,
                outcome.msg.as_deref(),
                outcome.received_at,
            )
        })
        .collect();
    assert_eq!(
        outcomes,
        [
            ("video", 0, Some("first"), Some(10)),
            ("4k", 7, Some("second"), Some(12))
        ]
    );
    let video = &task.outcomes[0];
    assert_eq!(
        (video.resolution.as_deref(), video.credits),
        (Some("1080p"), Some(1.5))
    );
    let files: Vec<_> = task
        .files
        .iter()
        .map(|file| {
            (
                file.name.as_str(),
                file.state.as_str(),
                file.deadline,
                file.next_at,
                file.attempts,
            )
        })
        .collect();
    assert_eq!(
        files,
        [
            ("result-0.mp4", "queued", 1_000, 10, 0),
            ("4k-7-result-0.mp4", "queued", 900, 1_795_284_447_000, 2)
        ]
    );
    let error = task.files[1].error.clone().unwrap();
    assert_eq!((error.0.as_str(), error.1.as_str()), ("network", "it broke off"));
}

#[tokio::test]
async fn stored_files_and_deliveries_of_the_second_version_are_as_they_were() {
    let bench = taken_over(2, SECOND_VERSION).await;
    let other = bench.task("u").await.unwrap();
    assert_eq!(
        (other.files[0].bytes, other.files[0].storage_key.as_deref()),
        (Some(3), Some("kie/u/result-0.mp4"))
    );
    let of_task = DeliveryFilter {
        task: Some(3),
        limit: 10,
        ..DeliveryFilter::default()
    };
    let deliveries = bench.store.list_deliveries(&of_task).await.unwrap().items;
    let deliveries: Vec<_> = deliveries
        .iter()
        .map(|delivery| (delivery.id, delivery.verdict.as_str(), delivery.body_bytes))
        .collect();
    assert_eq!(
        deliveries,
        [
            (9, "conflict", Some(45)),
            (8, "accepted", Some(4)),
            (6, "accepted", Some(4))
        ]
    );
    assert_eq!(bench.store.counts().await.unwrap().oldest_queued_at, Some(10));
}

#[tokio::test]
async fn what_the_second_version_queued_and_left_open_goes_on() {
    let bench = taken_over(2, SECOND_VERSION).await;
    // What waits goes on waiting.
    let first = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert_eq!(first.url, "https://x.example/1");
    assert!(bench.store.claim_download(LEASE, 4).await.unwrap().is_none());
    assert_eq!(
        bench.store.next_download_due().await.unwrap(),
        Some(1_795_284_447_000)
    );
    bench.clock.advance(Duration::from_secs(1));
    let second = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert_eq!(
        (second.url.as_str(), second.lease.token),
        ("https://y.example/3", 3)
    );
    // The conflict is settled where it was counted, and becomes an outcome of its own.
    assert_eq!(bench.store.accept_delivery(9).await.unwrap(), Accepted::Done);
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.conflicts, task.outcomes.len()), (0, 3));
    // Signatures stay bound, ids of deliveries go on, and what is retried or deleted is found.
    let replayed = bench.delivery(&success("t", &["https://x.example/2"]));
    let mut replayed = bound(replayed, "video", 1_795_284_446_000);
    if let Content::Verified(verified) = &mut replayed.content {
        verified.binding = Some(Binding {
            key: [0; 32],
            expires_at: 1_795_284_446_000,
        });
    }
    let replayed = bench.store.record_delivery(replayed).await.unwrap();
    assert_eq!(
        (replayed.reason, replayed.delivery),
        (Some("signature_reused"), Some(11))
    );
    bench.is_sound().await;
    assert_eq!(bench.store.delete_task(task.row).await.unwrap(), Deletion::Done);
    bench.is_sound().await;
    assert_eq!(bench.number("SELECT count(*) FROM downloads").await, 1);
    assert_eq!(bench.number("SELECT count(*) FROM outcomes").await, 1);
}
