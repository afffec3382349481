//! Rules that do not do what their author must have meant.
//!
//! In: a policy and its layers, one direction after the other. Out: [`Finding`]s; the words for them
//! are chosen by `lint`. Never: a finding about the last rule of a block, which has to be there.

use super::layers::{By, Layers};
use super::space::Region;
use super::{DIRECTIONS, Effect, FUEL, TooTangled, layers_of};
use rules::{Action, Policy, Query, RuleId, Then, Zone};
use std::collections::BTreeSet;

/// What is the matter with one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: RuleId,
    pub(crate) what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// No packet can meet its conditions.
    Empty,
    /// All its packets are taken by the rules before it, or settled before rules are asked.
    Covered { by: Vec<RuleId>, vms: bool, redirect: bool, packet: Query },
    /// Rules after it would do the same.
    Redundant { by: Vec<RuleId>, packet: Query },
    /// It accepts what the VM's own rules, which come later, may forbid.
    WiderThanQubes { qubes: RuleId, packet: Query },
    /// It and an earlier rule each speak of packets the other does not, and say opposite things of
    /// those both speak of.
    Conflict { before: RuleId, packet: Query },
    /// Its block is too tangled to tell.
    Unknown,
}

/// All findings about `policy`, by direction and rule.
pub(crate) fn all(policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        let layers = layers_of(policy, direction);
        let study = Study { policy, direction, layers: &layers };
        for at in 0..layers.rules().saturating_sub(1) {
            let rule = layers.id(at);
            match study.rule(at) {
                Ok(what) => found.extend(what.into_iter().map(|what| Finding { rule, what })),
                Err(TooTangled) => {
                    found.push(Finding { rule, what: What::Unknown });
                    break;
                }
            }
        }
    }
    found
}

struct Study<'a> {
    policy: &'a Policy,
    direction: (Zone, Zone),
    layers: &'a Layers,
}

/// A place in the space of packets where a rule may or may not decide.
type Waiting = Vec<(Region, usize)>;

