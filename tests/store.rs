//! The store against a real SQLite file.

use std::path::Path;
use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::provider::payload::Document;
use reelhook::provider::rules::Verdict;
use reelhook::shutdown::Tasks;
use reelhook::store::Store;
use reelhook::store::accept::Accepted;
use reelhook::store::deletion::{Deletion, DoomedFiles};
use reelhook::store::deliveries::DeliveryFilter;
use reelhook::store::downloads::{Settled, Settlement};
use reelhook::store::expect::Expectation;
use reelhook::store::record::{Binding, Content, NewDelivery, Recorded, Verified, Via};
use reelhook::store::tasks::{TaskFilter, TaskRecord};
use sha2::{Digest, Sha256};
use sqlx::SqlSafeStr as _;
use tempfile::TempDir;

#[path = "store/retention.rs"]
mod retention;

struct Bench {
    store: Store,
    clock: Clock,
    dir: TempDir,
    tasks: Tasks,
}

const LEASE: Duration = Duration::from_mins(1);

/// A connection of its own to the database in a directory, made if there is none.
async fn connect(dir: &Path) -> sqlx::SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", dir.join("reelhook.db").display());
    <sqlx::SqliteConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap()
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_795_284_446_000);
        Self::open_in(dir, clock).await
    }

    async fn open_in(dir: TempDir, clock: Clock) -> Self {
        let tasks = Tasks::new();
        let store = Store::open(&dir.path().join("reelhook.db"), clock.clone(), &tasks)
            .await
            .unwrap();
        Self {
            store,
            clock,
            dir,
            tasks,
        }
    }

    /// A second connection to the same file, to hurt it from outside.
    async fn sabotage(&self, sql: &'static str) {
        let mut connection = connect(self.dir.path()).await;
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = connect(self.dir.path()).await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    async fn receive(&self, body: &str) -> Recorded {
        self.store.record_delivery(self.delivery(body)).await.unwrap()
    }

    async fn receive_signed(&self, body: &str, kind: &str, expires_at: i64) -> Recorded {
        let delivery = bound(self.delivery(body), kind, expires_at);
        self.store.record_delivery(delivery).await.unwrap()
    }

    fn delivery(&self, body: &str) -> NewDelivery {
        let document = Document::parse(body.as_bytes()).unwrap();
        NewDelivery {
            source: "kie".to_owned(),
            via: Via::Callback,
            received_at: self.clock.now(),
            remote_addr: Some([192, 0, 2, 1].into()),
            headers: "{}".to_owned(),
            body: body.to_owned().into(),
            body_length: body.len(),
            body_digest: Sha256::digest(body).into(),
            content: Content::Verified(Box::new(Verified {
                task_id: document.task_id().clone(),
                kind: "video".parse().unwrap(),
                index: 0,
                event: document.event(),
                binding: None,
            })),
            held: Vec::new(),
        }
    }

    async fn expect(&self, id: &str) {
        let expected = Expectation {
            source: "kie".to_owned(),
            task_id: id.parse().unwrap(),
            kind: "video".parse().unwrap(),
            index: 0,
            family: None,
            params: None,
            prompt: None,
        };
        self.store.expect_tasks(vec![expected]).await.unwrap();
    }

    /// The same database after an orderly stop.
    async fn reopened(self) -> Self {
        let Self {
            store,
            clock,
            dir,
            tasks,
        } = self;
        drop(store);
        assert!(
            tasks.drain(Duration::from_secs(10)).await,
            "the writer ends with the last store"
        );
        Self::open_in(dir, clock).await
    }

    /// Claims the next download and settles it as stored.
    async fn store_next(&self, name: &str) {
        let claimed = self.store.claim_download(LEASE, 4).await.unwrap().unwrap();
        let settled = self.store.settle_download(claimed.lease, stored(name)).await;
        assert_eq!(settled.unwrap(), Settled::Done);
    }

    async fn task(&self, id: &str) -> Option<TaskRecord> {
        self.store.tasks_by_id(id, None).await.unwrap().pop()
    }
}

