//! TLS of our own, from the operator's files.

use std::net::SocketAddr;

use reqwest::Version;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Authority, Program, Setup, TestServer, connector, loopback, shake_hands, shown, success, until,
    web_client,
};

const NAME: &str = "hooks.localhost";

/// A server with a certificate of this authority, and where its files lie.
async fn start(authority: &Authority, more: &str) -> (TestServer, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    authority.issue(&[NAME], 2100).put(dir.path());
    let server = Setup::new(&format!("{more}\n{}", files_in(dir.path())))
        .start()
        .await;
    (server, dir)
}

fn files_in(dir: &std::path::Path) -> String {
    let dir = dir.display();
    format!("[tls]\ncert_file = \"{dir}/cert.pem\"\nkey_file = \"{dir}/key.pem\"\n")
}

#[tokio::test]
async fn both_versions_and_both_protocols_are_spoken() {
    let authority = Authority::new();
    let (server, _dir) = start(&authority, "").await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, agreed) in [
            (&[b"h2".as_slice(), b"http/1.1"][..], Some(b"h2".as_slice())),
            (&[b"http/1.1".as_slice()], Some(b"http/1.1")),
            (&[], None),
        ] {
            let client = connector(authority.root(), offered, Some(version));
            let stream = shake_hands(&client, server.addr, NAME).await.unwrap();
            let session = stream.get_ref().1;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), agreed, "{offered:?}");
        }
    }
}

// The client's end of HTTP/2 must be alive to let the server stop, which the end of the test waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_callback_is_taken_by_both_protocols() {
    let authority = Authority::new();
    let (server, _dir) = start(&authority, "").await;
    let url = |path: &str| format!("https://{NAME}:{}{path}", server.addr.port());
    let http1 = web_client(authority.root(), NAME, server.addr).http1_only();
    let http2 = web_client(authority.root(), NAME, server.addr);
    for (client, version, task) in [(http1, Version::HTTP_11, "one"), (http2, Version::HTTP_2, "two")] {
        let client = client.build().unwrap();
        let body = success(task, &[]).to_string();
        let answer = client
            .post(url("/callbacks/kie"))
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        let listed = client
            .get(url(&format!("/v1/tasks/{task}")))
            .send()
            .await
            .unwrap();
        assert_eq!(listed.status(), 200);
    }
}

#[tokio::test]
async fn a_replaced_certificate_is_served_without_a_refused_connection() {
    let authority = Authority::new();
    let (server, dir) = start(&authority, "").await;
    let client = connector(authority.root(), &[b"h2"], None);
    let mut leaves = Vec::new();
    for _ in 0..10 {
        let issued = authority.issue(&[NAME], 2100);
        issued.put(dir.path());
        server.look_again();
        // Connection after connection until the new one is there; none may fail.
        loop {
            let stream = shake_hands(&client, server.addr, NAME)
                .await
                .expect("a handshake");
            leaves.push(shown(&stream));
            if leaves.last() == Some(&issued.leaf()) {
                break;
            }
        }
    }
    leaves.dedup();
    assert!((10..=11).contains(&leaves.len()), "each was served, in turn");
}

#[tokio::test]
async fn a_connection_outlives_its_certificate() {
    let authority = Authority::new();
    let (server, dir) = start(&authority, "").await;
    let client = connector(authority.root(), &[], None);
    let mut stands = shake_hands(&client, server.addr, NAME).await.unwrap();
    assert!(is_alive(&mut stands).await);
    let issued = authority.issue(&[NAME], 2100);
    issued.put(dir.path());
    server.look_again();
    until("the new certificate is served", || async {
        let stream = shake_hands(&client, server.addr, NAME).await.unwrap();
        (shown(&stream) == issued.leaf()).then_some(())
    })
    .await;
    assert!(is_alive(&mut stands).await);
}

/// Asks over a connection that stays.
async fn is_alive(stream: &mut TlsStream<TcpStream>) -> bool {
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: hooks.localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).await.unwrap();
    answer[..length].starts_with(b"HTTP/1.1 200 ")
}

