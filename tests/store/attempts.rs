//! What is kept of how files came.

use reelhook::store::asks::{DeadLink, FreshLink};
use reelhook::store::downloads::DownloadError;

use super::*;

const URL: &str = "https://cdn.example/1.mp4";

fn failed() -> DownloadError {
    DownloadError {
        code: "network",
        detail: "no connection".to_owned(),
    }
}

/// Outcome, milliseconds from beginning to end, and bytes of each step of the only file.
async fn steps(bench: &Bench, id: &str) -> Vec<(String, i64, Option<i64>)> {
    let task = bench.task(id).await.unwrap().row;
    let attempts = bench.store.attempts(task).await.unwrap();
    attempts
        .into_iter()
        .map(|step| (step.outcome, step.ended_at - step.began_at, step.bytes))
        .collect()
}

async fn attempt(bench: &Bench, took: u64, settlement: Settlement, received: u64) {
    let claimed = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    bench.clock.advance(Duration::from_millis(took));
    let settled = bench
        .store
        .settle_attempt(claimed.lease, settlement, Some(received));
    assert_eq!(settled.await.unwrap(), Settled::Done);
}

#[tokio::test]
async fn each_attempt_and_each_fresh_link_is_a_step() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &[URL])).await;
    assert_eq!(steps(&bench, "t").await, []);
    let at = bench.clock.now();
    attempt(&bench, 7, Settlement::Retry { at, error: failed() }, 10).await;
    let error = DownloadError {
        code: "expired",
        detail: "status 403".to_owned(),
    };
    attempt(&bench, 5, Settlement::Expired { at, error }, 0).await;
    let download = bench.task("t").await.unwrap().files[0].id;
    let link = DeadLink {
        download,
        url: URL.to_owned(),
    };
    bench.clock.advance(Duration::from_millis(30));
    let until = bench.clock.now() + 1_000_000;
    let fresh = FreshLink::Link {
        url: "https://cdn.example/fresh.mp4".to_owned(),
        until,
    };
    bench.store.refresh_link(&link, fresh.clone()).await.unwrap();
    // In vain: it does not wait for a link any more, and nothing is noted.
    bench.store.refresh_link(&link, fresh).await.unwrap();
    let stop = Settlement::Released { at, error: None };
    attempt(&bench, 1, stop, 2).await;
    attempt(&bench, 9, stored("result-0.mp4"), 0).await;
    let of = |outcome: &str, took, bytes| (outcome.to_owned(), took, bytes);
    assert_eq!(
        steps(&bench, "t").await,
        [
            of("network", 7, Some(10)),
            of("expired", 5, Some(0)),
            of("refreshed", 30, None),
            of("stopped", 1, Some(2)),
            of("stored", 9, Some(3)),
        ]
    );
    bench.is_sound().await;
}

#[tokio::test]
async fn attempts_that_ended_without_a_word_are_steps_too() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &[URL])).await;
    bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    bench.clock.advance(Duration::from_millis(20));
    bench.store.release_downloads().await.unwrap();
    let lost = bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    bench.clock.advance(LEASE);
    bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    let interrupted = |took| ("interrupted".to_owned(), took, None);
    assert_eq!(steps(&bench, "t").await, [interrupted(20), interrupted(60_000)]);
    let settled = bench
        .store
        .settle_download(lost.lease, stored("result-0.mp4"))
        .await;
    assert_eq!(settled.unwrap(), Settled::LeaseLost);
    assert_eq!(
        steps(&bench, "t").await.len(),
        2,
        "who lost the lease tells nothing"
    );
    bench.is_sound().await;
}

#[tokio::test]
async fn the_newest_twenty_steps_of_a_file_are_kept_and_go_with_the_task() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &[URL])).await;
    bench.receive(&success("other", &[])).await;
    for _ in 0..23 {
        let at = bench.clock.now();
        attempt(&bench, 1, Settlement::Retry { at, error: failed() }, 0).await;
    }
    let task = bench.task("t").await.unwrap().row;
    let kept: Vec<_> = bench.store.attempts(task).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(|step| step.n).collect();
    assert_eq!(kept, (4..=23).collect::<Vec<_>>());
    let other = bench.task("other").await.unwrap().row;
    assert_eq!(bench.store.attempts(other).await.unwrap(), []);
    assert_eq!(bench.store.delete_task(task).await.unwrap(), Deletion::Done);
    assert_eq!(bench.number("SELECT count(*) FROM attempts").await, 0);
    bench.is_sound().await;
}