#[tokio::test]
async fn a_writer_that_dies_is_noticed() {
    let bench = Bench::new().await;
    bench
        .sabotage("UPDATE counters SET value = 9223372036854775807 WHERE name = 'delivery'")
        .await;
    let bench = bench.reopened().await;
    let died = bench.store.writer_died();
    tokio::pin!(died);
    assert!(futures_util::poll!(&mut died).is_pending());
    // No id is left for it, and none may be given out twice.
    let recorded = bench.store.record_delivery(bench.delivery(&failure("t")));
    assert!(recorded.await.is_err());
    tokio::time::timeout(LEASE, died).await.expect("in time");
}

fn success(id: &str, urls: &[&str]) -> String {
    serde_json::json!({"code": 200, "msg": "ok", "data": {"taskId": id, "info": {"resultUrls": urls}}})
        .to_string()
}

fn failure(id: &str) -> String {
    serde_json::json!({"code": 501, "msg": "Failed", "data": {"taskId": id}}).to_string()
}

fn stored(name: &str) -> Settlement {
    Settlement::Stored {
        name: name.to_owned(),
        bytes: 3,
        sha256: [7; 32],
        content_type: "video/mp4".to_owned(),
        storage_key: format!("kie/t/{name}"),
    }
}

#[tokio::test]
async fn a_success_is_recorded_with_its_downloads() {
    let bench = Bench::new().await;
    let recorded = bench
        .receive(&success(
            "t",
            &["https://cdn.example/a.mp4", "https://cdn.example/b.mp4"],
        ))
        .await;
    assert_eq!((recorded.verdict, recorded.queued), (Verdict::Accepted, 2));
    let task = bench.task("t").await.unwrap();
    assert_eq!(
        (task.state.as_str(), task.media.as_str(), task.deliveries),
        ("succeeded", "queued", 1)
    );
    let names: Vec<_> = task.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["result-0.mp4", "result-1.mp4"]);
}

