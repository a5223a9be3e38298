//! Backups of a running server, and the way back from one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::soundness::WRONGS;
use crate::support::{Cdn, Program, TestServer, failure, mp4, success};

async fn with_files(cdn: &Cdn, ids: &[&str]) -> TestServer {
    let running = TestServer::start().await;
    for id in ids {
        let body = success(id, &[cdn.file(&format!("/{id}.mp4"), &mp4(1, 2_000))]);
        running.callback(&body).send().await.taken();
        assert_eq!(running.wait_settled(id).await["media"], "stored");
    }
    running
}

/// Runs `backup` into this directory below the working directory.
fn back_up(program: &Program, data_dir: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let data_dir = ["--data-dir", data_dir.to_str().unwrap()];
    let ended = program.run(&[&["backup"], more, &data_dir].concat());
    (ended.code, ended.out, ended.err)
}

async fn is_sound(database: &Path) {
    let options = SqliteConnectOptions::new().filename(database);
    let mut connection = options.connect().await.unwrap();
    for (wrong, sql) in WRONGS {
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        assert_eq!(count, 0, "{wrong}");
    }
}

/// Sends callbacks of further tasks, `load-0` and so on, until enough is done; how many there are then.
async fn load(server: &TestServer, mut taken: usize, is_enough: impl Fn(usize) -> bool) -> usize {
    while !is_enough(taken) {
        let body = failure(&format!("load-{taken}"));
        server.callback(&body).send().await.taken();
        taken += 1;
    }
    taken
}

#[tokio::test]
async fn a_backup_made_under_load_brings_everything_back() {
    let cdn = Cdn::start().await;
    let running = with_files(&cdn, &["a", "b", "c"]).await;
    let (program, data_dir) = (Program::new(), running.data_dir());
    let dir = program.path().join("backup");
    let before = load(&running, 0, |taken| taken == 50).await;
    let making = tokio::task::spawn_blocking({
        let data_dir = data_dir.clone();
        move || {
            let made = back_up(&program, &data_dir, &["backup", "--json"]);
            (program, made)
        }
    });
    let during = load(&running, before, |_| making.is_finished()).await;
    let (program, (code, out, err)) = making.await.unwrap();
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(during > before, "callbacks were taken meanwhile");
    is_sealed(&dir, &out);

    let halted = running.halt().await;
    let media = program.path().join("media");
    fs::rename(data_dir.join("media"), &media).unwrap();
    fs::remove_dir_all(&data_dir).unwrap();
    restore(&dir, &media, &data_dir);
    is_sound(&data_dir.join("reelhook.db")).await;
    let running = halted.start().await;
    for id in ["a", "b", "c"] {
        let task = running.task(id).await;
        let file = running.get(task["files"][0]["url"].as_str().unwrap()).await;
        assert!(file.body == mp4(1, 2_000));
    }
    let newest = before - 1;
    running.task(&format!("load-{newest}")).await;
    running.callback(&failure("afterwards")).send().await.taken();
}

/// A good backup of three stored files, and nothing else.
fn is_sealed(dir: &Path, printed: &str) {
    let seal: Value = serde_json::from_slice(&fs::read(dir.join("backup.json")).unwrap()).unwrap();
    assert_eq!(seal, serde_json::from_str::<Value>(printed).unwrap());
    assert_eq!(seal["contents"]["stored"], 3);
    assert_eq!(seal["media_check"]["done"], true);
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700);
    let mut there: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.sort();
    assert_eq!(there, ["backup.json", "media.jsonl", "reelhook.db"]);
    for part in ["database", "media"] {
        let content = fs::read(dir.join(seal[part]["file"].as_str().unwrap())).unwrap();
        assert_eq!(
            seal[part]["sha256"],
            hex::encode(Sha256::digest(&content)),
            "{part}"
        );
    }
}

/// The way back as `docs/operations.md` has it.
fn restore(backup: &Path, media: &Path, data_dir: &Path) {
    fs::create_dir_all(data_dir).unwrap();
    fs::copy(backup.join("reelhook.db"), data_dir.join("reelhook.db")).unwrap();
    for line in fs::read_to_string(backup.join("media.jsonl")).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let key = line["storage_key"].as_str().unwrap();
        let to = data_dir.join("media").join(key);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(media.join(key), &to).unwrap();
        let content = fs::read(&to).unwrap();
        assert_eq!(line["bytes"], content.len());
        assert_eq!(line["sha256"], hex::encode(Sha256::digest(&content)));
    }
}

