//! Finds the first rule of a list that matches without asking one after the other: among ten thousand
//! rules it takes some four to five times as long as among ten (the test `measure` prints it).
//!
//! In: a list of rules, again and again a little time ([`Index::settle`]), and queries. Out: the
//! position of the first rule that matches; before the index is ready, by asking one rule after the
//! other. Never: more than [`BYTES_PER_RULE`] for each rule, whatever the rules are: where that is
//! not enough, more rules are asked one after the other, and the answer stays the same.
//!
//! The rules of each family and protocol are sorted into groups of like shape, so that a rule about
//! all destinations does not end up in the leaf of every single one. Each group has a tree that cuts
//! the space of packets in two until few rules are left that speak of the part. A leaf holds what is
//! most telling of each rule beside its number, because memory far away costs more than arithmetic.

mod build;
#[cfg(test)]
mod tests;
mod view;

use crate::{HostName, Query, Rule};
use alloc::boxed::Box;
use alloc::vec::Vec;
use build::{Build, SHAPES};
use view::{Candidate, DIMENSIONS, Likeness, PANES, locate};

/// Memory an index may take for each rule, in bytes; 10,000 rules need less than 2 MiB.
pub const BYTES_PER_RULE: usize = 200;

/// As many rules are asked in less time than a tree is walked.
const LINEAR: usize = 12;

/// A list of rules is found in with what has been prepared so far.
#[derive(Clone, Debug)]
pub(crate) enum Index {
    /// Too few rules to prepare anything.
    Linear,
    /// Not ready yet.
    Building(Box<Build>),
    /// Ready.
    Ready(Box<Matcher>),
}

/// The trees of one list of rules.
#[derive(Clone, Debug, Default)]
pub(crate) struct Matcher {
    /// For each family and protocol its trees, by the first rule in them.
    panes: [Vec<Tree>; PANES],
    nodes: Vec<Node>,
    /// The rules in the leaves, ascending within each.
    leaves: Vec<Candidate>,
}

#[derive(Clone, Copy, Debug)]
struct Tree {
    /// The first rule in it.
    first: u32,
    root: u32,
}

/// A cut or a leaf.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Of a cut, the first value of the upper side, in native order: a number would be aligned. Of a
    /// leaf, how many rules it has.
    at: [u8; 16],
    /// Of a cut, the node of the lower side; that of the upper is the next. Of a leaf, where it begins.
    low: u32,
    /// What is cut; [`LEAF`] for a leaf.
    dimension: u32,
}

const LEAF: u32 = DIMENSIONS as u32;

impl Index {
    /// An index of `rules`, not ready yet.
    pub(crate) fn new(rules: &[Rule]) -> Self {
        if rules.len() <= LINEAR {
            Self::Linear
        } else {
            Self::Building(Box::new(Build::new(rules)))
        }
    }

    /// Goes on preparing for about as long as `work` rules take to be looked at once, and tells how
    /// much of it is left; `rules` must be those it was made for.
    pub(crate) fn settle(&mut self, rules: &[Rule], work: usize) -> usize {
        let Self::Building(build) = self else { return work };
        let (left, ready) = build.step(rules, work);
        if let Some(matcher) = ready {
            *self = Self::Ready(Box::new(matcher));
        }
        left
    }

    /// Whether nothing is left to be prepared.
    pub(crate) const fn is_settled(&self) -> bool {
        !matches!(self, Self::Building(_))
    }

    /// The position of the first rule that matches `query`, whose sender knows its destination by the
    /// names `named`.
    pub(crate) fn first(&self, rules: &[Rule], query: &Query, named: &[HostName]) -> Option<usize> {
        match self {
            Self::Linear | Self::Building(_) => {
                rules.iter().position(|rule| rule.matches(query, named))
            }
            Self::Ready(matcher) => matcher.first(rules, query, named),
        }
    }

    /// Memory it takes, in bytes.
    pub(crate) const fn bytes(&self) -> usize {
        match self {
            Self::Linear => 0,
            Self::Building(build) => build.bytes(),
            Self::Ready(matcher) => matcher.bytes(),
        }
    }
}

impl Node {
    fn leaf(start: usize, rules: usize) -> Self {
        let low = u32::try_from(start).unwrap_or(u32::MAX);
        Self { at: (rules as u128).to_ne_bytes(), low, dimension: LEAF }
    }

    const fn at(&self) -> u128 {
        u128::from_ne_bytes(self.at)
    }
}

impl Matcher {
    fn first(&self, rules: &[Rule], query: &Query, named: &[HostName]) -> Option<usize> {
        let (pane, point) = locate(query);
        let likeness = Likeness::of(pane, &point);
        let trees = self.panes.get(pane)?;
        let ends = self.walk(trees, &point);
        let mut best = u32::MAX;
        for (tree, end) in trees.iter().zip(ends) {
            if tree.first >= best {
                break;
            }
            let leaf = self.leaf(end);
            for candidate in leaf.iter().take_while(|candidate| candidate.rule < best) {
                if candidate.may_match(&likeness)
                    && (candidate.exact || matches(rules, candidate.rule, query, named))
                {
                    best = candidate.rule;
                    break;
                }
            }
        }
        (best != u32::MAX).then_some(best as usize)
    }

    /// The leaf of each tree in which `point` lies. All trees are walked at once, a step each: what is
    /// waited for is memory, and one walk waits while the others go on. The sides of a cut lie behind
    /// it, so it ends.
    fn walk(&self, trees: &[Tree], point: &[u128; DIMENSIONS]) -> [u32; SHAPES] {
        let mut at = [u32::MAX; SHAPES];
        at.iter_mut().zip(trees).for_each(|(at, tree)| *at = tree.root);
        let mut cuts = true;
        while cuts {
            cuts = false;
            for at in at.iter_mut().take(trees.len()) {
                let Some(node) = self.nodes.get(*at as usize) else { continue };
                let Some(&value) = point.get(node.dimension as usize) else { continue };
                *at = node.low.saturating_add(u32::from(value >= node.at()));
                cuts = true;
            }
        }
        at
    }

    /// The rules of a leaf.
    fn leaf(&self, at: u32) -> &[Candidate] {
        let Some(node) = self.nodes.get(at as usize) else { return &[] };
        let rules = usize::try_from(node.at()).unwrap_or(usize::MAX);
        let leaf = self.leaves.get(node.low as usize..);
        leaf.and_then(|rest| rest.get(..rules)).unwrap_or(&[])
    }

    const fn bytes(&self) -> usize {
        let nodes = self.nodes.capacity().saturating_mul(size_of::<Node>());
        nodes.saturating_add(self.leaves.capacity().saturating_mul(size_of::<Candidate>()))
    }
}

fn matches(rules: &[Rule], number: u32, query: &Query, named: &[HostName]) -> bool {
    rules.get(number as usize).is_some_and(|rule| rule.matches(query, named))
}
