//! The commands for people and for programs, against a real server.

use std::collections::BTreeSet;

use clap::CommandFactory as _;
use reelhook::cli::Cli;
use serde_json::Value;

use crate::support::{Ended, Program, Serving};

/// What makes a task with a stored file on a server without configuration.
const EVENT: &str = "veo.success";
/// What makes one that failed for its prompt.
const FAILURE: &str = "veo.failure";

/// A server without configuration, and its address for the commands.
struct Scene {
    program: Program,
    serving: Serving,
}

impl Scene {
    fn new() -> Self {
        let program = Program::new();
        let serving = program.serve(&[]);
        Self { program, serving }
    }

    /// Runs a command on that server.
    fn run(&self, words: &str) -> Ended {
        let words: Vec<&str> = words.split_whitespace().collect();
        let server = self.serving.url();
        self.program.run_with(&[("REELHOOK_SERVER", &server)], &words)
    }

    /// A callback of the sample video, or of something else.
    fn trigger(&self, event: &str, task_id: &str) {
        let to = format!("{}/callbacks/kie", self.serving.url());
        let ended = self.run(&format!("trigger {event} --to {to} --task-id {task_id}"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

/// Each object on a line of its own, or one over several.
fn parsed(command: &str, out: &str) -> Vec<Value> {
    assert!(!out.contains('\u{1b}'), "{command}: colours for programs");
    let values = serde_json::Deserializer::from_str(out).into_iter::<Value>();
    let values: Vec<Value> = values
        .map(|value| value.unwrap_or_else(|error| panic!("{command}: {error}: {out}")))
        .collect();
    assert!(!values.is_empty(), "{command} prints nothing");
    values
}

/// The commands that have an option, by their words.
fn commands_with(option: &str) -> BTreeSet<String> {
    fn walk(command: &clap::Command, words: &str, option: &str, found: &mut BTreeSet<String>) {
        for below in command
            .get_subcommands()
            .filter(|below| below.get_name() != "help")
        {
            let words = format!("{words} {}", below.get_name()).trim().to_owned();
            walk(below, &words, option, found);
            let has = below
                .get_arguments()
                .any(|known| known.get_long() == Some(option));
            if has && !below.has_subcommands() {
                found.insert(words);
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    let mut found = BTreeSet::new();
    walk(&command, "", option, &mut found);
    found
}

/// A conflict: two deliveries announce different files. The id of the later one.
fn conflict(scene: &Scene) -> String {
    let to = format!("{}/callbacks/kie", scene.serving.url());
    for url in ["https://a.invalid/a.mp4", "https://a.invalid/b.mp4"] {
        let ended = scene.run(&format!(
            "trigger {EVENT} --to {to} --task-id t9 --video-url {url}"
        ));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let listed = scene.run("deliveries list --verdict conflict --json");
    let id = parsed("deliveries list", &listed.out)[0]["deliveries"][0]["id"].clone();
    id.as_str().expect("a conflict").to_owned()
}

#[test]
fn whatever_is_printed_as_json_parses() {
    let scene = Scene::new();
    let to = format!("{}/callbacks/kie", scene.serving.url());
    scene.program.write("ids.txt", b"t1\nt2\n");
    let conflict = conflict(&scene);
    // Those that do one thing in several ways stand here once for each.
    let runs = [
        format!("trigger {EVENT} --to {to} --task-id t1"),
        "trigger --list".to_owned(),
        "tasks wait t1".to_owned(),
        "tasks watch t1".to_owned(),
        "tasks list".to_owned(),
        "tasks show t1".to_owned(),
        "tasks retry t1".to_owned(),
        "deliveries list".to_owned(),
        "deliveries list --task t1".to_owned(),
        format!("deliveries show {conflict}"),
        format!("deliveries accept {conflict}"),
        "deliveries reverify --all".to_owned(),
        "stats".to_owned(),
        "scrub".to_owned(),
        "backfill ids.txt --no-wait".to_owned(),
        "backup copy".to_owned(),
        "healthcheck".to_owned(),
        "check".to_owned(),
        "url kie".to_owned(),
        "sign t1 --key some-key".to_owned(),
        "tasks delete t1 --yes".to_owned(),
    ];
    for words in &runs {
        let ended = scene.run(&format!("{words} --json"));
        assert_eq!(ended.code, Some(0), "{words}: {}{}", ended.out, ended.err);
        parsed(words, &ended.out);
    }
    let signed = scene.run("sign t1 --key some-key --json");
    let headers = &parsed("sign", &signed.out)[0];
    let header = |name: &str| headers[name].as_str().unwrap().to_owned();
    let (timestamp, signature) = (header("X-Webhook-Timestamp"), header("X-Webhook-Signature"));
    let verify = format!("verify t1 --key some-key --timestamp {timestamp} --signature {signature} --json");
    assert_eq!(parsed("verify", &scene.run(&verify).out)[0]["valid"], true);
    let covered = |command: &String| {
        // `simulate` prints until it is stopped; its own tests read that.
        let elsewhere = ["verify", "simulate"];
        elsewhere.contains(&command.as_str()) || runs.iter().any(|run| run.starts_with(command.as_str()))
    };
    let missing: Vec<String> = commands_with("json")
        .into_iter()
        .filter(|command| !covered(command))
        .collect();
    assert!(missing.is_empty(), "these are not tried with --json: {missing:?}");
}

#[test]
fn what_is_piped_is_quiet_and_plain() {
    let scene = Scene::new();
    scene.trigger(EVENT, "t1");
    scene.trigger(FAILURE, "t2");
    assert_eq!(scene.run("tasks wait t1").code, Some(0));
    for words in [
        "tasks list",
        "tasks show t1",
        "stats",
        "deliveries list",
        "tasks watch t1",
    ] {
        let ended = scene.run(words);
        assert!(
            !ended.out.contains('\u{1b}') && ended.err.is_empty(),
            "{words}: {ended:?}"
        );
    }
    let server = scene.serving.url();
    let forced = [("REELHOOK_SERVER", server.as_str()), ("CLICOLOR_FORCE", "1")];
    let plain = scene.program.run_with(&forced, &["tasks", "list"]);
    assert!(!plain.out.contains('\u{1b}'), "NO_COLOR outweighs");
    let coloured = [forced[0], forced[1], ("NO_COLOR", "")];
    let coloured = scene.program.run_with(&coloured, &["tasks", "list"]);
    assert!(coloured.out.contains('\u{1b}'), "{coloured:?}");
    let listed = scene.run("tasks list").out;
    assert!(listed.contains("content_policy: "), "why it failed: {listed}");
    let stats = scene.run("stats").out;
    assert!(
        stats.contains("1 failed, 1 succeeded") && stats.contains("2 stored"),
        "{stats}"
    );
}

#[test]
fn a_task_is_watched_until_it_is_over_and_the_exit_code_tells_how() {
    let scene = Scene::new();
    let server = ["--server", &scene.serving.url()];
    let mut watching = scene
        .program
        .start(&[&["tasks", "watch", "t1", "t2"], &server[..]].concat());
    watching.err.wait_for("t2 is not known yet");
    scene.trigger(EVENT, "t1");
    let stored = watching.out.wait_for("result-0.mp4 stored");
    assert!(stored.contains("t1") && stored.contains("KiB"), "{stored}");
    scene.trigger(FAILURE, "t2");
    let failed = watching.out.wait_for("content_policy");
    assert!(failed.contains("t2"), "{failed}");
    assert_eq!(watching.wait(), Some(1), "one of them failed");
    assert_eq!(
        scene.run("tasks watch t1").code,
        Some(0),
        "what is over is over at once"
    );
    assert_eq!(scene.run("tasks watch t2").code, Some(1));
}

#[test]
fn who_watches_outlasts_a_restart_and_says_so_once() {
    let program = Program::new();
    let mut first = program.serve(&[]);
    let url = first.url();
    program.write("ids.txt", b"t1\n");
    let announced = program.run(&["backfill", "ids.txt", "--no-wait", "--server", &url]);
    assert_eq!(announced.code, Some(0), "{announced:?}");
    let mut watching = program.start(&["tasks", "watch", "t1", "--json", "--server", &url]);
    watching.out.wait_for("pending");
    first.signal("TERM");
    assert_eq!(first.wait(), Some(0));
    watching.err.wait_for("making it again");
    let listen = url.trim_start_matches("http://").to_owned();
    let second = program.start(&["serve", "--listen", &listen]);
    second.err.wait_for("listening on ");
    let to = format!("{url}/callbacks/kie");
    let sent = program.run(&["trigger", FAILURE, "--to", &to, "--task-id", "t1"]);
    assert_eq!(sent.code, Some(0), "{sent:?}");
    assert_eq!(watching.wait(), Some(1));
    assert_eq!(watching.err.text().matches("making it again").count(), 1);
    parsed("tasks watch", &watching.out.text());
}

#[test]
fn a_manual_page_is_written_for_each_command() {
    let program = Program::new();
    let page = program.run(&["man"]);
    assert!(
        page.out.starts_with('.') && page.out.contains("reelhook"),
        "{page:?}"
    );
    let ended = program.run(&["man", "pages"]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "{ended:?}");
    for name in [
        "reelhook",
        "reelhook-serve",
        "reelhook-tasks-watch",
        "reelhook-man",
    ] {
        let page = std::fs::read_to_string(program.path().join(format!("pages/{name}.1")));
        assert!(page.is_ok_and(|page| page.contains(".SH NAME")), "{name}");
    }
    let script = program.run(&["completions", "bash"]).out;
    assert!(
        script.contains("watch") && script.contains("--words"),
        "from the same source"
    );
}
