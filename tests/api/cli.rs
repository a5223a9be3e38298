//! The program as people run it: what it refuses, what it says, how it ends.

use std::net::TcpListener;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::support::{KEY, Program, Serving, TOKEN, client, failure, success};

const API_TOKEN: &str = "token-of-the-api-0123456789-abcdef";

/// An answer of a server that the program runs.
fn send(serving: &Serving, path: &str, body: &Value, headers: &[(&str, &str)]) -> (u16, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let request = headers.iter().fold(
            client()
                .post(format!("{}{path}", serving.url()))
                .body(body.to_string()),
            |request, (name, value)| request.header(*name, *value),
        );
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    })
}

#[test]
fn the_walk_through_ends_with_a_stored_video_and_its_checksum() {
    let program = Program::new();
    let mut serving = program.serve(&[]);
    let printed = |label: &str| {
        let line = serving.out.wait_for(&format!("  {label} "));
        let words: Vec<String> = line.split_whitespace().skip(2).map(str::to_owned).collect();
        words
    };
    let (trigger, list) = (printed("try"), printed("then"));
    let run = |words: &[String], more: &[&str]| {
        let words: Vec<&str> = words
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let ended = program.run(&words);
        assert_eq!(ended.code, Some(0), "{words:?}: {}{}", ended.out, ended.err);
        ended.out
    };
    assert!(
        run(&trigger, &["--task-id", "walk"]).contains("200"),
        "what came back"
    );
    let server = ["--server", &serving.url()];
    let wait = ["tasks", "wait", "walk"].map(str::to_owned);
    run(&wait, &server);
    let listed = run(&list, &[]);
    assert!(listed.contains("walk") && listed.contains("stored"), "{listed}");
    let shown = run(&["tasks", "show", "walk"].map(str::to_owned), &server);
    let sample = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/assets/sample.mp4")).unwrap();
    let sha256 = hex::encode(Sha256::digest(&sample));
    assert!(shown.contains(&sha256), "{shown}");
    let stored = std::fs::read(program.path().join("data/media/kie/walk/result-0.mp4")).unwrap();
    assert!(stored == sample);
    assert_eq!(
        program.run(&[&["healthcheck"], &server[..]].concat()).code,
        Some(0)
    );
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0), "{}", serving.err.text());
}

#[test]
fn a_configuration_that_would_let_others_in_is_refused_with_the_key_to_set() {
    let api = format!("[api]\ntokens = [\"{API_TOKEN}\"]\n");
    let keys = format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n");
    let tunnel = "public_url = \"https://abc.ngrok.app\"\n";
    for (config, key) in [
        // Listening on loopback, but a tunnel makes that public.
        (format!("{tunnel}{api}"), "sources.kie.hmac_keys"),
        (format!("{tunnel}{keys}"), "api.tokens"),
        (
            format!("{tunnel}{api}{keys}[sources.other]\n"),
            "sources.other.hmac_keys",
        ),
        (format!("listen = \"0.0.0.0:0\"\n{api}"), "sources.kie.hmac_keys"),
        (format!("listen = \"[::]:0\"\n{keys}"), "api.tokens"),
        (format!("listen = \"192.0.2.1:80\"\n{keys}"), "api.tokens"),
        (
            "[sources.kie]\nconfirm = true\n".to_owned(),
            "sources.kie.confirm",
        ),
        (
            "[sources.kie]\ntokens = [\"short\"]\n".to_owned(),
            "sources.kie.tokens",
        ),
        (
            "[sources.kie]\nhmac_keys = [\"\"]\n".to_owned(),
            "sources.kie.hmac_keys",
        ),
        (
            format!("{api}[sources.kie]\ntokens = [\"{API_TOKEN}\"]\n"),
            "sources.kie.tokens",
        ),
        (
            "[sources.kie]\ntimestamp_tolerance = \"0s\"\n".to_owned(),
            "timestamp_tolerance",
        ),
        ("[storage]\nurl = \"s3://a b\"\n".to_owned(), "storage.url"),
        (
            "[downloads]\nconcurrency = 0\n".to_owned(),
            "downloads.concurrency",
        ),
        (
            "[ingest]\nmax_inflight = \"1MiB\"\n".to_owned(),
            "ingest.max_inflight",
        ),
    ] {
        let program = Program::configured(&config);
        let said = program.refused(&[]);
        assert!(said.contains(key), "{config}\n{said}");
        assert!(
            !said.contains(API_TOKEN) && !said.contains(KEY),
            "no secret: {said}"
        );
        let check = program.run(&["check"]);
        assert_eq!(check.code, Some(1), "{config}");
        assert!(check.err.contains(key), "{config}\n{}", check.err);
        assert!(!program.path().join("data").exists(), "nothing was begun");
    }
}

