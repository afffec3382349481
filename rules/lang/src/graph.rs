//! A picture of what may flow: VMs on the left, destinations on the right, and a line for each rule
//! that lets something of the one reach the other.
//!
//! In: the text of a policy. Out: an SVG image. Never: a line for a rule that decides nothing for
//! that VM, because earlier rules take it all.

use crate::Diagnostic;
use crate::analysis::layers::{By, Layers};
use crate::analysis::space::Sides;
use crate::analysis::{FUEL, TooTangled, decided, directions, layers_of, uplinks};
use crate::model::{self, Model};
use crate::words::CLAUSES;
use rules::{Action, AddrSet, RuleId, Then, What, Zone};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: usize = 960;
const BOX: usize = 230;
const STEP: usize = 58;
const TOP: usize = 96;
const MARGIN: usize = 24;

/// The picture of a policy as SVG.
///
/// # Errors
/// What is wrong with the policy.
pub fn graph(name: &str, text: &str) -> Result<String, Vec<Diagnostic>> {
    model::with((name, text), |model, _| draw(model, &edges(model)))
}

/// Something that may flow.
struct Edge {
    from: usize,
    to: String,
    /// Of the kinds of traffic, as written.
    what: String,
    /// Whether the VM's own rules decide.
    qubes: bool,
    line: u32,
}

/// The ends on the left: every VM, then all clients without a name, then the world outside.
fn sources(model: &Model<'_>) -> Vec<(String, Zone, AddrSet)> {
    let vms = &model.policy.parts().vms;
    let named = AddrSet::from_addrs(vms.iter().flat_map(|vm| vm.addrs.iter().copied()));
    let others = AddrSet { v4: named.v4.complement(), v6: named.v6.complement() };
    let mut sources: Vec<_> = vms
        .iter()
        .map(|vm| (vm.name.clone(), Zone::Clients, AddrSet::from_addrs(vm.addrs.clone())))
        .collect();
    let clients = if vms.is_empty() { "every client" } else { "other clients" };
    sources.push((clients.to_owned(), Zone::Clients, others));
    let several = several_uplinks(model);
    sources.extend(uplinks(&model.policy).into_iter().map(Zone::Uplink).map(|zone| {
        let name = if several { model.names.zone_called(zone) } else { "outside".to_owned() };
        (name, zone, AddrSet::any())
    }));
    sources
}

/// Whether it has to be said which uplink is meant.
fn several_uplinks(model: &Model<'_>) -> bool {
    uplinks(&model.policy).len() > 1
}

fn edges(model: &Model<'_>) -> Vec<Edge> {
    let mut edges = Vec::new();
    for direction in directions(&uplinks(&model.policy)) {
        let layers = layers_of(&model.policy, direction);
        for (from, (_, zone, addrs)) in sources(model).iter().enumerate() {
            if *zone != direction.0 {
                continue;
            }
            for (id, qubes) in opening(&layers, addrs).unwrap_or_default() {
                let Some((_, rule)) = model.policy.rule(id) else { continue };
                let (what, to) = words(&model.written(id));
                let to = target(model, direction.1, to);
                edges.push(Edge { from, to, what, qubes, line: rule.line });
            }
        }
    }
    edges
}

/// The rules that accept something from `addrs` or hand it over, in order.
fn opening(layers: &Layers, addrs: &AddrSet) -> Result<BTreeMap<RuleId, bool>, TooTangled> {
    let (mut found, mut fuel) = (BTreeMap::new(), FUEL);
    for region in Sides::default().product(addrs, &AddrSet::any(), &What::Any) {
        decided(region, layers, &mut fuel, &mut |_, by, _| {
            let By::Rule(at) = by else { return Ok(true) };
            match layers.effect(at).map(|effect| effect.then) {
                Some(Then::Do(Action::Accept)) => found.insert(layers.id(at), false),
                Some(Then::Qubes) => found.insert(layers.id(at), true),
                Some(Then::Do(_)) | None => None,
            };
            Ok(true)
        })?;
    }
    Ok(found)
}

/// Words of a forward that begin something that is neither what it is about nor where to.
const ENDS: [&str; 2] = ["at", "balance"];

/// What a rule is about and where to, as it was written; an empty place is everywhere.
fn words(rule: &str) -> (String, String) {
    let (mut what, mut target, mut place) = (Vec::new(), Vec::new(), "what");
    for word in rule.split(' ').skip(1) {
        match word {
            word if CLAUSES.contains(&word) || ENDS.contains(&word) => place = word,
            _ if place == "what" => what.push(word),
            _ if place == "to" => target.push(word),
            _ => {}
        }
    }
    let what = if what.is_empty() { "everything".to_owned() } else { what.join(" ") };
    (what, target.join(" "))
}

