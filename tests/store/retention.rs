//! What goes by age, and what stays.

use reelhook::store::record::UrlSaid;
use reelhook::store::retention::Which;

use super::*;

const DAY: Duration = Duration::from_hours(24);

impl Bench {
    /// Removes what is a day old; how many steps that took, and the deliveries that were removed.
    async fn prune(&self, which: Which) -> (usize, u64) {
        let before = self.clock.now() - 86_400_000;
        let (mut after, mut steps, mut removed) = (0, 0, 0);
        loop {
            let stretch = self.store.aged_deliveries(which, before, after).await.unwrap();
            assert!(stretch.aged.len() <= 100);
            removed += self.store.prune_deliveries(stretch.aged).await.unwrap();
            steps += 1;
            if !stretch.more {
                return (steps, removed);
            }
            after = stretch.last.unwrap();
        }
    }

    /// Ids and bodies of the deliveries there are, newest first.
    async fn kept(&self, verdict: &str) -> Vec<(i64, Option<Vec<u8>>)> {
        let filter = DeliveryFilter {
            verdict: Some(verdict.to_owned()),
            limit: 5_000,
            ..DeliveryFilter::default()
        };
        let page = self.store.list_deliveries(&filter).await.unwrap();
        page.items.into_iter().map(|kept| (kept.id, kept.body)).collect()
    }

    async fn reject(&self, count: usize) {
        for chunk in vec![(); count].chunks(500) {
            let all = chunk.iter().map(|()| {
                let content = Content::Rejected {
                    reason: "bad_signature",
                    task_id: None,
                    url: UrlSaid::default(),
                };
                self.store.record_delivery(NewDelivery {
                    content,
                    ..self.delivery(&failure("t"))
                })
            });
            futures_util::future::try_join_all(all).await.unwrap();
        }
    }
}

#[tokio::test]
async fn old_deliveries_go_and_what_is_believed_stays() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    bench.receive(&body).await;
    bench.store_next("result-0.mp4").await;
    bench.clock.advance(DAY + LEASE);
    bench.receive(&success("young", &[])).await;
    assert_eq!(bench.prune(Which::Taken).await, (1, 1));
    assert_eq!(bench.kept("accepted").await.len(), 1);
    let task = bench.task("t").await.unwrap();
    assert_eq!(
        (task.state.as_str(), task.media.as_str(), task.deliveries),
        ("succeeded", "stored", 1)
    );
    assert_eq!(bench.receive(&body).await.verdict, Verdict::Duplicate);
}

#[tokio::test]
async fn a_body_outlives_the_delivery_that_brought_it_first() {
    let bench = Bench::new().await;
    let body = success("t", &[]);
    bench.receive(&body).await;
    bench.clock.advance(DAY);
    let second = bench.receive(&body).await.delivery.unwrap();
    let third = bench.receive(&body).await.delivery.unwrap();
    bench.clock.advance(LEASE);
    assert_eq!(bench.prune(Which::Taken).await, (1, 1));
    let whole = Some(body.into_bytes());
    assert_eq!(
        bench.kept("duplicate").await,
        [(third, whole.clone()), (second, whole)]
    );
}

#[tokio::test]
async fn an_open_conflict_stays_until_it_is_settled() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    let mut conflicts = Vec::new();
    for n in 0..2 {
        let other = success("t", &[&format!("https://cdn.example/other{n}.mp4")]);
        conflicts.push(bench.receive(&other).await.delivery.unwrap());
    }
    bench.clock.advance(DAY + LEASE);
    assert_eq!(bench.prune(Which::Taken).await, (1, 1));
    // Not even if a stale look has it removed.
    assert_eq!(bench.store.prune_deliveries(conflicts.clone()).await.unwrap(), 0);
    assert_eq!(bench.kept("conflict").await.len(), 2);
    bench.store.accept_delivery(conflicts[0]).await.unwrap();
    assert_eq!(bench.prune(Which::Taken).await, (1, 2));
    assert_eq!(bench.task("t").await.unwrap().conflicts, 0);
}