#[test]
fn a_configuration_file_that_cannot_be_read_says_where_and_why() {
    let program = Program::configured("listen = \"127.0.0.1:0\"\n");
    program.write(
        "half.toml",
        b"listen = \"127.0.0.1:0\"\n[sources.kie]\nhmac_keys = [\"abc",
    );
    program.write("latin1.toml", b"# caf\xe9\n");
    program.write(
        "unknown.toml",
        b"\n\nlisten_on = 1\n[downloads]\nconcurency = 2\n",
    );
    program.write("typed.toml", b"[downloads]\nmax_size = \"large\"\n");
    for (file, parts) in [
        ("missing.toml", ["missing.toml", "--config"]),
        (".", ["cannot read", "--config"]),
        ("half.toml", ["half.toml:3", "not TOML"]),
        ("latin1.toml", ["latin1.toml:1", "UTF-8"]),
        ("unknown.toml", ["unknown.toml:3", "listen_on"]),
        ("unknown.toml", ["unknown.toml:5", "downloads.concurency"]),
        ("typed.toml", ["typed.toml:2", "downloads.max_size"]),
    ] {
        let said = program.refused(&["--config", file]);
        for part in parts {
            assert!(said.contains(part), "{file}: {part}: {said}");
        }
    }
}

#[test]
fn a_data_directory_that_cannot_be_used_says_what_to_do() {
    let program = Program::new();
    program.write("file", b"precious");
    for dir in ["file", "file/data"] {
        let said = program.refused(&["--listen", "127.0.0.1:0", "--data-dir", dir]);
        assert!(
            said.contains("the data directory") && said.contains("`data_dir`"),
            "{said}"
        );
    }
    assert_eq!(std::fs::read(program.path().join("file")).unwrap(), b"precious");
}

#[test]
fn a_disk_that_takes_nothing_is_found_at_the_start() {
    let program = Program::new();
    // As close to a full disk as one gets without mounting one: every write to a file fails.
    let script = "ulimit -f 0; trap '' XFSZ; exec \"$0\" serve --listen 127.0.0.1:0";
    let ended = program.run_in_shell(script);
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("free some space"), "{}", ended.err);
}

#[test]
fn a_database_that_is_none_or_of_a_newer_version_is_refused_and_left_alone() {
    let program = Program::new();
    std::fs::create_dir(program.path().join("data")).unwrap();
    let junk = b"this is no database, but somebody's notes".repeat(100);
    program.write("data/reelhook.db", &junk);
    let said = program.refused(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("data/reelhook.db cannot be opened"), "{said}");
    assert!(std::fs::read(program.path().join("data/reelhook.db")).unwrap() == junk);

    let program = Program::new();
    let mut serving = program.serve(&[]);
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(program.path().join("data/reelhook.db"));
        let mut connection = options.connect().await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (999, 'later', 1, x'00', 0)",
        )
        .execute(&mut connection)
        .await
        .unwrap();
    });
    let said = program.refused(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("newer version") && said.contains("999"), "{said}");
}

#[test]
fn a_taken_port_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = Program::new().refused(&["--listen", &address]);
    assert!(said.contains(&address) && said.contains("`listen`"), "{said}");
}

#[test]
fn a_second_instance_on_the_same_data_is_refused() {
    let program = Program::new();
    let mut first = program.serve(&[]);
    let said = program.refused(&["--listen", "127.0.0.1:0"]);
    assert!(said.contains("in use by another reelhook"), "{said}");
    assert_eq!(send(&first, "/callbacks/kie", &failure("t1"), &[]).0, 200);
    first.signal("INT");
    assert_eq!(first.wait(), Some(0));
    let mut next = program.serve(&[]);
    next.signal("TERM");
    assert_eq!(next.wait(), Some(0));
}

