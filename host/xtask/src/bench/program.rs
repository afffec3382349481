//! The programs in benches/, built as the kernel is.
//!
//! In: a program's name, and words for it. Out: the rows it prints, each a line of JSON. Never: passes
//! over a line that it cannot read.

use rig::{Context as _, Layout, Result, run, step};
use serde::de::DeserializeOwned;
use std::process::Command;

/// The command that builds a program and runs it.
pub(super) fn command(layout: &Layout, name: &str) -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(&layout.root).args(["bench", "--quiet", "--package", "tidegate"]);
    cargo.args(["--profile", "kernel", "--bench", name]);
    cargo
}

/// Runs a program with these words, and says meanwhile that it does `what`.
pub(super) fn rows<T: DeserializeOwned>(
    layout: &Layout,
    what: &str,
    name: &str,
    words: &[String],
) -> Result<Vec<T>> {
    let said = step(what, || run(command(layout, name).arg("--").args(words)))?;
    said.lines().map(|line| serde_json::from_str(line).context(line)).collect()
}
