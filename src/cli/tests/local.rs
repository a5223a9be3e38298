use super::*;

/// A signature of the fixed moment of these tests, computed with openssl.
const KEY: &str = "test-webhook-hmac-key";

#[test]
fn the_command_tree_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn nonsense_is_a_usage_error() {
    for line in [
        "",
        "frobnicate",
        "url",
        "url Kie",
        "tasks show",
        "tasks show a/b",
        "tasks list --limit 0",
        "trigger",
    ] {
        let error =
            Cli::try_parse_from(std::iter::once("reelhook").chain(line.split_whitespace())).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[tokio::test]
async fn config_example_prints_the_example() {
    let ended = Shell::new().run("config example").await;
    assert_eq!(
        (ended.exit, ended.out.as_str()),
        (Exit::Fine, crate::config::EXAMPLE)
    );
}

#[tokio::test]
async fn completions_are_printed_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = Shell::new().run(&format!("completions {shell}")).await;
        assert_eq!(ended.exit, Exit::Fine);
        assert!(ended.out.contains("healthcheck"), "{shell}");
    }
}

#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let example = || {
        Cli::try_parse_from(["reelhook", "config", "example"])
            .unwrap()
            .command
    };
    let session = |out: Box<dyn Write + Send>, err: Stream| {
        Session::for_test(PathBuf::new(), Environment::default(), [out, Box::new(err)], None)
    };
    let err = Stream::default();
    assert_eq!(
        example().run(&mut session(Box::new(Closed), err.clone())).await,
        Exit::Fine
    );
    assert_eq!(err.text(), "");
    assert_eq!(
        example().run(&mut session(Box::new(Full), err.clone())).await,
        Exit::Failed
    );
    assert!(
        err.text().contains("cannot write to standard output"),
        "{}",
        err.text()
    );
}

#[tokio::test]
async fn url_is_the_callback_url_with_token_kind_and_index() {
    let shell = Shell::new().config(
        "public_url = \"https://hooks.example.com/reel/\"\napi.tokens = [\"aaaaaaaaaaaaaaaaaaaaaaaa\"]\n\
         [sources.kie]\ntokens = [\"tttttttttttttttttttttttt\"]\n",
    );
    let ended = shell.run("url kie").await;
    assert_eq!(
        ended.out,
        "https://hooks.example.com/reel/callbacks/kie?token=tttttttttttttttttttttttt\n"
    );
    assert_eq!((ended.exit, ended.err.as_str()), (Exit::Fine, ""));
    let ended = shell.run("url kie --kind 4k --index 2").await;
    assert!(
        ended
            .out
            .ends_with("?token=tttttttttttttttttttttttt&kind=4k&index=2\n"),
        "{}",
        ended.out
    );
    let ended = shell.run("url other").await;
    assert_eq!((ended.exit, ended.out.as_str()), (Exit::Failed, ""));
    assert_eq!(ended.err, "error: no source other is configured; there is kie\n");
}

#[tokio::test]
async fn url_on_loopback_says_that_nobody_else_gets_there() {
    let ended = Shell::new().run("url kie").await;
    assert_eq!(ended.out, "http://127.0.0.1:8080/callbacks/kie\n");
    assert!(ended.err.contains("set public_url"), "{}", ended.err);
}

#[tokio::test]
async fn sign_prints_what_verify_accepts() {
    let shell = Shell::new();
    let signed = shell
        .run(&format!(
            "sign veo_task_abcdef123456 --key {KEY} --timestamp 1769670760"
        ))
        .await;
    let expected = "X-Webhook-Timestamp: 1769670760\n\
                    X-Webhook-Signature: E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o=\n";
    assert_eq!((signed.exit, signed.out.as_str()), (Exit::Fine, expected));
    let json = shell.run(&format!("sign some-task --key {KEY} --json")).await;
    let headers: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(headers["X-Webhook-Timestamp"], "1795253400");
    let signature = headers["X-Webhook-Signature"].as_str().unwrap();
    let line = format!("verify some-task --timestamp 1795253400 --signature {signature}");
    let verified = shell.run(&format!("{line} --key {KEY}")).await;
    assert_eq!(verified.exit, Exit::Fine, "{verified:?}");
    let other = shell.run(&format!("{line} --key other")).await;
    assert_eq!(other.exit, Exit::Failed);
    assert!(other.out.starts_with("bad: "), "{other:?}");
}

#[tokio::test]
async fn verify_reads_the_id_from_a_body_and_the_key_from_the_configuration() {
    let shell = Shell::new().config(&format!("[sources.kie]\nhmac_keys = [\"other\", \"{KEY}\"]\n"));
    let body = shell.directory.path().join("body.json");
    std::fs::write(&body, r#"{"code":200,"data":{"taskId":"veo_task_abcdef123456"}}"#).unwrap();
    let ended = shell
        .run(&format!(
            "verify --json --body {} --timestamp 1769670760 --signature E2IEIq8r/Oe2jzBnOb91/MwENZE9tEEkzU5WzdjXU0o=",
            body.display()
        ))
        .await;
    assert_eq!(ended.exit, Exit::Failed);
    assert_eq!(
        ended.out,
        "{\"result\":\"stale\",\"task_id\":\"veo_task_abcdef123456\",\"valid\":false}\n"
    );
}

#[tokio::test]
async fn signing_without_any_key_says_where_to_put_one() {
    let ended = Shell::new().run("sign some-task").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.err.contains("--key") && ended.err.contains("sources.kie.hmac_keys"),
        "{}",
        ended.err
    );
}

#[tokio::test]
async fn check_shows_the_configuration_in_effect_without_secrets() {
    let shell = Shell::new()
        .config("[sources.kie]\nhmac_keys = [\"hunter2\"]\n")
        .env("REELHOOK_API__TOKENS", "hunter2-hunter2-hunter2-hunter2")
        .env("REELHOOK_TYPO", "x");
    let ended = shell.run("check --listen 127.0.0.1:9000").await;
    assert_eq!(ended.exit, Exit::Fine, "{ended:?}");
    assert!(
        ended.out.starts_with("# in effect, from ") && ended.out.contains("--listen, REELHOOK_API__TOKENS;")
    );
    assert!(ended.out.contains("listen = \"127.0.0.1:9000\""), "{}", ended.out);
    assert!(
        ended.err.contains("warning: environment variable REELHOOK_TYPO"),
        "{}",
        ended.err
    );
    assert!(!format!("{ended:?}").contains("hunter2"), "{ended:?}");
}

#[tokio::test]
async fn check_fails_with_every_problem_and_on_a_misspelt_log_level() {
    let ended = Shell::new().run("check --listen 0.0.0.0:80").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(
        ended.err.starts_with("error:\n  sources.kie.hmac_keys: ") && ended.err.contains("\n  api.tokens: "),
        "{}",
        ended.err
    );
    let ended = Shell::new().run("check --log-level inof").await;
    assert_eq!(ended.exit, Exit::Failed);
    assert!(ended.err.contains("failed log level: "), "{}", ended.err);
}
