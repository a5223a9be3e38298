//! The records of scrubs.

use reelhook::store::scrub::{FINDINGS, Judged, Noted, Orders, StoredFile, Verdict};

use super::*;

const REPAIR: Orders = Orders {
    background: false,
    repair: true,
};

impl Bench {
    async fn stored(&self) -> Vec<StoredFile> {
        self.store.stored_files(-1, i64::MAX).await.unwrap().files
    }

    async fn note(&self, file: &StoredFile, verdict: Verdict) -> Noted {
        let judged = Judged {
            scrub: self.store.unfinished_scrub().await.unwrap().unwrap(),
            file: file.clone(),
            verdict,
        };
        self.store.note_judged(judged).await.unwrap()
    }
}

#[tokio::test]
async fn a_verdict_about_a_row_that_changed_meanwhile_changes_nothing() {
    let bench = Bench::new().await;
    // Keys are those of one task, and never named twice.
    for (id, name) in [("t", "result-0.mp4"), ("u", "result-1.mp4")] {
        bench.receive(&success(id, &["https://cdn.example/a.mp4"])).await;
        bench.store_next(name).await;
    }
    let begun = bench.store.begin_scrub(REPAIR).await.unwrap().unwrap();
    assert_eq!(
        (begun.files_total, bench.store.begin_scrub(REPAIR).await.unwrap()),
        (2, None)
    );
    let files = bench.stored().await;
    let queued = bench.note(&files[0], Verdict::Missing).await;
    assert!(matches!(queued, Noted::Done { queued: true, .. }), "{queued:?}");
    assert_eq!(bench.note(&files[0], Verdict::Missing).await, Noted::Changed);
    // Stored again, of the same content, under the same key.
    bench.clock.advance(Duration::from_secs(1));
    bench.store_next("result-0.mp4").await;
    assert_eq!(bench.note(&files[0], Verdict::Missing).await, Noted::Changed);
    let task = bench.task("u").await.unwrap();
    bench.store.delete_task(task.row).await.unwrap();
    assert_eq!(
        bench.note(&files[1], Verdict::Damaged("?".to_owned())).await,
        Noted::Changed
    );

    let scrub = bench.store.unfinished_scrub().await.unwrap().unwrap();
    assert_eq!(
        (scrub.tally.files, scrub.tally.missing, scrub.tally.repaired),
        (1, 1, 1)
    );
    assert_eq!(bench.store.scrub_findings(scrub.id).await.unwrap().len(), 1);
    assert_eq!(bench.stored().await.len(), 1);
    bench.store.end_scrub(scrub, true).await.unwrap();
    bench.is_sound().await;
}

#[tokio::test]
async fn findings_past_the_bound_are_counted_only() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    bench.store_next("result-0.mp4").await;
    let begun = bench.store.begin_scrub(REPAIR).await.unwrap().unwrap();
    let file = bench.stored().await.remove(0);
    for _ in 0..FINDINGS + 5 {
        bench.note(&file, Verdict::Unreadable("no".to_owned())).await;
    }
    let findings = bench.store.scrub_findings(begun.id).await.unwrap();
    assert_eq!(i64::try_from(findings.len()), Ok(FINDINGS));
    let scrub = bench.store.unfinished_scrub().await.unwrap().unwrap();
    assert_eq!(scrub.tally.unreadable, FINDINGS + 5);
    assert_eq!(
        bench.task("t").await.unwrap().media,
        "stored",
        "it may be readable again"
    );
}

#[tokio::test]
async fn the_newest_scrubs_are_kept_with_what_they_found() {
    let bench = Bench::new().await;
    bench.receive(&success("t", &["https://cdn.example/a.mp4"])).await;
    bench.store_next("result-0.mp4").await;
    for _ in 0..25 {
        bench.store.begin_scrub(REPAIR).await.unwrap().unwrap();
        let file = bench.stored().await.remove(0);
        bench.note(&file, Verdict::Unreadable("no".to_owned())).await;
        let scrub = bench.store.unfinished_scrub().await.unwrap().unwrap();
        bench.store.end_scrub(scrub, true).await.unwrap();
    }
    assert_eq!(bench.store.last_scrub().await.unwrap().unwrap().id, 25);
    assert_eq!(bench.number("SELECT count(*) FROM scrubs").await, 20);
    assert_eq!(bench.number("SELECT count(*) FROM scrub_findings").await, 20);
    bench.is_sound().await;
}
