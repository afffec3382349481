//! `cargo xtask bench counts`: the exact integers that tests/counts.rs asserts.
//!
//! In: the lines that test prints. Out: a table. Never: a figure the test has not checked. That the
//! specification says the same is not asked here, where it may be about to be written.

use super::table::Table;
use rig::{Context as _, Error, Layout, Result, run, step};
use serde::Deserialize;
use std::process::Command;

/// What some frames cost together.
#[derive(Deserialize)]
struct Count {
    what: String,
    frame_bytes: u64,
    frames: u64,
    hypercalls: u64,
    copy_ops: u64,
    copied_bytes: u64,
    moved_bytes: u64,
    grants: u64,
    notifies: u64,
}

/// Runs the test and reads what it printed.
pub(crate) fn table(layout: &Layout) -> Result<Table> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["test", "--quiet", "--package", "tidegate"]);
    cargo.args(["--test", "counts", "--", "--nocapture", "--test-threads=1"]);
    cargo.args(["--skip", "the_specification_says"]);
    let said = step("count", || run(&mut cargo))?;
    let mut counts = said
        .lines()
        .filter_map(|line| line.split_once("COUNT "))
        .map(|(_, json)| serde_json::from_str::<Count>(json).context(json))
        .collect::<Result<Vec<_>>>()?;
    if counts.is_empty() {
        return Err(Error::new("the test printed no counts"));
    }
    counts.sort_by(|a, b| a.what.cmp(&b.what));
    let mut table = Table::new(&[
        "frames",
        "bytes of each",
        "hypercalls",
        "of these signals",
        "grant-copy operations",
        "grants",
        "bytes copied by Xen",
        "bytes moved",
    ]);
    table.rows = counts.iter().map(Count::row).collect();
    Ok(table)
}

impl Count {
    fn row(&self) -> Vec<String> {
        let sum = |n: u64| n.to_string();
        vec![
            format!("{} ({})", self.what, self.frames),
            sum(self.frame_bytes),
            sum(self.hypercalls),
            sum(self.notifies),
            sum(self.copy_ops),
            sum(self.grants),
            sum(self.copied_bytes),
            sum(self.moved_bytes),
        ]
    }
}
