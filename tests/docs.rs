//! Keeps the documentation true where that is cheap: every code, route and command that the sources know is described.
//!
//! The sources are searched as text. Each search must find something, so that one which no longer fits the code
//! fails instead of passing on nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A source file without its test module, which stands last.
fn source(path: impl AsRef<Path>) -> String {
    let text = read(path);
    let code = text.split("#[cfg(test)]\nmod ").next();
    code.unwrap_or_default().to_owned()
}

fn files_under(directory: &str, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(directory)).expect("the directory is readable") {
        let path = entry.expect("an entry is readable").path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Every literal that begins right after `before`, up to `end`.
fn literals(text: &str, before: &str, end: char) -> BTreeSet<String> {
    text.split(before)
        .skip(1)
        .filter_map(|rest| rest.split_once(end))
        .map(|(literal, _)| literal.to_owned())
        .collect()
}

/// The body of a function, up to the next line that closes a block of its indentation.
fn body_of<'t>(text: &'t str, signature: &str) -> &'t str {
    let (before, rest) = text
        .split_once(signature)
        .unwrap_or_else(|| panic!("there is no `{signature}` any more"));
    let indent = before.len() - before.trim_end_matches(' ').len();
    let close = format!("\n{}}}", " ".repeat(indent));
    rest.split(&close).next().unwrap_or(rest)
}

/// The second argument of every call, where it is a literal.
fn second_arguments(text: &str, call: &str) -> BTreeSet<String> {
    text.split(call)
        .skip(1)
        .filter_map(|rest| rest.split(',').nth(1))
        .filter_map(|argument| argument.trim().strip_prefix('"')?.strip_suffix('"'))
        .map(str::to_owned)
        .collect()
}

/// Fails with the names that the text lacks in backticks.
fn assert_described(what: &str, names: &BTreeSet<String>, text: &str, place: &str) {
    assert!(!names.is_empty(), "the search for {what} found nothing: adapt it");
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !text.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "{place} lacks these {what}: {missing:?}");
}

#[test]
fn every_problem_code_is_in_the_api_reference() {
    let mut codes = BTreeSet::new();
    for file in files_under("src/http", "rs") {
        let text = source(&file);
        codes.extend(second_arguments(&text, "Problem::new("));
        codes.extend(second_arguments(&text, "Self::new("));
        codes.extend(literals(&text, "unready(\"", '"'));
    }
    assert!(
        codes.contains("unknown_task") && codes.contains("internal"),
        "{codes:?}"
    );
    for place in ["docs/api.md", "docs/openapi.json"] {
        assert_described("problem codes", &codes, &read(place), place);
    }
}

#[test]
fn every_refusal_reason_is_in_the_api_reference() {
    let signature = "pub fn reason(&self) -> &'static str {";
    let mut reasons = BTreeSet::new();
    for file in ["src/ingest/refusal.rs", "src/provider/payload/mod.rs"] {
        reasons.extend(literals(body_of(&source(file), signature), "=> \"", '"'));
    }
    assert!(
        reasons.contains("stale") && reasons.contains("no_task_id"),
        "{reasons:?}"
    );
    assert_described("refusal reasons", &reasons, &read("docs/api.md"), "docs/api.md");
}

#[test]
fn every_reason_of_a_delivery_is_in_the_api_reference() {
    let mut reasons = literals(&source("src/store/record/verified.rs"), "Some(\"", '"');
    reasons.extend(literals(&source("src/store/accept.rs"), "reason = '", '\''));
    assert!(reasons.contains("signature_reused"), "{reasons:?}");
    assert_described("delivery reasons", &reasons, &read("docs/api.md"), "docs/api.md");
}

#[test]
fn every_error_code_of_a_file_is_in_the_api_reference() {
    let failure = source("src/download/failure.rs");
    let code = body_of(&failure, "pub fn code(&self) -> &'static str {");
    let mut codes = literals(code, "=> \"", '"');
    codes.extend(literals(&source("src/store/downloads.rs"), "code: \"", '"'));
    codes.extend(literals(&source("src/store/overrule.rs"), "error_code = '", '\''));
    codes.extend(literals(&source("src/store/scrub.rs"), "error_code = '", '\''));
    assert!(
        codes.contains("blocked") && codes.contains("superseded"),
        "{codes:?}"
    );
    assert_described("file error codes", &codes, &read("docs/api.md"), "docs/api.md");
    let without: Vec<_> = codes
        .iter()
        .filter(|code| reelhook::download::remedy(code).is_none())
        .collect();
    assert!(
        without.is_empty(),
        "these file error codes have no remedy: {without:?}"
    );
}

