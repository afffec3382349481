//! What differs between two policies: for each pair of rules that treat some packet differently, one
//! such packet.

use super::layers::{By, Layers};
use super::witness::Example;
use super::{Effect, FUEL, TooTangled, beyond, decided, directions, layers_of, uplinks, witness};
use rules::{Policy, Rule, RuleId, Uplink, Zone};
use std::collections::{BTreeMap, BTreeSet};

/// A packet that meets another fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) packet: Example,
    /// The rules that decide; [`RuleId::DEFAULT`] where there is no block.
    pub(crate) old: RuleId,
    pub(crate) new: RuleId,
}

/// One change for each pair of an old and a new rule that differ about some packet.
pub(crate) fn changes(old: &Policy, new: &Policy) -> Result<Vec<Change>, TooTangled> {
    let mut found = Vec::new();
    let all: BTreeSet<_> = uplinks(old).union(&uplinks(new)).copied().collect();
    for direction in directions(&all) {
        between((old, new), (direction, direction), &mut found)?;
    }
    for (was, is) in all.iter().flat_map(|was| all.iter().map(move |is| (*was, *is))) {
        if was != is && moves((old, new), (was, is)) {
            let pair = [was, is].map(|uplink| (Zone::Clients, Zone::Uplink(uplink)));
            between((old, new), pair.into(), &mut found)?;
        }
    }
    Ok(found)
}

/// Whether packets that left by one uplink leave by another now.
fn moves((old, new): (&Policy, &Policy), (was, is): (Uplink, Uplink)) -> bool {
    let [was, is] =
        [(old, was), (new, is)].map(|(policy, at)| beyond(&policy.parts().services, at));
    !was.intersection(&is).is_empty()
}

type Direction = (Zone, Zone);

fn between(
    (old, new): (&Policy, &Policy),
    (then, now): (Direction, Direction),
    found: &mut Vec<Change>,
) -> Result<(), TooTangled> {
    let (was, is) = (layers_of(old, then), layers_of(new, now));
    let (mut fuel, mut pairs) = (FUEL, BTreeSet::new());
    // A packet that only unchanged rules speak of meets the same first one in both.
    let (gone, added) = unshared((old, then), (new, now));
    let blocks = [(old, then), (new, now)];
    let blocks = blocks.map(|(policy, (from, to))| policy.block(from, to).next().is_some());
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
                        let packet = witness::packet(new, now, &part);
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
fn unshared(old: (&Policy, Direction), new: (&Policy, Direction)) -> (Vec<usize>, Vec<usize>) {
    let rules = |(policy, (from, to)): (&Policy, Direction)| {
        policy.block(from, to).map(|(_, rule)| same(rule)).collect::<Vec<_>>()
    };
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
