//! What differs between two policies: for each pair of rules that treat some packet differently, one
//! such packet.

use super::layers::{By, Layers};
use super::{DIRECTIONS, Effect, FUEL, TooTangled, decided, layers_of, witness};
use rules::{Policy, Query, Rule, RuleId, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// A packet that meets another fate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) packet: Query,
    /// The rules that decide; [`RuleId::DEFAULT`] where there is no block.
    pub(crate) old: RuleId,
    pub(crate) new: RuleId,
}

/// One change for each pair of an old and a new rule that differ about some packet.
pub(crate) fn changes(old: &Policy, new: &Policy) -> Result<Vec<Change>, TooTangled> {
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        between((old, new), direction, &mut found)?;
    }
    Ok(found)
}

fn between(
    (old, new): (&Policy, &Policy),
    direction: (Zone, Zone),
    found: &mut Vec<Change>,
) -> Result<(), TooTangled> {
    let (was, is) = (layers_of(old, direction), layers_of(new, direction));
    let (mut fuel, mut pairs) = (FUEL, BTreeSet::new());
    // A packet that only unchanged rules speak of meets the same first one in both.
    let (gone, added) = unshared(old, new, direction);
    let blocks = [old, new].map(|policy| policy.block(direction.0, direction.1).next().is_some());
    // Where one of them has no block, everything it does is a change.
    let (gone, added) = match blocks {
        [true, false] => ((0..was.rules()).collect(), vec![0]),
        [false, true] => (vec![0], (0..is.rules()).collect()),
        _ => (gone, added),
    };
    let starts = [(&was, gone), (&is, added)];
    for (side, position) in
        starts.iter().flat_map(|(side, all)| all.iter().map(move |p| (side, *p)))
    {
        for (_, region) in side.regions(position) {
            decided(region, &was, &mut fuel, &mut |part, old_by, fuel| {
                decided(part, &is, fuel, &mut |part, new_by, _| {
                    let (before, after) = (fate(&was, old_by), fate(&is, new_by));
                    let (Some(before), Some(after)) = (before, after) else { return Ok(true) };
                    if before.1 != after.1 && pairs.insert((before.0, after.0)) {
                        let packet = witness::packet(new, direction, &part);
                        found.push(Change { packet, old: before.0, new: after.0 });
                    }
                    Ok(true)
                })?;
                Ok(true)
            })?;
        }
    }
    Ok(())
}

/// Which rule it is and what it does; `None` where no rule is asked.
fn fate(layers: &Layers, by: By) -> Option<(RuleId, Effect)> {
    let By::Rule(at) = by else { return None };
    Some((layers.id(at), layers.effect(at)?))
}

/// The positions of rules that are not part of a longest common sequence of both blocks.
fn unshared(old: &Policy, new: &Policy, (from, to): (Zone, Zone)) -> (Vec<usize>, Vec<usize>) {
    let rules = |policy: &Policy| policy.block(from, to).map(|(_, r)| same(r)).collect::<Vec<_>>();
    let (old, new) = (rules(old), rules(new));
    let start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = |rules: &[Rule]| rules.get(start..).map(<[Rule]>::to_vec).unwrap_or_default();
    let (old_rest, new_rest) = (rest(&old), rest(&new));
    let ends = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = ends.take_while(|(a, b)| a == b).count();
    let middle = |rest: &[Rule]| {
        let until = rest.len().saturating_sub(end);
        rest.get(..until).map(<[Rule]>::to_vec).unwrap_or_default()
    };
    let (old, new) = (middle(&old_rest), middle(&new_rest));
    let (kept_old, kept_new) = ascending(&old, &new);
    let left = |len: usize, kept: &BTreeSet<usize>| {
        (0..len).filter(|at| !kept.contains(at)).map(|at| at.saturating_add(start)).collect()
    };
    (left(old.len(), &kept_old), left(new.len(), &kept_new))
}

/// A common sequence of both: each new rule is matched with the next equal old one, if it still comes
/// behind those matched before. Not always the longest, which costs time and no answer.
fn ascending(old: &[Rule], new: &[Rule]) -> (BTreeSet<usize>, BTreeSet<usize>) {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (at, rule) in old.iter().enumerate().rev() {
        places.entry(format!("{rule:?}")).or_default().push(at);
    }
    let (mut kept_old, mut kept_new, mut next) = (BTreeSet::new(), BTreeSet::new(), 0);
    for (at, rule) in new.iter().enumerate() {
        let Some(candidates) = places.get_mut(&format!("{rule:?}")) else { continue };
        while candidates.last().is_some_and(|&place| place < next) {
            candidates.pop();
        }
        if let Some(place) = candidates.pop() {
            kept_old.insert(place);
            kept_new.insert(at);
            next = place.saturating_add(1);
        }
    }
    (kept_old, kept_new)
}

/// The rule without its place.
fn same(rule: &Rule) -> Rule {
    Rule { line: 0, ..rule.clone() }
}
