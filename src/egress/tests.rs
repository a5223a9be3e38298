//! The guarded client against real sockets on loopback.

use std::net::IpAddr;
use std::sync::Mutex;

use ipnet::IpNet;

use super::scripted::{Answer, ScriptedServer, Trap};
use super::*;

fn policy(ports: &[u16], cidrs: &[&str]) -> EgressPolicy {
    EgressPolicy {
        ports: ports.to_vec(),
        allow_cidrs: cidrs.iter().map(|cidr| cidr.parse::<IpNet>().unwrap()).collect(),
        exempt_url: None,
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_millis(300),
    }
}

fn client(policy: EgressPolicy) -> GuardedClient {
    GuardedClient::new(policy).unwrap()
}

/// A resolver that gives its answers in turn and stays at the last one.
fn answering(answers: &[&[&str]]) -> (Resolver, Arc<Mutex<usize>>) {
    let answers: Vec<Vec<IpAddr>> = answers
        .iter()
        .map(|answer| answer.iter().map(|address| address.parse().unwrap()).collect())
        .collect();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let function = move |_: &str| {
        let mut count = count.lock().unwrap();
        *count += 1;
        Ok(answers[(*count - 1).min(answers.len() - 1)].clone())
    };
    (Resolver::Function(Arc::new(function)), asked)
}

async fn get(client: &GuardedClient, url: &str) -> Result<Response, EgressError> {
    client
        .get(&Request {
            url,
            ..Request::default()
        })
        .await
}

async fn assert_blocked(client: &GuardedClient, url: &str) -> BlockReason {
    match get(client, url).await {
        Err(EgressError::Blocked { reason }) => reason,
        other => panic!("{url}: {other:?}"),
    }
}

/// Loopback, metadata services and private networks as an attacker writes them.
const OWN_ADDRESSES: &[&str] = &[
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "0177.1",
    "017700000001",
    "%31%32%37.0.0.1",
    "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
    "127\u{3002}0\u{3002}0\u{3002}1",
    "127.127.127.127",
    "0.0.0.0",
    "0",
    "0x0",
    "255.255.255.255",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "10.0.0.1",
    "192.168.0.1",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
];

#[tokio::test]
async fn no_spelling_of_an_own_address_makes_a_packet_leave() {
    let trap = Trap::set("0.0.0.0:0");
    let port = trap.port();
    // The port is on the list, so that only the address can be the reason.
    let client = client(policy(&[port], &[]));
    for host in OWN_ADDRESSES {
        let reason = assert_blocked(&client, &format!("http://{host}:{port}/latest/meta-data")).await;
        assert!(matches!(reason, BlockReason::Address { .. }), "{host}: {reason}");
    }
    for host in [
        "localhost",
        "LocalHost",
        "localhost.",
        "a.localhost",
        "\u{24db}ocalhost",
        "x.internal",
        "x.local",
    ] {
        let reason = assert_blocked(&client, &format!("http://{host}:{port}/")).await;
        assert!(
            matches!(reason, BlockReason::LocalName { .. }),
            "{host}: {reason}"
        );
    }
    for url in [
        format!("http://8.8.8.8@127.0.0.1:{port}/"),
        format!("http://u:p@localhost:{port}/"),
        format!("ftp://127.0.0.1:{port}/"),
        format!("gopher://127.0.0.1:{port}/"),
        "file:///etc/passwd".to_owned(),
        format!("http:\\\\127.0.0.1:{port}\\"),
    ] {
        assert_blocked(&client, &url).await;
    }
    trap.assert_untouched();
}

