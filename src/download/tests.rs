//! Fetching into the spool, from a real server on loopback.

use std::path::Path;
use std::sync::LazyLock;

use tempfile::TempDir;

use super::fetch::Limits;
use super::*;
use crate::egress::scripted::{Answer, ScriptedServer, Trap};
use crate::egress::{EgressError, EgressPolicy, GuardedClient};
use crate::media::files::mp4;
use crate::provider::{Kind, Role};
use crate::shutdown::Tasks;
use crate::storage::Storage;
use crate::telemetry::traces::Tracer;

static MP4: LazyLock<Vec<u8>> = LazyLock::new(|| mp4(1, 0x300));

struct Bench {
    directory: TempDir,
    fetcher: Fetcher,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let storage =
            Storage::open(&directory.path().join("media"), &directory.path().join("spool")).unwrap();
        let client = GuardedClient::new(EgressPolicy {
            ports: vec![80, 443],
            allow_cidrs: vec!["127.0.0.1/32".parse().unwrap()],
            exempt_url: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_millis(200),
        });
        let fetcher = Fetcher {
            client: client.unwrap(),
            storage,
            tasks: Tasks::new(),
            progress: Progress::default(),
            meters: Meters::default(),
            tracer: Tracer::default(),
            limits: Limits {
                max_size: 1_000,
                total_timeout: Duration::from_secs(2),
                min_speed: 0,
                stall_timeout: Duration::from_secs(1),
            },
        };
        Self { directory, fetcher }
    }

    async fn fetch(&self, url: &str) -> Result<Fetched, FetchError> {
        let shown = self.fetcher.progress.begin(1);
        let fetched = self.fetcher.fetch(&claim(url), &[], &shown).await;
        assert_eq!(
            self.spooled(),
            usize::from(fetched.is_ok()),
            "a failure without a validator leaves nothing in the spool"
        );
        fetched
    }

    /// The failure of fetching what the server answers.
    async fn failure(&self, answer: impl Fn() -> Answer + Send + Sync + 'static) -> FetchError {
        let server = ScriptedServer::start(move |_| answer()).await;
        self.fetch(&server.url("/1.mp4?key=secret")).await.unwrap_err()
    }

    fn spooled(&self) -> usize {
        let count = |directory: &Path| std::fs::read_dir(directory).unwrap().count();
        count(&self.directory.path().join("spool"))
    }
}

/// A claim of a file, with nothing tried yet.
pub(super) fn claim(url: &str) -> ClaimedDownload {
    ClaimedDownload {
        lease: Lease {
            download: 1,
            token: 1,
        },
        source: "kie".to_owned(),
        task_id: "t1".parse().unwrap(),
        kind: Kind::video(),
        index: 0,
        role: Role::Result,
        n: 0,
        url: url.to_owned(),
        host: "127.0.0.1".to_owned(),
        queued_at: 0,
        attempts: 0,
        deadline: 0,
    }
}

#[tokio::test]
async fn a_whole_file_arrives_with_its_checksum_and_its_true_kind() {
    let bench = Bench::new();
    let server =
        ScriptedServer::start(|_| Answer::whole("200 OK", "content-type: text/html\r\n", &MP4)).await;
    let fetched = bench.fetch(&server.url("/1.webm")).await.unwrap();
    assert_eq!(fetched.content.extension, "mp4");
    assert_eq!(fetched.file.bytes, MP4.len() as u64);
    assert_eq!(std::fs::read(fetched.file.path()).unwrap(), *MP4);
}

