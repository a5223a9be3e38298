//! Peers that hold connections and let us wait.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{join, join_all, select_all};
use tokio::net::TcpStream;

use crate::target::{Signed, Target, callback, head, push, rest, statuses};
use crate::wire::Connection;

/// What a server may have in all, in KiB.
const MEMORY: u64 = 120 * 1024;

/// A connection that sends this much and no more.
async fn slow(target: &Target, begin: &[u8]) -> TcpStream {
    let mut stream = target.connect().await;
    push(&mut stream, begin).await.unwrap();
    stream
}

#[tokio::test]
async fn nine_hundred_slow_sockets_end_at_their_deadline_and_cost_good_callbacks_nothing() {
    let deadline = Duration::from_secs(3);
    let target = Target::start("header_timeout = \"3s\"\nbody_timeout = \"3s\"\n");
    let whole = callback("slow", Signed::Well, "");
    let beginnings = [&whole[..0], &whole[..50], &whole[..whole.len() - 1]];
    let mut held = Vec::new();
    for n in 0..900 {
        let stream = slow(&target, beginnings[n % 3]).await;
        held.push((stream, Instant::now()));
    }
    let ends = held.iter_mut().map(async |(stream, opened)| {
        let said = statuses(&rest(stream).await);
        assert!(matches!(said[..], [] | [408]), "{said:?}");
        opened.elapsed()
    });
    let good = async {
        let mut took = Vec::new();
        for _ in 0..200 {
            took.push(target.good().await);
        }
        took.sort_unstable();
        took
    };
    let (ends, good) = join(join_all(ends), good).await;
    let last = ends.into_iter().max().unwrap();
    assert!(
        last >= deadline && last < deadline + Duration::from_secs(5),
        "{last:?}"
    );
    assert!(
        good[198] < Duration::from_secs(1),
        "p99 of good callbacks is {:?}",
        good[198]
    );
    assert!(target.peak_kib() < MEMORY, "{} KiB", target.peak_kib());
}

#[tokio::test]
async fn when_all_connections_are_held_the_oldest_that_waits_makes_room() {
    let target = Target::start("header_timeout = \"10m\"\nmax_connections = 50\n");
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(slow(&target, b"").await);
    }
    let mut kept = Vec::new();
    for oldest in &mut idle[..10] {
        let mut good = Connection::open(target.addr).await.unwrap();
        let whole = callback("good", Signed::Well, "");
        assert_eq!(good.status_of(&whole).await.unwrap(), 200);
        kept.push(good);
        assert_eq!(rest(oldest).await, b"", "the oldest is gone");
    }
    let others = idle[10..].iter_mut().map(|stream| Box::pin(rest(stream)));
    assert!(select_all(others).now_or_never().is_none(), "no other is");
}

#[tokio::test]
async fn a_low_limit_of_open_files_costs_no_callback() {
    let target = Target::start_with_files(300);
    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(slow(&target, b"POST").await);
    }
    for _ in 0..20 {
        target.good().await;
    }
    drop(held);
    let (log, _, _) = target.stop();
    assert!(log.contains("may open only 300 files"), "{log}");
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[tokio::test]
async fn bodies_that_a_proxy_brings_slowly_count_for_the_address_behind_it() {
    let target = Target::start("body_timeout = \"10m\"\nmax_connections_per_address = 3\n");
    let from = |addr: &str| format!("x-forwarded-for: {addr}\r\n");
    let begun = |addr: &str| {
        format!(
            "{}content-length: 100\r\n\r\n{{",
            head("slow", Signed::Well, &from(addr))
        )
    };
    let mut other = slow(&target, begun("203.0.113.9").as_bytes()).await;
    let mut oldest = slow(&target, begun("192.0.2.1").as_bytes()).await;
    // Within the first second nobody is asked to leave; then the fourth of an address is one too many.
    let crowd = async {
        let mut crowd = Vec::new();
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        loop {
            pace.tick().await;
            crowd.push(slow(&target, begun("192.0.2.1").as_bytes()).await);
        }
    };
    let told = tokio::select! {
        told = rest(&mut oldest) => told,
        () = crowd => unreachable!("it goes on"),
    };
    assert_eq!(statuses(&told), [408]);
    assert!(String::from_utf8_lossy(&told).contains("max_connections_per_address"));
    let mut good = Connection::open(target.addr).await.unwrap();
    let whole = callback("good", Signed::Well, &from("192.0.2.1"));
    assert_eq!(good.status_of(&whole).await.unwrap(), 200);
    assert!(
        rest(&mut other).now_or_never().is_none(),
        "another address has its own"
    );
}
