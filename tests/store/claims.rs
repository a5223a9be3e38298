//! Which download is claimed next.

use super::*;

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

/// A picture at the host, due to be deleted after ten minutes; videos live for a fortnight.
fn short_lived(id: &str, host: &str) -> String {
    let url = format!("https://{host}/1.png");
    serde_json::json!({"code": 200, "msg": "ok", "data": {"taskId": id, "info": {"originImageUrl": url}}})
        .to_string()
}

#[tokio::test]
async fn the_order_of_deadlines_holds_across_hosts() {
    let bench = Bench::new().await;
    // Hosts by name, deadlines crosswise: each the first of its host at some time, one of each put off until now.
    for (n, host) in ["a", "c", "b", "a", "b", "c"].into_iter().enumerate() {
        bench
            .receive(&success(&format!("{n}"), &[&format!("https://{host}.example/1")]))
            .await;
        bench.clock.advance(Duration::from_secs(1));
    }
    bench.receive(&short_lived("urgent", "d.example")).await;
    let mut order = Vec::new();
    while let Some(claimed) = bench.store.claim_download(LEASE, 4).await.unwrap() {
        order.push(claimed.task_id.to_string());
        if order.len() == 2 {
            // Put off and due again, it keeps its deadline's place.
            let at = bench.clock.now();
            let put_off = Settlement::Released {
                at: at + 1,
                error: None,
            };
            bench.store.settle_download(claimed.lease, put_off).await.unwrap();
            bench.clock.advance(Duration::from_millis(1));
        }
    }
    assert_eq!(order, ["urgent", "0", "0", "1", "2", "3", "4", "5"]);
    bench.is_sound().await;
}

/// Six hundred hosts, a download of each, the later name the earlier deadline.
macro_rules! six_hundred_hosts {
    ($from:literal, $state:literal, $lease_until:literal) => {
        concat!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 600)
             INSERT INTO downloads (id, kind, idx, role, n, name, url, host, state, deadline, next_at, attempts,
                                    lease_until, created_at, updated_at, change_seq)
             SELECT 1 << 24 | n + ",
            $from,
            ", 'video', 0, 'result', n, n, '', printf('%03d.example', n), '",
            $state,
            "', 1000 - n, 1, 0, ",
            $lease_until,
            ", 1, 1, 1 FROM numbers"
        )
    };
}

#[tokio::test]
async fn however_many_hosts_are_queued_each_has_its_turn() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &[])).await;
    bench.sabotage(six_hundred_hosts!(0, "queued", "NULL")).await;
    let mut claimed = Vec::new();
    while let Some(download) = bench.store.claim_download(LEASE, 1).await.unwrap() {
        claimed.push(download.n);
    }
    // 512 at a time: the last of those, then the last of the others and the first 424, and so on.
    assert_eq!(claimed[..3], [512, 600, 599]);
    claimed.sort_unstable();
    assert!(claimed.into_iter().eq(1..=600), "each once");
}

#[tokio::test]
async fn hosts_at_their_cap_do_not_keep_a_claim_from_those_behind_them() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &[])).await;
    bench.sabotage(six_hundred_hosts!(0, "queued", "NULL")).await;
    bench
        .sabotage(six_hundred_hosts!(1000, "downloading", "9000000000000"))
        .await;
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());
    bench
        .receive(&success("free", &["https://z.example/1.mp4"]))
        .await;
    let claimed = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert_eq!(claimed.task_id.as_str(), "free");
}

#[tokio::test]
async fn what_falls_due_behind_many_of_a_busy_host_rings_until_it_is_found() {
    let bench = Bench::new().await;
    let urls: Vec<String> = (0..60).map(|n| format!("https://down.example/{n}.mp4")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    for task in 0..10 {
        bench.receive(&success(&format!("down{task}"), &urls)).await;
    }
    bench.receive(&success("up", &["https://up.example/1.mp4"])).await;
    let due = bench.clock.now() + 1_000;
    let mut number = 0;
    while let Some(claimed) = bench.store.claim_download(LEASE, 1_000).await.unwrap() {
        number += 1;
        let is_up = claimed.task_id.as_str() == "up";
        let put_off = Settlement::Released {
            at: due + i64::from(is_up),
            error: None,
        };
        bench.store.settle_download(claimed.lease, put_off).await.unwrap();
    }
    assert_eq!(number, 601);
    bench.clock.advance(Duration::from_secs(2));
    // What settling rang for.
    bench.store.downloads_queued().notified().await;
    let first = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert!(first.task_id.as_str().starts_with("down"));
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());
    let rung = bench.store.downloads_queued().notified();
    tokio::time::timeout(LEASE, rung)
        .await
        .expect("there is more to find");
    let found = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    assert_eq!(found.task_id.as_str(), "up");
    bench.is_sound().await;
}

#[tokio::test]
async fn what_falls_due_after_a_claim_looked_for_it_is_not_slept_through() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    let claimed = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    let at = bench.clock.now() + 5;
    let put_off = Settlement::Released { at, error: None };
    bench.store.settle_download(claimed.lease, put_off).await.unwrap();
    assert!(bench.store.claim_download(LEASE, 1).await.unwrap().is_none());
    bench.clock.advance(Duration::from_millis(5));
    assert_eq!(bench.store.next_download_due().await.unwrap(), Some(at));
    let claimed = bench.store.claim_download(LEASE, 1).await.unwrap();
    assert!(claimed.is_some());
}

#[tokio::test]
async fn a_clock_that_was_set_back_brings_forward_what_waits() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    let claimed = bench.store.claim_download(LEASE, 1).await.unwrap().unwrap();
    let at = bench.clock.now() + 60_000;
    let put_off = Settlement::Released { at, error: None };
    bench.store.settle_download(claimed.lease, put_off).await.unwrap();
    bench
        .store
        .bring_downloads_forward(Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(bench.store.next_download_due().await.unwrap(), Some(at - 20_000));
    assert_eq!(bench.task("t").await.unwrap().files[0].next_at, at - 20_000);
    bench.is_sound().await;
}
