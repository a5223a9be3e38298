//! The listener with a route table of its own.

use std::sync::Arc;

use axum::Extension;
use axum::http::{HeaderMap, Version};
use axum::routing::get;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

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
    certificate: rcgen::Certificate,
    tasks: Tasks,
}

impl Serving {
    fn start(alpn: &[&[u8]]) -> Self {
        let names = vec!["localhost".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let (addr, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let router = Router::new().route("/", get(what_came));
        tasks.spawn(serve(
            listener,
            Transport::Tls(acceptor),
            router,
            limits(),
            tasks.clone(),
        ));
        Self {
            addr,
            certificate: made.cert,
            tasks,
        }
    }

    async fn get(&self) -> String {
        // An error means that another test was first.
        rustls::crypto::ring::default_provider().install_default().ok();
        let trusted = reqwest::Certificate::from_der(self.certificate.der()).unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([trusted])
            .resolve("localhost", self.addr)
            .build()
            .unwrap();
        let url = format!("https://localhost:{}/", self.addr.port());
        client.get(url).send().await.unwrap().text().await.unwrap()
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

#[tokio::test]
async fn alpn_decides_between_http_2_and_http_1() {
    let both = Serving::start(&[b"h2", b"http/1.1"]);
    assert_eq!(both.get().await, "HTTP/2.0 127.0.0.1 localhost");
    let old = Serving::start(&[b"http/1.1"]);
    assert_eq!(old.get().await, "HTTP/1.1 127.0.0.1 localhost");
    let none = Serving::start(&[]);
    assert_eq!(none.get().await, "HTTP/1.1 127.0.0.1 localhost");
    assert!(
        both.tasks.drain(Duration::from_secs(5)).await,
        "an idle HTTP/2 connection ends with the stop"
    );
}

#[tokio::test]
async fn a_peer_that_does_not_shake_hands_is_closed_and_costs_others_nothing() {
    let serving = Serving::start(&[b"h2"]);
    let mut silent = TcpStream::connect(serving.addr).await.unwrap();
    let mut plain = TcpStream::connect(serving.addr).await.unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(serving.get().await, "HTTP/2.0 127.0.0.1 localhost");
    let mut said = Vec::new();
    // Whatever it is, an alert or nothing, it ends.
    let _ = plain.read_to_end(&mut said).await;
    assert!(!String::from_utf8_lossy(&said).contains("HTTP"));
    assert_eq!(
        silent.read(&mut [0; 1]).await.unwrap(),
        0,
        "closed at the deadline"
    );
}
