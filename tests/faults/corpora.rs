//! Replays the corpora of the fuzz targets, and puts the documented bodies through the same checks.

use std::fs;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/checks.rs"]
#[expect(
    unreachable_pub,
    reason = "a library as seen from `fuzz`, where this is its root"
)]
mod checks;

/// What a target does with an input.
type Check = fn(&[u8]);

const TARGETS: [(&str, Check); 6] = [
    ("payload", checks::payload),
    ("signature", checks::signature),
    ("config", checks::config),
    ("names", checks::names),
    ("gzip", checks::gzip),
    ("media", checks::media),
];

#[test]
fn every_input_of_the_corpora_passes_its_check() {
    for (target, check) in TARGETS {
        let inputs = files(&format!("fuzz/corpus/{target}"));
        assert!(inputs.len() >= 4, "the corpus of {target} is gone");
        for input in inputs {
            // Shown if what follows fails.
            println!("{}", input.display());
            check(&fs::read(input).unwrap());
        }
    }
    for body in files("tests/fixtures/callbacks") {
        println!("{}", body.display());
        checks::payload(&fs::read(body).unwrap());
    }
}

#[test]
fn every_fuzz_target_is_replayed() {
    let mut targets: Vec<String> = files("fuzz/fuzz_targets")
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut replayed = TARGETS.map(|(target, _)| target);
    targets.sort();
    replayed.sort_unstable();
    assert_eq!(targets, replayed);
}

fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}
