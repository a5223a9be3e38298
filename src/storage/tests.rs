//! The storage on a real directory.

use std::collections::HashSet;
use std::path::PathBuf;

use proptest::prelude::*;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::disk::{INCOMING, Unpublished, copy_across};
use super::key::is_sound;
use super::spool::BUFFER_BYTES;
use super::*;

fn storage() -> (TempDir, Storage) {
    let directory = tempfile::tempdir().unwrap();
    let storage = Storage::open(&directory.path().join("a/media"), &directory.path().join("spool")).unwrap();
    (directory, storage)
}

async fn written(storage: &Storage, token: i64, content: &[u8]) -> Finished {
    written_as(storage, (7, token), content).await
}

async fn written_as(storage: &Storage, (download, token): (i64, i64), content: &[u8]) -> Finished {
    let mut file = storage.create_spool(download, token).await.unwrap();
    for chunk in content.chunks(60_000) {
        file.write(chunk).await.unwrap();
    }
    file.finish().await.unwrap()
}

async fn publish(storage: &Storage, finished: Finished, (task_id, name): (&str, &str)) -> String {
    let key = storage.key_of("kie", task_id, name);
    let staged = storage.stage(finished, &key, "video/mp4").await.unwrap();
    let files = storage.task_files("kie", task_id).await;
    files.publish(staged).await.unwrap();
    key
}

async fn read(storage: &Storage, key: &str) -> Result<Vec<u8>, StorageError> {
    let file = storage.open_file(key).await?;
    let length = file.length();
    let chunks: Vec<Bytes> = file.read(0..length).await?.try_collect().await.unwrap();
    assert_eq!(chunks.concat().len() as u64, length);
    Ok(chunks.concat())
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn a_file_appears_whole_or_not_at_all() {
    let (directory, storage) = storage();
    let content: Vec<u8> = (0..=255).cycle().take(3 * BUFFER_BYTES + 17).collect();
    let finished = written(&storage, 1, &content).await;
    assert_eq!(finished.bytes, content.len() as u64);
    assert_eq!(finished.head, content[..HEAD_BYTES]);
    assert_eq!(finished.sha256[..], Sha256::digest(&content)[..]);
    assert!(finished.path().exists());

    let key = storage.key_of("kie", "t1", "result-0.mp4");
    assert!(matches!(read(&storage, &key).await, Err(StorageError::Missing)));
    assert!(files_below(&directory.path().join("a")).is_empty());
    assert_eq!(publish(&storage, finished, ("t1", "result-0.mp4")).await, key);
    assert_eq!(read(&storage, &key).await.unwrap(), content);
    assert_eq!(files_below(directory.path()).len(), 1);
}

#[tokio::test]
async fn publishing_replaces_what_a_crash_left_behind() {
    let (_directory, storage) = storage();
    for (token, content) in [(1, b"before".as_slice()), (2, b"after")] {
        let finished = written(&storage, token, content).await;
        publish(&storage, finished, ("t1", "result-0.mp4")).await;
    }
    assert_eq!(read(&storage, "kie/t1/result-0.mp4").await.unwrap(), b"after");
}

#[tokio::test]
async fn a_file_whose_publication_is_abandoned_or_fails_is_whole_in_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap());
    for spool in [&directory.path().join("spool"), elsewhere.path()] {
        let media = directory.path().join("media");
        let storage = Storage::open(&media, spool).unwrap();
        let mut file = storage.create_spool(7, 1).await.unwrap();
        file.restart(note()).await.unwrap();
        file.write(b"whole").await.unwrap();
        let mut finished = file.finish().await.unwrap();

        let key = "kie/t1/a.mp4";
        let files = storage.task_files("kie", "t1").await;
        drop(storage.stage(finished, key, "video/mp4").await.unwrap());
        finished = taken_up(&storage).await;
        // A file lies where a directory has to be.
        fs::write(media.join("kie"), "x").unwrap();
        let staged = storage.stage(finished, key, "video/mp4").await.unwrap();
        files.publish(staged).await.unwrap_err();
        fs::remove_file(media.join("kie")).unwrap();
        let staged = storage
            .stage(taken_up(&storage).await, key, "video/mp4")
            .await
            .unwrap();
        files.publish(staged).await.unwrap();
        assert_eq!(read(&storage, key).await.unwrap(), b"whole");
        assert!(files_below(spool).is_empty());
        assert!(files_below(&media.join(INCOMING)).is_empty());
        files.remove(key).await.unwrap();
    }
}