#[test]
fn hang_up_takes_over_good_sources_and_keeps_the_old_ones_of_a_bad_file() {
    let program = Program::configured("[sources.kie]\n");
    let mut serving = program.serve(&[]);
    let status = |id: &str| send(&serving, "/callbacks/kie", &failure(id), &[]).0;
    assert_eq!(status("t1"), 200);
    program.write(
        "config.toml",
        format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\n").as_bytes(),
    );
    serving.signal("HUP");
    serving.err.wait_for("were read again");
    assert_eq!(status("t2"), 401);
    program.write("config.toml", b"[sources.kie");
    serving.signal("HUP");
    serving.err.wait_for("was not taken over");
    assert_eq!(status("t3"), 401);
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn hang_up_never_opens_a_public_server() {
    let public = "public_url = \"https://hooks.example.com\"\n";
    let closed = format!("[api]\ntokens = [\"{API_TOKEN}\"]\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n");
    let program = Program::configured(&format!("{public}{closed}"));
    let mut serving = program.serve(&[]);
    let status = |id: &str| send(&serving, "/callbacks/kie", &failure(id), &[]).0;
    // Alone it would be fine: it no longer says that anybody else reaches us.
    program.write("config.toml", b"[sources.kie]\n");
    serving.signal("HUP");
    let said = serving.err.wait_for("was not taken over");
    assert!(said.contains("sources.kie.hmac_keys"), "{said}");
    assert_eq!(status("t1"), 401);
    std::fs::remove_file(program.path().join("config.toml")).unwrap();
    serving.signal("HUP");
    serving.err.wait_for("there is no config.toml any more");
    assert_eq!(status("t2"), 401);
    program.write("config.toml", closed.as_bytes());
    serving.signal("HUP");
    serving.err.wait_for("only by a restart: public_url");
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the writer is made to panic by an overflow")]
fn a_server_whose_writer_died_exits_with_one() {
    let program = Program::new();
    let mut serving = program.serve(&[]);
    assert_eq!(send(&serving, "/callbacks/kie", &success("t1", &[]), &[]).0, 200);
    let database = program.path().join("data/reelhook.db");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(&database);
        let mut connection = options.connect().await.unwrap();
        let poison = "UPDATE outcomes SET conflicts = 9223372036854775807";
        sqlx::raw_sql(poison).execute(&mut connection).await.unwrap();
    });
    assert_eq!(send(&serving, "/callbacks/kie", &failure("t1"), &[]).0, 503);
    serving.err.wait_for("the database writer failed");
    assert_eq!(
        serving.wait(),
        Some(1),
        "so that the service manager starts it anew"
    );
}

#[test]
fn what_makes_no_sense_exits_with_two() {
    let program = Program::new();
    for line in [
        "",
        "frobnicate",
        "serve --listen nowhere",
        "serve --log-format xml",
        "tasks show a/b",
        "trigger no.such.event",
        "trigger veo.success --to ftp://127.0.0.1/",
        "url",
        "sign",
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ended = program.run(&words);
        assert_eq!(ended.code, Some(2), "{line}: {}{}", ended.out, ended.err);
        assert!(!ended.err.is_empty() && ended.out.is_empty(), "{line}");
    }
}

#[test]
fn without_a_server_the_commands_fail_and_say_how_to_start_one() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = format!("http://{free}");
    let program = Program::new();
    for words in [&["tasks", "list"][..], &["tasks", "show", "t1"], &["healthcheck"]] {
        let ended = program.run(&[words, &["--server", &server]].concat());
        assert_eq!(ended.code, Some(1), "{words:?}");
        assert!(
            ended.err.contains("serve") || words == ["healthcheck"],
            "{}",
            ended.err
        );
    }
}

#[test]
fn what_sign_makes_verify_takes() {
    let program = Program::configured(&format!(
        "[sources.kie]\nhmac_keys = [\"{KEY}\", \"second key\"]\n"
    ));
    let signed = program.run(&["sign", "t1", "--key", "second key", "--json"]);
    assert_eq!(signed.code, Some(0), "{}", signed.err);
    let headers: Value = serde_json::from_str(&signed.out).unwrap();
    let verify = |id: &str| {
        let header = |name: &str| headers[name].as_str().unwrap().to_owned();
        let (timestamp, signature) = (header("X-Webhook-Timestamp"), header("X-Webhook-Signature"));
        program.run(&["verify", id, "--timestamp", &timestamp, "--signature", &signature])
    };
    let good = verify("t1");
    assert_eq!(good.code, Some(0), "{}{}", good.out, good.err);
    let bad = verify("t2");
    assert_eq!(bad.code, Some(1), "{}{}", bad.out, bad.err);
}

