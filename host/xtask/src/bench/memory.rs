//! `cargo xtask bench memory`: how fast the kernel's own copies, fills and sums are on this machine.
//!
//! In: the lines that benches/memory prints. Out: a table, and the same as JSON under target/bench.
//! Never: the emulated processor, on which `rep` is slow and the rest not what it is here.

use super::program;
use super::table::{self, Table};
use clap::Args;
use rig::{Layout, Result};
use serde::Deserialize;

/// Columns of the table.
const COLUMNS: [&str; 8] = [
    "bytes",
    "copy",
    "copy, loops alone",
    "copy, rep alone",
    "copy, libc",
    "fill",
    "fill, libc",
    "sum",
];

/// What is asked for.
#[derive(Args)]
pub(crate) struct Memory {
    /// Replace the table in docs/SPECIFICATION.md
    #[arg(long)]
    write: bool,
}

/// Bytes a nanosecond; names as benches/memory prints them.
#[derive(Deserialize)]
struct Rates {
    bytes: u32,
    copy: f64,
    copy_loops: f64,
    copy_rep: f64,
    copy_libc: f64,
    fill: f64,
    fill_libc: f64,
    sum: f64,
}

impl Memory {
    /// Builds with the kernel's profile, measures, reports.
    pub(crate) fn run(&self, layout: &Layout) -> Result<()> {
        let rates: Vec<Rates> = program::rows(layout, "measure copies and sums", "memory", &[])?;
        let mut table = Table::new(&COLUMNS);
        table.rows = rates.iter().map(Rates::row).collect();
        let text = table.save(layout, "memory", "cargo xtask bench memory")?;
        println!("{text}");
        if self.write { table::specify(layout, "memory", &text) } else { Ok(()) }
    }
}

impl Rates {
    fn row(&self) -> Vec<String> {
        let Self { copy, copy_loops, copy_rep, copy_libc, fill, fill_libc, sum, .. } = *self;
        let rates = [copy, copy_loops, copy_rep, copy_libc, fill, fill_libc, sum];
        let rates = rates.map(|rate| format!("{rate:.1}"));
        std::iter::once(self.bytes.to_string()).chain(rates).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_cell_for_each_column() {
        let line = r#"{"bytes":64,"copy":1,"copy_loops":2,"copy_rep":3,"copy_libc":4,"fill":5,
            "fill_libc":6,"sum":7}"#;
        let row = serde_json::from_str::<Rates>(line).unwrap().row();
        assert_eq!(row, ["64", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0"]);
        assert_eq!(row.len(), COLUMNS.len());
    }
}
