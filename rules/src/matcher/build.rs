//! Builds the trees of a [`Matcher`] in small steps.

use super::view::{Candidate, DIMENSIONS, PANES, Pane, Region, View};
use super::{BYTES_PER_RULE, LEAF, Matcher, Node, Tree};
use crate::Rule;
use alloc::vec;
use alloc::vec::Vec;

/// Asking as many rules takes as long as one more cut.
const LEAF_RULES: usize = 4;

/// Shapes a rule can have, see [`View::shape`].
pub(super) const SHAPES: usize = 8;

/// Rules that are looked at to choose a cut.
const SAMPLE: usize = 48;

/// Cuts from a root to a leaf: no walk takes longer.
const DEPTH: u8 = 40;

/// Trees that are being built.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    done: Matcher,
    /// Panes whose rules are yet to be gathered, and how many rules have been seen for the last of
    /// them. All are gathered before anything is cut, so that no pane takes what another must have.
    panes_left: usize,
    seen: usize,
    /// The rules of the pane by shape.
    shapes: [Vec<u32>; SHAPES],
    /// Nodes that are a leaf or a cut, yet to be seen.
    waiting: Vec<Part>,
    cutting: Option<Cutting>,
    /// Bytes of leaves, if all that waits became one.
    held: usize,
    limit: usize,
    /// A leaf with as many rules is not cut any more.
    pub(super) leaf_rules: usize,
}

/// The rules that speak of one region.
#[derive(Clone, Debug)]
struct Part {
    node: u32,
    pane: Pane,
    region: Region,
    rules: Vec<u32>,
    depth: u8,
}

/// A part whose rules are being dealt to the two sides of a cut.
#[derive(Clone, Debug)]
struct Cutting {
    part: Part,
    cut: Cut,
    dealt: usize,
    low: Half,
    high: Half,
}

#[derive(Clone, Copy, Debug)]
struct Cut {
    dimension: usize,
    at: u128,
}

#[derive(Clone, Debug)]
struct Half {
    region: Region,
    rules: Vec<u32>,
    /// Whether the last rule matches all that gets here, so that no later one is asked.
    closed: bool,
}

impl Build {
    pub(super) fn new(rules: &[Rule]) -> Self {
        Self {
            done: Matcher::default(),
            panes_left: PANES,
            seen: 0,
            shapes: core::array::from_fn(|_| Vec::new()),
            waiting: Vec::new(),
            cutting: None,
            held: 0,
            limit: rules.len().saturating_mul(BYTES_PER_RULE),
            leaf_rules: LEAF_RULES,
        }
    }

    pub(super) const fn bytes(&self) -> usize {
        self.done.bytes().saturating_add(self.held)
    }

    /// Does about `work` units, each one look at one rule. What is left of it, and the matcher if it
    /// is ready.
    pub(super) fn step(&mut self, rules: &[Rule], mut work: usize) -> (usize, Option<Matcher>) {
        while work > 0 {
            let gathering = self.panes_left.checked_sub(1);
            if let Some(&pane) = gathering.and_then(|number| Pane::ALL.get(number)) {
                work = self.gather(rules, pane, work);
            } else if let Some(cutting) = self.cutting.take() {
                work = self.deal(rules, cutting, work);
            } else if let Some(part) = self.waiting.pop() {
                work = work.saturating_sub(SAMPLE.max(part.rules.len()));
                self.part(rules, part);
            } else {
                let mut done = core::mem::take(&mut self.done);
                done.nodes.shrink_to_fit();
                done.leaves.shrink_to_fit();
                return (work, Some(done));
            }
        }
        (0, None)
    }