#[tokio::test]
async fn one_private_answer_blocks_the_name() {
    let trap = Trap::set("127.0.0.1:0");
    for answers in [
        ["8.8.8.8", "127.0.0.1"],
        ["127.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "::ffff:127.0.0.1"],
        ["2606:4700::1111", "::1"],
    ] {
        let (resolver, _) = answering(&[&answers]);
        let client = GuardedClient::with_resolver(policy(&[trap.port()], &[]), &resolver).unwrap();
        for host in ["files.example", "files.example."] {
            let reason = assert_blocked(&client, &format!("http://{host}:{}/", trap.port())).await;
            assert!(matches!(reason, BlockReason::Address { .. }), "{reason}");
        }
    }
    trap.assert_untouched();
}

#[tokio::test]
async fn a_name_that_changes_its_answer_gains_nothing() {
    let server = ScriptedServer::start(|_| Answer::whole("200 OK", "", b"media")).await;
    let trap = Trap::set(&format!("127.0.0.2:{}", server.port()));
    let (resolver, asked) = answering(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let client = GuardedClient::with_resolver(policy(&[], &["127.0.0.1/32"]), &resolver).unwrap();
    let url = format!("http://files.example:{}/", server.port());

    assert_eq!(get(&client, &url).await.unwrap().status(), 200);
    assert_eq!(
        *asked.lock().unwrap(),
        1,
        "the judged answer is the one connected to"
    );
    assert_blocked(&client, &url).await;
    trap.assert_untouched();
}

#[tokio::test]
async fn a_port_off_the_list_is_for_allowed_addresses_only() {
    let server = ScriptedServer::start(|_| Answer::whole("200 OK", "", b"media")).await;
    let url = format!("http://files.example:{}/", server.port());
    let (resolver, _) = answering(&[&["127.0.0.1", "8.8.8.8"]]);
    let client = GuardedClient::with_resolver(policy(&[80], &["127.0.0.1/32"]), &resolver).unwrap();
    let reason = assert_blocked(&client, &url).await;
    assert!(matches!(reason, BlockReason::NotListed { .. }), "{reason}");
    assert!(server.heads().is_empty());
}

#[tokio::test]
async fn redirect_to_loopback_is_refused() {
    let trap = Trap::set("127.0.0.2:0");
    let port = trap.port();
    for location in [
        format!("http://127.0.0.2:{port}/"),
        format!("//127.0.0.2:{port}/"),
        format!("http://[::ffff:127.0.0.2]:{port}/"),
        format!("http://user@127.0.0.1:{port}/"),
        format!("ftp://127.0.0.2:{port}/"),
        "file:///etc/passwd".to_owned(),
        "http://[".to_owned(),
    ] {
        let server = ScriptedServer::start(move |_| Answer::redirect(&location)).await;
        let client = client(policy(&[port], &["127.0.0.1/32"]));
        assert_blocked(&client, &server.url("/")).await;
        assert_eq!(server.heads().len(), 1);
    }
    trap.assert_untouched();
}

#[tokio::test]
async fn a_host_off_the_list_is_refused_on_every_hop() {
    let trap = Trap::set("127.0.0.2:0");
    let location = format!("http://127.0.0.2:{}/", trap.port());
    let server = ScriptedServer::start(move |_| Answer::redirect(&location)).await;
    let client = client(policy(&[], &["127.0.0.0/8"]));
    let refused = client
        .get(&Request {
            url: &server.url("/"),
            allowed_hosts: &["127.0.0.1".to_owned()],
            headers: HeaderMap::new(),
        })
        .await;
    assert!(
        matches!(
            refused,
            Err(EgressError::Blocked {
                reason: BlockReason::Host { .. }
            })
        ),
        "{refused:?}"
    );
    trap.assert_untouched();
}

#[tokio::test]
async fn a_redirect_from_the_exempt_url_is_not_exempt() {
    let trap = Trap::set("127.0.0.1:0");
    let location = format!("http://127.0.0.1:{}/", trap.port());
    let server = ScriptedServer::start(move |path| match path {
        "/sample.mp4" => Answer::whole("200 OK", "", b"media"),
        _ => Answer::redirect(&location),
    })
    .await;
    for (path, passes) in [("/sample.mp4", true), ("/moved.mp4", false)] {
        let exempt_url = Some(server.url(path).parse().unwrap());
        let client = client(EgressPolicy {
            exempt_url,
            ..policy(&[], &[])
        });
        assert_eq!(get(&client, &server.url(path)).await.is_ok(), passes, "{path}");
    }
    trap.assert_untouched();
}

#[test]
fn https_never_becomes_http() {
    let from = Url::parse("https://a.example/v/1.mp4?key=1").unwrap();
    let to = |location| target(&from, &HeaderValue::from_static(location));
    assert_eq!(to("http://a.example/1.mp4"), Err(BlockReason::Downgrade));
    assert_eq!(to("HTTP:\\\\a.example"), Err(BlockReason::Downgrade));
    assert_eq!(to("//b.example/2").unwrap().as_str(), "https://b.example/2");
    assert_eq!(to("../2.mp4").unwrap().as_str(), "https://a.example/2.mp4");
}

#[tokio::test]
async fn five_redirects_are_followed_and_six_are_not() {
    let server = ScriptedServer::start(|path| match path.trim_start_matches('/').parse::<u32>() {
        Ok(0) => Answer::whole("200 OK", "", b"media"),
        Ok(left) => Answer::redirect(&format!("/{}", left - 1)),
        Err(_) => Answer::whole("404 Not Found", "", b""),
    })
    .await;
    let client = client(policy(&[], &["127.0.0.0/8"]));
    assert_eq!(get(&client, &server.url("/5")).await.unwrap().status(), 200);
    let refused = get(&client, &server.url("/6")).await;
    assert!(
        matches!(refused, Err(EgressError::TooManyRedirects)),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_stranger_learns_nothing_from_our_headers() {
    let server = ScriptedServer::start(|path| match path {
        "/first" => Answer::redirect("/second"),
        _ => Answer::whole("200 OK", "", b"media"),
    })
    .await;
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
    headers.insert(header::COOKIE, HeaderValue::from_static("secret"));
    headers.insert(
        header::REFERER,
        HeaderValue::from_static("https://secret.example/"),
    );
    headers.insert(header::RANGE, HeaderValue::from_static("bytes=5-"));
    let url = server.url("/first");
    let request = Request {
        url: &url,
        allowed_hosts: &[],
        headers,
    };
    client(policy(&[], &["127.0.0.0/8"])).get(&request).await.unwrap();

    let heads = server.heads();
    assert_eq!(heads.len(), 2);
    for head in heads {
        assert!(!head.contains("secret") && !head.contains("referer"), "{head}");
        assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
        assert!(
            head.contains(concat!("user-agent: reelhook/", env!("CARGO_PKG_VERSION"))),
            "{head}"
        );
        assert!(head.contains("range: bytes=5-"), "{head}");
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let nowhere = |_: &str| Err(std::io::Error::other("no such name"));
    let resolver = Resolver::Function(Arc::new(nowhere));
    let client = GuardedClient::with_resolver(policy(&[80], &["127.0.0.0/8"]), &resolver).unwrap();
    let failure = async |url: &str| get(&client, url).await.unwrap_err();

    let error = failure("http://files.example/1.mp4?key=secret").await;
    assert!(matches!(error, EgressError::Resolve { .. }), "{error:?}");
    assert_eq!(
        error.sentence(),
        "the name files.example could not be resolved: no such name"
    );

    let closed = Trap::set("127.0.0.1:0").port();
    let error = failure(&format!("http://127.0.0.1:{closed}/1.mp4?key=secret")).await;
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
    assert!(!error.is_local());

    let server = ScriptedServer::start(|path| match path {
        path if path.starts_with("/stall") => Answer::Stall(Vec::new()),
        _ => Answer::raw("nonsense\r\n\r\n", b""),
    })
    .await;
    let error = failure(&server.url("/stall?key=secret")).await;
    assert!(matches!(error, EgressError::Timeout { .. }), "{error:?}");
    let error = failure(&server.url("/nonsense?key=secret")).await;
    assert!(matches!(error, EgressError::Exchange { .. }), "{error:?}");
    assert!(
        !format!("{error:?} {}", error.sentence()).contains("secret"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_peer_without_tls_is_a_tls_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tasks = crate::shutdown::Tasks::new();
    tasks.spawn(async move {
        use tokio::io::AsyncWriteExt;
        let (mut stream, _) = listener.accept().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    });
    let client = client(policy(&[], &["127.0.0.0/8"]));
    let error = get(&client, &format!("https://127.0.0.1:{port}/"))
        .await
        .unwrap_err();
    assert!(matches!(error, EgressError::Tls { .. }), "{error:?}");
}

#[test]
fn the_bundled_certificates_make_a_client() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let built = settings(&policy(&[], &[]))
        .tls_certs_only(roots::bundled().unwrap())
        .build();
    assert!(built.is_ok(), "{built:?}");
}