/// The program with a certificate of this authority, configured and not yet run.
fn program(authority: &Authority, more: &str) -> Program {
    let program = Program::configured(&format!(
        "{more}\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n"
    ));
    authority.issue(&[NAME], 2100).put(program.path());
    program.write("root.pem", authority.root().as_bytes());
    program
}

async fn leaf_at(addr: SocketAddr, authority: &Authority) -> rustls::pki_types::CertificateDer<'static> {
    let client = connector(authority.root(), &[], None);
    shown(&shake_hands(&client, addr, NAME).await.unwrap())
}

#[tokio::test]
async fn changed_files_are_noticed_without_a_signal() {
    let authority = Authority::new();
    let program = program(&authority, "");
    let serving = program.serve(&[]);
    serving
        .err
        .wait_for("certificate for hooks.localhost until 2100-01-01T00:00:00.000Z");
    let issued = authority.issue(&[NAME, "b.localhost"], 2101);
    issued.put(program.path());
    serving
        .err
        .wait_for("certificate read again: now for hooks.localhost, b.localhost until 2101-01-01");
    assert_eq!(leaf_at(serving.addr, &authority).await, issued.leaf());
}

#[tokio::test]
async fn what_cannot_be_served_is_said_in_one_line_and_the_old_certificate_stays() {
    let authority = Authority::new();
    let program = program(&authority, "");
    let serving = program.serve(&[]);
    let old = leaf_at(serving.addr, &authority).await;
    let good = authority.issue(&[NAME], 2100);
    let expired = authority.issue(&[NAME], 2025);
    for (chain, key, line) in [
        ("garbage", good.key.as_str(), "cert.pem holds no certificate"),
        (&good.chain, "garbage", "key.pem holds no private key"),
        (
            &good.chain,
            &expired.key,
            "key.pem is not the key of this certificate; put both files of one issue in place",
        ),
        (
            &expired.chain,
            &expired.key,
            "cert.pem expired on 2025-01-01T00:00:00.000Z; renew it",
        ),
    ] {
        program.write("cert.pem", chain.as_bytes());
        program.write("key.pem", key.as_bytes());
        serving.signal("HUP");
        let said = serving.err.wait_for(line);
        assert!(
            said.contains("ERROR") && said.ends_with("the certificate in force stays"),
            "{said}"
        );
        assert_eq!(leaf_at(serving.addr, &authority).await, old);
    }
    assert_eq!(
        serving.err.text().matches("ERROR").count(),
        4,
        "{}",
        serving.err.text()
    );
}

#[test]
fn serve_and_check_refuse_a_key_of_another_certificate() {
    let authority = Authority::new();
    let program = program(&authority, "");
    let fine = program.run(&["check"]);
    assert_eq!(fine.code, Some(0), "{}", fine.err);
    assert!(
        fine.err
            .contains("certificate: hooks.localhost until 2100-01-01T00:00:00.000Z (")
            && fine.err.contains(" days left)"),
        "{}",
        fine.err
    );
    program.write("key.pem", authority.issue(&[NAME], 2100).key.as_bytes());
    let refused = program.refused(&["--listen", "127.0.0.1:0"]);
    assert!(
        refused.contains("key.pem is not the key of this certificate"),
        "{refused}"
    );
    let checked = program.run(&["check"]);
    assert_eq!(checked.code, Some(1));
    assert!(
        checked.err.contains("certificate: key.pem is not the key"),
        "{}",
        checked.err
    );
}

#[tokio::test]
async fn plain_http_and_wrong_trust_are_each_said_in_one_clear_line() {
    let authority = Authority::new();
    let program = program(&authority, "");
    let serving = program.serve(&[]);
    for _ in 0..3 {
        let mut plain = TcpStream::connect(serving.addr).await.unwrap();
        let request = b"GET /healthz HTTP/1.1\r\nHost: hooks.localhost\r\n\r\n";
        plain.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // The end may come as a reset, for not all that was sent was read.
        let _ = plain.read_to_end(&mut answer).await;
        // A fatal alert of TLS, which is what a client can make something of, and the end.
        assert_eq!(answer.first(), Some(&0x15), "{answer:?}");
    }
    let stranger = connector(Authority::new().root(), &[], None);
    for _ in 0..3 {
        shake_hands(&stranger, serving.addr, NAME)
            .await
            .expect_err("it trusts another root");
    }
    serving
        .err
        .wait_for("it does not speak TLS; a plain http:// URL leads to this port");
    serving.err.wait_for("it refuses our certificate");
    assert_eq!(
        serving.err.text().matches("no TLS with").count(),
        2,
        "{}",
        serving.err.text()
    );
}

