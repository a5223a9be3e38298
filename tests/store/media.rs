//! Stored files that go by age, or because not all of them fit.

use std::fs;
use std::path::PathBuf;

use futures_util::StreamExt as _;
use reelhook::retention::{Removed, Retention, Settings};
use reelhook::storage::Storage;

use super::*;

const HOUR: Duration = Duration::from_hours(1);

/// A store with files in a real storage.
struct Shelf {
    bench: Bench,
    storage: Storage,
}

impl Shelf {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let storage =
            Storage::open(&bench.dir.path().join("media"), &bench.dir.path().join("spool")).unwrap();
        Self { bench, storage }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.bench.dir.path().join("media").join(key)
    }

    /// Stores the file of a new task, and gives its key.
    async fn put(&self, id: &str, content: &[u8]) -> String {
        self.bench
            .receive(&success(id, &["https://cdn.example/a.mp4"]))
            .await;
        let claimed = self.bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
        let key = format!("kie/{id}/result-0.mp4");
        fs::create_dir_all(self.path(&key).parent().unwrap()).unwrap();
        fs::write(self.path(&key), content).unwrap();
        let settlement = Settlement::Stored {
            name: "result-0.mp4".to_owned(),
            bytes: content.len() as u64,
            sha256: Sha256::digest(content).into(),
            facts: Facts::of("video/mp4", "mp4"),
            storage_key: key.clone(),
        };
        let settled = self.bench.store.settle_download(claimed.lease, settlement).await;
        assert_eq!(settled.unwrap(), Settled::Done);
        key
    }

    /// A round of retention; the files and bytes that went.
    async fn prune(&self, media: Option<Duration>, media_bytes: Option<u64>) -> (u64, u64) {
        let settings = Settings {
            media,
            media_bytes,
            ..Settings::default()
        };
        let parts = (self.bench.clock.clone(), Tasks::new());
        let mut retention = Retention::new(self.bench.store.clone(), self.storage.clone(), parts, settings);
        let Removed { files, bytes, .. } = retention.round().await.unwrap();
        (files, bytes)
    }

    async fn state_of(&self, id: &str) -> String {
        self.bench.task(id).await.unwrap().files[0].state.clone()
    }
}

#[tokio::test]
async fn the_first_stored_go_until_the_rest_fits_exactly() {
    let shelf = Shelf::new().await;
    // By id the last is the first stored: the order is that of storing.
    let ids = ["e", "d", "c", "b", "a"];
    for id in ids {
        shelf.put(id, &[1; 1_000]).await;
        shelf.bench.clock.advance(HOUR);
    }
    assert_eq!(shelf.prune(None, Some(5_000)).await, (0, 0));
    assert_eq!(shelf.prune(None, Some(3_000)).await, (2, 2_000));
    assert_eq!(shelf.bench.store.stored_bytes().await.unwrap(), 3_000);
    for (id, state) in ids
        .iter()
        .zip(["deleted", "deleted", "stored", "stored", "stored"])
    {
        assert_eq!(shelf.state_of(id).await, state, "{id}");
        let there = shelf.path(&format!("kie/{id}/result-0.mp4")).exists();
        assert_eq!(there, state == "stored", "{id}");
    }
    assert_eq!(
        shelf.prune(None, Some(2_999)).await,
        (1, 1_000),
        "one byte too many"
    );
    assert_eq!(
        shelf.prune(Some(HOUR), Some(2_999)).await,
        (1, 1_000),
        "older than an hour"
    );
    assert_eq!(shelf.prune(Some(HOUR), Some(0)).await, (1, 1_000));
    let doomed = shelf.bench.number("SELECT count(*) FROM doomed_keys").await;
    assert_eq!(doomed, 0);
    shelf.bench.is_sound().await;
}

#[tokio::test]
async fn a_file_that_is_being_read_is_read_to_its_end() {
    let shelf = Shelf::new().await;
    let content: Vec<u8> = (0..=255).cycle().take(5_000_000).collect();
    let key = shelf.put("t", &content).await;
    let found = shelf.storage.open_file(&key).await.unwrap();
    let length = found.length();
    let mut reading = found.read(0..length).await.unwrap();
    let mut read = reading.next().await.unwrap().unwrap().to_vec();
    assert!(read.len() < content.len(), "there is more to read");
    assert_eq!(shelf.prune(None, Some(0)).await, (1, length));
    assert!(!shelf.path(&key).exists());
    while let Some(piece) = reading.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == content);
}

#[tokio::test]
async fn what_is_not_stored_yet_is_left_alone() {
    let shelf = Shelf::new().await;
    shelf
        .bench
        .receive(&success(
            "t",
            &["https://cdn.example/a.mp4", "https://cdn.example/b.mp4"],
        ))
        .await;
    shelf.bench.store.claim_download(LEASE, 4).await.unwrap().unwrap();
    shelf.bench.clock.advance(HOUR * 48);
    assert_eq!(shelf.prune(Some(HOUR), Some(0)).await, (0, 0));
    let states: Vec<_> = shelf.bench.task("t").await.unwrap().files;
    let states: Vec<_> = states.iter().map(|file| file.state.as_str()).collect();
    assert_eq!(states, ["downloading", "queued"]);
}

#[tokio::test]
async fn many_files_go_in_one_round() {
    let shelf = Shelf::new().await;
    for n in 0..103 {
        shelf.put(&format!("t{n}"), b"x").await;
    }
    assert_eq!(shelf.prune(None, Some(1)).await, (102, 102));
    assert_eq!(shelf.state_of("t101").await, "deleted");
    assert_eq!(
        shelf.state_of("t102").await,
        "stored",
        "of the same moment, in the order of their rows"
    );
}