fn note() -> Note {
    Note {
        url: "https://a.example/a.mp4".to_owned(),
        source: "kie".to_owned(),
        task_id: "t1".to_owned(),
        total: Some(5),
        validator: None,
    }
}

/// What lies in the spool for the download 7.
async fn taken_up(storage: &Storage) -> Finished {
    let file = storage.resume_spool(7, &note().url).await.unwrap().unwrap();
    assert!(file.is_whole());
    file.finish().await.unwrap()
}

#[tokio::test]
async fn the_sweep_removes_what_was_never_published() {
    let (directory, storage) = storage();
    fs::write(directory.path().join("spool/1-1.part"), "x").unwrap();
    fs::write(directory.path().join("a/media/.incoming/3-1.part"), "x").unwrap();
    publish(&storage, written(&storage, 1, b"kept").await, ("t1", "a.mp4")).await;
    assert_eq!(storage.sweep_spool(&HashMap::new()).unwrap().removed, 2);
    assert_eq!(storage.sweep_spool(&HashMap::new()).unwrap(), Swept::default());
    assert_eq!(read(&storage, "kie/t1/a.mp4").await.unwrap(), b"kept");
}

#[tokio::test]
async fn a_copy_replaces_the_rename_across_file_systems() {
    let (directory, storage) = storage();
    let finished = written(&storage, 1, b"from elsewhere").await;
    let to = Unpublished(directory.path().join("a/media/.incoming/1-1.part"));
    let staged = Staged {
        key: "kie/t1/a.mp4".to_owned(),
        content: StagedContent::Disk(Box::new(copy_across(finished.spooled, to).await.unwrap())),
    };
    let files = storage.task_files("kie", "t1").await;
    files.publish(staged).await.unwrap();
    assert_eq!(read(&storage, "kie/t1/a.mp4").await.unwrap(), b"from elsewhere");
    assert_eq!(files_below(directory.path()).len(), 1);
}

#[tokio::test]
async fn a_spool_on_another_file_system_makes_no_difference() {
    // Where there is no memory file system, or it is the one of the test's directory, this is the ordinary way.
    let root = Path::new("/dev/shm");
    let spool = tempfile::tempdir_in(root).unwrap_or_else(|_| tempfile::tempdir().unwrap());
    let media = tempfile::tempdir().unwrap();
    let storage = Storage::open(media.path(), spool.path()).unwrap();
    let key = publish(
        &storage,
        written(&storage, 1, b"from elsewhere").await,
        ("t1", "a.mp4"),
    )
    .await;
    assert_eq!(read(&storage, &key).await.unwrap(), b"from elsewhere");
    assert_eq!(
        files_below(media.path()).len() + files_below(spool.path()).len(),
        1
    );
}

#[tokio::test]
async fn a_publication_that_nobody_waits_for_excludes_others_until_it_is_done() {
    let (_directory, storage) = storage();
    let staged = storage
        .stage(written(&storage, 1, b"x").await, "kie/t1/a.mp4", "video/mp4")
        .await
        .unwrap();
    let files = storage.task_files("kie", "t1").await;
    {
        let publishing = std::pin::pin!(files.publish(staged));
        // As far as it gets at once: onto the blocking thread.
        assert!(futures_util::poll!(publishing).is_pending());
    }
    drop(files);
    drop(storage.task_files("kie", "t1").await);
    assert_eq!(read(&storage, "kie/t1/a.mp4").await.unwrap(), b"x");
}

