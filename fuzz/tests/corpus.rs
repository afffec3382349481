//! Runs every target over its corpus and over all that was ever found, without cargo-fuzz.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use fuzz::{TARGETS, Target};
use std::fs;
use std::path::PathBuf;

/// Runs a target over the files in a folder; says how many there were.
fn run(folder: &str, Target { name, run }: Target) -> usize {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
    let Ok(entries) = fs::read_dir(&folder) else { return 0 };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in &files {
        // If one panics, this is the last that is named.
        println!("{}", file.display());
        run(&fs::read(file).unwrap());
    }
    files.len()
}

#[test]
fn every_corpus_passes_and_none_is_empty() {
    for target in TARGETS {
        assert!(run("corpus", target) > 0, "no corpus for {}", target.name);
    }
}

#[test]
fn what_was_found_once_is_not_found_again() {
    for target in TARGETS {
        run("regressions", target);
    }
}

#[test]
fn every_target_takes_no_bytes_at_all() {
    for target in TARGETS {
        (target.run)(&[]);
    }
}