/// What `backup.json` says of the media.
fn media_check(dir: &Path) -> Value {
    let seal: Value = serde_json::from_slice(&fs::read(dir.join("backup.json")).unwrap()).unwrap();
    seal["media_check"].clone()
}

#[tokio::test]
async fn a_good_copy_is_kept_though_stored_files_are_not_good() {
    let cdn = Cdn::start().await;
    let running = with_files(&cdn, &["a", "b", "c", "d"]).await;
    let (program, data_dir) = (Program::new(), running.data_dir());
    let place = |id: &str| data_dir.join(format!("media/kie/{id}/result-0.mp4"));
    fs::write(place("a"), b"short").unwrap();
    fs::remove_file(place("b")).unwrap();
    fs::remove_file(place("c")).unwrap();
    symlink("result-0.mp4", place("c")).unwrap();
    let (code, out, err) = back_up(&program, &data_dir, &["fresh"]);
    assert_eq!(code, Some(1));
    for part in [
        "a/result-0.mp4 has 5 bytes instead of 2000",
        "b/result-0.mp4 is missing",
    ] {
        assert!(err.contains(part), "{err}");
    }
    assert!(out.contains("1 missing, 1 damaged, 1 that could not"), "{out}");
    let check = media_check(&program.path().join("fresh"));
    assert_eq!(check["done"], true, "{check}");
    for counter in ["missing", "damaged", "unreadable"] {
        assert_eq!(check[counter], 1, "{check}");
    }
    assert_eq!(check["findings"].as_array().unwrap().len(), 3);
    is_sound(&program.path().join("fresh/reelhook.db")).await;

    let halted = running.halt().await;
    let (media, aside) = (data_dir.join("media"), data_dir.join("aside"));
    fs::rename(&media, &aside).unwrap();
    let (code, _, err) = back_up(&program, &data_dir, &["unmounted"]);
    assert!(
        code == Some(1) && err.contains("is its file system mounted?"),
        "{err}"
    );
    assert_eq!(media_check(&program.path().join("unmounted"))["done"], false);
    assert!(!media.exists(), "it is not made");
    fs::rename(&aside, &media).unwrap();
    fs::remove_file(place("c")).unwrap();
    for id in ["a", "b", "c"] {
        fs::write(place(id), mp4(1, 2_000)).unwrap();
    }
    halted.start().await;
}

#[tokio::test]
async fn a_backup_that_is_not_good_leaves_nothing_behind() {
    let cdn = Cdn::start().await;
    let running = with_files(&cdn, &["a"]).await;
    let (program, data_dir) = (Program::new(), running.data_dir());
    let (code, out, _) = back_up(&program, &data_dir, &["fresh", "--no-media-check"]);
    assert_eq!(code, Some(0));
    assert!(
        out.contains("1 stored file") && out.contains("not looked for"),
        "{out}"
    );

    let (code, _, err) = back_up(&program, &data_dir, &["fresh"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("is not empty"), "{err}");
    assert!(program.path().join("fresh/backup.json").exists(), "it was good");
    let (code, _, err) = back_up(&program, program.path(), &["other"]);
    assert!(code == Some(1) && err.contains("there is no database"), "{err}");
    assert!(!program.path().join("other").exists());
}

#[tokio::test]
async fn a_database_that_is_damaged_makes_no_backup() {
    let cdn = Cdn::start().await;
    let running = with_files(&cdn, &["a"]).await;
    let (program, data_dir) = (Program::new(), running.data_dir());
    // What is behind stays stopped, and is not looked through when it is dropped.
    let _halted = running.halt().await;
    let (code, out, _) = back_up(&program, &data_dir, &["stopped"]);
    assert_eq!(code, Some(0), "{out}");
    let database = data_dir.join("reelhook.db");
    let mut content = fs::read(&database).unwrap();
    for page in content.chunks_mut(8192).skip(2) {
        page[..64].fill(0xa5);
    }
    fs::write(&database, content).unwrap();
    let (code, _, err) = back_up(&program, &data_dir, &["damaged"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("malformed"), "{err}");
    assert!(!program.path().join("damaged").exists());
}
