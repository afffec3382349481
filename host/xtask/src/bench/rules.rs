//! `cargo xtask bench rules`: what rules cost, on this machine.
//!
//! In: the lines that benches/rules prints; where `nft` and a network namespace are to be had, the time
//! that the same rules take there. Out: a table, the same as JSON, and a plot of what a new flow costs
//! against the number of rules, under target/bench. Never: nft's rules outside a namespace of their own.

use super::program;
use super::table::{self, Table};
use clap::Args;
use plotters::prelude::*;
use rig::{Context as _, Error, Layout, Result, run, step};
use serde::Deserialize;
use std::fs;
use std::process::Command;

const SHOWN_BY: &str = "cargo xtask bench rules";

/// Columns of the table.
const COLUMNS: [&str; 10] = [
    "rules",
    "parse and compile, ms",
    "study, ms",
    "build an image, ms",
    "prepare, ms",
    "policy, KiB",
    "index, KiB",
    "match, ns",
    "new flow, ns",
    "nft, ns: none, plain, set",
];

/// More plain rules take nft minutes.
const NFT_MOST: u32 = 10_000;

/// Rules that datagrams are put to in a round: the more rules, the fewer datagrams.
const NFT_ASKED: u32 = 2_000_000;

/// What is asked for.
#[derive(Args)]
pub(crate) struct Rules {
    /// Replace the table in docs/SPECIFICATION.md
    #[arg(long)]
    write: bool,
    /// Only these numbers of rules
    #[arg(value_name = "RULES", conflicts_with = "write")]
    only: Vec<u32>,
}

/// What so many rules cost; names as benches/rules prints them.
#[derive(Clone, Deserialize)]
struct Cost {
    rules: u32,
    compile_ms: f64,
    check_ms: Option<f64>,
    build_ms: f64,
    settle_ms: f64,
    blob_bytes: u64,
    index_bytes: u64,
    match_nanos: f64,
    new_nanos: f64,
    /// Of a datagram that is sent: without rules, with one rule each, with a set; `None` where nft
    /// does not take them.
    #[serde(default)]
    nft: Option<[Option<f64>; 3]>,
}

/// What sending a datagram takes.
#[derive(Deserialize)]
struct Sent {
    send_nanos: f64,
}

impl Rules {
    /// Builds, measures, reports.
    pub(crate) fn run(&self, layout: &Layout) -> Result<()> {
        let mut costs: Vec<Cost> =
            program::rows(layout, "measure the rules", "rules", &self.words())?;
        match Nft::found(layout)? {
            Some(nft) => {
                for cost in costs.iter_mut().filter(|cost| cost.rules <= NFT_MOST) {
                    let what = format!("measure nft with {} rules", cost.rules);
                    cost.nft = Some(step(&what, || nft.measure(layout, cost.rules))?);
                }
            }
            None => eprintln!("no nft in a namespace here: its column stays empty"),
        }
        let mut table = Table::new(&COLUMNS);
        table.rows = costs.iter().map(Cost::row).collect();
        let text = table.save(layout, "rules", SHOWN_BY)?;
        println!("{text}");
        plot(layout, &costs)?;
        if self.write { table::specify(layout, "rules", &text) } else { Ok(()) }
    }

    fn words(&self) -> Vec<String> {
        self.only.iter().map(u32::to_string).collect()
    }
}

/// The command that runs benches/rules as the kernel is built.
fn cargo(layout: &Layout) -> Command {
    let mut cargo = program::command(layout, "rules");
    cargo.arg("--");
    cargo
}

/// That nft can be used in a network namespace of its own.
struct Nft;

impl Nft {
    fn found(layout: &Layout) -> Result<Option<Self>> {
        let mut tried = Command::new("unshare");
        tried.current_dir(&layout.root).args(["--net", "nft", "list", "tables"]);
        Ok(tried.output().is_ok_and(|output| output.status.success()).then_some(Self))
    }

