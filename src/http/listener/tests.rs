//! The listener with a route table of its own.

use std::sync::Arc;

use axum::http::{HeaderMap, Version};
use axum::routing::{get, post};
use axum::{Extension, Router};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than any buffer on the way holds.
const LARGE: usize = 32 << 20;

fn limits() -> Limits {
    Limits {
        header_timeout: Duration::from_secs(1),
        write_timeout: Duration::from_secs(1),
        max_connections: 100,
        max_connections_per_address: 100,
        trusted_proxies: Vec::new(),
    }
}

/// A listener of these tests, stopped when it goes.
struct Serving {
    addr: SocketAddr,
    certificate: Option<rcgen::Certificate>,
    tasks: Tasks,
}

impl Serving {
    fn plain(limits: Limits) -> Self {
        Self::start(Transport::Plain, None, limits)
    }

    fn tls(alpn: &[&[u8]]) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let transport = Transport::Tls(TlsAcceptor::from(Arc::new(config)));
        Self::start(transport, Some(made.cert), limits())
    }

    fn start(transport: Transport, certificate: Option<rcgen::Certificate>, limits: Limits) -> Self {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let router = Router::new()
            .route("/", get(what_came))
            .route("/large", get(async || vec![b'x'; LARGE]))
            .route("/take", post(async |body: String| body));
        tasks.spawn(serve(listener, transport, router.into(), limits, tasks.clone()));
        Self {
            addr,
            certificate,
            tasks,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.addr).await.unwrap()
    }

    /// What an ordinary client gets.
    async fn get(&self) -> String {
        // An error means that another test was first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut client = reqwest::Client::builder().no_proxy().timeout(PATIENCE);
        let mut scheme = "http";
        if let Some(certificate) = &self.certificate {
            let trusted = reqwest::Certificate::from_der(certificate.der()).unwrap();
            client = client.tls_certs_only([trusted]);
            scheme = "https";
        }
        let client = client.resolve("localhost", self.addr).build().unwrap();
        let url = format!("{scheme}://localhost:{}/", self.addr.port());
        client.get(url).send().await.unwrap().text().await.unwrap()
    }

    /// A connection that shook hands for HTTP/2 and has sent its preface, with these settings.
    async fn http2(&self, settings: &[u8]) -> Http2 {
        let mut trusted = RootCertStore::empty();
        trusted
            .add(self.certificate.as_ref().unwrap().der().clone())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let mut http2 = Http2(connector.connect(name, self.connect().await).await.unwrap());
        http2.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        http2.frame(SETTINGS, 0, (0, settings)).await.unwrap();
        http2
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.tasks.begin_drain();
    }
}

/// What the handlers get to see of a request.
async fn what_came(version: Version, Extension(peer): Extension<Peer>, headers: HeaderMap) -> String {
    let host = headers["host"].to_str().unwrap().split(':').next();
    format!("{version:?} {} {}", peer.addr.ip(), host.unwrap())
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// An HTTP/2 connection of frames, for what no library would send.
struct Http2(TlsStream<TcpStream>);

impl Http2 {
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    async fn frame(&mut self, kind: u8, flags: u8, (stream, payload): (u32, &[u8])) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.send(&frame).await
    }
}

/// A request for a path, as HPACK has it.
fn asking(method: &[u8], path: &str) -> Vec<u8> {
    let mut block = [method, &[0x87, 0x01, 9], b"localhost", &[0x04]].concat();
    block.push(u8::try_from(path.len()).unwrap());
    block.extend(path.as_bytes());
    block
}

const GET: &[u8] = &[0x82];
const POST: &[u8] = &[0x83];

/// Reads until the other side closes or breaks off, and tells how long that took.
async fn ends(stream: &mut (impl AsyncRead + Unpin)) -> Duration {
    let started = std::time::Instant::now();
    let read = async { while let Ok(1..) = stream.read(&mut [0; 4096]).await {} };
    tokio::time::timeout(PATIENCE, read).await.expect("it ends");
    started.elapsed()
}

#[tokio::test]
async fn alpn_decides_between_http_2_and_http_1() {
    let both = Serving::tls(&[b"h2", b"http/1.1"]);
    assert_eq!(both.get().await, "HTTP/2.0 127.0.0.1 localhost");
    let old = Serving::tls(&[b"http/1.1"]);
    assert_eq!(old.get().await, "HTTP/1.1 127.0.0.1 localhost");
    let none = Serving::tls(&[]);
    assert_eq!(none.get().await, "HTTP/1.1 127.0.0.1 localhost");
}

