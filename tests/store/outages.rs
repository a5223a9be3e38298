//! Whose fault it is that nothing can be fetched: the downloader over a real store and a real server, with a network that goes
//! away.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reelhook::config::Live;
use reelhook::download::fetch::{Fetcher, Limits};
use reelhook::download::{Downloader, Meters, Progress, Rules, Settings};
use reelhook::egress::{EgressPolicy, GuardedClient, Resolver};
use reelhook::retry::Backoff;
use reelhook::storage::Storage;
use reelhook::store::tasks::FileRecord;
use reelhook::telemetry::traces::Tracer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// What every file consists of; no kind of media that we know.
const CONTENT: [u8; 1000] = [0xfe; 1000];

/// A downloader that looks names up where a test says so.
struct Site {
    bench: Bench,
    downloader: Downloader,
    /// But for `other.example`, which always is.
    names_are_known: Arc<AtomicBool>,
    host: Host,
}

/// A server of files, by every name.
struct Host {
    port: u16,
    is_well: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    _tasks: Tasks,
}

impl Host {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_well, asked) = (Arc::new(AtomicBool::new(true)), Arc::<AtomicUsize>::default());
        let (tasks, well, count) = (Tasks::new(), Arc::clone(&is_well), Arc::clone(&asked));
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    // A connection on which nothing is asked is a look whether we are here.
                    let Ok(1..) = stream.read_buf(&mut request).await else {
                        break;
                    };
                }
                if request.is_empty() {
                    continue;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let status = if well.load(Ordering::SeqCst) {
                    "200 OK"
                } else {
                    "502 Bad Gateway"
                };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 1000\r\nconnection: close\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                stream.write_all(&CONTENT).await.unwrap();
            }
        });
        Self {
            port,
            is_well,
            asked,
            _tasks: tasks,
        }
    }
}

impl Site {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let names_are_known = Arc::new(AtomicBool::new(true));
        let known = Arc::clone(&names_are_known);
        let resolver = Resolver::Function(Arc::new(move |name: &str| {
            if known.load(Ordering::SeqCst) || name == "other.example" {
                return Ok(vec![Ipv4Addr::LOCALHOST.into()]);
            }
            Err(io::Error::other("no name service"))
        }));
        let policy = EgressPolicy {
            ports: Vec::new(),
            allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()],
            exempt_url: None,
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5),
        };
        let root = bench.dir.path();
        let fetcher = Fetcher {
            client: GuardedClient::with_resolver(policy, &resolver).unwrap(),
            storage: Storage::open(&root.join("media"), &root.join("spool")).unwrap(),
            tasks: Tasks::new(),
            progress: Progress::default(),
            meters: Meters::default(),
            tracer: Tracer::default(),
            limits: Limits {
                max_size: 1 << 20,
                total_timeout: LEASE,
                min_speed: 0,
                stall_timeout: LEASE,
            },
        };
        let settings = Settings {
            concurrency: 1,
            per_host: 4,
            lease: LEASE,
            max_attempts: 9,
            give_up_after: LEASE,
            backoff: Backoff {
                base: Duration::from_millis(1),
                cap: Duration::from_millis(1),
            },
        };
        let rules = Live::new(Rules::new());
        let downloader = Downloader::new(bench.store.clone(), bench.clock.clone(), fetcher, settings, rules);
        Self {
            bench,
            downloader,
            names_are_known,
            host: Host::start().await,
        }
    }

    /// A task with one file on the host of that name.
    async fn announce(&self, id: &str, name: &str) {
        let url = format!("http://{name}:{}/{id}.mp4", self.host.port);
        self.bench.receive(&success(id, &[&url])).await;
    }

    async fn step(&self) -> bool {
        reelhook::worker::step(&self.downloader).await.unwrap()
    }

    async fn file(&self, id: &str) -> FileRecord {
        self.bench.task(id).await.unwrap().files.remove(0)
    }

    fn paused(&self) -> Option<&'static str> {
        self.downloader.pause().reason().map(|reason| reason.code)
    }
}