#[tokio::test]
async fn two_hundred_identical_callbacks_give_one_task_and_two_hundred_counts() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    let all: Vec<_> = (0..200)
        .map(|_| bench.store.record_delivery(bench.delivery(&body)))
        .collect();
    let all = futures_util::future::join_all(all).await;
    let accepted = all
        .iter()
        .flatten()
        .filter(|recorded| recorded.verdict == Verdict::Accepted)
        .count();
    assert_eq!((all.len(), accepted), (200, 1));
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.deliveries, task.files.len()), (200, 1));
    let page = bench
        .store
        .list_deliveries(&DeliveryFilter {
            limit: 200,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        page.items.len(),
        21,
        "one accepted row and twenty duplicates are kept"
    );
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_cancel_the_commit() {
    let bench = Bench::new().await;
    let body = failure("t");
    {
        let recording = std::pin::pin!(bench.store.record_delivery(bench.delivery(&body)));
        // As far as it gets at once: into the writer's queue.
        assert!(futures_util::poll!(recording).is_pending());
    }
    // The queue is served in order: once this is answered, what was before it is decided.
    bench.receive(&failure("next")).await;
    assert_eq!(bench.task("t").await.unwrap().deliveries, 1);
}

#[tokio::test]
async fn one_poisoned_delivery_in_a_batch_harms_no_other() {
    let bench = Bench::new().await;
    bench
        .sabotage(
            "CREATE TRIGGER poison BEFORE INSERT ON deliveries WHEN NEW.task_id = 'poison'
                    BEGIN SELECT RAISE(ABORT, 'poisoned'); END",
        )
        .await;
    let all = ["a", "b", "poison", "c"].map(|id| {
        bench
            .store
            .record_delivery(bench.delivery(&success(id, &["https://x.example/1"])))
    });
    let results: Vec<_> = futures_util::future::join_all(all)
        .await
        .iter()
        .map(Result::is_ok)
        .collect();
    assert_eq!(results, [true, true, false, true]);
    assert!(bench.task("poison").await.is_none());
    assert!(bench.task("c").await.is_some());
}

#[tokio::test]
async fn a_commit_that_fails_leaves_nothing_behind() {
    let bench = Bench::new().await;
    bench
        .sabotage("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
        .await;
    bench
        .sabotage("CREATE TABLE child (id INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)")
        .await;
    bench
        .sabotage("CREATE TRIGGER orphan AFTER INSERT ON tasks BEGIN INSERT INTO child VALUES (1); END")
        .await;
    assert!(
        bench
            .store
            .record_delivery(bench.delivery(&success("t", &[])))
            .await
            .is_err()
    );
    assert!(bench.task("t").await.is_none());
    bench.sabotage("DROP TRIGGER orphan").await;
    assert_eq!(bench.receive(&success("t", &[])).await.verdict, Verdict::Accepted);
}

#[tokio::test]
async fn a_reused_signature_downloads_nothing_whatever_it_is_put_on() {
    let bench = Bench::new().await;
    let binding = Some(Binding {
        key: [1; 32],
        expires_at: bench.clock.now() + 300_000,
    });
    let signed = |body: &str, change: &dyn Fn(&mut NewDelivery)| {
        let mut delivery = bench.delivery(body);
        if let Content::Verified(verified) = &mut delivery.content {
            verified.binding = binding;
        }
        change(&mut delivery);
        delivery
    };
    let first = success("t", &["https://cdn.example/a.mp4"]);
    let keep = |_: &mut NewDelivery| {};
    assert_eq!(
        bench
            .store
            .record_delivery(signed(&first, &keep))
            .await
            .unwrap()
            .verdict,
        Verdict::Accepted
    );
    assert_eq!(
        bench
            .store
            .record_delivery(signed(&first, &keep))
            .await
            .unwrap()
            .verdict,
        Verdict::Duplicate
    );
    let other_kind = |delivery: &mut NewDelivery| {
        if let Content::Verified(verified) = &mut delivery.content {
            verified.kind = "4k".parse().unwrap();
        }
    };
    let other_index = |delivery: &mut NewDelivery| {
        if let Content::Verified(verified) = &mut delivery.content {
            verified.index = 9;
        }
    };
    let other_source = |delivery: &mut NewDelivery| "apikley".clone_into(&mut delivery.source);
    let changed = success("t", &["https://evil.example/b.mp4"]);
    for delivery in [
        signed(&changed, &keep),
        signed(&first, &other_kind),
        signed(&first, &other_index),
        signed(&first, &other_source),
    ] {
        let recorded = bench.store.record_delivery(delivery).await.unwrap();
        assert_eq!(
            (recorded.verdict, recorded.reason, recorded.queued),
            (Verdict::Conflict, Some("signature_reused"), 0)
        );
    }
    let tasks = bench.store.tasks_by_id("t", None).await.unwrap();
    assert_eq!(tasks.len(), 1, "no task was made for the other source");
    assert_eq!((tasks[0].files.len(), tasks[0].conflicts), (1, 4));
}

#[tokio::test]
async fn a_stale_lease_cannot_settle_a_download() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    let first = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert!(bench.store.claim_download(LEASE, 4).await.unwrap().is_none());
    bench.clock.advance(LEASE);
    let second = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert!(!bench.store.renew_download(first.lease, LEASE).await.unwrap());
    assert_eq!(
        bench
            .store
            .settle_download(first.lease, stored("result-0.mp4"))
            .await
            .unwrap(),
        Settled::LeaseLost
    );
    assert_eq!(
        bench
            .store
            .settle_download(second.lease, stored("result-0.webm"))
            .await
            .unwrap(),
        Settled::Done
    );
    let task = bench.task("t").await.unwrap();
    assert_eq!(
        (
            task.media.as_str(),
            task.files[0].name.as_str(),
            task.files[0].attempts
        ),
        ("stored", "result-0.webm", 1)
    );
}

#[tokio::test]
async fn the_cap_per_host_leaves_room_for_other_hosts() {
    let bench = Bench::new().await;
    bench
        .receive(&success(
            "slow",
            &[
                "https://slow.example/1",
                "https://slow.example/2",
                "https://slow.example/3",
            ],
        ))
        .await;
    bench.receive(&success("fast", &["https://fast.example/1"])).await;
    let mut hosts = Vec::new();
    while let Some(claimed) = bench.store.claim_download(LEASE, 2).await.unwrap() {
        hosts.push(claimed.task_id.to_string());
    }
    hosts.sort();
    assert_eq!(hosts, ["fast", "slow", "slow"]);
}

#[tokio::test]
async fn the_earliest_deadline_is_claimed_first() {
    let bench = Bench::new().await;
    bench.receive(&success("long", &["https://a.example/1"])).await;
    let flux = r#"{"code":200,"msg":"ok","data":{"taskId":"short","info":{"originImageUrl":"https://b.example/1.png","resultImageUrl":""}}}"#;
    bench.receive(flux).await;
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert_eq!(claimed.task_id.as_str(), "short");
}

#[tokio::test]
async fn a_deleted_task_is_not_revived_by_a_late_callback() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive(&body).await;
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    assert_eq!(
        bench
            .store
            .settle_download(claimed.lease, stored("result-0.mp4"))
            .await
            .unwrap(),
        Settled::Done
    );
    let row = bench.task("t").await.unwrap().row;
    let deletion = bench.store.delete_task(row).await.unwrap();
    assert_eq!(deletion, Deletion::Done);
    assert_eq!(bench.store.delete_task(row).await.unwrap(), Deletion::Unknown);
    let late = bench.receive(&body).await;
    assert_eq!((late.verdict, late.reason), (Verdict::Duplicate, Some("deleted")));
    assert!(bench.task("t").await.is_none());
    assert_eq!(
        bench
            .store
            .settle_download(claimed.lease, stored("x"))
            .await
            .unwrap(),
        Settled::Gone
    );
}

