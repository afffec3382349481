//! Sets of packets: products of nine sets of numbers and of the names of their destination, one space
//! for each family and protocol.

use super::named::Named;
use rules::{AddrSet, Conditions, Family, HostSet, Point, PortSet, RangeSet, Rule, Traffic, What};
use std::collections::HashMap;
use std::sync::Arc;

/// One side of a region. Shared, because most regions share most sides.
pub(crate) type Side = Arc<RangeSet<u128>>;

/// Source, destination, of the transport header source and destination port or type and code, and
/// the rest: state, TTL, DSCP, length, flags.
pub(crate) const SIDES: usize = 9;

/// How many values the rest has, each from 0.
const REST: [u128; SIDES - 4] = [2, 256, 64, 65536, 256];

/// What rules can tell apart by the protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sort {
    Tcp,
    Udp,
    Icmp,
    Other,
}

/// One family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Pane {
    pub(crate) family: Family,
    pub(crate) sort: Sort,
}

impl Pane {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let sorts = [Sort::Tcp, Sort::Udp, Sort::Icmp, Sort::Other];
        let families = [Family::V4, Family::V6];
        sorts.into_iter().flat_map(move |sort| families.map(|family| Self { family, sort }))
    }
}

/// Packets of one pane whose numbers are each in the set of its side. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) pane: Pane,
    pub(crate) sides: [Side; SIDES],
    /// Which names lead to their destination.
    pub(crate) named: Named,
}

impl Region {
    /// The packets with these sides, if there are any.
    fn new(pane: Pane, sides: [Side; SIDES], named: Named) -> Option<Self> {
        sides.iter().all(|side| !side.is_empty()).then_some(Self { pane, sides, named })
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let pairs = || self.sides.iter().zip(&other.sides);
        self.pane == other.pane
            && pairs().all(|(a, b)| Arc::ptr_eq(a, b) || a.overlaps(b))
            && self.named.overlaps(&other.named)
    }

    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        let mut pairs = self.sides.iter().zip(&other.sides);
        self.pane == other.pane
            && pairs.all(|(a, b)| Arc::ptr_eq(a, b) || a.is_subset(b))
            && self.named.is_subset(&other.named)
    }

    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        if self.pane != other.pane {
            return None;
        }
        let mut sides = self.sides.clone();
        for (side, other) in sides.iter_mut().zip(&other.sides) {
            if !Arc::ptr_eq(side, other) && !side.is_subset(other) {
                *side = Arc::new(side.intersection(other));
            }
        }
        Self::new(self.pane, sides, self.named.intersection(&other.named)?)
    }

    /// The packets that are not in `other`, as regions that do not overlap.
    pub(crate) fn minus(&self, other: &Self) -> Vec<Self> {
        if !self.overlaps(other) {
            return vec![self.clone()];
        }
        // Each part differs from `other` in one side, and lies within it in all sides before.
        let (mut parts, mut within) = (Vec::new(), self.sides.clone());
        for (at, (mine, theirs)) in self.sides.iter().zip(&other.sides).enumerate() {
            let outside = mine.difference(theirs);
            if outside.is_empty() {
                continue;
            }
            let mut sides = within.clone();
            if let (Some(side), Some(kept)) = (sides.get_mut(at), within.get_mut(at)) {
                *side = Arc::new(outside);
                *kept = Arc::new(mine.intersection(theirs));
            }
            parts.extend(Self::new(self.pane, sides, self.named.clone()));
        }
        let named = self.named.minus(&other.named).into_iter();
        parts.extend(named.filter_map(|named| Self::new(self.pane, within.clone(), named)));
        parts
    }
}

/// Turns rules into regions; sets that are shared between rules stay shared.
#[derive(Default)]
pub(crate) struct Sides {
    /// Addresses that a name may have.
    nameable: AddrSet,
    addrs: HashMap<AddrSet, [Side; 2]>,
    ports: HashMap<PortSet, Side>,
    numbers: HashMap<(u128, u128), Side>,
}

impl Sides {
    /// For rules with names, each of which may have any address of `nameable`.
    pub(crate) fn with_names(nameable: AddrSet) -> Self {
        Self { nameable, ..Self::default() }
    }

    /// The packets `rule` speaks of.
    pub(crate) fn regions(&mut self, rule: &Rule) -> Vec<Region> {
        let hosts = rule.hosts.as_ref();
        let regions = self.product_with_names(&rule.src, (&rule.dst, hosts), &rule.what);
        match &rule.when {
            None => regions,
            Some(when) => {
                let rest = self.rest(when);
                let narrow = |mut region: Region| {
                    region.sides.iter_mut().skip(4).zip(&rest).for_each(|(side, set)| {
                        *side = set.clone();
                    });
                    Region::new(region.pane, region.sides, region.named)
                };
                regions.into_iter().filter_map(narrow).collect()
            }
        }
    }

