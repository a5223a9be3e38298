//! The store against a real SQLite file.

use std::path::Path;
use std::time::Duration;

use reelhook::clock::Clock;
use reelhook::media::Facts;
use reelhook::provider::payload::Document;
use reelhook::provider::rules::Verdict;
use reelhook::shutdown::Tasks;
use reelhook::store::Store;
use reelhook::store::accept::Accepted;
use reelhook::store::deletion::{Deletion, DoomedFiles};
use reelhook::store::deliveries::DeliveryFilter;
use reelhook::store::downloads::{Lease, Settled, Settlement};
use reelhook::store::expect::Expectation;
use reelhook::store::record::{Binding, Content, NewDelivery, Recorded, Verified, Via};
use reelhook::store::tasks::{TaskFilter, TaskRecord};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

#[path = "store/attempts.rs"]
mod attempts;
#[path = "store/claims.rs"]
mod claims;
#[path = "store/media.rs"]
mod media;
#[path = "store/migrations.rs"]
mod migrations;
#[path = "store/outages.rs"]
mod outages;
#[path = "store/prompts.rs"]
mod prompts;
#[path = "store/retention.rs"]
mod retention;
#[path = "store/scrub.rs"]
mod scrub;
mod soundness;

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

    /// What must hold of every database holds of this one.
    async fn is_sound(&self) {
        for (wrong, sql) in soundness::WRONGS {
            assert_eq!(self.number(sql).await, 0, "{wrong}");
        }
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
                hold: false,
                reference: None,
            })),
            again: None,
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
            ask_now: false,
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
        let mut settlement = stored(name);
        if let Settlement::Stored { storage_key, .. } = &mut settlement {
            *storage_key = format!("kie/{}/{name}", claimed.task_id);
        }
        let settled = self.store.settle_download(claimed.lease, settlement).await;
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
        facts: Facts::of("video/mp4", "mp4"),
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
    bench.is_sound().await;
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

/// Claims the next download and has its row name a key, as if it were published next.
async fn about_to_publish(bench: &Bench, key: &str) -> Lease {
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    let renewed = bench.store.renew_to_publish(claimed.lease, LEASE, key).await;
    assert!(renewed.unwrap());
    claimed.lease
}

fn doomed(keys: &[&str]) -> DoomedFiles {
    DoomedFiles {
        keys: keys.iter().map(ToString::to_string).collect(),
        all_but: None,
    }
}

#[tokio::test]
async fn a_deletion_dooms_what_was_published_and_never_settled() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive(&body).await;
    let lease = about_to_publish(&bench, "kie/t/result-0.mp4").await;
    let row = bench.task("t").await.unwrap().row;
    bench.store.delete_task(row).await.unwrap();
    let renewed = bench
        .store
        .renew_to_publish(lease, LEASE, "kie/t/result-0.mp4")
        .await;
    assert!(!renewed.unwrap(), "nothing is published for a row that is gone");
    let of_t = [("kie".to_owned(), "t".to_owned())];
    assert_eq!(bench.store.doomed_tasks().await.unwrap(), of_t);
    let left = bench.store.doomed_files("kie", "t").await.unwrap();
    assert_eq!(left, doomed(&["kie/t/result-0.mp4"]));

    // The task comes back: what is published anew is spared.
    bench.expect("t").await;
    bench.receive(&body).await;
    about_to_publish(&bench, "kie/t/result-0.mp4").await;
    assert!(bench.store.doomed_files("kie", "t").await.unwrap().is_empty());
    bench.is_sound().await;
}