#[tokio::test]
async fn a_name_service_that_is_gone_pauses_the_queue_and_costs_no_attempt() {
    let site = Site::new().await;
    site.announce("t1", "cdn.example").await;
    assert!(site.step().await);
    assert_eq!(site.file("t1").await.state, "stored");

    site.names_are_known.store(false, Ordering::SeqCst);
    for id in ["t2", "t3"] {
        site.announce(id, "cdn.example").await;
    }
    assert!(site.step().await);
    assert_eq!(site.paused(), Some("network"));
    let file = site.file("t2").await;
    assert_eq!((file.state.as_str(), file.attempts), ("queued", 0));
    assert_eq!(file.error.unwrap().0, "local");
    assert!(!site.step().await, "nothing is claimed");
    for _ in 0..5 {
        site.bench.clock.advance(Duration::from_mins(1));
        while site.step().await {}
    }
    assert_eq!(
        (site.paused(), site.file("t2").await.attempts),
        (Some("network"), 0)
    );

    site.names_are_known.store(true, Ordering::SeqCst);
    site.bench.clock.advance(Duration::from_secs(15));
    while site.step().await {}
    assert_eq!(site.paused(), None);
    for id in ["t2", "t3"] {
        let file = site.file(id).await;
        assert_eq!((file.state.as_str(), file.attempts), ("stored", 1));
    }
}

#[tokio::test]
async fn a_host_that_is_there_all_the_same_ends_the_pause() {
    let site = Site::new().await;
    site.announce("t1", "cdn.example").await;
    assert!(site.step().await);
    site.names_are_known.store(false, Ordering::SeqCst);
    for id in ["t2", "t3"] {
        site.announce(id, "cdn.example").await;
    }
    assert!(site.step().await);
    site.announce("u", "other.example").await;
    for _ in 0..10 {
        site.bench.clock.advance(Duration::from_secs(15));
        while site.step().await {}
    }
    assert_eq!(site.file("u").await.state, "stored");
    assert_eq!(site.file("t1").await.state, "stored");
}

#[tokio::test]
async fn a_name_that_nobody_knows_is_its_own_fault_while_others_are_known() {
    let site = Site::new().await;
    site.announce("t1", "cdn.example").await;
    assert!(site.step().await);
    site.bench
        .receive(&success("t2", &["http://127.0.0.9:1/a.mp4"]))
        .await;
    assert!(site.step().await);
    let file = site.file("t2").await;
    assert_eq!((file.attempts, site.paused()), (1, None));
    assert_eq!(file.error.unwrap().0, "network");
}

#[tokio::test]
async fn one_host_that_is_gone_for_good_does_not_pause_the_queue_for_ever() {
    let site = Site::new().await;
    site.announce("t1", "cdn.example").await;
    assert!(site.step().await);
    site.names_are_known.store(false, Ordering::SeqCst);
    site.announce("t2", "cdn.example").await;
    assert!(site.step().await);
    assert_eq!(site.paused(), Some("network"));
    site.bench.clock.advance(Duration::from_hours(2));
    assert!(site.step().await);
    assert_eq!((site.file("t2").await.attempts, site.paused()), (1, None));
}

#[tokio::test]
async fn a_host_that_keeps_failing_is_left_alone_and_then_tried_by_one() {
    let site = Site::new().await;
    site.host.is_well.store(false, Ordering::SeqCst);
    for n in 0..12 {
        site.announce(&format!("t{n}"), "cdn.example").await;
    }
    while site.step().await {}
    assert_eq!(
        site.host.asked.load(Ordering::SeqCst),
        5,
        "the others spend no attempt"
    );
    site.bench.clock.advance(Duration::from_secs(2));
    while site.step().await {}
    assert_eq!(site.host.asked.load(Ordering::SeqCst), 6);
    // Others are not concerned.
    site.announce("other", "other.example").await;
    site.host.is_well.store(true, Ordering::SeqCst);
    assert!(site.step().await);
    assert_eq!(site.file("other").await.state, "stored");
    site.bench.clock.advance(Duration::from_secs(4));
    while site.step().await {}
    for n in 0..12 {
        assert_eq!(site.file(&format!("t{n}")).await.state, "stored");
    }
}
