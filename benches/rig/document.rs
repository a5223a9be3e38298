//! `docs/performance.md`: one block for each benchmark, so that a run renews its own and leaves the others.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The blocks, in the order in which they stand.
const BLOCKS: [&str; 4] = ["ingest", "downloads", "reconcile", "pages"];

/// Where the document and its plots are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs")
}

/// Puts `text` in the place of the block `name`.
pub(crate) fn renew(name: &str, text: &str) -> anyhow::Result<()> {
    let path = directory().join("performance.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    fs::write(path, with_block(&old, name, text)).context("docs/performance.md cannot be written")
}

fn with_block(old: &str, name: &str, text: &str) -> String {
    let blocks = BLOCKS.iter().filter_map(|&block| {
        let inner = if block == name {
            Some(text)
        } else {
            block_of(old, block)
        };
        let (begin, end) = markers(block);
        Some(format!("{begin}\n\n{}\n\n{end}\n", inner?.trim()))
    });
    format!("# Performance\n\n{}", blocks.collect::<Vec<_>>().join("\n"))
}

fn block_of<'a>(document: &'a str, name: &str) -> Option<&'a str> {
    let (begin, end) = markers(name);
    let (_, rest) = document.split_once(&begin)?;
    Some(rest.split_once(&end)?.0)
}

fn markers(name: &str) -> (String, String) {
    let marker = |edge| format!("<!-- {name}: {edge} -->");
    (marker("begin"), marker("end"))
}