impl Study<'_> {
    fn rule(&self, at: usize) -> Result<Vec<What>, TooTangled> {
        let regions = self.layers.regions(at);
        let Some((_, first)) = regions.first() else { return Ok(vec![What::Empty]) };
        let mut fuel = FUEL;
        let mut takers = BTreeSet::new();
        let whole = regions.iter().map(|(_, region)| (region.clone(), 0)).collect();
        let Some(reached) = self.reaches(at, whole, &mut takers, &mut fuel)?.next else {
            let (vms, redirect) = (takers.remove(&By::Vms), takers.remove(&By::Redirect));
            let packet = self.packet(first);
            return Ok(vec![What::Covered { by: self.ids(&takers), vms, redirect, packet }]);
        };
        let mut found = Vec::new();
        let packet = self.packet(&reached.0);
        if let Some(by) = self.redundant(at, reached, &mut fuel)? {
            return Ok(vec![What::Redundant { by: self.ids(&by), packet }]);
        }
        found.extend(self.wider_than_qubes(at, &regions, &mut fuel)?);
        found.extend(self.conflict(at, &regions));
        Ok(found)
    }

    /// A packet of `region`.
    fn packet(&self, region: &Region) -> Query {
        super::witness::packet(self.policy, self.direction, region)
    }

    fn ids(&self, by: &BTreeSet<By>) -> Vec<RuleId> {
        by.iter().filter_map(|by| Some(self.layers.id(position(*by)?))).collect()
    }

    /// The next part of what `waiting` holds that the rule `at` decides.
    fn reaches(
        &self,
        at: usize,
        mut waiting: Waiting,
        takers: &mut BTreeSet<By>,
        fuel: &mut usize,
    ) -> Result<Reached, TooTangled> {
        while let Some((piece, from)) = waiting.pop() {
            let Some((place, by, both)) = self.layers.next_overlap(&piece, from, fuel)? else {
                continue;
            };
            let rest = piece.minus(&both).into_iter();
            waiting.extend(rest.map(|part| (part, place.saturating_add(1))));
            if by == By::Rule(at) {
                return Ok(Reached { next: Some((both, place)), waiting });
            }
            takers.insert(by);
        }
        Ok(Reached { next: None, waiting })
    }

    /// The later rules that would do the same as `at` with every packet it decides.
    fn redundant(
        &self,
        at: usize,
        first: (Region, usize),
        fuel: &mut usize,
    ) -> Result<Option<BTreeSet<By>>, TooTangled> {
        // A rule with a rate counts for itself, so no other does the same.
        let effect = self.layers.effect(at).filter(|effect| effect.limit.is_none());
        let Some(effect) = effect else { return Ok(None) };
        let mut heirs = BTreeSet::new();
        // The part that is known first answers for most rules.
        if !self.inherits(vec![first], at, effect, &mut heirs, fuel)? {
            return Ok(None);
        }
        let whole = self.layers.regions(at).into_iter().map(|(_, region)| (region, 0)).collect();
        let mut left: Waiting = whole;
        loop {
            let reached = self.reaches(at, left, &mut BTreeSet::new(), fuel)?;
            let Some(part) = reached.next else { return Ok(Some(heirs)) };
            if !self.inherits(vec![part], at, effect, &mut heirs, fuel)? {
                return Ok(None);
            }
            left = reached.waiting;
        }
    }

    /// Whether the rules after `at` do `effect` to all of these packets.
    fn inherits(
        &self,
        mut waiting: Waiting,
        at: usize,
        effect: Effect,
        heirs: &mut BTreeSet<By>,
        fuel: &mut usize,
    ) -> Result<bool, TooTangled> {
        while let Some((piece, from)) = waiting.pop() {
            let Some((place, by, both)) = self.layers.next_overlap(&piece, from, fuel)? else {
                return Ok(false);
            };
            let own = by == By::Rule(at);
            if !own && position(by).and_then(|heir| self.layers.effect(heir)) != Some(effect) {
                return Ok(false);
            }
            if own {
                waiting.push((piece, place.saturating_add(1)));
                continue;
            }
            heirs.insert(by);
            let rest = piece.minus(&both).into_iter();
            waiting.extend(rest.map(|part| (part, place.saturating_add(1))));
        }
        Ok(true)
    }

    /// Whether the rule accepts what a later `qubes` would have been asked about.
    fn wider_than_qubes(
        &self,
        at: usize,
        regions: &[(usize, Region)],
        fuel: &mut usize,
    ) -> Result<Option<What>, TooTangled> {
        let accepts = self.does(at, Then::Do(Action::Accept));
        let later = at.saturating_add(1)..self.layers.rules();
        let mut handing = later.filter(|&other| self.does(other, Then::Qubes));
        let Some(qubes) = handing.next().filter(|_| accepts) else { return Ok(None) };
        let whole = regions.iter().map(|(_, region)| (region.clone(), 0)).collect();
        let reached = self.reaches(at, whole, &mut BTreeSet::new(), fuel)?;
        Ok(reached.next.and_then(|(part, _)| {
            let asked = self.layers.regions(qubes);
            let both = asked.iter().find_map(|(_, region)| region.intersection(&part))?;
            let packet = self.packet(&both);
            Some(What::WiderThanQubes { qubes: self.layers.id(qubes), packet })
        }))
    }

    fn does(&self, at: usize, then: Then) -> bool {
        self.layers.effect(at).is_some_and(|effect| effect.then == then)
    }

    /// The first earlier rule that crosses this one.
    fn conflict(&self, at: usize, regions: &[(usize, Region)]) -> Option<What> {
        let opens =
            |at| self.layers.effect(at).map(|effect| effect.then == Then::Do(Action::Accept));
        let mine: Vec<_> = regions.iter().map(|(_, region)| region).collect();
        let crossed = self.layers.before(at, regions).into_iter();
        crossed.filter(|&before| opens(before) != opens(at)).find_map(|before| {
            let theirs = self.layers.regions(before);
            let theirs: Vec<_> = theirs.iter().map(|(_, region)| region).collect();
            let both = mine.iter().find_map(|a| theirs.iter().find_map(|b| a.intersection(b)))?;
            let within = |a: &[&Region], b: &[&Region]| {
                a.iter().all(|region| b.iter().any(|other| region.is_subset(other)))
            };
            if within(&mine, &theirs) || within(&theirs, &mine) {
                return None;
            }
            let packet = self.packet(&both);
            Some(What::Conflict { before: self.layers.id(before), packet })
        })
    }
}

struct Reached {
    /// A part the rule decides, and the place of its layer.
    next: Option<(Region, usize)>,
    /// What has not been looked at yet.
    waiting: Waiting,
}

const fn position(by: By) -> Option<usize> {
    match by {
        By::Rule(at) => Some(at),
        By::Redirect | By::Vms => None,
    }
}