#[tokio::test]
async fn what_a_task_stored_after_it_came_back_is_not_doomed_with_what_it_left() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive(&body).await;
    let row = bench.task("t").await.unwrap().row;
    bench.store.delete_task(row).await.unwrap();
    let mut doomed = DoomedFiles {
        source: "kie".to_owned(),
        task_id: "t".to_owned(),
        keep: Vec::new(),
    };
    assert_eq!(bench.store.doomed_files().await.unwrap(), [doomed.clone()]);

    bench.expect("t").await;
    bench.receive(&body).await;
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    let settled = bench
        .store
        .settle_download(claimed.lease, stored("result-0.mp4"))
        .await;
    assert_eq!(settled.unwrap(), Settled::Done);
    doomed.keep.push("kie/t/result-0.mp4".to_owned());
    assert_eq!(bench.store.doomed_files().await.unwrap(), [doomed]);
    bench.store.forget_doomed("kie", "t").await.unwrap();
    assert_eq!(bench.store.doomed_files().await.unwrap(), []);
}

#[tokio::test]
async fn a_person_settles_a_conflict_and_the_stored_file_stays() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    bench.store_next("result-0.mp4").await;
    let conflict = bench
        .receive(&success("t", &["https://cdn.example/other.mp4"]))
        .await;
    assert_eq!((conflict.verdict, conflict.queued), (Verdict::Conflict, 0));
    bench
        .store
        .accept_delivery(conflict.delivery.unwrap())
        .await
        .unwrap();
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.conflicts, task.media.as_str()), (0, "queued"));
    let files: Vec<_> = task
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.state.as_str()))
        .collect();
    assert_eq!(files, [("result-0.mp4", "stored"), ("result-1.mp4", "queued")]);
}

#[tokio::test]
async fn pages_walk_all_tasks_newest_first() {
    let bench = Bench::new().await;
    for n in 0..7 {
        bench.receive(&failure(&format!("t{n}"))).await;
    }
    let mut filter = TaskFilter {
        limit: 3,
        ..TaskFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = bench.store.list_tasks(&filter).await.unwrap();
        seen.extend(page.items.into_iter().map(|task| task.task_id));
        let Some(next) = page.next else { break };
        filter.before = Some(next);
    }
    assert_eq!(seen, ["t6", "t5", "t4", "t3", "t2", "t1", "t0"]);
}

