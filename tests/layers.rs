//! Holds `src` to the five floors: a module imports only floors below its own, siblings never import each other.
//!
//! The sources are read as tokens, not compiled: comments and literals are dropped, then every path that starts at
//! the crate's root (`crate::x`, `crate::{x, y::z}`, or enough `super::` to climb there) is an import of `x`, in
//! `use` items and inline paths alike. Test modules inside a module are held to the same rule as the module.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A new top-level module goes here and in the table of `src/lib.rs`.
const FLOORS: [&[&str]; 5] = [
    &[
        "provider",
        "media",
        "config",
        "clock",
        "retry",
        "roots",
        "shutdown",
        "telemetry",
        "failpoint",
    ],
    &[
        "store",
        "storage",
        "worker",
        "egress",
        "file_urls",
        "provider_api",
        "tls",
    ],
    &[
        "ingest",
        "download",
        "retention",
        "scrub",
        "reconcile",
        "dropin",
        "forward",
    ],
    &["http", "simulate"],
    &["cli"],
];

/// Everyone needs the time types, so this one module may be imported by its siblings too.
const SHARED: &str = "clock";

/// The roots of the two crates name every module and import by right.
const EXEMPT: [&str; 2] = ["lib.rs", "main.rs"];

#[test]
fn every_module_imports_only_floors_below_its_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let files = rust_files(&src);
    assert!(
        files.len() > EXEMPT.len(),
        "no sources found under {}",
        src.display()
    );

    let found: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let source = fs::read_to_string(file).expect("a source file is readable text");
            let relative = file.strip_prefix(&src).expect("the file was found under src");
            violations(&relative.to_string_lossy(), &source)
        })
        .collect();
    assert!(
        found.is_empty(),
        "{} imports break the floors:\n{}",
        found.len(),
        found.join("\n")
    );
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("the source directory is readable") {
        let path = entry.expect("a directory entry is readable").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// What breaks the floors in one file, `path` being relative to `src`; one line each, ready to print.
fn violations(path: &str, source: &str) -> Vec<String> {
    if EXEMPT.contains(&path) {
        return Vec::new();
    }
    let module = module_path(path);
    let own = module[0].as_str();
    if floor_of(own).is_none() {
        return vec![format!(
            "src/{path}: `{own}` is on no floor: add it to FLOORS in tests/layers.rs and to the table in src/lib.rs"
        )];
    }
    let found: BTreeSet<(usize, String)> = imports(&tokens(source), module.len())
        .into_iter()
        .filter_map(|import| Some((import.line, complaint(own, &import.module)?)))
        .collect();
    found
        .into_iter()
        .map(|(line, complaint)| format!("src/{path}:{line}: {complaint}"))
        .collect()
}

/// `store/downloads.rs` is `["store", "downloads"]`, `store/mod.rs` is `["store"]`.
fn module_path(path: &str) -> Vec<String> {
    let mut module: Vec<String> = path
        .trim_end_matches(".rs")
        .split(['/', '\\'])
        .map(str::to_owned)
        .collect();
    if module.len() > 1 && module.last().is_some_and(|name| name == "mod") {
        module.pop();
    }
    module
}

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// Why `own` may not import `other`, or `None` if it may.
fn complaint(own: &str, other: &str) -> Option<String> {
    if own == other || other == SHARED {
        return None;
    }
    let own_floor = floor_of(own)?;
    match floor_of(other) {
        Some(floor) if floor < own_floor => None,
        Some(floor) if floor == own_floor => Some(format!(
            "`{own}` imports its sibling `{other}` (both on floor {floor}): siblings meet in the store"
        )),
        Some(floor) => Some(format!(
            "`{own}` (floor {own_floor}) imports `{other}` (floor {floor}): only floors below may be imported"
        )),
        None => Some(format!(
            "`{own}` imports `crate::{other}`, which names no module on the floors: import from the module that owns it"
        )),
    }
}

struct Import {
    line: usize,
    module: String,
}

/// The top-level modules that a file imports; `depth` is how many modules deep the file itself stands.
fn imports(tokens: &[Token], depth: usize) -> Vec<Import> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    let mut braces = 0_usize;
    // The brace depth at which each enclosing `mod name {` was opened: `super` climbs those first.
    let mut inline_modules: Vec<usize> = Vec::new();
    for at in 0..tokens.len() {
        match text(at) {
            "{" => {
                braces += 1;
                if at >= 2 && text(at - 2) == "mod" {
                    inline_modules.push(braces);
                }
            }
            "}" => {
                inline_modules.pop_if(|opened| *opened == braces);
                braces = braces.saturating_sub(1);
            }
            "crate" if text(at + 1) == "::" => {
                path_heads(tokens, at + 2, &mut found);
            }
            "crate" if text(at + 1) == "as" => {
                found.push(Import {
                    line: tokens[at].line,
                    module: "self".to_owned(),
                });
            }
            "super" if at < 2 || text(at - 1) != "::" || text(at - 2) == "self" => {
                let mut climbed = 0;
                while text(at + 2 * climbed) == "super" && text(at + 2 * climbed + 1) == "::" {
                    climbed += 1;
                }
                if climbed == depth + inline_modules.len() {
                    path_heads(tokens, at + 2 * climbed, &mut found);
                }
            }
            _ => {}
        }
    }
    found
}

