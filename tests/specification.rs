//! Holds docs/SPECIFICATION.md to its promise: a figure stands there only beside the command that
//! shows it. And a command that any document names can be given.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod tree;

use tree::commands::check;

/// All that tell somebody what to type.
const DOCUMENTS: [&str; 10] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/ARCHITECTURE.md",
    "docs/COMPLAINTS.md",
    "docs/NAT.md",
    "docs/POLICY.md",
    "docs/QUBES.md",
    "docs/SECURITY.md",
    "docs/SPECIFICATION.md",
    "dist/README.md",
];

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
    let text = tree::read("docs/SPECIFICATION.md");
    let rows = rows(&text);
    assert!(!rows.is_empty(), "no table of figures was found");
    for row in rows {
        let command = row.last().unwrap();
        assert!(command.starts_with("`cargo "), "no command stands beside {row:?}");
        assert!(row.iter().all(|cell| !cell.is_empty()), "an empty cell in {row:?}");
    }
}

#[test]
fn every_command_that_a_document_names_can_be_given() {
    let mut wrong = Vec::new();
    for document in DOCUMENTS {
        let text = tree::read(document);
        // In a line of text, or in a block of its own.
        let quoted = text.lines().flat_map(tree::quoted);
        let in_blocks = text.lines().filter(|line| line.starts_with("cargo "));
        let in_blocks = in_blocks.map(|line| line.split('#').next().unwrap_or_default());
        for command in quoted.chain(in_blocks).filter(|text| text.starts_with("cargo ")) {
            if let Err(why) = check(command) {
                wrong.push(format!("{document}: `{command}`: {why}"));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn a_command_that_cannot_be_given_is_found() {
    for (command, why) in [
        ("cargo tset", "no such command of cargo: cargo tset"),
        ("cargo test -p tidegate-nut", "no package tidegate-nut"),
        ("cargo build -p tidegate-nut", "no package tidegate-nut"),
        ("cargo test --tset life", "a flag not known here: --tset"),
        ("cargo test --test live", "no test program live"),
        ("cargo test -p tidegate-nat --test life", "no test program life"),
        ("cargo test --test life uplinx", "no test has \"uplinx\" in its name"),
        ("cargo test --test life zones", "no test has \"zones\" in its name"),
        ("cargo test -p tidegate-rules million", "no test has \"million\" in its name"),
        ("cargo xtask", "xtask does nothing by itself"),
        ("cargo xtask tests", "xtask has no tests"),
        ("cargo xtask demo --only crowd", "demo has no --only"),
        ("cargo xtask rig --only clowns", "rig has no clowns"),
        ("cargo xtask rig --mode pvh --only crowd --only clowns", "rig has no clowns"),
        ("cargo xtask test --only rig", "test has no rig"),
        ("cargo xtask bench", "bench of what?"),
        ("cargo xtask bench speed", "xtask has no speed"),
        ("cargo xtask bench counts --json", "bench has no --json"),
        ("cargo xtask bench nat --profile", "bench has no --profile"),
        ("cargo xtask bench xen --profil", "bench has no --profil"),
    ] {
        let said = check(command).expect_err(command);
        assert!(said.starts_with(why), "{command}: {said}");
    }
}

#[test]
fn digits_stand_in_tables_only() {
    let text = tree::read("docs/SPECIFICATION.md");
    let measured =
        |l: &&str| ["Mbit/s", " ms", " MiB", " KiB", " µs"].iter().any(|u| l.contains(u));
    for line in text.lines().filter(|l| !l.starts_with(['|', '#'])).filter(measured) {
        assert!(!line.chars().any(|c| c.is_ascii_digit()), "a figure outside of a table: {line}");
    }
}