#[tokio::test]
async fn pages_step_over_the_gaps_that_deleted_rows_left() {
    let bench = Bench::new().await;
    bench.receive(&failure("t")).await;
    bench
        .sabotage(
            "INSERT INTO tasks (id, source, task_id, state, media, created_at, updated_at, deliveries, conflicts, change_seq)
             VALUES (50000, 'kie', 'far', 'pending', 'none', 0, 0, 0, 0, 0)",
        )
        .await;
    let mut filter = TaskFilter {
        state: Some("failed".to_owned()),
        limit: 1,
        ..TaskFilter::default()
    };
    let first = bench.store.list_tasks(&filter).await.unwrap();
    assert!(first.items.is_empty());
    filter.before = first.next;
    let second = bench.store.list_tasks(&filter).await.unwrap();
    let found: Vec<_> = second.items.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!((found, second.next), (vec!["t"], None));
}

#[tokio::test]
async fn downloads_that_wait_are_claimed_when_they_fall_due_and_hide_no_others() {
    let bench = Bench::new().await;
    let urls: Vec<String> = (0..60).map(|n| format!("https://down.example/{n}.mp4")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for task in 0..6 {
        bench.receive(&success(&format!("down{task}"), &urls)).await;
    }
    let later = bench.clock.now() + 600_000;
    let put_off = Settlement::Released {
        at: later,
        error: None,
    };
    while let Some(claimed) = bench.store.claim_download(LEASE, 4).await.unwrap() {
        let settled = bench.store.settle_download(claimed.lease, put_off.clone()).await;
        assert_eq!(settled.unwrap(), Settled::Done);
    }
    assert_eq!(bench.store.next_download_due().await.unwrap(), Some(later));
    assert_eq!(
        bench.store.counts().await.unwrap().oldest_queued_at,
        Some(bench.clock.now())
    );
    bench.receive(&success("up", &["https://up.example/1.mp4"])).await;
    let claimed = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert_eq!(claimed.task_id.as_str(), "up");
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());

    // Now they are due, one at a time of their host, and another host's that waited less long is not hidden by them.
    let put_off = Settlement::Released {
        at: later + 1,
        error: None,
    };
    bench.store.settle_download(claimed.lease, put_off).await.unwrap();
    bench.clock.advance(Duration::from_secs(601));
    let first = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    let second = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert!(first.task_id.as_str().starts_with("down"));
    assert_eq!(second.task_id.as_str(), "up");
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());
}

#[tokio::test]
async fn a_database_from_a_newer_version_is_refused() {
    let bench = Bench::new().await;
    bench.sabotage("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (999, 'x', 1, x'00', 0)").await;
    let again = Store::open(
        &bench.dir.path().join("reelhook.db"),
        bench.clock.clone(),
        &Tasks::new(),
    )
    .await;
    assert!(again.unwrap_err().to_string().contains("newer version"));
}

/// Gives a delivery a kind and the one signature of these tests.
fn bound(mut delivery: NewDelivery, kind: &str, expires_at: i64) -> NewDelivery {
    if let Content::Verified(verified) = &mut delivery.content {
        verified.kind = kind.parse().unwrap();
        verified.binding = Some(Binding {
            key: [1; 32],
            expires_at,
        });
    }
    delivery
}

#[tokio::test]
async fn the_same_signed_callback_counts_again_for_a_task_deleted_and_expected_anew() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    let expires_at = bench.clock.now() + 300_000;
    let first = bench.receive_signed(&body, "video", expires_at).await;
    assert_eq!(first.verdict, Verdict::Accepted);
    bench
        .store
        .delete_task(bench.task("t").await.unwrap().row)
        .await
        .unwrap();
    bench.expect("t").await;
    let again = bench.receive_signed(&body, "video", expires_at).await;
    assert_eq!((again.verdict, again.queued), (Verdict::Accepted, 1));
}

