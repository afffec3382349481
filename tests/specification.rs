//! Holds docs/SPECIFICATION.md to its promise: a figure stands there only beside the command that
//! shows it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::Path;

/// Rows of all tables whose header ends in `shown by`.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let mut rows = Vec::new();
    let mut in_table = false;
    for line in text.lines() {
        let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        if !line.starts_with('|') {
            in_table = false;
        } else if cells.last() == Some(&"shown by") {
            in_table = true;
        } else if in_table && !cells[0].starts_with("---") {
            rows.push(cells);
        }
    }
    rows
}

#[test]
fn every_figure_names_the_command_that_shows_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SPECIFICATION.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = rows(&text);
    assert!(!rows.is_empty(), "no table of figures was found");
    for row in rows {
        let command = row.last().unwrap();
        assert!(command.starts_with("`cargo "), "no command stands beside {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "an empty cell in {row:?}");
    }
}

#[test]
fn digits_stand_in_tables_only() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SPECIFICATION.md");
    let text = fs::read_to_string(path).unwrap();
    let measured =
        |l: &&str| ["Mbit/s", " ms", " MiB", " KiB", " µs"].iter().any(|u| l.contains(u));
    for line in text.lines().filter(|l| !l.starts_with(['|', '#'])).filter(measured) {
        assert!(!line.chars().any(|c| c.is_ascii_digit()), "a figure outside of a table: {line}");
    }
}
