//! All files of a task in one archive.

use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Cdn, Reply, TestServer, mp4, skip, success};

const PATH: &str = "/v1/tasks/t1/files.zip";

/// Tells names, contents (as SHA-256) and times of an archive after checking all its checksums, as another implementation
/// understands it.
const READER: &str = "
import hashlib, json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
print(json.dumps([[i.filename, hashlib.sha256(archive.read(i)).hexdigest(), i.date_time[0], i.compress_type]
                  for i in archive.infolist()]))
";

/// A server with a task that has these files, all stored.
async fn stored(files: &[Vec<u8>]) -> TestServer {
    let (cdn, server) = (Cdn::start().await, TestServer::start().await);
    let urls: Vec<String> = (0..)
        .zip(files)
        .map(|(n, file): (usize, _)| cdn.file(&format!("/{n}.mp4"), file))
        .collect();
    server.callback(&success("t1", &urls)).send().await.taken();
    assert_eq!(server.wait_settled("t1").await["media"], "stored");
    server
}

#[tokio::test]
async fn another_implementation_finds_every_file_as_it_was_stored() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip("python3 is not installed");
    }
    let files = [mp4(1, 300_000), mp4(2, 5_000)];
    let server = stored(&files).await;
    let archive = server.get(PATH).await;
    assert_eq!(archive.status, 200);
    assert_eq!(archive.header("content-type"), "application/zip");
    assert_eq!(
        archive.header("content-disposition"),
        "attachment; filename=\"t1.zip\""
    );
    assert_eq!(archive.header("content-length"), archive.body.len().to_string());
    for file in &files {
        assert!(
            archive.body.windows(file.len()).any(|part| part == file),
            "byte for byte"
        );
    }
    let path = server.data_dir().join("t1.zip");
    std::fs::write(&path, &archive.body).unwrap();
    let read = Command::new("python3")
        .args(["-c", READER])
        .arg(&path)
        .output()
        .unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let task = server.task("t1").await;
    let year: i64 = task["updated_at"].as_str().unwrap()[..4].parse().unwrap();
    let expected: Vec<Value> = (task["files"].as_array().unwrap().iter())
        .map(|file| json!([file["name"], file["sha256"], year, 0]))
        .collect();
    assert_eq!(
        serde_json::from_slice::<Vec<Value>>(&read.stdout).unwrap(),
        expected
    );

    let head = Answer::of(server.request(Method::HEAD, PATH)).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), archive.body.len().to_string());
}

#[tokio::test]
async fn only_what_is_stored_is_in_it_and_nothing_is_no_archive() {
    let (cdn, server) = (
        Cdn::start().await,
        TestServer::with("downloads.max_attempts = 1").await,
    );
    let good = cdn.file("/a.mp4", &mp4(1, 5_000));
    let gone = cdn.script("/b.mp4", [Reply::Status(401, Vec::new())]);
    server
        .callback(&success("t1", &[good, gone.clone()]))
        .send()
        .await
        .taken();
    assert_eq!(server.wait_settled("t1").await["media"], "partial");
    let archive = server.get(PATH).await;
    assert_eq!(archive.status, 200);
    let names = |name: &str| {
        archive
            .body
            .windows(name.len())
            .any(|part| part == name.as_bytes())
    };
    assert!(names("result-0.mp4") && !names("result-1"));

    server.callback(&success("t2", &[gone])).send().await.taken();
    assert_eq!(server.wait_settled("t2").await["media"], "failed");
    let nothing = server.get("/v1/tasks/t2/files.zip").await;
    assert_eq!(nothing.problem(), (404, "not_stored".to_owned()));
    assert!(
        nothing.text().contains("result-0.mp4 is failed"),
        "{}",
        nothing.text()
    );
    let unknown = server.get("/v1/tasks/t3/files.zip").await;
    assert_eq!(unknown.problem(), (404, "unknown_task".to_owned()));
}

#[tokio::test]
async fn a_file_that_is_damaged_beforehand_is_told_in_words() {
    let server = stored(&[mp4(1, 5_000), mp4(2, 5_000)]).await;
    let path = server.data_dir().join("media/kie/t1/result-1.mp4");
    std::fs::write(&path, b"short").unwrap();
    assert_eq!(server.get(PATH).await.problem(), (500, "file_damaged".to_owned()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.get(PATH).await.problem(), (404, "file_missing".to_owned()));
    std::fs::write(&path, mp4(2, 5_000)).unwrap();
    assert_eq!(server.get(PATH).await.status, 200);
}

#[tokio::test]
async fn a_file_that_goes_while_the_archive_is_sent_breaks_it_off() {
    // More than lies in all buffers on the way.
    let server = stored(&[mp4(1, 32 << 20), mp4(2, 5_000)]).await;
    let mut response = server.request(Method::GET, PATH).send().await.unwrap();
    let announced = response.content_length().unwrap();
    let mut came = response.chunk().await.unwrap().unwrap().len() as u64;
    let path = server.data_dir().join("media/kie/t1/result-1.mp4");
    std::fs::remove_file(&path).unwrap();
    let end = loop {
        match response.chunk().await {
            Ok(Some(piece)) => came += piece.len() as u64,
            end => break end,
        }
    };
    assert!(end.is_err(), "the transfer failed for everybody to see");
    assert!(
        came >= 32 << 20 && came < announced,
        "{came} of {announced} bytes came"
    );
    std::fs::write(&path, mp4(2, 5_000)).unwrap();
}