/// Pushes the first name of the path at `at`, or of each path in the group there; returns where it stopped.
fn path_heads(tokens: &[Token], at: usize, found: &mut Vec<Import>) -> usize {
    let Some(head) = tokens.get(at) else { return at };
    if head.text != "{" {
        found.push(Import {
            line: head.line,
            module: head.text.clone(),
        });
        return at + 1;
    }
    let mut at = at + 1;
    while tokens.get(at).is_some_and(|token| token.text != "}") {
        at = path_heads(tokens, at, found);
        // The rest of this entry, its own groups included, says nothing about the top level.
        let mut nested = 0_usize;
        while let Some(token) = tokens.get(at) {
            match token.text.as_str() {
                "," | "}" if nested == 0 => break,
                "{" => nested += 1,
                "}" => nested -= 1,
                _ => {}
            }
            at += 1;
        }
        if tokens.get(at).is_some_and(|token| token.text == ",") {
            at += 1;
        }
    }
    at + 1
}

struct Token {
    text: String,
    line: usize,
}

/// Identifiers, `::` and single punctuation characters; no comments, no literals.
fn tokens(source: &str) -> Vec<Token> {
    let mut rest = source;
    let mut line = 1;
    let mut found = Vec::new();
    while let Some(first) = rest.chars().next() {
        let length = match rest {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            _ if rest.starts_with("/*") => block_comment_length(rest),
            _ if first == '"' => string_length(rest),
            _ if first == '\'' => quote_length(rest),
            _ if first == '_' || first.is_alphanumeric() => {
                let word = rest
                    .find(|c: char| c != '_' && !c.is_alphanumeric())
                    .unwrap_or(rest.len());
                raw_string_length(rest, word).unwrap_or_else(|| {
                    found.push(Token {
                        text: rest[..word].to_owned(),
                        line,
                    });
                    word
                })
            }
            _ if first.is_whitespace() => first.len_utf8(),
            _ => {
                let length = if rest.starts_with("::") {
                    2
                } else {
                    first.len_utf8()
                };
                found.push(Token {
                    text: rest[..length].to_owned(),
                    line,
                });
                length
            }
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// Rust's block comments nest.
fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

fn string_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// After a `'` stands a character literal or a lifetime; of a lifetime only the quote is taken.
fn quote_length(rest: &str) -> usize {
    let mut following = rest.char_indices().skip(1);
    match (following.next(), following.next()) {
        (Some((_, '\\')), Some((escaped, c))) => {
            let body = escaped + c.len_utf8();
            rest[body..].find('\'').map_or(rest.len(), |end| body + end + 1)
        }
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and `cr"…"`, if `rest` begins with one; `word` is its prefix's length.
fn raw_string_length(rest: &str, word: usize) -> Option<usize> {
    if !matches!(&rest[..word], "r" | "br" | "cr") {
        return None;
    }
    let hashes = rest[word..].chars().take_while(|c| *c == '#').count();
    let body = rest[word + hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let opened = rest.len() - body.len();
    Some(
        body.find(&close)
            .map_or(rest.len(), |end| opened + end + close.len()),
    )
}

/// The checker itself: each rule on the smallest source that shows it.
mod checker {
    use super::violations;

    #[track_caller]
    fn refused(path: &str, source: &str, parts: &[&str]) {
        let found = violations(path, source);
        assert_eq!(found.len(), 1, "one complaint expected, got {found:?}");
        for part in parts {
            assert!(found[0].contains(part), "{part:?} is not in {:?}", found[0]);
        }
    }

    #[track_caller]
    fn allowed(path: &str, source: &str) {
        assert_eq!(violations(path, source), Vec::<String>::new());
    }

    #[test]
    fn an_import_from_below_is_allowed() {
        allowed("cli.rs", "use crate::http;\nuse crate::provider::payload;");
        allowed("ingest/mod.rs", "use crate::store::Store;");
    }

    #[test]
    fn an_import_from_above_is_refused_with_its_line() {
        refused(
            "store/mod.rs",
            "use std::io;\nuse crate::download::Job;",
            &["src/store/mod.rs:2", "floor 1", "floor 2"],
        );
    }

    #[test]
    fn a_sibling_is_refused() {
        refused("download/fetch.rs", "use crate::ingest;", &["sibling `ingest`"]);
        refused("config.rs", "use crate::provider;", &["sibling `provider`"]);
    }

    #[test]
    fn submodules_of_one_module_may_import_each_other() {
        allowed(
            "store/record.rs",
            "use crate::store::downloads; use super::Store;",
        );
    }

    #[test]
    fn clock_may_be_imported_by_its_siblings_but_imports_none() {
        allowed("retry.rs", "use crate::clock::Clock;");
        refused("clock.rs", "use crate::retry;", &["sibling `retry`"]);
    }

    #[test]
    fn an_inline_path_is_an_import() {
        refused("worker.rs", "fn f() { crate::cli::run(); }", &["imports `cli`"]);
        refused(
            "worker.rs",
            "macro_rules! m { () => { $crate::http::x() } }",
            &["imports `http`"],
        );
    }

    #[test]
    fn every_entry_of_a_group_is_an_import() {
        refused(
            "ingest.rs",
            "use crate::{\n    store::{self, downloads::{http, cli}},\n    http::error,\n    clock,\n};",
            &["src/ingest.rs:3", "imports `http`"],
        );
        refused(
            "ingest.rs",
            "use {std::io, crate::{store, {download::x, clock}}};",
            &["`download`"],
        );
    }

    #[test]
    fn super_is_followed_to_the_root() {
        refused("worker.rs", "use super::store;", &["sibling `store`"]);
        refused(
            "store/rows.rs",
            "use super::super::egress;",
            &["sibling `egress`"],
        );
        refused(
            "worker.rs",
            "mod inner { use self::super::super::{store, clock}; }",
            &["sibling `store`"],
        );
        allowed(
            "store/rows.rs",
            "use super::downloads; mod tests { use super::super::ingest; }",
        );
        allowed("worker.rs", "mod a { fn f() {} } mod tests { use super::*; }");
    }

    #[test]
    fn test_modules_are_held_to_the_rule() {
        refused(
            "egress/mod.rs",
            "#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}",
            &[":3", "`store`"],
        );
    }

    #[test]
    fn comments_and_literals_are_not_imports() {
        allowed(
            "retry.rs",
            "//! See [`crate::cli`].\n// use crate::cli;\n/* a /* b */ crate::cli */ fn f() {}",
        );
        allowed(
            "retry.rs",
            r##"const A: &str = "\"crate::cli"; const B: &str = r#"" crate::cli "#;"##,
        );
        allowed(
            "retry.rs",
            r#"const A: &[u8] = br"\"; const B: &[u8] = b"crate::cli";"#,
        );
    }

    #[test]
    fn code_after_awkward_literals_is_still_read() {
        for prefix in [
            "const Q: char = '\"';",
            r"const Q: char = '\'';",
            "fn f<'a>(x: &'a str) {}",
            "let r#type = 1;",
        ] {
            refused(
                "retry.rs",
                &format!("{prefix} use crate::cli;"),
                &["imports `cli`"],
            );
        }
        refused(
            "retry.rs",
            r##"const A: &str = r#"\"#; use crate::cli;"##,
            &["imports `cli`"],
        );
        refused(
            "retry.rs",
            "/* '\" */ const A: &str = \"é\n\"; use crate::cli;",
            &["src/retry.rs:2"],
        );
    }

    #[test]
    fn the_crate_as_a_whole_is_refused() {
        for source in [
            "use crate::*;",
            "use crate::{self};",
            "use crate as ours;",
            "use crate::Reexported;",
        ] {
            refused("cli.rs", source, &["names no module on the floors"]);
        }
        allowed("cli.rs", "pub(crate) fn f() {} pub(in crate::cli) fn g() {}");
    }

    #[test]
    fn an_unknown_module_is_told_where_to_go() {
        refused(
            "utils/mod.rs",
            "",
            &[
                "`utils` is on no floor",
                "FLOORS in tests/layers.rs",
                "src/lib.rs",
            ],
        );
    }

    #[test]
    fn the_roots_are_exempt_but_not_their_namesakes() {
        allowed("lib.rs", "pub use crate::cli::run;");
        allowed("main.rs", "use crate::cli;");
        refused("store/main.rs", "use crate::cli;", &["imports `cli`"]);
    }
}