/// The end of an arrow.
fn target(model: &Model<'_>, zone: Zone, place: String) -> String {
    match zone {
        Zone::Clients if place.is_empty() => "every client".to_owned(),
        Zone::Uplink(_) if several_uplinks(model) => {
            let name = model.names.zone_called(zone);
            if place.is_empty() { name } else { format!("{name}: {place}") }
        }
        Zone::Uplink(_) if place.is_empty() => "anywhere outside".to_owned(),
        Zone::Uplink(_) | Zone::Clients => place,
    }
}

fn draw(model: &Model<'_>, edges: &[Edge]) -> String {
    let sources = sources(model);
    let mut targets: Vec<&str> = Vec::new();
    for edge in edges {
        if !targets.contains(&edge.to.as_str()) {
            targets.push(&edge.to);
        }
    }
    let rows = sources.len().max(targets.len()).max(edges.len().div_ceil(2));
    let height = TOP.saturating_add(rows.saturating_mul(STEP)).saturating_add(MARGIN);
    let right = WIDTH.saturating_sub(BOX).saturating_sub(MARGIN);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{MARGIN}\" y=\"36\" font-size=\"18\" font-weight=\"bold\">{}</text>\n\
         <text x=\"{MARGIN}\" y=\"60\" fill=\"#555\">What may begin to flow. All else is refused. \
         Dashed: the VM&apos;s own rules decide.</text>\n",
        escaped(model.policy.name())
    );
    for (row, (name, zone, _)) in sources.iter().enumerate() {
        let fill = if *zone == Zone::Clients { "#e3efff" } else { "#eee" };
        node(&mut svg, MARGIN, middle(row), name, fill);
    }
    for (row, target) in targets.iter().enumerate() {
        node(&mut svg, right, middle(row), target, "#e9f7e4");
    }
    for (number, edge) in edges.iter().enumerate() {
        let to = targets.iter().position(|target| *target == edge.to).unwrap_or(0);
        arrow(&mut svg, edge, (middle(edge.from), middle(to)), number);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The height at which the box of a row has its middle.
fn middle(row: usize) -> usize {
    TOP.saturating_add(row.saturating_mul(STEP)).saturating_add(18)
}

fn node(svg: &mut String, x: usize, middle: usize, name: &str, fill: &str) {
    let (top, text) = (middle.saturating_sub(18), middle.saturating_add(5));
    let shown: String = name.chars().take(30).collect();
    let _ = writeln!(
        svg,
        "<g><title>{}</title><rect x=\"{x}\" y=\"{top}\" width=\"{BOX}\" height=\"36\" rx=\"6\" \
         fill=\"{fill}\" stroke=\"#888\"/><text x=\"{}\" y=\"{text}\">{}</text></g>",
        escaped(name),
        x.saturating_add(12),
        escaped(&shown)
    );
}

fn arrow(svg: &mut String, edge: &Edge, (from, to): (usize, usize), number: usize) {
    let left = MARGIN.saturating_add(BOX);
    let right = WIDTH.saturating_sub(BOX).saturating_sub(MARGIN);
    let dash = if edge.qubes { " stroke-dasharray=\"5 4\"" } else { "" };
    let (a, b) = (left.saturating_add(150), right.saturating_sub(150));
    // Labels of arrows that begin at one place are spread along them.
    let part = number.checked_rem(3).unwrap_or(0).saturating_add(1);
    let along = |lo: usize, hi: usize| {
        let (lo, hi) = (lo.saturating_mul(4usize.saturating_sub(part)), hi.saturating_mul(part));
        lo.saturating_add(hi) / 4
    };
    let (x, y) = (along(left, right), along(from, to).saturating_sub(4));
    let _ = writeln!(
        svg,
        "<g><title>line {}: {} to {}</title><path d=\"M{left} {from} C{a} {from} {b} {to} {right} {to}\" \
         fill=\"none\" stroke=\"#3a7\" stroke-width=\"1.5\"{dash}/>\
         <text x=\"{x}\" y=\"{y}\" font-size=\"11\" text-anchor=\"middle\" fill=\"#163\">{}</text></g>",
        edge.line,
        escaped(&edge.what),
        escaped(&edge.to),
        escaped(&edge.what)
    );
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() => {}
            c => safe.push(c),
        }
    }
    safe
}
