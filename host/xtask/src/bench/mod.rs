//! `cargo xtask bench`: measures, and keeps the tables of docs/SPECIFICATION.md.
//!
//! In: what to measure. Out: a table, and the same as JSON under target/bench; with `--write` it
//! replaces the one in docs/SPECIFICATION.md.

mod counts;
mod figures;
mod instructions;
mod memory;
mod nat;
mod plot;
mod profile;
mod program;
mod results;
mod rules;
mod symbols;
mod table;
mod xen;

use crate::image;
use clap::Subcommand;
use rig::{Error, Layout, Result};
use std::fs;
use table::Table;

/// What to measure.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Hypercalls, grant operations, signals and bytes copied for a frame, in simulation
    Counts {
        /// Replace the table in docs/SPECIFICATION.md
        #[arg(long)]
        write: bool,
    },
    /// Size of the image on disk
    Size {
        /// Replace the table in docs/SPECIFICATION.md
        #[arg(long)]
        write: bool,
    },
    /// Time and memory of a packet in the firewall alone, by number of flows
    Nat(nat::Nat),
    /// Rates of the kernel's copies, fills and sums, beside libc's
    Memory(memory::Memory),
    /// Time to read, study and prepare rules, and of a new flow, by their number; nft beside it
    Rules(rules::Rules),
    /// Rates, latency, CPU time, memory and start on a real Xen, beside Linux and no firewall
    Xen(xen::Xen),
}

/// Measures one thing.
pub(crate) fn command(layout: &Layout, bench: Bench) -> Result<()> {
    match bench {
        Bench::Counts { write } => small(layout, "counts", &counts::table(layout)?, write),
        Bench::Size { write } => small(layout, "size", &size(layout)?, write),
        Bench::Nat(nat) => nat.run(layout),
        Bench::Memory(memory) => memory.run(layout),
        Bench::Rules(rules) => rules.run(layout),
        Bench::Xen(xen) => xen.run(layout),
    }
}

fn small(layout: &Layout, name: &str, table: &Table, write: bool) -> Result<()> {
    let text = table.save(layout, name, &format!("cargo xtask bench {name}"))?;
    println!("{text}");
    if write { table::specify(layout, name, &text) } else { Ok(()) }
}

fn size(layout: &Layout) -> Result<Table> {
    let stripped = image::for_rig(layout)?;
    let bytes = fs::metadata(&stripped).map_err(Error::file(&stripped))?.len();
    let mut table = Table::new(&["image", "KiB"]);
    table.rows.push(vec!["vmlinuz, stripped".into(), format!("{:.1}", bytes as f64 / 1024.0)]);
    Ok(table)
}
