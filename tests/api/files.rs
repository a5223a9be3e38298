//! Stored files over HTTP: whole, in parts, and never so that a browser runs them.

use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Cdn, TestServer, mp4, success};

const PATH: &str = "/v1/tasks/t1/files/result-0.mp4";

/// A server with one stored file, and its bytes.
async fn stored() -> (TestServer, Vec<u8>) {
    let content = mp4(3, 10_000);
    let server = with_file("/a.mp4", &content).await;
    (server, content)
}

async fn with_file(path: &str, content: &[u8]) -> TestServer {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let url = cdn.file(path, content);
    server.callback(&success("t1", &[url])).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    server
}

fn etag(content: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Sha256::digest(content)))
}

#[tokio::test]
async fn a_file_is_served_whole_with_its_checksum_as_etag() {
    let (server, content) = stored().await;
    let whole = server.get(PATH).await;
    assert!(whole.status == 200 && whole.body == content);
    assert_eq!(whole.header("etag"), etag(&content));
    assert_eq!(whole.header("content-length"), "10000");
    assert_eq!(whole.header("accept-ranges"), "bytes");

    let head = Answer::of(server.request(reqwest::Method::HEAD, PATH)).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(
        (head.header("content-length"), head.header("etag")),
        ("10000", etag(&content).as_str())
    );
}

#[tokio::test]
async fn the_name_without_extension_is_an_alias() {
    let (server, content) = stored().await;
    let alias = server.get("/v1/tasks/t1/files/result-0").await;
    assert!(alias.status == 200 && alias.body == content);
    for unknown in [
        "result-1.mp4",
        "result-0.webm",
        "result",
        "..",
        "%2e%2e%2fresult-0.mp4",
    ] {
        let answer = server.get(&format!("/v1/tasks/t1/files/{unknown}")).await;
        assert_eq!(answer.status, 404, "{unknown}");
    }
}

#[tokio::test]
async fn parts_are_served_as_asked() {
    let (server, content) = stored().await;
    for (range, (start, end)) in [
        ("bytes=0-0", (0, 0)),
        ("bytes=100-199", (100, 199)),
        ("bytes=9990-", (9990, 9999)),
        ("bytes=-10", (9990, 9999)),
        ("bytes=-10000", (0, 9999)),
        ("bytes=-10001", (0, 9999)),
        ("bytes=9000-20000", (9000, 9999)),
    ] {
        let part = server.get_with(PATH, &[("range", range)]).await;
        assert_eq!(part.status, 206, "{range}");
        assert_eq!(part.header("content-range"), format!("bytes {start}-{end}/10000"));
        assert!(part.body == content[start..=end], "{range}");
    }
    for beyond in ["bytes=10000-", "bytes=20000-30000"] {
        let part = server.get_with(PATH, &[("range", beyond)]).await;
        assert_eq!(
            part.problem(),
            (416, "range_not_satisfiable".to_owned()),
            "{beyond}"
        );
        assert_eq!(part.header("content-range"), "bytes */10000");
    }
    for ignored in [
        "items=0-1",
        "bytes=0-1,5-6",
        "bytes=0-100,50-150",
        "bytes=0-1,20000-",
        "bytes=9-5",
        "nonsense",
    ] {
        let whole = server.get_with(PATH, &[("range", ignored)]).await;
        assert_eq!(
            (whole.status.as_u16(), whole.body.len()),
            (200, 10_000),
            "{ignored}"
        );
    }
}

#[tokio::test]
async fn validators_decide_what_is_sent() {
    let (server, content) = stored().await;
    let etag = etag(&content);
    let same = server
        .get_with(PATH, &[("range", "bytes=0-9"), ("if-range", &etag)])
        .await;
    assert_eq!((same.status.as_u16(), same.body.len()), (206, 10));
    let other = server
        .get_with(PATH, &[("range", "bytes=0-9"), ("if-range", "\"another\"")])
        .await;
    assert_eq!((other.status.as_u16(), other.body.len()), (200, 10_000));

    for known in [etag.clone(), format!("\"x\", W/{etag}"), "*".to_owned()] {
        let answer = server.get_with(PATH, &[("if-none-match", &known)]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{known}");
        assert_eq!(answer.header("etag"), etag);
        assert_eq!(answer.header("cache-control"), "private, no-cache");
    }
    let changed = server.get_with(PATH, &[("if-none-match", "\"another\"")]).await;
    assert_eq!(changed.status, 200);
}

#[tokio::test]
async fn media_is_shown_in_place_under_safe_headers() {
    let (server, _) = stored().await;
    let file = server.get(PATH).await;
    for (name, value) in [
        ("content-type", "video/mp4"),
        ("content-disposition", "inline; filename=\"t1-result-0.mp4\""),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox; default-src 'none'"),
    ] {
        assert_eq!(file.header(name), value);
    }
}

#[tokio::test]
async fn bytes_of_no_known_media_are_never_shown_in_place() {
    // Begins like nothing we know and would be a page to a browser that guesses.
    let page = b"\x01\x02<html><script>alert(1)</script>";
    let server = with_file("/a.html", page).await;
    let task = server.task("t1").await;
    let file = server.get(task["files"][0]["url"].as_str().unwrap()).await;
    assert_eq!(file.body, page);
    assert_eq!(file.header("content-type"), "application/octet-stream");
    assert!(file.header("content-disposition").starts_with("attachment;"));
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    assert_eq!(task["files"][0]["name"], "result-0.bin");
}

#[tokio::test]
async fn a_file_of_another_length_does_not_go_out_under_its_tag() {
    let (server, content) = stored().await;
    let path = server.data_dir().join("media/kie/t1/result-0.mp4");
    for damaged in [&content[1..], &[&content[..], b"x"].concat()] {
        std::fs::write(&path, damaged).unwrap();
        for headers in [&[][..], &[("range", "bytes=0-9")]] {
            let refused = server.get_with(PATH, headers).await;
            assert_eq!(refused.problem(), (500, "file_damaged".to_owned()));
        }
    }
    std::fs::write(&path, &content).unwrap();
    assert!(server.get(PATH).await.body == content);
}

#[tokio::test]
async fn a_file_that_is_gone_from_disk_is_missing_until_it_is_put_back() {
    let (server, content) = stored().await;
    let path = server.data_dir().join("media/kie/t1/result-0.mp4");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.get(PATH).await.problem(), (404, "file_missing".to_owned()));
    std::fs::write(&path, &content).unwrap();
    assert!(server.get(PATH).await.body == content);
}

#[tokio::test]
async fn a_file_that_is_not_stored_says_why() {
    let server = TestServer::start().await;
    let url = "http://10.0.0.1/a.mp4".to_owned();
    server.callback(&success("t1", &[url])).send().await.taken();
    server.wait_settled("t1").await;
    let answer = server.get(PATH).await;
    assert_eq!(answer.problem(), (404, "not_stored".to_owned()));
    assert!(
        answer.json()["detail"].as_str().unwrap().contains("failed"),
        "{}",
        answer.text()
    );
}
