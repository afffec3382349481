//! `cargo xtask bench`: measures, and keeps the tables of docs/SPECIFICATION.md.
//!
//! In: what to measure. Out: a table; with `--write` it replaces the one between
//! `<!-- bench NAME -->` and `<!-- end NAME -->`. Figures of one table come from one run on one
//! machine: their ratios mean something, the figures themselves are of an emulated processor.

use crate::image;
use clap::ValueEnum;
use rig::plan::{SERVER, WORK};
use rig::{
    Context as _, Error, FIREWALL, Firewall, Layout, Mode, Options, Result, Way, World, step,
};
use std::fmt::Write as _;
use std::fs;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Size of the image on disk
    Size,
    /// From `xl unpause` to the first forwarded ping, beside a Linux firewall
    Start,
    /// TCP rates and CPU time, beside a Linux firewall and no firewall at all
    Traffic,
}

impl Name {
    fn word(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Start => "start",
            Self::Traffic => "traffic",
        }
    }
}

/// Measures one thing.
pub(crate) fn command(layout: &Layout, name: Name, mode: Mode, write: bool) -> Result<()> {
    let shown_by = format!("`cargo xtask bench {} --mode {mode}`", name.word());
    let table = match name {
        Name::Size => size(layout, &shown_by)?,
        Name::Start => start(layout, mode, &shown_by)?,
        Name::Traffic => traffic(layout, mode, &shown_by)?,
    };
    println!("{table}");
    if write {
        let path = layout.root.join("docs/SPECIFICATION.md");
        let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        let text = replaced(&text, name.word(), &table).context(path.display())?;
        fs::write(&path, text).map_err(Error::file(&path))?;
        eprintln!("written to {}", path.display());
    }
    Ok(())
}

/// The text with a new table between the two marks.
fn replaced(text: &str, name: &str, table: &str) -> Result<String> {
    let (first, last) = (format!("<!-- bench {name} -->\n"), format!("<!-- end {name} -->"));
    let missing = || Error::new(format!("no `{}` … `{last}`", first.trim_end()));
    let (before, rest) = text.split_once(&first).ok_or_else(missing)?;
    let (_, after) = rest.split_once(&last).ok_or_else(missing)?;
    Ok(format!("{before}{first}{table}{last}{after}"))
}

fn size(layout: &Layout, shown_by: &str) -> Result<String> {
    let stripped = image::for_rig(layout)?;
    let bytes = fs::metadata(&stripped).map_err(Error::file(&stripped))?.len();
    let mut table = header(&["image", "KiB"]);
    let _ = writeln!(table, "| vmlinuz, stripped | {:.1} | {shown_by} |", bytes as f64 / 1024.0);
    Ok(table)
}

fn kinds(layout: &Layout) -> Result<[Firewall; 3]> {
    Ok([Firewall::None, Firewall::Linux, Firewall::tidegate(image::for_rig(layout)?, 32)])
}

fn start(layout: &Layout, mode: Mode, shown_by: &str) -> Result<String> {
    let [_, linux, tidegate] = kinds(layout)?;
    let mut world = World::boot(layout, tidegate.clone(), mode, &[], Options::default())?;
    let mut table = header(&["firewall", "unpause to first forwarded ping, s"]);
    for firewall in [linux, tidegate] {
        let name = firewall.name();
        let took = step(&format!("measure {name}"), || world.first_ping(firewall))?;
        let _ = writeln!(table, "| {name} | {:.2} | {shown_by} |", took.as_secs_f64());
    }
    Ok(table)
}

fn traffic(layout: &Layout, mode: Mode, shown_by: &str) -> Result<String> {
    let [none, linux, tidegate] = kinds(layout)?;
    let mut world = World::boot(layout, tidegate.clone(), mode, &[], Options::default())?;
    let columns =
        ["firewall", "TCP up, Mbit/s", "TCP down, Mbit/s", "CPU s/GB up", "CPU s/GB down"];
    let mut table = header(&columns);
    for firewall in [none, linux, tidegate] {
        let name = firewall.name();
        let row = step(&format!("measure {name}"), || {
            world.replace_firewall(firewall, &[WORK])?;
            let (up, up_cost) = rate(&world, Way::Up)?;
            let (down, down_cost) = rate(&world, Way::Down)?;
            Ok(format!("{up:.0} | {down:.0} | {up_cost} | {down_cost}"))
        })?;
        let _ = writeln!(table, "| {name} | {row} | {shown_by} |");
    }
    Ok(table)
}

/// Mbit/s at the receiver, and the firewall's CPU seconds per gigabyte.
fn rate(world: &World, way: Way) -> Result<(f64, String)> {
    const SECONDS: u32 = 10;
    let guarded = !matches!(world.firewall, Firewall::None);
    let used = || -> Result<f64> {
        if guarded { Ok(world.xen.usage_of(FIREWALL)?.cpu_seconds) } else { Ok(0.0) }
    };
    let before = used()?;
    let bits = world.client(WORK)?.iperf(SERVER, way, SECONDS)?;
    let gigabytes = bits * f64::from(SECONDS) / 8e9;
    let cost = (used()? - before) / gigabytes;
    Ok((bits / 1e6, if guarded { format!("{cost:.1}") } else { "-".to_owned() }))
}

fn header(columns: &[&str]) -> String {
    let rule = "---|".repeat(columns.len() + 1);
    format!("| {} | shown by |\n|{rule}\n", columns.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_between_its_marks_only() {
        let text = "a\n<!-- bench size -->\nold\n<!-- end size -->\nb\n";
        let new = replaced(text, "size", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- bench size -->\nnew\n<!-- end size -->\nb\n");
        assert!(replaced("nothing here", "size", "new").is_err());
    }
}