#[test]
fn every_failure_kind_is_in_the_api_reference() {
    let failure = source("src/provider/failure.rs");
    let words = body_of(&failure, "pub fn as_str(self) -> &'static str {");
    let kinds = literals(words, "=> \"", '"');
    assert_described("failure kinds", &kinds, &read("docs/api.md"), "docs/api.md");
}

/// The routes of the OpenAPI document.
fn described_routes() -> BTreeSet<String> {
    let document: serde_json::Value =
        serde_json::from_str(&read("docs/openapi.json")).expect("docs/openapi.json is JSON");
    let paths = document["paths"].as_object().expect("it has paths");
    paths.keys().cloned().collect()
}

#[test]
fn the_openapi_document_is_what_the_program_prints() {
    let printed = Command::new(env!("CARGO_BIN_EXE_reelhook"))
        .arg("openapi")
        .output()
        .expect("the program runs");
    let printed = String::from_utf8(printed.stdout).expect("the document is text");
    assert!(
        printed == read("docs/openapi.json"),
        "docs/openapi.json is out of date: cargo run -q -- openapi > docs/openapi.json"
    );
}

#[test]
fn every_route_of_the_api_is_in_the_openapi_document() {
    let described = described_routes();
    // Routes with a description are given to the router with it, by `routes!`: those without have to be looked for.
    let mut bare = BTreeSet::new();
    for file in files_under("src/http", "rs") {
        bare.extend(literals(&source(&file), ".route(\"", '"'));
    }
    // Anything else of the provider's API, which is refused; and what a certificate authority asks for, on another port.
    for known in ["/api/v1/{*rest}", "/.well-known/acme-challenge/{token}"] {
        assert!(bare.remove(known), "{bare:?}");
    }
    let missing: Vec<_> = bare.difference(&described).collect();
    assert!(
        missing.is_empty(),
        "docs/openapi.json lacks these routes: {missing:?}"
    );
}

#[test]
fn a_field_that_may_be_left_out_is_never_null_in_the_openapi_document() {
    // The document takes what may be null for always there: the derive does not tell the one from the other.
    let mut left_out = 0;
    for file in files_under("src/http", "rs") {
        let text = source(&file);
        if !text.contains("ToSchema") {
            continue;
        }
        for rest in text.split("skip_serializing_if = \"Option::is_none\")]").skip(1) {
            left_out += 1;
            let next = rest.lines().find(|line| !line.is_empty()).unwrap_or_default();
            assert!(next.contains("nullable = false"), "{}: {next}", file.display());
        }
    }
    assert!(left_out > 0, "no field is left out any more: adapt the search");
}

#[test]
fn every_route_is_in_the_api_reference() {
    let routes = described_routes();
    assert!(routes.contains("/v1/tasks/{task_id}"), "{routes:?}");
    let reference = read("docs/api.md");
    let missing: Vec<_> = routes
        .iter()
        .filter(|route| !reference.contains(&format!(" {route}`")))
        .collect();
    assert!(missing.is_empty(), "docs/api.md lacks these routes: {missing:?}");
}

#[test]
fn every_command_is_in_the_readme_or_the_docs() {
    let help = Command::new(env!("CARGO_BIN_EXE_reelhook"))
        .arg("--help")
        .output()
        .expect("the program runs");
    let help = String::from_utf8(help.stdout).expect("help is text");
    let (_, commands) = help.split_once("Commands:\n").expect("help lists the commands");
    let commands: BTreeSet<&str> = commands
        .lines()
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|command| !command.is_empty())
        .collect();
    assert!(commands.contains("serve"), "{commands:?}");

    let mut text = read("README.md");
    for file in files_under("docs", "md") {
        text.push_str(&read(file));
    }
    let missing: Vec<_> = commands
        .into_iter()
        .filter(|command| !text.contains(&format!("reelhook {command}")))
        .collect();
    assert!(
        missing.is_empty(),
        "neither README.md nor docs/ mentions {missing:?}"
    );
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut pages = files_under(".", "md");
    pages.extend(files_under("docs", "md"));
    let mut links = 0;
    for page in pages {
        let directory = page.parent().expect("a page lies in a directory");
        for link in literals(&read(&page), "](", ')') {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(
                directory.join(target).exists(),
                "{} links to {target}, which is not there",
                page.display()
            );
        }
    }
    assert!(links > 0, "no page has a link any more: adapt the search");
}
