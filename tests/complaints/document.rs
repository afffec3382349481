//! Holds docs/COMPLAINTS.md to its promise: each row names tests that are there or says plainly no, and
//! each test of this program stands in a row.

use crate::tree;
use std::collections::BTreeSet;

const DOCUMENT: &str = "docs/COMPLAINTS.md";

/// Rows about complaints: what users say, what is so here, the tests that show it.
fn rows() -> Vec<Vec<String>> {
    let all = tree::rows(DOCUMENT).into_iter();
    all.filter(|row| row[0] != "complaint" && !row[0].starts_with("---")).collect()
}

/// All that a row may name: tests in Rust and Python, and steps of the stage for packages, which are
/// sentences.
fn tests() -> BTreeSet<String> {
    let mut found = tree::rust_tests(&[
        "nat", "names", "netback", "netfront", "qubes", "rules", "src", "tests", "wire", "xen",
        "host",
    ]);
    found.extend(tree::python_tests("dist/tests"));
    let stage = tree::read("host/xtask/src/stages/packages.rs");
    found.extend(stage.split('"').skip(1).step_by(2).map(str::to_owned));
    found
}

#[test]
fn every_test_that_a_row_names_is_there() {
    let tests = tests();
    for row in rows() {
        assert_eq!(row.len(), 3, "{row:?}");
        for name in tree::quoted(&row[2]) {
            assert!(tests.contains(name), "{name}, named for {}, is no test", row[0]);
        }
    }
}

#[test]
fn every_complaint_has_a_test_or_a_plain_no() {
    let rows = rows();
    assert!(rows.len() > 60, "only {} complaints", rows.len());
    for row in rows {
        let tested = tree::quoted(&row[2]).next().is_some();
        assert!(tested || row[1].starts_with("**no**"), "{}: no test, and no plain no", row[0]);
    }
}

#[test]
fn every_test_of_this_program_stands_in_a_row() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().flat_map(|row| tree::quoted(&row[2])).collect();
    for name in tree::rust_tests(&["tests/complaints"]) {
        let about_the_document = name.starts_with("every_");
        assert!(about_the_document || named.contains(&*name), "{name} answers no complaint");
    }
}
