//! The spool on a real directory.

use std::fs::OpenOptions;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::*;

const URL: &str = "https://a.example/1.mp4";

struct Bench {
    directory: TempDir,
    spool: Arc<Spool>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = Arc::new(Spool::over(directory.path()));
        Self { directory, spool }
    }

    /// The same directory, as the next process finds it.
    fn reopened(self) -> Self {
        let spool = Arc::new(Spool::over(self.directory.path()));
        Self { spool, ..self }
    }

    async fn begun(&self, token: i64, note: Note, content: &[u8]) -> SpoolFile {
        let mut file = self.spool.create(7, token).await.unwrap();
        file.restart(note).await.unwrap();
        for chunk in content.chunks(60_000) {
            file.write(chunk).await.unwrap();
        }
        file
    }

    async fn resumed(&self) -> Option<SpoolFile> {
        self.spool.resume(7, URL).await.unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn note(total: Option<u64>) -> Note {
    Note {
        source: "kie".to_owned(),
        task_id: "t1".to_owned(),
        url: URL.to_owned(),
        validator: Some(Validator::Etag("\"a\"".to_owned())),
        total,
    }
}

fn content(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

#[tokio::test]
async fn a_file_that_was_put_down_is_gone_on_with_byte_for_byte() {
    let bench = Bench::new();
    let whole = content(3 * BUFFER_BYTES + 17);
    for cut in [1, 511, BUFFER_BYTES, 2 * BUFFER_BYTES + 5] {
        bench
            .begun(1, note(Some(whole.len() as u64)), &whole[..cut])
            .await
            .keep()
            .await
            .unwrap();
        let mut file = bench.resumed().await.unwrap();
        assert_eq!((file.bytes(), file.is_whole()), (cut as u64, false));
        assert!(bench.resumed().await.is_none(), "it has one holder");
        file.write(&whole[cut..]).await.unwrap();
        assert!(file.is_whole());
        let finished = file.finish().await.unwrap();
        assert_eq!(fs::read(finished.path()).unwrap(), whole);
        assert_eq!(finished.sha256[..], Sha256::digest(&whole)[..]);
        assert_eq!(finished.head, whole[..HEAD_BYTES]);
        finished.discard();
        assert_eq!(bench.names(), [""; 0]);
    }
}

#[tokio::test]
async fn the_next_process_goes_on_with_what_is_wanted_and_removes_the_rest() {
    let bench = Bench::new();
    bench.begun(1, note(Some(9)), b"1234").await.keep().await.unwrap();
    let directory = bench.directory.path();
    for (name, text) in [
        ("8-1.part", "no note"),
        ("9-1.note", "{}"),
        ("odd", "x"),
        ("10-2.part", "y"),
    ] {
        fs::write(directory.join(name), text).unwrap();
    }
    fs::write(directory.join("10-2.note"), "half a no").unwrap();
    // The process died while it replaced the note.
    fs::write(directory.join("7-1.note-new"), "half a no").unwrap();
    let bench = bench.reopened();
    let mut left = bench.spool.left().unwrap();
    left.sort_unstable();
    assert_eq!(left, [7, 8, 10]);
    let wanted = HashMap::from([(7, URL.to_owned()), (8, URL.to_owned()), (10, URL.to_owned())]);
    assert_eq!(bench.spool.sweep(&wanted).unwrap().kept, 1);
    assert_eq!(bench.names(), ["7-1.note", "7-1.part"]);
    assert_eq!(bench.resumed().await.unwrap().bytes(), 4);
}

#[tokio::test]
async fn what_is_wanted_no_more_or_from_elsewhere_goes() {
    for wanted in [
        HashMap::new(),
        HashMap::from([(7, "https://b.example/1.mp4".to_owned())]),
    ] {
        let bench = Bench::new();
        bench.begun(1, note(Some(9)), b"1234").await.keep().await.unwrap();
        let bench = bench.reopened();
        let swept = bench.spool.sweep(&wanted).unwrap();
        assert_eq!((swept.kept, swept.removed), (0, 1));
        assert_eq!(bench.names(), [""; 0]);
    }
    let bench = Bench::new();
    bench.begun(1, note(Some(9)), b"1234").await.keep().await.unwrap();
    assert!(
        bench
            .spool
            .resume(7, "https://b.example/1.mp4")
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(bench.names(), [""; 0]);
    bench.begun(1, note(Some(9)), b"1234").await.keep().await.unwrap();
    assert_eq!(bench.spool.forget(|_, note| note.task_id == "t1"), 1);
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn a_process_that_was_killed_leaves_all_that_it_wrote() {
    let bench = Bench::new();
    let whole = content(4 * BUFFER_BYTES + 9);
    let mut file = bench.begun(1, note(Some(1 << 30)), &whole).await;
    file.rest().await;
    // Nobody runs its destructors.
    std::mem::forget(file);
    let bench = bench.reopened();
    bench.spool.sweep(&HashMap::from([(7, URL.to_owned())])).unwrap();
    let length = fs::metadata(bench.directory.path().join("7-1.part"))
        .unwrap()
        .len();
    assert_eq!(length, 4 * BUFFER_BYTES as u64);
    assert_eq!(bench.resumed().await.unwrap().bytes(), length);
}

#[tokio::test]
async fn an_unfinished_file_is_gone_once_it_is_dropped() {
    let bench = Bench::new();
    let file = bench.begun(1, note(None), &content(2 * BUFFER_BYTES)).await;
    assert!(
        bench.spool.create(7, 1).await.is_err(),
        "a spool file has one writer"
    );
    drop(file);
    let mut useless = note(None);
    useless.validator = None;
    bench.begun(2, useless, b"of no use").await.keep().await.unwrap();
    bench.begun(3, note(None), b"").await.keep().await.unwrap();
    assert_eq!(bench.names(), [""; 0]);
}

#[tokio::test]
async fn a_whole_file_that_could_not_be_handed_over_waits() {
    let bench = Bench::new();
    let mut without = note(None);
    without.validator = None;
    drop(bench.begun(1, without, b"whole").await.finish().await.unwrap());
    let file = bench.resumed().await.unwrap();
    assert!(file.is_whole());
    assert_eq!(
        file.finish().await.unwrap().sha256[..],
        Sha256::digest(b"whole")[..]
    );
}

#[tokio::test]
async fn a_file_that_begins_anew_has_nothing_of_the_old() {
    let bench = Bench::new();
    let mut file = bench.begun(1, note(Some(9)), &content(3 * BUFFER_BYTES)).await;
    file.restart(note(Some(3))).await.unwrap();
    assert_eq!(file.bytes(), 0);
    file.write(b"new").await.unwrap();
    let finished = file.finish().await.unwrap();
    assert_eq!(fs::read(finished.path()).unwrap(), b"new");
    assert_eq!((&*finished.head, finished.bytes), (b"new".as_slice(), 3));
    assert_eq!(finished.sha256[..], Sha256::digest(b"new")[..]);
}

#[tokio::test]
async fn a_full_disk_says_so() {
    let bench = Bench::new();
    let mut file = bench.begun(1, note(None), b"").await;
    // A device that is always full.
    file.write_to(OpenOptions::new().write(true).open("/dev/full").unwrap());
    file.write(&content(BUFFER_BYTES)).await.unwrap();
    let error = file.write(&content(BUFFER_BYTES)).await.unwrap_err();
    assert!(error.is_full());
    let sentence =
        "the storage could not write to the spool: the disk is full; make room and it goes on by itself";
    assert_eq!(error.sentence(), sentence);
    assert!(
        file.write(&content(BUFFER_BYTES)).await.is_err(),
        "what was lost is not skipped"
    );
    assert!(file.finish().await.is_err());
}
