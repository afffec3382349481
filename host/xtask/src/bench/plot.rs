//! Bars for each figure, one for each firewall, as SVG.
//!
//! In: results. Out: one file. The longest bar of a figure is the widest: figures have units of their
//! own, only bars of the same figure may be compared. A thin line shows the spread.

use super::results::Results;
use rig::{Error, Layout, Result};
use std::fmt::Write as _;
use std::fs;

const COLOURS: [&str; 4] = ["#1b6ca8", "#c8553d", "#8d99ae", "#588157"];
const LINE: usize = 18;
const LEFT: f64 = 330.0;
const WIDTH: f64 = 420.0;

/// Writes `target/bench/NAME.svg`.
pub(crate) fn save(layout: &Layout, name: &str, title: &str, results: &Results) -> Result<()> {
    let path = layout.target.join("bench").join(format!("{name}.svg"));
    fs::write(&path, svg(title, results)).map_err(Error::file(&path))?;
    eprintln!("{}", path.display());
    Ok(())
}

fn svg(title: &str, results: &Results) -> String {
    let figures = results.figures();
    let group = (results.firewalls.len() + 1) * LINE;
    let height = figures.len() * group + 4 * LINE;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"900\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"16\">{title}</text>\n"
    );
    for (n, figure) in figures.into_iter().enumerate() {
        let top = n * group + 3 * LINE;
        let _ = writeln!(text, "<text x=\"10\" y=\"{}\">{}</text>", top + 13, figure.title());
        let spreads = results.firewalls.iter().map(|shown| shown.spread(figure));
        let most = spreads.clone().flatten().map(|s| s.most).fold(f64::MIN_POSITIVE, f64::max);
        for (row, (spread, colour)) in spreads.zip(COLOURS.iter().cycle()).enumerate() {
            let Some(spread) = spread else { continue };
            let y = top + row * LINE;
            let x = |value: f64| WIDTH * value / most;
            let name = results.firewalls.get(row).map_or("", |shown| shown.name.as_str());
            let _ = writeln!(
                text,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\
                 <path d=\"M{:.1} {mid}H{:.1}\" stroke=\"black\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{spread} {name}</text>",
                x(spread.median),
                LEFT + x(spread.least),
                LEFT + x(spread.most),
                LEFT + x(spread.most) + 6.0,
                y + 12,
                mid = y + 7,
            );
        }
    }
    text + "</svg>\n"
}