    /// Sorts the rules of `pane` by their shape; when all are seen, each shape becomes a tree.
    fn gather(&mut self, rules: &[Rule], pane: Pane, work: usize) -> usize {
        let from = self.seen;
        for (number, rule) in (0u32..).zip(rules).skip(from).take(work) {
            let view = View { rule, pane };
            self.seen = self.seen.saturating_add(1);
            if let Some(shape) = self.shapes.get_mut(view.shape()).filter(|_| view.applies()) {
                shape.push(number);
            }
        }
        let left = work.saturating_sub(self.seen.saturating_sub(from));
        if self.seen < rules.len() {
            return left;
        }
        self.panes_left = self.panes_left.saturating_sub(1);
        let shapes = core::mem::replace(&mut self.shapes, core::array::from_fn(|_| Vec::new()));
        for rules in shapes {
            let Some(&first) = rules.first() else { continue };
            let root = self.new_nodes(1);
            if let Some(trees) = self.done.panes.get_mut(self.panes_left) {
                trees.push(Tree { first, root });
                trees.sort_unstable_by_key(|tree| tree.first);
            }
            self.hold(rules.len());
            self.waiting.push(Part { node: root, pane, region: pane.region(), rules, depth: 0 });
        }
        self.seen = 0;
        left.saturating_sub(1)
    }

    /// Cuts `part` if that is worth it; otherwise it is a leaf.
    fn part(&mut self, rules: &[Rule], part: Part) {
        let small = part.rules.len() <= self.leaf_rules || part.depth >= DEPTH;
        let cut = if small { None } else { choose(rules, &part) };
        let Some(cut) = cut else { return self.leaf(rules, part) };
        let (mut low, mut high) = (part.region, part.region);
        if let (Some(low), Some(high)) = (low.get_mut(cut.dimension), high.get_mut(cut.dimension)) {
            low.1 = cut.at.saturating_sub(1);
            high.0 = cut.at;
        }
        let half = |region| Half { region, rules: Vec::new(), closed: false };
        self.cutting = Some(Cutting { part, cut, dealt: 0, low: half(low), high: half(high) });
    }

    /// Deals rules to the sides of a cut.
    fn deal(&mut self, rules: &[Rule], mut cutting: Cutting, work: usize) -> usize {
        let Cutting { part, cut, dealt, low, high } = &mut cutting;
        let before = *dealt;
        for &number in part.rules.iter().skip(before).take(work) {
            *dealt = dealt.saturating_add(1);
            let Some(rule) = rules.get(number as usize) else { continue };
            let view = View { rule, pane: part.pane };
            low.take(number, view, cut.dimension);
            high.take(number, view, cut.dimension);
        }
        let left = work.saturating_sub(dealt.saturating_sub(before));
        if *dealt < part.rules.len() {
            self.cutting = Some(cutting);
        } else {
            self.cut(rules, cutting);
        }
        left
    }

    /// Makes a cut whose rules are dealt, unless it separates too little or memory is short.
    fn cut(&mut self, rules: &[Rule], cutting: Cutting) {
        let Cutting { part, cut, low, high, .. } = cutting;
        let (all, lower, upper) = (part.rules.len(), low.rules.len(), high.rules.len());
        let more = lower.saturating_add(upper).saturating_sub(all);
        let more = more.saturating_mul(size_of::<Candidate>());
        let more = more.saturating_add(size_of::<Node>().saturating_mul(2));
        if lower.max(upper) >= all || self.bytes().saturating_add(more) > self.limit {
            return self.leaf(rules, part);
        }
        let low_node = self.new_nodes(2);
        let dimension = u32::try_from(cut.dimension).unwrap_or(LEAF);
        self.set_node(part.node, Node { at: cut.at.to_ne_bytes(), low: low_node, dimension });
        self.release(all);
        for (node, half) in [(low_node.saturating_add(1), high), (low_node, low)] {
            self.hold(half.rules.len());
            let depth = part.depth.saturating_add(1);
            let Half { region, rules, .. } = half;
            self.waiting.push(Part { node, pane: part.pane, region, rules, depth });
        }
    }

