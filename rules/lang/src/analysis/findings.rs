//! Rules that do not do what their author must have meant.
//!
//! In: a policy and its layers, one direction after the other. Out: [`Finding`]s; the words for them
//! are chosen by `lint`. Never: a finding about the last rule of a block, which has to be there.

use super::layers::{By, Layers};
use super::space::{Region, Sides};
use super::witness::Example;
use super::{Effect, FUEL, TooTangled, beyond, decided, directions, layers_of, uplinks};
use rules::{
    Action, AddrSet, Forward, Policy, PortSet, Ported, RuleId, Then, Traffic, Uplink, Zone,
};
use std::collections::{BTreeMap, BTreeSet};

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
    Covered { by: Vec<RuleId>, settled: Settled, packet: Example },
    /// Rules after it would do the same.
    Redundant { by: Vec<RuleId>, packet: Example },
    /// It accepts what the VM's own rules, which come later, may forbid.
    WiderThanQubes { qubes: RuleId, packet: Example },
    /// It and an earlier rule each speak of packets the other does not, and say opposite things of
    /// those both speak of.
    Conflict { before: RuleId, packet: Example },
    /// Nothing gives its packets a way to a client: no forward, no external address.
    NoWay,
    /// Its block is too tangled to tell.
    Unknown,
}

/// What settles packets before any rule is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// They are a client's.
    pub(crate) vms: bool,
    /// They have another destination by then.
    pub(crate) redirect: bool,
    /// They leave by another uplink.
    pub(crate) elsewhere: bool,
}

impl Settled {
    pub(crate) fn any(self) -> bool {
        self != Self::default()
    }
}

/// The uplinks to which no route leads, so that no packet leaves by them.
pub(crate) fn unreached(policy: &Policy) -> impl Iterator<Item = Uplink> {
    let services = &policy.parts().services;
    uplinks(policy).into_iter().filter(|uplink| beyond(services, *uplink).is_empty())
}

/// All findings about `policy`, by direction and rule; none about rules for an uplink that nothing leaves by.
pub(crate) fn all(policy: &Policy) -> Vec<Finding> {
    let mut found = Vec::new();
    let idle: Vec<_> = unreached(policy).map(|to| (Zone::Clients, Zone::Uplink(to))).collect();
    let busy = directions(&uplinks(policy)).into_iter().filter(|way| !idle.contains(way));
    for direction in busy {
        let layers = layers_of(policy, direction);
        let study = Study { policy, direction, layers: &layers };
        let ways = ways(policy, direction);
        for at in 0..layers.rules().saturating_sub(1) {
            let rule = layers.id(at);
            let led_to = |region: &Region| ways.iter().flatten().any(|way| way.overlaps(region));
            let strayed = ways.is_some() && !layers.regions(at).iter().any(|(_, r)| led_to(r));
            if strayed && study.does(at, Then::Do(Action::Accept)) {
                found.push(Finding { rule, what: What::NoWay });
                continue;
            }
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

/// What can come to a client in this direction; `None` if everything may.
fn ways(policy: &Policy, direction: (Zone, Zone)) -> Option<Vec<Region>> {
    let services = &policy.parts().services;
    match direction {
        (Zone::Uplink(uplink), Zone::Clients) => {
            let mut sides = Sides::default();
            let here = services.forwards.iter().filter(|forward| forward.uplink == uplink);
            let forwards = here.map(|forward| led(&mut sides, forward));
            let mut ways: Vec<_> = forwards.flatten().collect();
            let pairs = services.one_to_one.iter().filter(|pair| pair.uplink == uplink);
            let insides = pairs.map(|pair| pair.inside);
            let insides = AddrSet::from_addrs(insides);
            ways.extend(sides.product(&AddrSet::any(), &insides, &rules::What::Any));
            Some(ways)
        }
        (Zone::Clients, Zone::Clients) if !services.hairpin => Some(Vec::new()),
        _ => None,
    }
}

/// What a forward leads to the rules.
fn led(sides: &mut Sides, forward: &Forward) -> Vec<Region> {
    let (sport, dport) = (PortSet::full(), forward.target_ports());
    let kind = match forward.proto {
        Ported::Tcp => Traffic::Tcp { sport, dport },
        Ported::Udp => Traffic::Udp { sport, dport },
    };
    sides.product(&forward.from, &forward.targets(), &rules::What::Of(vec![kind]))
}

/// The forwards of `policy`, by number, of which the rules accept nothing, with a packet and the rule that
/// refuses it.
pub(crate) fn refused_forwards(policy: &Policy) -> Vec<(usize, Example, RuleId)> {
    let (mut sides, mut found) = (Sides::default(), Vec::new());
    let mut layers = BTreeMap::new();
    for (number, forward) in policy.parts().services.forwards.iter().enumerate() {
        let direction = (Zone::Uplink(forward.uplink), Zone::Clients);
        let layers = layers.entry(forward.uplink).or_insert_with(|| layers_of(policy, direction));
        let (mut fuel, mut refused, mut opens) = (FUEL, None, false);
        for region in led(&mut sides, forward) {
            let looked = decided(region, layers, &mut fuel, &mut |part, by, _| {
                let By::Rule(at) = by else { return Ok(true) };
                opens |= layers.effect(at).is_some_and(|e| e.then == Then::Do(Action::Accept));
                let packet = super::witness::packet(policy, direction, &part);
                refused.get_or_insert((number, packet, layers.id(at)));
                Ok(!opens)
            });
            // What cannot be counted is not blamed.
            opens |= looked.is_err();
        }
        found.extend(refused.filter(|_| !opens));
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
            let mut settled = Settled {
                vms: takers.remove(&By::Vms),
                redirect: takers.remove(&By::Redirect),
                elsewhere: takers.remove(&By::Elsewhere),
            };
            // From outside, that no packet has the address of a VM is not the point.
            settled.vms &= self.direction.1 != Zone::Clients || takers.is_empty();
            let packet = self.packet(first);
            return Ok(vec![What::Covered { by: self.ids(&takers), settled, packet }]);
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
    fn packet(&self, region: &Region) -> Example {
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
        By::Redirect | By::Vms | By::Elsewhere => None,
    }
}
