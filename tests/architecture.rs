//! Holds the tree to docs/ARCHITECTURE.md: the rooms are there, use only what their row allows, keep
//! `unsafe` where it says, and every file opens by saying what it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// One row of the table of rooms.
struct Room {
    dirs: Vec<String>,
    may_use: String,
    unsafe_in: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The words in backquotes in `cell`.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(|s| s.trim_end_matches('/').to_owned()).collect()
}

fn rooms() -> Vec<Room> {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|l| !l.starts_with("| room |")).skip(2);
    rows.take_while(|l| l.starts_with('|'))
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            Room {
                dirs: quoted(cells[0]),
                may_use: cells[2].to_owned(),
                unsafe_in: quoted(cells[3]),
            }
        })
        .collect()
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    if dir.extension().is_some_and(|e| e == "rs") {
        into.push(dir.to_owned());
    }
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    rust_files(&root(), &mut files);
    files.sort();
    files
}

/// Our crates that `[dependencies]` of a manifest names.
fn uses(manifest: &Path, ours: &BTreeSet<&str>) -> BTreeSet<String> {
    let text = fs::read_to_string(manifest).unwrap();
    text.lines()
        .skip_while(|l| *l != "[dependencies]")
        .skip(1)
        .take_while(|l| !l.starts_with('['))
        .filter_map(|l| l.split(['.', ' ', '=']).next())
        .filter(|name| ours.contains(name))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_room_stands_in_the_tree() {
    for room in rooms() {
        for dir in &room.dirs {
            assert!(root().join(dir).exists(), "{dir} is in the drawing and not in the tree");
        }
    }
    assert!(rooms().len() > 10, "the table of rooms could not be read");
}

#[test]
fn crates_depend_only_on_what_their_row_allows() {
    let crates = BTreeMap::from([
        ("wire", "wire"),
        ("xen", "xen"),
        ("netfront", "netfront"),
        ("netback", "netback"),
        ("nat", "nat"),
        ("names", "names"),
        ("rules", "rules"),
        ("lang", "rules/lang"),
        ("qubes", "qubes"),
        ("daemons", "host/daemons"),
        ("rig", "host/rig"),
        ("hosted", "host/hosted"),
        ("image", "host/image"),
    ]);
    let ours: BTreeSet<&str> = crates.keys().copied().collect();
    for dir in crates.values().chain(&["host/cli", "host/agent", "host/xtask"]) {
        let room = rooms()
            .into_iter()
            .find(|r| r.dirs.iter().any(|d| d == dir))
            .unwrap_or_else(|| panic!("{dir} has no row in the table of rooms"));
        let allowed: BTreeSet<String> =
            room.may_use.split(',').map(|s| s.trim().to_owned()).collect();
        for used in uses(&root().join(dir).join("Cargo.toml"), &ours) {
            assert!(allowed.contains(&used), "{dir} uses {used}, its row allows {allowed:?}");
        }
    }
}

#[test]
fn the_engine_knows_nothing_of_xen_and_the_appliance_nothing_of_hypercalls() {
    let forbidden = [
        ("src/firewall", vec!["xen::", "netfront::", "netback::", "crate::appliance"]),
        ("src/config", vec!["xen::", "netfront::", "netback::", "crate::appliance"]),
        ("src/appliance", vec!["xen::raw", "crate::boot"]),
        ("netfront", vec!["xen::raw", "netback::"]),
        ("netback", vec!["xen::raw", "netfront::"]),
    ];
    for (dir, words) in forbidden {
        let mut files = Vec::new();
        rust_files(&root().join(dir), &mut files);
        assert!(!files.is_empty(), "{dir} is empty");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.lines().filter(|l| !l.trim_start().starts_with("//"));
            for line in code {
                for word in &words {
                    assert!(!line.contains(word), "{}: {line}", file.display());
                }
            }
        }
    }
}

#[test]
fn unsafe_stands_only_where_the_table_allows_it() {
    let allowed: Vec<PathBuf> =
        rooms().iter().flat_map(|r| &r.unsafe_in).map(|d| root().join(d)).collect();
    let tests = ["tests", "benches"];
    for file in all_files() {
        let parts: Vec<_> = file.components().map(|c| c.as_os_str().to_str().unwrap()).collect();
        let is_test = parts.iter().any(|p| tests.contains(p));
        if is_test || allowed.iter().any(|d| file.starts_with(d)) {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for line in text.lines().map(str::trim_start).filter(|l| !l.starts_with("//")) {
            let word = line.contains("unsafe {")
                || line.starts_with("unsafe ")
                || line.contains("#[unsafe(")
                || line.contains("allow(unsafe_code");
            assert!(!word, "{}: {line}", file.display());
        }
    }
}

#[test]
fn every_file_opens_with_what_it_is() {
    for file in all_files() {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
    }
}

#[test]
fn packages_of_others_serve_where_the_table_says() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|l| !l.starts_with("| package |")).skip(2);
    let rows: Vec<&str> = rows.take_while(|l| l.starts_with('|')).collect();
    assert!(rows.len() > 6, "{rows:?}");
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        let package = quoted(cells[0]).concat().replace('-', "_");
        for place in quoted(cells[1]) {
            let mut files = Vec::new();
            rust_files(&root().join(&place), &mut files);
            let word = [format!("{package}::"), format!("use {package} ")];
            let serves = |file| {
                let text = fs::read_to_string(file).unwrap();
                word.iter().any(|word| text.contains(word))
            };
            assert!(files.iter().any(serves), "{package} does not serve in {place}");
        }
    }
}