#[tokio::test]
async fn a_signature_reused_after_its_task_was_deleted_leaves_few_rows() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    let expires_at = bench.clock.now() + 300_000;
    bench.receive_signed(&body, "video", expires_at).await;
    bench
        .store
        .delete_task(bench.task("t").await.unwrap().row)
        .await
        .unwrap();
    bench.expect("t").await;
    // Expected again, but as another kind than the signature was used for.
    for n in 0..30 {
        let other = success("t", &[&format!("https://evil.example/{n}.mp4")]);
        let reused = bench.receive_signed(&other, "4k", expires_at).await;
        assert_eq!((reused.verdict, reused.queued), (Verdict::Conflict, 0), "{n}");
    }
    let filter = DeliveryFilter {
        verdict: Some("conflict".to_owned()),
        limit: 200,
        ..DeliveryFilter::default()
    };
    let kept = bench.store.list_deliveries(&filter).await.unwrap();
    assert!(kept.items.len() <= 20, "{}", kept.items.len());
    assert!(bench.task("t").await.unwrap().files.is_empty());
}

#[tokio::test]
async fn a_replay_that_was_judged_fresh_just_in_time_still_finds_its_binding() {
    let bench = Bench::new().await;
    let expires_at = bench.clock.now() + 300_000;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive_signed(&body, "video", expires_at).await;
    bench.clock.advance(Duration::from_secs(301));
    // Others bring the writer to purge what expired, before the late one is recorded.
    for n in 0..3 {
        let mut other = bench.delivery(&success(&format!("o{n}"), &[]));
        if let Content::Verified(verified) = &mut other.content {
            verified.binding = Some(Binding {
                key: [10 + n; 32],
                expires_at: expires_at + 600_000,
            });
        }
        bench.store.record_delivery(other).await.unwrap();
    }
    let late = bench.receive_signed(&body, "4k", expires_at).await;
    assert_eq!((late.verdict, late.queued), (Verdict::Conflict, 0));
}

#[tokio::test]
async fn accepting_a_reused_signature_closes_the_conflict_where_it_was_counted() {
    let bench = Bench::new().await;
    let expires_at = bench.clock.now() + 300_000;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive_signed(&body, "video", expires_at).await;
    let reused = bench.receive_signed(&body, "4k", expires_at).await;
    assert_eq!(bench.task("t").await.unwrap().conflicts, 1);
    bench
        .store
        .accept_delivery(reused.delivery.unwrap())
        .await
        .unwrap();
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.conflicts, task.outcomes.len(), task.files.len()), (0, 2, 2));
}

#[tokio::test]
async fn the_state_of_a_task_follows_its_base_video_once_that_is_expected() {
    let bench = Bench::new().await;
    let mut four_k = bench.delivery(&success("t", &[]));
    if let Content::Verified(verified) = &mut four_k.content {
        verified.kind = "4k".parse().unwrap();
    }
    bench.store.record_delivery(four_k).await.unwrap();
    assert_eq!(bench.task("t").await.unwrap().state.as_str(), "succeeded");
    bench.clock.advance(Duration::from_secs(1));
    bench.expect("t").await;
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.state.as_str(), task.is_settled()), ("pending", false));
}

#[tokio::test]
async fn a_backlog_of_one_busy_host_hides_no_other_host() {
    let bench = Bench::new().await;
    for task in 0..6 {
        let urls: Vec<String> = (0..60)
            .map(|n| format!("https://busy.example/{task}/{n}.mp4"))
            .collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        bench.receive(&success(&format!("busy{task}"), &urls)).await;
    }
    bench.clock.advance(Duration::from_secs(1));
    bench
        .receive(&success("free", &["https://free.example/1.mp4"]))
        .await;
    let first = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    let second = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert!(first.task_id.as_str().starts_with("busy"));
    assert_eq!(second.task_id.as_str(), "free");
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());
}