#[tokio::test]
async fn a_signature_stays_bound_when_its_delivery_goes() {
    let bench = Bench::new().await;
    let body = success("t", &["https://cdn.example/a.mp4"]);
    let expires_at = bench.clock.now() + 2 * 86_400_000;
    bench.receive_signed(&body, "video", expires_at).await;
    bench.clock.advance(DAY + LEASE);
    assert_eq!(bench.prune(Which::Taken).await, (1, 1));
    let again = bench.receive_signed(&body, "video", expires_at).await;
    assert_eq!((again.verdict, again.queued), (Verdict::Duplicate, 0));
    let reused = bench.receive_signed(&body, "4k", expires_at).await;
    assert_eq!(
        (reused.verdict, reused.reason),
        (Verdict::Conflict, Some("signature_reused"))
    );
}

#[tokio::test]
async fn rows_that_go_make_room_for_others_of_their_outcome() {
    let bench = Bench::new().await;
    for _ in 0..30 {
        bench.receive(&failure("t")).await;
    }
    assert_eq!(bench.kept("duplicate").await.len(), 20);
    bench.clock.advance(DAY + LEASE);
    bench.prune(Which::Taken).await;
    for _ in 0..30 {
        bench.receive(&failure("t")).await;
    }
    assert_eq!(bench.kept("duplicate").await.len(), 20);
    assert_eq!(bench.task("t").await.unwrap().deliveries, 60);
}

#[tokio::test]
async fn the_ring_forgets_rejected_deliveries_that_go() {
    let bench = Bench::new().await;
    bench.receive(&failure("t")).await;
    bench.reject(1_000).await;
    bench.clock.advance(DAY + LEASE);
    assert_eq!(bench.prune(Which::Rejected).await, (11, 1_000));
    assert_eq!(bench.kept("accepted").await.len(), 1, "it has an age of its own");
    // As many as one network may have: none of them gives way to rows that are gone.
    bench.reject(2_500).await;
    assert_eq!(bench.kept("rejected").await.len(), 2_500);
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_a_while_hides_nothing_old() {
    let bench = Bench::new().await;
    let mut ahead = bench.delivery(&success("ahead", &[]));
    ahead.received_at += 1_000 * 86_400_000;
    bench.store.record_delivery(ahead).await.unwrap();
    bench.receive(&success("t", &[])).await;
    bench.clock.advance(DAY + LEASE);
    assert_eq!(bench.prune(Which::Taken).await, (1, 1));
}

#[tokio::test]
async fn large_bodies_go_a_few_at_a_time() {
    let bench = Bench::new().await;
    let long = "x".repeat(1 << 20);
    for n in 0..9 {
        bench.receive(&success(&format!("t{n}"), &[&long])).await;
    }
    bench.clock.advance(DAY + LEASE);
    assert_eq!(bench.prune(Which::Taken).await, (3, 9));
}

#[tokio::test]
async fn a_task_that_is_not_settled_or_young_again_stays() {
    let bench = Bench::new().await;
    bench
        .receive(&success("queued", &["https://cdn.example/a.mp4"]))
        .await;
    bench.receive(&failure("gone")).await;
    bench.receive(&failure("changed")).await;
    bench.receive(&success("disputed", &[])).await;
    bench.receive(&failure("disputed")).await;
    bench.expect("awaited").await;
    bench.clock.advance(DAY + LEASE);
    let before = bench.clock.now() - 86_400_000;
    bench.receive(&failure("changed")).await;
    let stretch = bench.store.aged_tasks(before, 0).await.unwrap();
    let aged: Vec<_> = stretch.aged.iter().map(|task| task.task_id.as_str()).collect();
    assert_eq!((aged, stretch.more), (vec!["gone"], false));
    for id in ["queued", "changed", "disputed", "awaited"] {
        let row = bench.task(id).await.unwrap().row;
        assert_eq!(
            bench.store.prune_task(row, before).await.unwrap(),
            Deletion::Unknown,
            "{id}"
        );
    }
    let row = stretch.aged[0].row;
    assert_eq!(bench.store.prune_task(row, before).await.unwrap(), Deletion::Done);
    assert!(bench.task("gone").await.is_none());
    // No tombstone: years later it would still be there.
    assert_eq!(bench.receive(&failure("gone")).await.verdict, Verdict::Accepted);
}