#[tokio::test]
async fn removing_a_task_removes_what_lies_in_its_directory_and_nothing_else() {
    let (directory, storage) = storage();
    for place in [("t1", "a.mp4"), ("t1", "b.mp4"), ("t10", "a.mp4")] {
        publish(&storage, written(&storage, 1, b"x").await, place).await;
    }
    let root = directory.path().join("a/media");
    let foreign = root.join("kie/t1/thumbs/1.jpg");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(foreign, "x").unwrap();

    let files = storage.task_files("kie", "t1").await;
    let deep = root.join("kie/t1/deep/er");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("c.mp4"), "x").unwrap();
    let kept = ["kie/t1/b.mp4", "kie/t1/deep/er/c.mp4"].map(str::to_owned);
    files.remove_all_but(&kept).await.unwrap();
    assert_eq!(read(&storage, &kept[1]).await.unwrap(), b"x");
    assert!(matches!(
        read(&storage, "kie/t1/a.mp4").await,
        Err(StorageError::Missing)
    ));
    assert_eq!(read(&storage, "kie/t1/b.mp4").await.unwrap(), b"x");
    for _ in 0..2 {
        files.remove_all_but(&[]).await.unwrap();
        assert!(!root.join("kie/t1").exists());
    }
    assert_eq!(read(&storage, "kie/t10/a.mp4").await.unwrap(), b"x");
}

#[tokio::test]
async fn removing_a_file_removes_the_directories_that_are_empty_without_it() {
    let (directory, storage) = storage();
    let root = directory.path().join("a/media");
    for place in [("t1", "a.mp4"), ("t1", "b.mp4"), ("t2", "a.mp4")] {
        publish(&storage, written(&storage, 1, b"x").await, place).await;
    }
    let files = storage.task_files("kie", "t1").await;
    files.remove("kie/t1/a.mp4").await.unwrap();
    assert_eq!(read(&storage, "kie/t1/b.mp4").await.unwrap(), b"x");
    for _ in 0..2 {
        files.remove("kie/t1/b.mp4").await.unwrap();
        assert!(!root.join("kie/t1").exists());
    }
    assert_eq!(read(&storage, "kie/t2/a.mp4").await.unwrap(), b"x");
    let others = storage.task_files("kie", "t2").await;
    others.remove("kie/t2/a.mp4").await.unwrap();
    assert!(!root.join("kie").exists());
    assert!(root.join(INCOMING).exists());
}

#[tokio::test]
async fn a_directory_that_others_remove_is_made_again() {
    let (_directory, storage) = storage();
    let layout = "a/b/c/d/{source}/{task_id}/{name}".parse().unwrap();
    let storage = &storage.with_layout(layout);
    // Either takes `kie` away, and those above it, whenever it is empty.
    let rounds = async |download, task_id| {
        for token in 0..300 {
            let finished = written_as(storage, (download, token), b"x").await;
            let key = publish(storage, finished, (task_id, "a.mp4")).await;
            let files = storage.task_files("kie", task_id).await;
            files.remove(&key).await.unwrap();
        }
    };
    tokio::join!(rounds(1, "t1"), rounds(2, "t2"));
}