#[tokio::test]
async fn a_file_that_turns_out_to_have_another_name_dooms_the_one_that_was_not_settled() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    about_to_publish(&bench, "kie/t/result-0.mp4").await;
    bench.store.release_downloads().await.unwrap();
    about_to_publish(&bench, "kie/t/result-0.webm").await;
    // Neither is removed before the other is settled; that claim comes to nothing.
    assert_eq!(bench.store.doomed_tasks().await.unwrap(), []);
    assert!(bench.store.doomed_files("kie", "t").await.unwrap().is_empty());
    bench.is_sound().await;
    bench.store.release_downloads().await.unwrap();
    let left = bench.store.doomed_files("kie", "t").await.unwrap();
    assert_eq!(left, doomed(&["kie/t/result-0.webm"]));

    let lease = about_to_publish(&bench, "kie/t/result-0.webm").await;
    assert!(bench.store.doomed_files("kie", "t").await.unwrap().is_empty());
    let settled = bench.store.settle_download(lease, stored("result-0.webm")).await;
    assert_eq!(settled.unwrap(), Settled::Done);
    let left = bench.store.doomed_files("kie", "t").await.unwrap();
    assert_eq!(left, doomed(&["kie/t/result-0.mp4"]));
    bench.store.forget_doomed("kie", "t", left.keys).await.unwrap();
    assert_eq!(bench.store.doomed_tasks().await.unwrap(), []);
    bench.is_sound().await;
}

#[tokio::test]
async fn a_deleted_file_leaves_its_row_and_a_doomed_key() {
    let bench = Bench::new().await;
    bench
        .receive(&success(
            "t",
            &["https://cdn.example/a.mp4", "https://cdn.example/b.mp4"],
        ))
        .await;
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    let download = claimed.lease.download;
    let now = bench.clock.now();
    assert_eq!(
        bench.store.delete_file(download, now).await.unwrap(),
        Deletion::Unknown
    );
    let settled = bench
        .store
        .settle_download(claimed.lease, stored("result-0.mp4"))
        .await;
    assert_eq!(settled.unwrap(), Settled::Done);
    assert_eq!(bench.store.counts().await.unwrap().stored_bytes, 3);

    let changes = bench.store.changes();
    let before = *changes.borrow();
    // Another one was judged, and has been replaced meanwhile.
    assert_eq!(
        bench.store.delete_file(download, now - 1).await.unwrap(),
        Deletion::Unknown
    );
    assert_eq!(bench.store.doomed_tasks().await.unwrap(), []);
    assert_eq!(
        bench.store.delete_file(download, now).await.unwrap(),
        Deletion::Done
    );
    assert_eq!(
        bench.store.delete_file(download, now).await.unwrap(),
        Deletion::Unknown
    );
    let task = bench.task("t").await.unwrap();
    assert_eq!(task.media, "queued", "deleted files do not count");
    assert!(*changes.borrow() > before, "whoever watches the task is told");
    let file = &task.files[0];
    assert_eq!(
        (file.state.as_str(), file.storage_key.as_deref()),
        ("deleted", None)
    );
    assert_eq!(
        (file.bytes, file.sha256.as_deref()),
        (Some(3), Some([7; 32].as_slice()))
    );
    let left = bench.store.doomed_files("kie", "t").await.unwrap();
    assert_eq!(left, doomed(&["kie/t/result-0.mp4"]));
    assert_eq!(bench.store.counts().await.unwrap().stored_bytes, 0);
    bench.is_sound().await;
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
    bench.is_sound().await;
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
    bench.is_sound().await;
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
    bench.is_sound().await;
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
    bench.is_sound().await;
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
async fn a_task_without_room_for_another_row_fails_alone() {
    let bench = Bench::new().await;
    let full = bench.receive(&success("full", &["https://cdn.example/1"])).await;
    let next = bench.receive(&success("next", &["https://cdn.example/2"])).await;
    assert_eq!((full.queued, next.queued), (1, 1));
    bench
        .sabotage("UPDATE downloads SET id = (1 << 24) + 16777215 WHERE task = 1")
        .await;
    let mut four_k = bench.delivery(&success("full", &["https://cdn.example/3"]));
    if let Content::Verified(verified) = &mut four_k.content {
        verified.kind = "4k".parse().unwrap();
    }
    let (refused, other) = futures_util::future::join(
        bench.store.record_delivery(four_k),
        bench.store.record_delivery(bench.delivery(&failure("other"))),
    )
    .await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("task 1 has no room"), "{refused}");
    assert_eq!(other.unwrap().verdict, Verdict::Accepted);
    assert_eq!(bench.task("full").await.unwrap().files.len(), 1);
    assert_eq!(bench.task("next").await.unwrap().files.len(), 1);
    bench.is_sound().await;
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
    bench.is_sound().await;
}
