use std::cell::RefCell;
use std::io::Write as _;

use futures_util::FutureExt as _;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::config::Source;
use crate::shutdown::Tasks;
use crate::store::deliveries::DeliveryFilter;

/// All bodies together.
const MEMORY: u64 = 256 * 1024;

/// An ingest whose writer commits only while the test waits for it: at other times the test has the database locked.
struct Bench {
    ingest: Ingest,
    sources: Sources,
    memory: Memory,
    headers: HeaderMap,
    lock: RefCell<Option<Connection>>,
    dir: TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_795_284_446_000);
        let store = Store::open(&dir.path().join("reelhook.db"), clock.clone(), &Tasks::new())
            .await
            .unwrap();
        let sources = Sources::from([("kie".parse().unwrap(), Source::default())]);
        Self {
            ingest: Ingest::new(store, clock, sources.clone(), MEMORY),
            sources,
            memory: Memory::of(MEMORY),
            headers: HeaderMap::new(),
            lock: RefCell::default(),
            dir,
        }
    }

    fn arrival(&self, body: impl Into<Bytes>) -> Arrival<'_> {
        let body = body.into();
        let mut room = self.memory.room();
        room.grow(body.len() as u64).unwrap();
        Arrival {
            sources: &self.sources,
            source: "kie",
            query: "",
            headers: &self.headers,
            remote_addr: [192, 0, 2, 1].into(),
            body,
            room,
            observed: None,
        }
    }

    /// Queues a callback whose sender then goes away.
    fn receive_and_leave(&self, body: impl Into<Bytes>) {
        self.lock.borrow_mut().get_or_insert_with(|| {
            let other = Connection::open(self.dir.path().join("reelhook.db")).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            other
        });
        let answer = self.ingest.receive(self.arrival(body)).now_or_never();
        assert!(answer.is_none(), "the writer has not committed yet: {answer:?}");
    }

    /// Commits what is in the queue, and one more.
    async fn commit(&self) {
        self.lock.take();
        let receipt = self.ingest.receive(self.arrival(callback("last", 0))).await;
        receipt.result.unwrap();
    }

    fn has_room_for(&self, bytes: u64) -> bool {
        self.memory.room().grow(bytes).is_ok()
    }
}

fn callback(task_id: &str, padding: usize) -> String {
    format!(
        "{{\"code\":501,\"data\":{{\"taskId\":\"{task_id}\"}}}}{}",
        " ".repeat(padding)
    )
}

#[tokio::test]
async fn a_body_keeps_its_room_until_its_commit_even_if_its_sender_leaves() {
    let bench = Bench::new().await;
    bench.receive_and_leave(callback("t1", 200_000));
    assert!(!bench.has_room_for(100_000));
    bench.commit().await;
    assert!(bench.has_room_for(MEMORY));
}

#[tokio::test]
async fn senders_that_leave_do_not_fill_the_queue_with_rejected_deliveries() {
    let bench = Bench::new().await;
    for _ in 0..REJECTS_IN_FLIGHT {
        bench.receive_and_leave("not JSON");
    }
    let answer = bench.ingest.receive(bench.arrival("not JSON")).now_or_never();
    assert!(answer.is_some(), "answered without being recorded");
    bench.commit().await;
    let rejected = DeliveryFilter {
        verdict: Some("rejected".to_owned()),
        limit: 200,
        ..DeliveryFilter::default()
    };
    let kept = bench.ingest.store.list_deliveries(&rejected).await.unwrap();
    assert_eq!(kept.items.len(), REJECTS_IN_FLIGHT);
    bench.receive_and_leave("not JSON");
}

#[tokio::test]
async fn of_a_rejected_body_that_is_not_kept_nothing_waits_in_the_queue() {
    let bench = Bench::new().await;
    bench.receive_and_leave("x".repeat(MAX_KEPT_BODY + 1));
    assert!(bench.has_room_for(MEMORY));
}

#[tokio::test]
async fn a_packed_body_holds_room_for_what_it_unpacks_to() {
    let bench = Bench::new().await;
    let packed = gzip(callback("t1", 200_000).as_bytes());
    assert!(packed.len() < 2_000);
    bench.receive_and_leave(packed.clone());
    assert!(!bench.has_room_for(100_000));
    let other = bench.ingest.receive(bench.arrival(packed.clone())).await;
    assert!(matches!(other.result, Err(Refusal::Busy)), "{other:?}");
    bench.commit().await;
    bench.receive_and_leave(packed);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(plain).unwrap();
    packed.finish().unwrap()
}
