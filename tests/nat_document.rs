//! Holds docs/NAT.md to its promise: every requirement has a row, every test that a row names is
//! there, and what has none stands with its reason in docs/SECURITY.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod tree;

const DOCUMENT: &str = "docs/NAT.md";

#[test]
fn every_test_that_a_row_names_is_there() {
    let tests = tree::rust_tests(&["nat", "wire", "tests", "src"]);
    let mut named = 0;
    for row in tree::rows(DOCUMENT) {
        for name in tree::quoted(row.last().unwrap()) {
            assert!(tests.contains(name), "{name}, named for {}, is no test", row[0]);
            named += 1;
        }
    }
    assert!(named > 80, "only {named} tests were found in the tables");
}

#[test]
fn every_requirement_has_a_row_and_a_test_or_a_reason() {
    let reasons = tree::read("docs/SECURITY.md");
    let rows = tree::rows(DOCUMENT);
    // 29 was never given away.
    for n in (1..=28).chain(30..=46) {
        let number = format!("N-{n:02}");
        let row = rows.iter().find(|row| row[0] == number).unwrap_or_else(|| panic!("no {number}"));
        let tested = row.last().unwrap().contains('`');
        assert!(tested || reasons.contains(&number), "{number} has no test and no reason");
    }
}