#[tokio::test]
async fn a_probe_leaves_nothing_and_fails_where_files_would() {
    let (directory, storage) = storage();
    storage.probe().await.unwrap();
    assert!(files_below(directory.path()).is_empty());
    fs::remove_dir(directory.path().join("spool")).unwrap();
    let error = storage.probe().await.unwrap_err();
    assert!(
        error
            .sentence()
            .starts_with("the storage could not write a test file: "),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_bucket_is_taken_without_asking_it_unless_its_variables_cannot_be_right() {
    let open = |url: &str, variables: &[(&str, &str)]| {
        let place = InBucket {
            bucket: &url.parse().unwrap(),
            variables: &Variables::new(variables.iter().copied()),
            notes: Path::new("/nowhere"),
            tasks: &Tasks::new(),
        };
        Storage::open_bucket(&place, Path::new("/nowhere")).map_err(|error| error.to_string())
    };
    let id = ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7");
    open("s3://media", &[id, ("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")]).unwrap();
    open("gs://media", &[("GOOGLE_BEARER_TOKEN", "hunter2-hunter2")]).unwrap();
    let account = ("AZURE_STORAGE_ACCOUNT_NAME", "media");
    open(
        "az://media",
        &[account, ("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==")],
    )
    .unwrap();
    for (url, variables, variable) in [
        ("s3://media", &[id][..], "AWS_"),
        (
            "s3://media",
            &[id, ("AWS_SECRET_ACCESS_KEY", "x"), ("AWS_ALLOW_HTTP", "perhaps")],
            "AWS_",
        ),
        (
            "gs://media",
            &[("GOOGLE_SERVICE_ACCOUNT_KEY", "hunter2-hunter2")],
            "GOOGLE_",
        ),
        (
            "az://media",
            &[("AZURE_STORAGE_ACCOUNT_KEY", "hunter2-hunter2")],
            "AZURE_",
        ),
    ] {
        let refused = open(url, variables).unwrap_err();
        assert!(
            refused.starts_with(&format!("{url} cannot be used: ")),
            "{refused}"
        );
        assert!(
            refused.ends_with(&format!("; set its {variable}… variables")),
            "{refused}"
        );
        assert!(!refused.contains("hunter2"), "{refused}");
    }
}

#[tokio::test]
async fn notes_of_uploads_that_cannot_be_read_stop_no_other() {
    let notes = tempfile::tempdir().unwrap();
    fs::create_dir(notes.path().join("a-directory")).unwrap();
    fs::write(
        notes.path().join("whole"),
        r#"{"key":"kie/t1/a.mp4","upload":"1"}"#,
    )
    .unwrap();
    let place = InBucket {
        bucket: &"s3://media".parse().unwrap(),
        variables: &Variables::new([("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y")].into_iter()),
        notes: notes.path(),
        tasks: &Tasks::new(),
    };
    let storage = Storage::open_bucket(&place, notes.path()).unwrap();
    assert_eq!(storage.take_over_uploads().unwrap(), 1);
}

#[tokio::test]
async fn a_key_that_leads_elsewhere_is_refused() {
    let (_directory, storage) = storage();
    for key in [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "kie/../../x",
        "kie//x",
        "kie/./x",
        "kie/.hidden",
        ".incoming/x",
        "kie/x/",
        "kie\\x",
        "kie/a\0b",
        "kie/a b",
        "kie/é",
    ] {
        assert!(
            matches!(storage.open_file(key).await, Err(StorageError::BadKey)),
            "{key:?}"
        );
    }
    for (source, task_id) in [("", "t1"), ("kie", ""), ("", "")] {
        let removed = storage
            .task_files(source, task_id)
            .await
            .remove_all_but(&[])
            .await;
        assert!(
            matches!(removed, Err(StorageError::BadKey)),
            "{source:?} {task_id:?}"
        );
    }
}

#[test]
fn the_longest_ids_still_make_file_names() {
    let keys: HashSet<String> = ["*", "~", ":"]
        .map(|part| object_key(&Layout::default(), ("kie", &part.repeat(128), "a.mp4")))
        .into();
    assert_eq!(keys.len(), 3);
    for key in keys {
        assert!(key.split('/').all(|part| part.len() <= 220), "{key}");
    }
}

#[test]
fn a_key_is_readable_and_never_hidden() {
    let usual = Layout::default();
    assert_eq!(
        object_key(&usual, ("kie", "2fac****9f72", "result-0.mp4")),
        "kie/2fac%2A%2A%2A%2A9f72/result-0.mp4"
    );
    assert_eq!(
        object_key(&usual, ("kie", "...", "a%2Fb/c")),
        "kie/%2E../a%252Fb%2Fc"
    );
    let other = "by-name/{name}.d/{task_id}/{source}".parse().unwrap();
    assert_eq!(
        object_key(&other, ("kie", "..", "a.mp4")),
        "by-name/a.mp4.d/%2E./kie"
    );
}

proptest! {
    #[test]
    fn keys_are_one_to_one_and_stay_in_the_storage(
        parts in prop::array::uniform3("[ -~é]{1,140}"),
        others in prop::array::uniform3("[ -~é]{1,3}"),
        layout in prop::sample::select(vec!["{source}/{task_id}/{name}", "x/{name}.y/-{task_id}_/{source}"]),
    ) {
        let layout: Layout = layout.parse().unwrap();
        let key = |parts: &[String; 3]| object_key(&layout, (&parts[0], &parts[1], &parts[2]));
        prop_assert!(is_sound(&key(&parts)));
        prop_assert!(Path::new(&key(&parts)).is_relative());
        prop_assert_eq!(parts == others, key(&parts) == key(&others));
    }
}
