//! The guard, end to end: whatever a callback names, nothing inside is asked.

use serde_json::{Value, json};

use crate::support::{Cdn, Reply, Setup, TestServer, Trap, success};

/// Ways to write 127.0.0.1 and other addresses that are nobody's business; `PORT` is the trap's.
const SPELLINGS: [&str; 40] = [
    "http://127.0.0.1:PORT/a.mp4",
    "http://2130706433:PORT/a.mp4",
    "http://0x7f000001:PORT/a.mp4",
    "http://017700000001:PORT/a.mp4",
    "http://0177.0.0.1:PORT/a.mp4",
    "http://0x7f.0.0.1:PORT/a.mp4",
    "http://127.1:PORT/a.mp4",
    "http://127.0.1:PORT/a.mp4",
    "http://127.0.0.1.:PORT/a.mp4",
    "http://0:PORT/a.mp4",
    "http://0.0.0.0:PORT/a.mp4",
    "http://[::]:PORT/a.mp4",
    "http://[::1]:PORT/a.mp4",
    "http://[::ffff:127.0.0.1]:PORT/a.mp4",
    "http://[::ffff:7f00:1]:PORT/a.mp4",
    "http://[::127.0.0.1]:PORT/a.mp4",
    "http://[64:ff9b::7f00:1]:PORT/a.mp4",
    "http://[64:ff9b:1::7f00:1]:PORT/a.mp4",
    "http://[2002:7f00:1::]:PORT/a.mp4",
    "http://[2001:0:7f00:1::80ff:fffe]:PORT/a.mp4",
    "http://[fe80::1]:PORT/a.mp4",
    "http://[fc00::1]:PORT/a.mp4",
    "http://localhost:PORT/a.mp4",
    "http://LOCALHOST.:PORT/a.mp4",
    "http://a.localhost:PORT/a.mp4",
    "http://user@127.0.0.1:PORT/a.mp4",
    "http://user:word@127.0.0.1:PORT/a.mp4",
    "http://example.com@127.0.0.1:PORT/a.mp4",
    "http://127.0.0.1:PORT#@example.com/a.mp4",
    "http://127.0.0.1:PORT\\@example.com/a.mp4",
    "http://①②⑦.⓪.⓪.①:PORT/a.mp4",
    "http://127。0。0。1:PORT/a.mp4",
    "http://%31%32%37.0.0.1:PORT/a.mp4",
    "http:///127.0.0.1:PORT/a.mp4",
    "http://10.0.0.1/a.mp4",
    "http://172.16.0.1/a.mp4",
    "http://192.168.1.1/a.mp4",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/a.mp4",
    "http://224.0.0.1/a.mp4",
];

/// All files of a task must have failed as blocked.
#[track_caller]
fn assert_all_blocked(task: &Value, urls: &[String]) {
    let files = task["files"].as_array().unwrap();
    let shown: Vec<_> = files.iter().map(|file| &file["provider_url"]).collect();
    assert_eq!(shown, urls.iter().collect::<Vec<_>>());
    for file in files {
        assert_eq!(
            (&file["state"], &file["error"]["code"]),
            (&json!("failed"), &json!("blocked")),
            "{file}"
        );
        assert_eq!(file["attempts"], 0, "{file}");
    }
}

#[tokio::test]
async fn every_spelling_of_an_inner_address_is_blocked_and_nothing_leaves() {
    let trap = Trap::set("127.0.0.1:0").unwrap();
    let port = trap.port().to_string();
    let inner = Trap::set(&format!("[::1]:{port}"));
    // The trap's port is allowed, so that the address alone is what is refused.
    let server = Setup::new(&format!("egress.ports = [80, 443, {port}]"))
        .start()
        .await;
    let urls: Vec<String> = SPELLINGS.iter().map(|url| url.replace("PORT", &port)).collect();
    server.callback(&success("t1", &urls)).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_all_blocked(&task, &urls);
    trap.assert_untouched();
    if let Some(inner) = inner {
        inner.assert_untouched();
    }
}

#[tokio::test]
async fn other_ports_and_schemes_are_blocked() {
    let trap = Trap::set("127.0.0.1:0").unwrap();
    let server = Setup::new("").start().await;
    let urls = [
        format!("http://127.0.0.1:{}/a.mp4", trap.port()),
        "http://93.184.215.14:22/a.mp4".to_owned(),
        "https://93.184.215.14:8443/a.mp4".to_owned(),
    ];
    server.callback(&success("t1", &urls)).send().await.taken();
    assert_all_blocked(&server.wait_settled("t1").await, &urls);
    trap.assert_untouched();
}

#[tokio::test]
async fn a_redirect_into_the_inside_is_blocked() {
    let trap = Trap::set("127.0.0.1:0").unwrap();
    let port = trap.port();
    let cdn = Cdn::on("127.0.0.2").await;
    let server = Setup::new(&format!(
        "[egress]\nallow_cidrs = [\"127.0.0.2/32\"]\nports = [80, 443, {port}]"
    ))
    .start()
    .await;
    let goals = [
        format!("http://127.0.0.1:{port}/a.mp4"),
        format!("http://[::ffff:127.0.0.1]:{port}/a.mp4"),
        format!("http://localhost:{port}/a.mp4"),
        format!("//2130706433:{port}/a.mp4"),
        "http://10.0.0.1/a.mp4".to_owned(),
        "http://169.254.169.254/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://user:word@127.0.0.2/a.mp4".to_owned(),
    ];
    let urls: Vec<String> = (0..)
        .zip(&goals)
        .map(|(n, goal)| {
            let status = [301, 302, 303, 307, 308][n % 5];
            let redirect = Reply::Status(status, vec![("location", goal.clone())]);
            cdn.script(&format!("/{n}.mp4"), [redirect])
        })
        .collect();
    server.callback(&success("t1", &urls)).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert_all_blocked(&task, &urls);
    assert_eq!(cdn.all_hits(), goals.len(), "each was asked once, and no further");
    trap.assert_untouched();
}

#[tokio::test]
async fn a_redirect_to_where_it_may_go_is_followed() {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let goal = cdn.file("/goal.mp4", &crate::support::mp4(1, 2_000));
    let url = cdn.script("/a.mp4", [Reply::Status(302, vec![("location", goal)])]);
    server.callback(&success("t1", &[url])).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
}

#[tokio::test]
async fn hostile_urls_come_to_nothing() {
    let (cdn, server) = (Cdn::start().await, Setup::new("").start().await);
    let long = format!("http://{}/{}", cdn.addr, "x".repeat(9000));
    let hostile = [
        "file:///etc/passwd",
        "ftp://127.0.0.1/a.mp4",
        "gopher://127.0.0.1/_GET",
        "data:video/mp4;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "http://[::1",
        "http://a b/",
        "//127.0.0.1/a.mp4",
        "\u{0}http://127.0.0.1/",
        "http://127.0.0.1/\r\nX-Injected: 1",
        long.as_str(),
    ]
    .map(str::to_owned);
    server.callback(&success("t1", &hostile)).send().await.taken();
    let task = server.wait_settled("t1").await;
    assert!(
        matches!(task["media"].as_str(), Some("none" | "failed")),
        "{task}"
    );
    for file in task["files"].as_array().unwrap() {
        let code = file["error"]["code"].as_str();
        assert!(matches!(code, Some("blocked" | "url_too_long")), "{file}");
    }
    assert_eq!(cdn.all_hits(), 0);
    assert!(server.files_in("media").is_empty());
}
