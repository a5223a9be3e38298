//! Requests as no honest client sends them.

use tokio::io::AsyncWriteExt as _;

use crate::target::{Signed, Target, callback, head, push, rest, statuses};

/// The head of a well-signed callback, ending in these lines, and then these bytes.
fn post(lines: &str, body: &[u8]) -> Vec<u8> {
    [head("good", Signed::Well, lines).as_bytes(), b"\r\n", body].concat()
}

/// What is sent, and the status that answers it (none: it is closed in silence). After either the connection ends.
struct Case(&'static str, Option<u16>, Vec<u8>);

const BODY: &[u8] = br#"{"code":501,"msg":"Failed","data":{"taskId":"good"}}"#;
const LENGTH: &str = "content-length: 52\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";

/// The body in one chunk.
fn chunk() -> Vec<u8> {
    [b"34\r\n", BODY, b"\r\n0\r\n\r\n"].concat()
}

fn lengths() -> Vec<Case> {
    let length = |what, status, line: &str| Case(what, Some(status), post(&format!("{line}\r\n"), BODY));
    vec![
        length("two that differ", 400, "content-length: 52\r\ncontent-length: 5"),
        length("a list", 400, "content-length: 52, 52"),
        length("negative", 400, "content-length: -1"),
        length("with a sign", 400, "content-length: +52"),
        length("no number", 400, "content-length: 0x34"),
        length("past 64 bits", 400, "content-length: 99999999999999999999"),
        length("64 bits", 431, "content-length: 18446744073709551615"),
        length("63 bits", 413, "content-length: 9223372036854775807"),
        length("more than comes", 408, "content-length: 53"),
    ]
}

fn chunks() -> Vec<Case> {
    let chunks = |what, status, body: &[u8]| Case(what, Some(status), post(CHUNKED, body));
    let extended = [b"5;", "x".repeat(1 << 20).as_bytes()].concat();
    let trailers = [
        &chunk()[..chunk().len() - 2],
        "a: b\r\n".repeat(5000).as_bytes(),
        b"\r\n",
    ]
    .concat();
    vec![
        chunks("a chunk of 64 bits", 408, b"FFFFFFFFFFFFFFFF\r\nx"),
        chunks("a chunk past 64 bits", 400, b"FFFFFFFFFFFFFFFFF\r\nx"),
        chunks("a negative chunk", 400, b"-5\r\nhello"),
        chunks("a chunk without length", 400, b"\r\nhello"),
        chunks("an endless chunk extension", 400, &extended),
        chunks("5,000 trailers", 400, &trailers),
    ]
}

fn encodings() -> Vec<Case> {
    let smuggled = [&chunk()[..], b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
    let encoding = |what, line: &str| Case(what, Some(400), post(&format!("{line}\r\n"), &chunk()));
    let old = b"POST /callbacks/kie HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    vec![
        // The chunks count, as RFC 9112 has it, and what follows them is never taken for a second request.
        Case(
            "length, then chunked",
            Some(200),
            post(&format!("{LENGTH}{CHUNKED}"), &smuggled),
        ),
        Case(
            "chunked, then length",
            Some(200),
            post(&format!("{CHUNKED}{LENGTH}"), &smuggled),
        ),
        encoding("another encoding", "transfer-encoding: identity"),
        encoding("unlike chunked", "transfer-encoding: xchunked"),
        encoding("chunked not last", "transfer-encoding: chunked, identity"),
        encoding("a blank before the colon", "transfer-encoding : chunked"),
        encoding("folded", "transfer-encoding:\r\n chunked"),
        Case("chunked in HTTP/1.0", Some(400), old.to_vec()),
    ]
}

fn heads() -> Vec<Case> {
    let long = "a".repeat(1 << 20);
    let target = format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes();
    let noise = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    vec![
        Case("1,000 headers", Some(431), post(&"a: b\r\n".repeat(1000), BODY)),
        Case(
            "a header of 1 MB",
            Some(431),
            post(&format!("a: {long}\r\n"), BODY),
        ),
        Case("a target of 1 MB", Some(431), target),
        Case("NUL in a header", Some(400), post("a: b\0c\r\n", BODY)),
        Case(
            "NUL in the target",
            Some(400),
            b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
        Case("zeros", Some(400), vec![0; 100_000]),
        Case("noise", Some(400), noise.collect()),
        Case("a version to come", Some(400), b"GET / HTTP/9.9\r\n\r\n".to_vec()),
        Case("HTTP/2 without TLS", None, preface.to_vec()),
        Case(
            "half a head",
            None,
            b"POST /callbacks/kie HTTP/1.1\r\nhos".to_vec(),
        ),
        Case("nothing", None, Vec::new()),
    ]
}

#[tokio::test]
async fn malformed_requests_are_refused_and_hurt_nobody() {
    let target = Target::start("header_timeout = \"1s\"\nbody_timeout = \"1s\"\n");
    target.good().await;
    let before = target.peak_kib();
    let cases = [lengths(), chunks(), encodings(), heads()];
    for Case(what, expected, request) in cases.into_iter().flatten() {
        let mut stream = target.connect().await;
        // It may refuse before it was sent all.
        let sent = push(&mut stream, &request).await;
        let answers = statuses(&rest(&mut stream).await);
        // Closing on what is still being sent may take the answer with it.
        let is_lost = sent.is_err() && answers.is_empty();
        assert!(
            is_lost || answers == Vec::from_iter(expected),
            "{what}: {answers:?}"
        );
        target.good().await;
    }
    let grown = target.peak_kib() - before;
    assert!(grown < 8 * 1024, "it took {grown} KiB more");
}

#[tokio::test]
async fn an_endless_body_ends_at_its_bound() {
    let target = Target::start("");
    let mut stream = target.connect().await;
    push(&mut stream, &post("transfer-encoding: chunked\r\n", b""))
        .await
        .unwrap();
    let chunk = [b"10000\r\n", "x".repeat(0x10000).as_bytes(), b"\r\n"].concat();
    let mut sent = 0;
    while push(&mut stream, &chunk).await.is_ok() {
        sent += chunk.len();
        assert!(sent < 256 << 20, "it takes and takes");
    }
    target.good().await;
    assert!(target.peak_kib() < 120 * 1024, "{} KiB", target.peak_kib());
}

#[tokio::test]
async fn a_hundred_callbacks_in_one_go_are_answered_in_order() {
    let target = Target::start("");
    let is_good = |n: u32| n % 3 != 1;
    let all: Vec<u8> = (0..100)
        .flat_map(|n| {
            let signed = if is_good(n) { Signed::Well } else { Signed::Badly };
            let last = if n == 99 { "connection: close\r\n" } else { "" };
            callback(&format!("t{n}"), signed, last)
        })
        .collect();
    let mut stream = target.connect().await;
    push(&mut stream, &all).await.unwrap();
    let expected: Vec<u16> = (0..100).map(|n| if is_good(n) { 200 } else { 401 }).collect();
    assert_eq!(statuses(&rest(&mut stream).await), expected);
}

#[tokio::test]
async fn a_sender_that_closes_its_half_gets_its_answer() {
    let target = Target::start("");
    let whole = callback("half", Signed::Well, "");
    for (sent, expected) in [
        (whole.len(), &[200][..]),
        (whole.len() - 1, &[400]),
        (40, &[]),
        (0, &[]),
    ] {
        let mut stream = target.connect().await;
        push(&mut stream, &whole[..sent]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(statuses(&rest(&mut stream).await), expected, "after {sent} bytes");
    }
}
