//! `cargo xtask bench`: measures, and keeps the tables of docs/SPECIFICATION.md.
//!
//! In: what to measure. Out: a table, and the same as JSON under target/bench; with `--write` it
//! replaces the one between `<!-- bench NAME -->` and `<!-- end NAME -->`. Figures of one table come
//! from one run on one machine: their ratios mean something, the figures themselves are of an
//! emulated processor.

use crate::{counts, image};
use clap::ValueEnum;
use rig::plan::{SERVER, WORK};
use rig::{
    Context as _, Error, FIREWALL, Firewall, Layout, Mode, Options, Result, Way, World, step,
};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::fs;

/// Memory that is promised to be enough, in MiB.
const LEAST_MEMORY: u32 = 16;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Hypercalls, grant operations, signals and bytes copied for a frame, in simulation
    Counts,
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
            Self::Counts => "counts",
            Self::Size => "size",
            Self::Start => "start",
            Self::Traffic => "traffic",
        }
    }
}

/// What was measured, a row each.
pub(crate) struct Table {
    /// Their names, units included.
    pub(crate) columns: Vec<&'static str>,
    /// As many cells as columns in each.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// As Markdown, each row with the command that shows it.
    fn markdown(&self, shown_by: &str) -> String {
        let rule = "---|".repeat(self.columns.len() + 1);
        let mut text = format!("| {} | shown by |\n|{rule}\n", self.columns.join(" | "));
        for row in &self.rows {
            let _ = writeln!(text, "| {} | {shown_by} |", row.join(" | "));
        }
        text
    }

    fn json(&self, shown_by: &str) -> Value {
        let row = |row: &Vec<String>| -> Map<String, Value> {
            let cells = self.columns.iter().zip(row);
            cells.map(|(name, cell)| ((*name).to_owned(), json!(cell))).collect()
        };
        json!({ "shown_by": shown_by, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}

/// Measures one thing.
pub(crate) fn command(layout: &Layout, name: Name, mode: Mode, write: bool) -> Result<()> {
    let (table, shown_by) = match name {
        Name::Counts => (counts::table(layout)?, "`cargo xtask bench counts`".to_owned()),
        Name::Size => (size(layout)?, "`cargo xtask bench size`".to_owned()),
        Name::Start => (start(layout, mode)?, format!("`cargo xtask bench start --mode {mode}`")),
        Name::Traffic => {
            (traffic(layout, mode)?, format!("`cargo xtask bench traffic --mode {mode}`"))
        }
    };
    let markdown = table.markdown(&shown_by);
    println!("{markdown}");
    let directory = layout.target.join("bench");
    let path = directory.join(format!("{}.json", name.word()));
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let json = format!("{:#}\n", table.json(&shown_by));
    fs::write(&path, json).map_err(Error::file(&path))?;
    eprintln!("{}", path.display());
    if write {
        let path = layout.root.join("docs/SPECIFICATION.md");
        let text = fs::read_to_string(&path).map_err(Error::file(&path))?;
        let text = replaced(&text, name.word(), &markdown).context(path.display())?;
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

fn size(layout: &Layout) -> Result<Table> {
    let stripped = image::for_rig(layout)?;
    let bytes = fs::metadata(&stripped).map_err(Error::file(&stripped))?.len();
    let mut table = Table::new(&["image", "KiB"]);
    table.rows.push(vec!["vmlinuz, stripped".into(), format!("{:.1}", bytes as f64 / 1024.0)]);
    Ok(table)
}

fn kinds(layout: &Layout) -> Result<[Firewall; 3]> {
    let tidegate = Firewall::tidegate(image::for_rig(layout)?, LEAST_MEMORY);
    Ok([Firewall::None, Firewall::Linux, tidegate])
}

fn start(layout: &Layout, mode: Mode) -> Result<Table> {
    let [_, linux, tidegate] = kinds(layout)?;
    let mut world = World::boot(layout, tidegate.clone(), mode, &[], Options::default())?;
    let mut table = Table::new(&["firewall", "memory, MiB", "unpause to first forwarded ping, s"]);
    for firewall in [linux, tidegate] {
        let name = firewall.name();
        let took = step(&format!("measure {name}"), || world.first_ping(firewall))?;
        let memory = world.xen.usage_of(FIREWALL)?.memory.to_string();
        table.rows.push(vec![name.into(), memory, format!("{:.2}", took.as_secs_f64())]);
    }
    Ok(table)
}

fn traffic(layout: &Layout, mode: Mode) -> Result<Table> {
    let [none, linux, tidegate] = kinds(layout)?;
    let mut world = World::boot(layout, tidegate.clone(), mode, &[], Options::default())?;
    let mut table = Table::new(&[
        "firewall",
        "TCP up, Mbit/s",
        "TCP down, Mbit/s",
        "CPU s/GB up",
        "CPU s/GB down",
    ]);
    for firewall in [none, linux, tidegate] {
        let name = firewall.name();
        let row = step(&format!("measure {name}"), || {
            world.replace_firewall(firewall, &[WORK])?;
            let (up, up_cost) = rate(&world, Way::Up)?;
            let (down, down_cost) = rate(&world, Way::Down)?;
            Ok(vec![name.into(), format!("{up:.0}"), format!("{down:.0}"), up_cost, down_cost])
        })?;
        table.rows.push(row);
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
