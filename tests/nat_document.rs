//! Holds docs/NAT.md to its promise: every requirement has a row, every test that a row names is
//! there, and what has none stands with its reason in docs/SECURITY.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The names of all functions in the Rust files below `dir` that follow `#[test]`.
fn tests_in(dir: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            tests_in(&path, into);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (_, after) in
                text.match_indices("#[test]").map(|(at, s)| (at, &text[at + s.len()..]))
            {
                let name = after.split_once("fn ").unwrap().1.split('(').next().unwrap();
                into.insert(name.to_owned());
            }
        }
    }
}

fn rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/NAT.md")).unwrap();
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    text.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let mut tests = BTreeSet::new();
    for dir in ["nat", "wire", "tests", "src"] {
        tests_in(&root().join(dir), &mut tests);
    }
    let mut named = 0;
    for row in rows() {
        for name in row.last().unwrap().split('`').skip(1).step_by(2) {
            assert!(tests.contains(name), "{name}, named for {}, is no test", row[0]);
            named += 1;
        }
    }
    assert!(named > 80, "only {named} tests were found in the tables");
}

#[test]
fn every_requirement_has_a_row_and_a_test_or_a_reason() {
    let reasons = fs::read_to_string(root().join("docs/SECURITY.md")).unwrap();
    let rows = rows();
    // 29 was never given away.
    for n in (1..=28).chain(30..=46) {
        let number = format!("N-{n:02}");
        let row = rows.iter().find(|row| row[0] == number).unwrap_or_else(|| panic!("no {number}"));
        let tested = row.last().unwrap().contains('`');
        assert!(tested || reasons.contains(&number), "{number} has no test and no reason");
    }
}