    /// What a datagram takes to be sent without rules, with plain ones, and with a set. Entries of
    /// several fields that overlap are none that nft takes, and of many rules some do.
    fn measure(&self, layout: &Layout, rules: u32) -> Result<[Option<f64>; 3]> {
        let directory = layout.target.join("bench");
        fs::create_dir_all(&directory).map_err(Error::file(&directory))?;
        let datagrams = NFT_ASKED / rules.max(100);
        let mut nanos = [None; 3];
        for (place, form) in nanos.iter_mut().zip(["none", "plain", "sets"]) {
            let path = directory.join(format!("rules-{form}.nft"));
            let text = match form {
                "none" => String::new(),
                form => run(cargo(layout).args(["write", &rules.to_string(), form]))?,
            };
            fs::write(&path, text).map_err(Error::file(&path))?;
            let cargo = cargo(layout);
            let words: Vec<_> = cargo.get_args().map(|word| word.to_string_lossy()).collect();
            let script = format!(
                "ip link set lo up && nft -f '{}' && '{}' {} send {datagrams}",
                path.display(),
                env!("CARGO"),
                words.join(" ")
            );
            let mut alone = Command::new("unshare");
            alone.current_dir(&layout.root).args(["--net", "sh", "-c", &script]);
            let mut taken = Command::new("unshare");
            taken.args(["--net", "nft", "-f"]).arg(&path);
            if run(&mut taken).is_ok() {
                let said = run(&mut alone)?;
                *place = Some(serde_json::from_str::<Sent>(said.trim()).context(&said)?.send_nanos);
            }
        }
        Ok(nanos)
    }
}

impl Cost {
    fn row(&self) -> Vec<String> {
        let kib = |bytes: u64| format!("{:.0}", bytes as f64 / 1024.0);
        let one = |nanos: Option<f64>| nanos.map_or("-".to_owned(), |nanos| format!("{nanos:.0}"));
        let nft = |nft: [Option<f64>; 3]| nft.map(one).join(", ");
        vec![
            self.rules.to_string(),
            format!("{:.1}", self.compile_ms),
            self.check_ms.map_or("-".to_owned(), |ms| format!("{ms:.1}")),
            format!("{:.1}", self.build_ms),
            format!("{:.1}", self.settle_ms),
            kib(self.blob_bytes),
            kib(self.index_bytes),
            format!("{:.0}", self.match_nanos),
            format!("{:.0}", self.new_nanos),
            self.nft.map_or("-".to_owned(), nft),
        ]
    }
}

fn plot(layout: &Layout, costs: &[Cost]) -> Result<()> {
    let path = layout.target.join("bench/rules.svg");
    let svg = drawn(costs).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
    fs::write(&path, svg).map_err(Error::file(&path))?;
    eprintln!("{}", path.display());
    Ok(())
}

/// What is drawn of a cost, in nanoseconds.
type Value = fn(&Cost) -> f64;

/// What a new flow costs, and the part of it that is looking for its rule.
fn drawn(costs: &[Cost]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (800, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let highest = costs.iter().map(|cost| cost.new_nanos).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&area)
        .caption("Cost of a new flow against the number of rules", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((8_f64..130_000_f64).log_scale(), 0_f64..highest)?;
    chart.configure_mesh().x_desc("rules").y_desc("ns").draw()?;
    let lines: [(&str, Value); 2] =
        [("new flow", |cost| cost.new_nanos), ("finding its rule", |cost| cost.match_nanos)];
    for (nth, (name, value)) in lines.into_iter().enumerate() {
        let style = Palette99::pick(nth).stroke_width(3);
        let points: Vec<_> = costs.iter().map(|c| (f64::from(c.rules), value(c))).collect();
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE).draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_bench_become_rows_and_a_plot() {
        let line = r#"{"rules":10,"compile_ms":0.24,"check_ms":null,"build_ms":3.44,"settle_ms":0.00,
            "blob_bytes":2048,"index_bytes":0,"match_nanos":76,"new_nanos":370}"#;
        let few: Cost = serde_json::from_str(line).unwrap();
        let many = Cost { rules: 10_000, nft: Some([Some(1.0), Some(2.4), None]), ..few.clone() };
        assert_eq!(few.row(), ["10", "0.2", "-", "3.4", "0.0", "2", "0", "76", "370", "-"]);
        assert_eq!(many.row().last().map(String::as_str), Some("1, 2, -"));
        let svg = drawn(&[few, many]).unwrap();
        assert!(svg.contains("new flow") && svg.contains("<polyline"), "{svg}");
    }
}
