//! `cargo xtask bench nat`: what a packet costs in the firewall alone, on this machine.
//!
//! In: the lines that benches/nat prints. Out: a table, the same as JSON, and a plot of the cost
//! against the number of flows, under target/bench; then what `instructions` counts. Never: frames on
//! a ring; see `bench xen`.

use super::instructions;
use super::program;
use super::table::{self, Table};
use clap::Args;
use plotters::prelude::*;
use rig::{Error, Layout, Result};
use serde::Deserialize;
use std::fs;

/// Columns of the table.
const COLUMNS: [&str; 10] = [
    "flows",
    "family",
    "packets",
    "ns a packet, median",
    "ns a packet, best",
    "allocations",
    "insert p99.9, ns",
    "insert longest, ns",
    "bytes a flow",
    "shown by",
];

const SHOWN_BY: &str = "cargo xtask bench nat";

/// What is asked for.
#[derive(Args)]
pub(crate) struct Nat {
    /// Replace the tables in docs/SPECIFICATION.md, and benches/nat/instructions.json
    #[arg(long)]
    write: bool,
    /// Only count instructions (with callgrind), and compare them with benches/nat/instructions.json
    #[arg(long)]
    instructions: bool,
    /// Only the time of this: a number of flows, `v4` or `v6`, `hit`, `long`, `miss`, `new` or `expire`
    #[arg(value_name = "WHAT", conflicts_with_all = ["write", "instructions"])]
    only: Vec<String>,
}

/// What some packets cost; names as benches/nat prints them.
#[derive(Deserialize)]
struct Cost {
    flows: u32,
    family: String,
    work: String,
    nanos: f64,
    best_nanos: f64,
    allocations: u64,
    insert_p999_nanos: f64,
    insert_max_nanos: f64,
    bytes_per_flow: u64,
}

impl Nat {
    /// Builds with the kernel's profile, measures, reports.
    pub(crate) fn run(&self, layout: &Layout) -> Result<()> {
        if !self.instructions {
            self.time(layout)?;
        }
        if self.only.is_empty() { instructions::measure(layout, self.write) } else { Ok(()) }
    }

    fn time(&self, layout: &Layout) -> Result<()> {
        let costs: Vec<Cost> = program::rows(layout, "measure the firewall", "nat", &self.only)?;
        let mut table = Table::new(&COLUMNS);
        table.rows = costs.iter().map(Cost::row).collect();
        println!("{}", table.save(layout, "nat", SHOWN_BY)?);
        plot(layout, &costs)?;
        if self.write {
            table::specify(layout, "nat", &table.markdown())?;
        }
        Ok(())
    }
}

impl Cost {
    fn row(&self) -> Vec<String> {
        let insert = |nanos: f64| if nanos > 0.0 { format!("{nanos:.0}") } else { "-".to_owned() };
        vec![
            self.flows.to_string(),
            self.family.clone(),
            self.work.clone(),
            format!("{:.0}", self.nanos),
            format!("{:.0}", self.best_nanos),
            self.allocations.to_string(),
            insert(self.insert_p999_nanos),
            insert(self.insert_max_nanos),
            self.bytes_per_flow.to_string(),
            format!("`{SHOWN_BY}`"),
        ]
    }
}

/// Draws the median cost against the number of flows, a line for each kind and family.
fn plot(layout: &Layout, costs: &[Cost]) -> Result<()> {
    let path = layout.target.join("bench/nat.svg");
    let svg = drawn(costs).map_err(|e| Error::new(format!("{}: {e}", path.display())))?;
    fs::write(&path, svg).map_err(Error::file(&path))?;
    eprintln!("{}", path.display());
    Ok(())
}

fn drawn(costs: &[Cost]) -> std::result::Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (800, 500)).into_drawing_area();
    area.fill(&WHITE)?;
    let highest = costs.iter().map(|cost| cost.nanos).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(&area)
        .caption("Cost of a packet against the number of flows", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((50_f64..1_500_000_f64).log_scale(), 0_f64..highest)?;
    chart.configure_mesh().x_desc("flows").y_desc("ns a packet, median").draw()?;
    for (nth, work) in ["hit", "long", "miss", "new", "expire"].into_iter().enumerate() {
        for (family, width) in [("v4", 3), ("v6", 1)] {
            let style = Palette99::pick(nth).stroke_width(width);
            let of_line = costs.iter().filter(|c| c.work == work && c.family == family);
            let points: Vec<_> = of_line.map(|c| (f64::from(c.flows), c.nanos)).collect();
            chart
                .draw_series(LineSeries::new(points, style))?
                .label(format!("{work} {family}"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
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
    fn the_plot_has_a_line_and_a_name_for_each_kind() {
        let cost = |flows| Cost {
            flows,
            family: "v4".to_owned(),
            work: "hit".to_owned(),
            nanos: 60.0,
            best_nanos: 50.0,
            allocations: 0,
            insert_p999_nanos: 0.0,
            insert_max_nanos: 0.0,
            bytes_per_flow: 120,
        };
        let svg = drawn(&[cost(64), cost(1_000_000)]).unwrap();
        assert!(svg.contains("hit v4") && svg.contains("<polyline"), "{svg}");
        assert_eq!(cost(64).row().len(), COLUMNS.len());
    }
}