    fn leaf(&mut self, rules: &[Rule], part: Part) {
        let start = self.done.leaves.len();
        grow(&mut self.done.leaves, part.rules.len());
        self.release(part.rules.len());
        let known = part.rules.iter().filter_map(|&number| {
            let rule = rules.get(number as usize)?;
            Some(View { rule, pane: part.pane }.candidate(number))
        });
        self.done.leaves.extend(known);
        let end = self.done.leaves.len();
        self.set_node(part.node, Node::leaf(start, end.saturating_sub(start)));
    }

    /// The first of so many new nodes.
    fn new_nodes(&mut self, count: usize) -> u32 {
        let number = u32::try_from(self.done.nodes.len()).unwrap_or(u32::MAX);
        grow(&mut self.done.nodes, count);
        self.done.nodes.extend((0..count).map(|_| Node::leaf(0, 0)));
        number
    }

    fn set_node(&mut self, number: u32, node: Node) {
        if let Some(place) = self.done.nodes.get_mut(number as usize) {
            *place = node;
        }
    }

    const fn hold(&mut self, rules: usize) {
        self.held = self.held.saturating_add(rules.saturating_mul(size_of::<Candidate>()));
    }

    const fn release(&mut self, rules: usize) {
        self.held = self.held.saturating_sub(rules.saturating_mul(size_of::<Candidate>()));
    }
}

impl Half {
    fn take(&mut self, number: u32, view: View<'_>, dimension: usize) {
        let Some(&range) = self.region.get(dimension) else { return };
        if !self.closed && view.overlaps(dimension, range) {
            self.rules.push(number);
            self.closed = view.covers(&self.region);
        }
    }
}

/// Makes room for `more` items, an eighth in advance: doubling would waste what is counted here.
fn grow<T>(items: &mut Vec<T>, more: usize) {
    if items.capacity().saturating_sub(items.len()) < more {
        items.reserve_exact(more.saturating_add(items.len() / 8));
    }
}

/// The cut that separates a sample of the rules best; `None` if none separates enough.
fn choose(rules: &[Rule], part: &Part) -> Option<Cut> {
    let every = part.rules.len().div_ceil(SAMPLE).max(1);
    let numbers = part.rules.iter().step_by(every);
    let sample: Vec<_> = numbers
        .filter_map(|&number| rules.get(number as usize))
        .map(|rule| View { rule, pane: part.pane })
        .collect();
    let mut best: Option<(usize, Cut)> = None;
    for dimension in 0..DIMENSIONS {
        let Some(&(lo, hi)) = part.region.get(dimension) else { continue };
        for at in quantiles(&sample, dimension, (lo, hi)) {
            let sides = [(lo, at.saturating_sub(1)), (at, hi)];
            let [low, high] =
                sides.map(|side| sample.iter().filter(|v| v.overlaps(dimension, side)).count());
            // More than half of the rules on both sides: other dimensions must tell them apart.
            let worth = low.max(high) < sample.len()
                && low.saturating_add(high) <= sample.len().saturating_add(sample.len() / 2);
            let cost = low.max(high).saturating_mul(2).saturating_add(low.min(high));
            if worth && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, Cut { dimension, at }));
            }
        }
    }
    best.map(|(_, cut)| cut)
}

/// Places for a cut: at a quarter, half and three quarters of where rules begin or end.
fn quantiles(sample: &[View<'_>], dimension: usize, (lo, hi): (u128, u128)) -> Vec<u128> {
    let mut edges = vec![];
    sample.iter().for_each(|view| view.edges(dimension, &mut edges));
    edges.retain(|&edge| lo < edge && edge <= hi);
    edges.sort_unstable();
    edges.dedup();
    let at = |quarters: usize| edges.get(edges.len().saturating_mul(quarters) / 4).copied();
    let mut places: Vec<_> = [1, 2, 3].into_iter().filter_map(at).collect();
    places.dedup();
    places
}
