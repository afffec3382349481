//! What stands in the tree of the project, for tests that hold documents to it: tables, and names of tests.
#![allow(unreachable_pub, dead_code, reason = "each test program uses its own part")]

pub mod commands;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The project's folder.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file below it.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The names of all functions in the Rust files below these folders that follow `#[test]`.
pub fn rust_tests(dirs: &[&str]) -> BTreeSet<String> {
    let mut files = Vec::new();
    dirs.iter().for_each(|dir| rust_files(&root().join(dir), &mut files));
    files.iter().flat_map(|file| tests_of(file)).collect()
}

/// All Rust files below a folder, but what was built.
pub fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, into);
        } else if name.ends_with(".rs") {
            into.push(path);
        }
    }
}

/// The names of all functions in a Rust file that follow `#[test]`.
pub fn tests_of(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let after = text.match_indices("#[test]").map(|(at, s)| &text[at + s.len()..]);
    let name =
        |after: &str| after.split_once("fn ").unwrap().1.split('(').next().unwrap().to_owned();
    after.map(name).collect()
}

/// The names of the tests in the Python files of a folder.
pub fn python_tests(dir: &str) -> BTreeSet<String> {
    let files = fs::read_dir(root().join(dir)).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.extension().is_some_and(|ending| ending == "py"));
    let texts: String = texts.map(|path| fs::read_to_string(path).unwrap()).collect();
    let names = texts.split("def ").skip(1).filter_map(|after| after.split_once('('));
    names.map(|(name, _)| name.to_owned()).filter(|name| name.starts_with("test_")).collect()
}

/// The cells of all rows of all tables of a document, headers as well.
pub fn rows(document: &str) -> Vec<Vec<String>> {
    let cells =
        |line: &str| line.trim_matches('|').split('|').map(|c| c.trim().to_owned()).collect();
    read(document).lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// What stands in backquotes in a cell.
pub fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}
