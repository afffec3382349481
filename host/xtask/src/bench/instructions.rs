//! How many instructions a packet takes in the firewall, compared with what it took before.
//!
//! In: benches/nat as the kernel is built, run by callgrind, and benches/nat/instructions.json. Out: a
//! table; an error if anything takes 3 % more than the file says. Never: a new file without being told
//! to write one: a change of it is for whoever reads the commit.

use super::program;
use super::table::{self, Table};
use crate::provide::provide;
use rig::{Context as _, Error, Layout, Result, run, step};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE: &str = "benches/nat/instructions.json";

/// What is counted: the word of benches/nat, what it calls what is measured, and a name for people.
const WORKS: [(&str, &str, &str); 5] = [
    ("hit", "nat::town::batch*", "hit, the short way"),
    ("long", "nat::town::batch*", "hit, the long way"),
    ("miss", "nat::town::batch*", "miss"),
    ("new", "nat::town::batch*", "new"),
    ("expire", "nat::tick*", "expire"),
];

const FAMILIES: [&str; 2] = ["v4", "v6"];

/// More than this many times as many as before is too many.
const WORSE: f64 = 1.03;

/// Instructions of a packet, or of a flow that ends, by word and family.
type Counts = BTreeMap<String, u64>;

/// Counts, and compares or writes what was counted.
pub(crate) fn measure(layout: &Layout, write: bool) -> Result<()> {
    provide(&[("valgrind", "valgrind")])?;
    let bench = step("build the bench", || built(layout))?;
    let counts = step("count instructions", || counted(layout, &bench))?;
    let mut table = Table::new(&["instructions a packet", FAMILIES[0], FAMILIES[1]]);
    table.rows = WORKS.iter().map(|(word, _, name)| row(&counts, word, name)).collect();
    let text = table.save(layout, "nat-instructions", "cargo xtask bench nat --instructions")?;
    println!("{text}");
    let path = layout.root.join(FILE);
    if write {
        let json = serde_json::to_string_pretty(&counts).context(FILE)?;
        fs::write(&path, format!("{json}\n")).map_err(Error::file(&path))?;
        return table::specify(layout, "nat-instructions", &text);
    }
    let before = fs::read_to_string(&path).map_err(Error::file(&path))?;
    let before: Counts = serde_json::from_str(&before).context(FILE)?;
    match worse(&before, &counts).as_slice() {
        [] => Ok(()),
        worse => Err(Error::new(format!(
            "more instructions than {FILE} says:\n{}\nIf that is worth it, write the file anew with \
             --write, and the reason into the commit",
            worse.join("\n")
        ))),
    }
}

fn row(counts: &Counts, word: &str, name: &str) -> Vec<String> {
    let count = |family| counts.get(&key(word, family)).map(u64::to_string).unwrap_or_default();
    std::iter::once(name.to_owned()).chain(FAMILIES.map(count)).collect()
}

fn key(word: &str, family: &str) -> String {
    format!("{word} {family}")
}

/// What takes more than it may, or was not counted.
fn worse(before: &Counts, now: &Counts) -> Vec<String> {
    let too_many = |(name, before): (&String, &u64)| match now.get(name) {
        Some(now) if *now as f64 <= *before as f64 * WORSE => None,
        Some(now) => Some(format!("{name}: {now}, {before} before")),
        None => Some(format!("{name}: not counted, {before} before")),
    };
    before.iter().filter_map(too_many).collect()
}

/// Builds benches/nat and says where it is.
fn built(layout: &Layout) -> Result<PathBuf> {
    let mut cargo = program::command(layout, "nat");
    let said = run(cargo.args(["--no-run", "--message-format", "json"]))?;
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut paths =
        messages.filter_map(|message| Some(message.get("executable")?.as_str()?.into()));
    paths.next().ok_or_else(|| Error::new("cargo names no executable of benches/nat"))
}

/// What benches/nat says of a kind of packets.
#[derive(Deserialize)]
struct Cost {
    work: String,
    packets: u64,
}

fn counted(layout: &Layout, bench: &Path) -> Result<Counts> {
    let directory = layout.target.join("bench");
    fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
    let profile = directory.join("callgrind.nat");
    let mut counts = Counts::new();
    for (word, function, _) in WORKS {
        for family in FAMILIES {
            let mut valgrind = Command::new("valgrind");
            valgrind.args(["--quiet", "--tool=callgrind"]);
            valgrind.arg(format!("--toggle-collect={function}"));
            valgrind.arg(format!("--callgrind-out-file={}", profile.display()));
            valgrind.arg(bench).args(["64", family, word, "short"]);
            let said = run(&mut valgrind)?;
            let costs = said.lines().filter_map(|line| serde_json::from_str::<Cost>(line).ok());
            let packets = costs.filter(|cost| cost.work == word).map(|cost| cost.packets).next();
            let profile = fs::read_to_string(&profile).map_err(Error::file(&profile))?;
            let each = total(&profile).zip(packets).and_then(|(all, n)| all.checked_div(n));
            let each = each.filter(|each| *each > 0);
            let missing = || Error::new(format!("callgrind counted nothing of {word} {family}"));
            counts.insert(key(word, family), each.ok_or_else(missing)?);
        }
    }
    Ok(counts)
}

/// All that was counted, of what callgrind writes.
fn total(profile: &str) -> Option<u64> {
    profile.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_in_a_hundred_more_are_too_many_and_so_is_what_is_missing() {
        let counts = |hit, miss| Counts::from([(key("hit", "v4"), hit), (key("miss", "v4"), miss)]);
        assert!(worse(&counts(1000, 500), &counts(1030, 20)).is_empty());
        assert_eq!(worse(&counts(1000, 500), &counts(1031, 500)), ["hit v4: 1031, 1000 before"]);
        let missing = worse(&counts(1000, 500), &Counts::from([(key("hit", "v4"), 1)]));
        assert_eq!(missing, ["miss v4: not counted, 500 before"]);
    }

    #[test]
    fn the_total_is_what_callgrind_says_last() {
        assert_eq!(total("version: 1\nsummary: 7\nfn=(1) x\n1 2\n\ntotals: 4982\n"), Some(4982));
        assert_eq!(total("version: 1\n"), None);
    }
}