    fn rest(&mut self, when: &Conditions) -> [Side; SIDES - 4] {
        let state = match when.state {
            None => self.numbers(0, 1),
            Some(state) => self.numbers(state as u128, state as u128),
        };
        let [ttl, dscp, flags] = [&when.ttl, &when.dscp, &when.flags].map(wide);
        [state, ttl, dscp, wide(&when.length), flags]
    }

    /// The packets of these kinds from `src` to `dst`, and to any address that one of `hosts` leads to.
    pub(crate) fn product_with_names(
        &mut self,
        src: &AddrSet,
        (dst, hosts): (&AddrSet, Option<&Arc<HostSet>>),
        what: &What,
    ) -> Vec<Region> {
        let mut regions = self.product(src, dst, what);
        let Some(hosts) = hosts else { return regions };
        let elsewhere = AddrSet {
            v4: self.nameable.v4.difference(&dst.v4),
            v6: self.nameable.v6.difference(&dst.v6),
        };
        for region in self.product(src, &elsewhere, what) {
            regions.push(Region { named: Named::by(hosts), ..region });
        }
        regions
    }

    /// The packets from `src` to `dst` of these kinds.
    pub(crate) fn product(&mut self, src: &AddrSet, dst: &AddrSet, what: &What) -> Vec<Region> {
        let mut regions = Vec::new();
        let [state, ttl, dscp, length, flags] =
            REST.map(|count| self.numbers(0, count.saturating_sub(1)));
        for pane in Pane::all() {
            let (src, dst) = (self.addrs(src, pane.family), self.addrs(dst, pane.family));
            for [a, b] in self.headers(what, pane) {
                let [state, ttl, dscp, length, flags] =
                    [&state, &ttl, &dscp, &length, &flags].map(Clone::clone);
                let sides = [src.clone(), dst.clone(), a, b, state, ttl, dscp, length, flags];
                regions.extend(Region::new(pane, sides, Named::default()));
            }
        }
        regions
    }

    fn addrs(&mut self, set: &AddrSet, family: Family) -> Side {
        let [v4, v6] = self.addrs.entry(set.clone()).or_insert_with(|| {
            let v4 = set.v4.ranges().iter().map(|&(lo, hi)| (u128::from(lo), u128::from(hi)));
            [Arc::new(RangeSet::from_ranges(v4)), Arc::new(set.v6.clone())]
        });
        match family {
            Family::V4 => v4.clone(),
            Family::V6 => v6.clone(),
        }
    }

    fn headers(&mut self, what: &What, pane: Pane) -> Vec<[Side; 2]> {
        let all = match pane.sort {
            Sort::Tcp | Sort::Udp => self.numbers(0, u128::from(u16::MAX)),
            Sort::Icmp => self.numbers(0, u128::from(u8::MAX)),
            Sort::Other => self.numbers(0, 0),
        };
        let What::Of(kinds) = what else { return vec![[all.clone(), all]] };
        let mut found = Vec::new();
        for kind in kinds {
            match (kind, pane.sort) {
                (Traffic::Tcp { sport, dport }, Sort::Tcp)
                | (Traffic::Udp { sport, dport }, Sort::Udp) => {
                    found.push([self.ports(sport), self.ports(dport)]);
                }
                (Traffic::Icmp, Sort::Icmp) => found.push([all.clone(), all.clone()]),
                (&Traffic::IcmpType { family, kind, code }, Sort::Icmp)
                    if family == pane.family =>
                {
                    let one = |n: u8| (u128::from(n), u128::from(n));
                    let (kind, code) = (one(kind), code.map(one));
                    let code = code.map_or(all.clone(), |(lo, hi)| self.numbers(lo, hi));
                    found.push([self.numbers(kind.0, kind.1), code]);
                }
                _ => {}
            }
        }
        found
    }

    fn ports(&mut self, set: &PortSet) -> Side {
        self.ports.entry(set.clone()).or_insert_with_key(wide::<u16>).clone()
    }

    fn numbers(&mut self, lo: u128, hi: u128) -> Side {
        let range = || Arc::new(RangeSet::from_ranges([(lo, hi)]));
        self.numbers.entry((lo, hi)).or_insert_with(range).clone()
    }
}

fn wide<T: Point + Into<u128>>(set: &RangeSet<T>) -> Side {
    let ranges = set.ranges().iter().map(|&(lo, hi)| (lo.into(), hi.into()));
    Arc::new(RangeSet::from_ranges(ranges))
}