#[test]
fn a_signed_trigger_is_accepted_by_the_url_that_url_prints() {
    let config = format!("[sources.kie]\nhmac_keys = [\"{KEY}\"]\ntokens = [\"{TOKEN}\"]\n");
    let program = Program::configured(&config);
    let mut serving = program.serve(&[]);
    let address = format!("listen = \"{}\"\n{config}", serving.addr);
    program.write("config.toml", address.as_bytes());
    let url = program.run(&["url", "kie"]).out.trim().to_owned();
    assert_eq!(url, format!("{}/callbacks/kie?token={TOKEN}", serving.url()));
    let trigger = |words: &[&str]| program.run(&[&["trigger", "veo.failure", "--to", &url], words].concat());
    let taken = trigger(&["--key", KEY]);
    assert_eq!(taken.code, Some(0), "{}{}", taken.out, taken.err);
    assert!(!taken.out.contains(TOKEN), "{}", taken.out);
    let refused = trigger(&["--key", "another key"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.out.contains("bad_signature"), "{}", refused.out);
    let refused = trigger(&[]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.out.contains("missing_signature"), "{}", refused.out);
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));
}

#[test]
fn the_example_is_a_configuration_and_check_shows_it_without_secrets() {
    let program = Program::new();
    let example = program.run(&["config", "example"]);
    assert_eq!(example.code, Some(0));
    program.write("config.toml", example.out.as_bytes());
    let checked = program.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    let plain = checked.out;
    // Uncommented, every key stands at the default it claims.
    let uncommented: Vec<&str> = example
        .out
        .lines()
        .filter_map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')))
        .collect();
    program.write("config.toml", uncommented.join("\n").as_bytes());
    let checked = program.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    let keys = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(keys(&checked.out), keys(&plain));

    let secrets = format!("[api]\ntokens = [\"{API_TOKEN}\"]\n[sources.kie]\nhmac_keys = [\"{KEY}\"]\n");
    program.write("config.toml", secrets.as_bytes());
    let checked = program.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.err);
    for secret in [API_TOKEN, KEY] {
        assert!(!checked.out.contains(secret) && !checked.err.contains(secret));
    }
}

#[test]
fn json_logs_are_json_line_by_line_and_hold_no_secret() {
    let (api_key, in_url) = ("sk-api-key-of-the-provider", "secret-of-the-media-url");
    let program = Program::configured(&format!(
        "[api]\ntokens = [\"{API_TOKEN}\"]\n\
         [sources.kie]\nhmac_keys = [\"{KEY}\"]\ntokens = [\"{TOKEN}\"]\napi_key = \"{api_key}\"\n\
         api_url = \"http://127.0.0.1:9\"\n"
    ));
    let mut serving = program.serve(&["--log-format", "json", "--log-level", "trace"]);
    let body = json!({"code": 200, "msg": format!("done {KEY}"), "data": {"taskId": "t1",
        "promptJson": json!({"callBackUrl": format!("https://x/?token={TOKEN}"), "key": api_key}).to_string(),
        "info": {"resultUrls": [format!("http://10.0.0.1/a.mp4?sig={in_url}")]}}});
    let timestamp = (reelhook::clock::Clock::system().now() / 1000).to_string();
    let signature = reelhook::provider::signature::sign(KEY, "t1", &timestamp);
    let bearer = format!("Bearer {API_TOKEN}");
    let headers = [
        ("x-webhook-timestamp", timestamp.as_str()),
        ("x-webhook-signature", &signature),
        ("authorization", &bearer),
    ];
    let path = format!("/callbacks/kie?token={TOKEN}");
    assert_eq!(send(&serving, &path, &body, &headers).0, 200);
    assert_eq!(send(&serving, &path, &body, &[]).0, 401);
    assert_eq!(send(&serving, &path[..path.len() - 1], &body, &headers).0, 401);
    assert_eq!(
        send(&serving, &format!("/nowhere?token={TOKEN}"), &body, &headers).0,
        404
    );
    serving.err.wait_for("failed for good");
    serving.signal("TERM");
    assert_eq!(serving.wait(), Some(0));

    let (out, err) = (serving.out.text(), serving.err.text());
    let lines: Vec<Value> = err
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let with = |name: &str, value: &str| lines.iter().filter(|line| line[name] == value).count();
    assert_eq!(
        (with("verdict", "accepted"), with("reason", "missing_signature")),
        (1, 1)
    );
    assert_eq!(with("reason", "bad_token"), 1, "one line for each callback");
    for secret in [KEY, TOKEN, API_TOKEN, api_key, in_url, &signature] {
        assert!(
            !err.contains(secret) && !out.contains(secret),
            "{secret} in the logs: {err}"
        );
    }
}