#[tokio::test]
async fn a_file_without_a_length_arrives() {
    let bench = Bench::new();
    let server = ScriptedServer::start(|path| match path {
        "/chunked" => Answer::raw(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            &[b"300\r\n", MP4.as_slice(), b"\r\n0\r\n\r\n"].concat(),
        ),
        _ => Answer::raw("HTTP/1.0 200 OK\r\n\r\n", &MP4),
    })
    .await;
    assert_eq!(MP4.len(), 0x300);
    for path in ["/chunked", "/until-closed"] {
        assert_eq!(
            bench.fetch(&server.url(path)).await.unwrap().file.bytes,
            0x300,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_body_cut_short_is_truncated() {
    let bench = Bench::new();
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n384\r\n",
    ] {
        let failure = bench.failure(|| Answer::raw(head, &MP4)).await;
        assert_eq!(failure.code(), "truncated", "{failure:?}");
    }
}

#[tokio::test]
async fn a_file_over_the_limit_is_refused_announced_or_not() {
    let bench = Bench::new();
    let announced = || Answer::Stall(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n".to_vec());
    assert_eq!(bench.failure(announced).await.code(), "too_large");
    let endless = || Answer::Stall([b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &[7; 2_000]].concat());
    assert_eq!(bench.failure(endless).await.code(), "too_large");
}

#[tokio::test]
async fn a_page_under_200_is_not_media() {
    let bench = Bench::new();
    let page = || {
        Answer::whole(
            "200 OK",
            "content-type: video/mp4\r\n",
            b"<html>File not found</html>",
        )
    };
    let failure = bench.failure(page).await;
    assert_eq!(failure.code(), "not_media");
    assert!(
        failure.to_string().contains("\"<html>File not found</html>\""),
        "{failure}"
    );
    let empty = || Answer::whole("200 OK", "", b"");
    assert_eq!(bench.failure(empty).await.code(), "not_media");
    let packed = || Answer::whole("200 OK", "content-encoding: gzip\r\n", &MP4);
    assert_eq!(bench.failure(packed).await.code(), "not_media");
}

#[tokio::test]
async fn a_status_other_than_200_is_a_failure_with_its_retry_after() {
    let bench = Bench::new();
    let failure = bench.failure(|| Answer::whole("404 Not Found", "", &MP4)).await;
    assert_eq!(failure.code(), "expired");
    let failure = bench
        .failure(|| Answer::whole("206 Partial Content", "", &MP4))
        .await;
    assert_eq!(failure.code(), "http_status");
    let limited = || Answer::whole("429 Too Many Requests", "retry-after: 17\r\n", b"");
    let failure = bench.failure(limited).await;
    assert!(
        matches!(&failure, FetchError::Status { status: 429, retry_after: Some(value) } if value == "17"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_stalled_body_runs_into_the_idle_limit() {
    let bench = Bench::new();
    let stalled =
        || Answer::Stall([b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", MP4.as_slice()].concat());
    let failure = bench.failure(stalled).await;
    assert!(
        matches!(failure, FetchError::Egress(EgressError::Timeout { .. })),
        "{failure:?}"
    );
    assert_eq!(failure.code(), "network");
    assert!(!format!("{failure} {failure:?}").contains("secret"));
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_blocked() {
    let bench = Bench::new();
    let trap = Trap::set("127.0.0.2:0");
    let location = format!("http://127.0.0.2:{}/1.mp4", trap.port());
    let failure = bench.failure(move || Answer::redirect(&location)).await;
    assert_eq!(failure.code(), "blocked");
    trap.assert_untouched();
}

#[tokio::test]
async fn a_fetch_that_is_dropped_leaves_nothing_behind() {
    let bench = Bench::new();
    let server = ScriptedServer::start(|_| {
        Answer::Stall([b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n", MP4.as_slice()].concat())
    })
    .await;
    let claim = claim(&server.url("/1.mp4"));
    let shown = bench.fetcher.progress.begin(1);
    let mut fetching = Box::pin(bench.fetcher.fetch(&claim, &[], &shown));
    while bench.spooled() == 0 {
        let step = tokio::time::timeout(Duration::from_millis(5), &mut fetching);
        assert!(step.await.is_err());
    }
    drop(fetching);
    assert_eq!(bench.spooled(), 0);
}