#[tokio::test]
async fn the_id_of_a_deleted_delivery_is_not_given_out_again() {
    let bench = Bench::new().await;
    let first = bench.receive(&success("t", &[])).await.delivery.unwrap();
    bench
        .store
        .delete_task(bench.task("t").await.unwrap().row)
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let second = bench.receive(&success("u", &[])).await.delivery.unwrap();
    assert!(second > first, "{second} after {first}");
}

#[tokio::test]
async fn a_retry_leaves_superseded_files_alone() {
    let bench = Bench::new().await;
    bench
        .receive(&success(
            "t",
            &["https://cdn.example/a.mp4", "https://cdn.example/b.mp4"],
        ))
        .await;
    let conflict = bench.receive(&failure("t")).await;
    assert_eq!(conflict.verdict, Verdict::Conflict);
    bench
        .store
        .accept_delivery(conflict.delivery.unwrap())
        .await
        .unwrap();
    let task = bench.task("t").await.unwrap();
    assert_eq!((task.state.as_str(), task.media.as_str()), ("failed", "failed"));
    assert_eq!(bench.store.retry_task(task.row).await.unwrap(), 0);
}

#[tokio::test]
async fn a_success_after_an_accepted_failure_keeps_what_is_stored_and_fetches_its_own() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    bench.store_next("result-0.mp4").await;
    let conflict = bench.receive(&failure("t")).await;
    bench
        .store
        .accept_delivery(conflict.delivery.unwrap())
        .await
        .unwrap();
    let fresh = success("t", &["https://cdn.example/b.mp4", "https://cdn.example/c.mp4"]);
    assert_eq!(bench.receive(&fresh).await.verdict, Verdict::Accepted);
    let task = bench.task("t").await.unwrap();
    let files: Vec<_> = task
        .files
        .iter()
        .map(|file| {
            (
                file.name.as_str(),
                file.provider_url.as_str(),
                file.state.as_str(),
            )
        })
        .collect();
    assert_eq!(
        files,
        [
            ("result-0.mp4", "https://cdn.example/a.mp4", "stored"),
            ("result-1.mp4", "https://cdn.example/b.mp4", "queued"),
            ("result-2.mp4", "https://cdn.example/c.mp4", "queued"),
        ]
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_costs_no_callback() {
    let bench = Bench::new().await;
    bench
        .receive(&success("odd", &["https://cdn.example/a.mp4"]))
        .await;
    bench.sabotage("UPDATE downloads SET role = 'hologram'").await;
    let (claimed, recorded) = futures_util::future::join(
        bench.store.claim_download(LEASE, 4),
        bench.store.record_delivery(bench.delivery(&success("t", &[]))),
    )
    .await;
    assert!(claimed.is_err());
    assert_eq!(recorded.unwrap().verdict, Verdict::Accepted);
}

#[tokio::test]
async fn accepted_conflicts_make_room_for_others() {
    let bench = Bench::new().await;
    bench
        .receive(&success("t", &["https://cdn.example/first.mp4"]))
        .await;
    for n in 0..25 {
        let url = format!("https://cdn.example/{n}.mp4");
        let conflict = bench.receive(&success("t", &[&url])).await;
        assert_eq!(conflict.verdict, Verdict::Conflict);
        let delivery = conflict.delivery.expect("its row is kept");
        bench.store.accept_delivery(delivery).await.unwrap();
    }
    assert_eq!(bench.task("t").await.unwrap().conflicts, 0);
}

/// A database as the version before left it, with a conflict, a duplicate and a rejected delivery.
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
    let dir = tempfile::tempdir().unwrap();
    let mut old = connect(dir.path()).await;
    let first = include_str!("../migrations/0001_init.sql");
    let kind = sqlx::migrate::MigrationType::Simple;
    let first = sqlx::migrate::Migration::new(1, "init".into(), kind, first.into_sql_str(), false);
    let migrator = sqlx::migrate::Migrator::with_migrations(vec![first]);
    migrator.run(&mut old).await.unwrap();
    sqlx::raw_sql(FIRST_VERSION).execute(&mut old).await.unwrap();
    sqlx::Connection::close(old).await.unwrap();

    let bench = Bench::open_in(dir, Clock::manual(1_795_284_446_000)).await;
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