#[test]
fn the_commands_reach_it_by_the_name_in_its_certificate() {
    let authority = Authority::new();
    // An address of its own, so that the port can be known beforehand.
    let ip = loopback();
    let program = program(&authority, &format!("listen = \"{ip}:8443\""));
    let serving = program.serve_as_configured();
    let banner = serving.out.wait_for("  callbacks ");
    assert!(
        banner.contains("POST https://hooks.localhost:8443/callbacks/kie"),
        "{banner}"
    );
    let run = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        // The authority is trusted as any other is: by the system's store, which this variable stands for.
        let ended = program.run_with(&[("SSL_CERT_FILE", "root.pem")], &words);
        assert_eq!(ended.code, Some(0), "{line}: {}{}", ended.out, ended.err);
        ended.out
    };
    assert_eq!(
        run("url kie").trim(),
        "https://hooks.localhost:8443/callbacks/kie"
    );
    let sent = run("trigger veo.success --task-id walk --video-url http://127.0.0.1/a.mp4");
    assert!(sent.contains("answered: 200"), "{sent}");
    assert!(run("tasks list").contains("walk"));
    assert!(run("healthcheck").contains("https://hooks.localhost:8443/ is alive"));
    let distrusting = program.run(&["healthcheck"]);
    assert_eq!(
        distrusting.code,
        Some(1),
        "no root, no trust: {}",
        distrusting.out
    );
}

// The client's end of HTTP/2 must be alive to let the server stop, which the end of the test waits for.
#[tokio::test(flavor = "multi_thread")]
async fn with_an_admin_listener_strangers_reach_callbacks_and_health_only() {
    let authority = Authority::new();
    let (server, _dir) = start(&authority, "admin_listen = \"127.0.0.1:0\"").await;
    let client = web_client(authority.root(), NAME, server.addr).build().unwrap();
    let public = |path: &str| format!("https://{NAME}:{}{path}", server.addr.port());
    // On loopback, plain HTTP.
    let admin = |path: &str| format!("http://{}{path}", server.api_addr());
    let status = async |url: String| client.get(url).send().await.unwrap().status().as_u16();

    let body = success("t", &[]).to_string();
    let answer = client
        .post(public("/callbacks/kie"))
        .body(body.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(status(admin("/v1/tasks/t")).await, 200);
    for path in ["/v1/tasks", "/v1/tasks/t", "/v1/deliveries", "/v1/stats"] {
        assert_eq!(status(public(path)).await, 404, "{path}");
        assert_eq!(status(admin(path)).await, 200, "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!([status(public(path)).await, status(admin(path)).await], [200; 2]);
    }
    let answer = client
        .post(admin("/callbacks/kie"))
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 404);
    let problem: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(problem["code"], json!("not_found"));
}

#[test]
fn commands_and_banner_use_the_admin_listener() {
    let ip = loopback();
    let program = Program::configured(&format!("listen = \"{ip}:8080\"\nadmin_listen = \"{ip}:8081\"\n"));
    let serving = program.serve_as_configured();
    let looked = serving.out.wait_for("  look ");
    assert!(looked.contains(&format!("http://{ip}:8081/v1/tasks")), "{looked}");
    serving.err.wait_for(&format!("serving the API on {ip}:8081"));
    let ended = program.run(&["trigger", "veo.success", "--task-id", "walk"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    assert!(
        ended.err.contains(&format!("--server http://{ip}:8081")),
        "{}",
        ended.err
    );
    let waited = program.run(&["tasks", "wait", "walk"]);
    assert_eq!(waited.code, Some(0), "{}{}", waited.out, waited.err);
}