#[tokio::test]
async fn the_stop_ends_idle_connections_at_once() {
    let serving = Serving::tls(&[b"h2"]);
    let mut limits = limits();
    limits.header_timeout = PATIENCE;
    let plain = Serving::plain(limits);
    let mut http2 = serving.http2(&[]).await;
    http2
        .frame(HEADERS, END_STREAM | END_HEADERS, (1, &asking(GET, "/")))
        .await
        .unwrap();
    let (mut silent, mut http1) = (plain.connect().await, plain.connect().await);
    http1
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert_ne!(http1.read(&mut [0; 4096]).await.unwrap(), 0);
    let stop = Duration::from_secs(5);
    tokio::join!(ends(&mut silent), ends(&mut http1), ends(&mut http2.0), async {
        assert!(plain.tasks.drain(stop).await);
        assert!(serving.tasks.drain(stop).await);
    });
}

#[tokio::test]
async fn a_peer_that_does_not_shake_hands_is_closed_and_costs_others_nothing() {
    let serving = Serving::tls(&[b"h2"]);
    let (mut silent, mut plain) = (serving.connect().await, serving.connect().await);
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(serving.get().await, "HTTP/2.0 127.0.0.1 localhost");
    ends(&mut plain).await;
    let took = ends(&mut silent).await;
    assert!(
        took < Duration::from_secs(4),
        "not at the deadline but after {took:?}"
    );
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off() {
    let serving = Serving::plain(limits());
    let mut slow = serving.connect().await;
    slow.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    // Unread, the answer fills all buffers on the way; then nothing moves, and the server gives up.
    let cut_off = tokio::time::timeout(PATIENCE, slow.ready(Interest::ERROR));
    cut_off.await.expect("in time").unwrap();
    assert_eq!(serving.get().await, "HTTP/1.1 127.0.0.1 localhost");
}

#[tokio::test]
async fn who_reads_slowly_but_reads_gets_it_all() {
    let serving = Serving::plain(limits());
    let mut slow = serving.connect().await;
    slow.write_all(b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let (mut took, mut buffer) = (0, vec![0; LARGE / 16]);
    let mut pace = tokio::time::interval(limits().write_timeout / 8);
    while let Ok(read @ 1..) = slow.read(&mut buffer).await {
        took += read;
        pace.tick().await;
    }
    assert!(took > LARGE, "{took}");
}

#[tokio::test]
async fn a_window_that_stays_closed_ends_the_connection() {
    let serving = Serving::tls(&[b"h2"]);
    // SETTINGS_INITIAL_WINDOW_SIZE = 0
    let mut closed = serving.http2(&[0, 4, 0, 0, 0, 0]).await;
    closed
        .frame(HEADERS, END_STREAM | END_HEADERS, (1, &asking(GET, "/large")))
        .await
        .unwrap();
    let took = ends(&mut closed.0).await;
    assert!(
        took >= limits().write_timeout && took < Duration::from_secs(4),
        "{took:?}"
    );
}

#[tokio::test]
async fn idle_http_2_connections_end_whether_or_not_they_asked_anything() {
    let serving = Serving::tls(&[b"h2"]);
    let (mut silent, mut asked) = (serving.http2(&[]).await, serving.http2(&[]).await);
    asked
        .frame(HEADERS, END_STREAM | END_HEADERS, (1, &asking(GET, "/")))
        .await
        .unwrap();
    let took = tokio::join!(ends(&mut silent.0), ends(&mut asked.0));
    for took in [took.0, took.1] {
        assert!(
            took >= limits().header_timeout && took < Duration::from_secs(5),
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn requests_that_are_reset_at_once_end_their_connection() {
    let serving = Serving::tls(&[b"h2"]);
    for path in ["/", "/take"] {
        let mut rapid = serving.http2(&[]).await;
        let (method, flags) = if path == "/" {
            (GET, END_STREAM | END_HEADERS)
        } else {
            (POST, END_HEADERS)
        };
        let mut sent = 0;
        let flood = async {
            for stream in (1..200_000).step_by(2) {
                rapid
                    .frame(HEADERS, flags, (stream, &asking(method, path)))
                    .await?;
                rapid.frame(RST_STREAM, 0, (stream, &8_u32.to_be_bytes())).await?;
                sent += 1;
            }
            io::Result::Ok(())
        };
        let flooded = tokio::time::timeout(PATIENCE, flood).await.expect("in time");
        assert!(flooded.is_err(), "{sent} resets went through");
        assert!(serving.get().await.starts_with("HTTP/2"));
    }
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let serving = Serving::tls(&[b"h2"]);
    let mut endless = serving.http2(&[]).await;
    endless
        .frame(HEADERS, END_STREAM, (1, &asking(GET, "/")))
        .await
        .unwrap();
    // A field that is not indexed: name `a`, value of 100 bytes.
    let field = [&[0x00, 1, b'a', 100][..], &[b'x'; 100]].concat().repeat(100);
    let mut sent = 0;
    let flood = async {
        while sent < 64 << 20 {
            endless.frame(CONTINUATION, 0, (1, &field)).await?;
            sent += field.len();
        }
        io::Result::Ok(())
    };
    let flooded = tokio::time::timeout(PATIENCE, flood).await.expect("in time");
    assert!(flooded.is_err(), "{sent} bytes of a head went through");
    assert!(serving.get().await.starts_with("HTTP/2"));
}
