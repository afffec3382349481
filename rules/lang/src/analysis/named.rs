//! Which host names stand for the destination of a packet: one more side of a set of packets.
//!
//! What a name stands for is not known here, so every way it could be counts: any names may stand for
//! any address that a name may have. A rule with names speaks of the packets to whose destination at
//! least one of them leads. Sets of such ways are kept as conditions, which is exact and needs no list of
//! all ways.

use rules::{AddrSet, HostName, HostSet, Policy, nameless};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Ways in which names may stand for a destination: all that meet the conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// At least one name of each of these does.
    some: Vec<Arc<HostSet>>,
    /// None of these does.
    none: BTreeSet<HostName>,
}

impl Named {
    /// At least one of `hosts` does.
    pub(crate) fn by(hosts: &Arc<HostSet>) -> Self {
        Self { some: vec![hosts.clone()], none: BTreeSet::new() }
    }

    /// Whether there is any such way.
    fn is_possible(&self) -> bool {
        self.some.iter().all(|hosts| self.first(hosts).is_some())
    }

    /// The first of `hosts` that may stand for it.
    fn first<'h>(&self, hosts: &'h HostSet) -> Option<&'h HostName> {
        hosts.names().iter().find(|name| !self.none.contains(*name))
    }

    /// What is in both, if anything.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        both.some.extend(other.some.iter().filter(|theirs| !self.some.contains(theirs)).cloned());
        both.none.extend(other.none.iter().cloned());
        both.is_possible().then_some(both)
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.is_all() || other.is_all() || self.intersection(other).is_some()
    }

    pub(crate) fn is_subset(&self, other: &Self) -> bool {
        let follows = |theirs: &Arc<HostSet>| {
            let within = |mine: &Arc<HostSet>| {
                let mut left = mine.names().iter().filter(|name| !self.none.contains(*name));
                left.all(|name| theirs.names().contains(name))
            };
            self.some.iter().any(within)
        };
        other.none.is_subset(&self.none) && other.some.iter().all(follows)
    }

    /// What is not in `other`, in parts that do not overlap.
    pub(crate) fn minus(&self, other: &Self) -> Vec<Self> {
        let (mut parts, mut rest) = (Vec::new(), self.clone());
        let mut without = |rest: &Self, change: &dyn Fn(&mut Self)| {
            let mut part = rest.clone();
            change(&mut part);
            parts.extend(Some(part).filter(Self::is_possible));
        };
        for theirs in other.some.iter().filter(|theirs| !self.some.contains(theirs)) {
            without(&rest, &|part| part.none.extend(theirs.names().iter().cloned()));
            rest.some.push(theirs.clone());
        }
        for name in other.none.difference(&self.none) {
            if let Some(alone) = HostSet::new([name.clone()]).map(Arc::new) {
                without(&rest, &|part| part.some.push(alone.clone()));
            }
            rest.none.insert(name.clone());
        }
        parts
    }

    /// Whether names do not matter.
    pub(crate) fn is_all(&self) -> bool {
        self.some.is_empty() && self.none.is_empty()
    }

    /// One of the ways: names that stand for the destination, all others not.
    pub(crate) fn example(&self) -> Vec<HostName> {
        let mut names: Vec<HostName> = Vec::new();
        for hosts in &self.some {
            if !names.iter().any(|name| hosts.names().contains(name)) {
                names.extend(self.first(hosts).cloned());
            }
        }
        names.sort_unstable();
        names
    }
}

/// The addresses that a name may have while `policy` is in force. The firewall believes no other.
pub(crate) fn nameable(policy: &Policy) -> AddrSet {
    let (parts, nameless) = (policy.parts(), nameless());
    let services = &parts.services;
    let vms = parts.vms.iter().flat_map(|vm| vm.addrs.iter().copied());
    let pairs = services.one_to_one.iter().map(|pair| pair.external);
    let sources = services.sources.iter().map(|source| source.external);
    let forwards = services.forwards.iter().filter_map(|forward| forward.at);
    let taken = AddrSet::from_addrs(vms.chain(pairs).chain(sources).chain(forwards));
    AddrSet {
        v4: nameless.v4.complement().difference(&taken.v4),
        v6: nameless.v6.complement().difference(&taken.v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names() -> [HostName; 4] {
        ["a", "b", "c", "d"].map(|name| HostName::new(name).unwrap())
    }

    fn hosts() -> impl Strategy<Value = Arc<HostSet>> {
        proptest::sample::subsequence(names().to_vec(), 1..=3)
            .prop_map(|names| Arc::new(HostSet::new(names).unwrap()))
    }

    fn named() -> impl Strategy<Value = Named> {
        let none = proptest::sample::subsequence(names().to_vec(), 0..=2);
        let some = proptest::collection::vec(hosts(), 0..3);
        let made =
            (some, none).prop_map(|(some, none)| Named { some, none: none.into_iter().collect() });
        made.prop_filter("impossible", Named::is_possible)
    }

    /// Every way there is with four names, by plain asking.
    fn ways(named: &Named) -> BTreeSet<Vec<HostName>> {
        let all = (0..16u8).map(|bits| {
            let chosen = names().into_iter().enumerate().filter(|(n, _)| bits >> n & 1 == 1);
            chosen.map(|(_, name)| name).collect::<Vec<_>>()
        });
        all.filter(|way| {
            named.some.iter().all(|hosts| hosts.has_one_of(way))
                && !way.iter().any(|name| named.none.contains(name))
        })
        .collect()
    }

    proptest! {
        #[test]
        fn arithmetic_is_that_of_all_ways(a in named(), b in named()) {
            let (in_a, in_b) = (ways(&a), ways(&b));
            let both: BTreeSet<_> = in_a.intersection(&in_b).cloned().collect();
            prop_assert_eq!(a.intersection(&b).map(|c| ways(&c)).unwrap_or_default(), both.clone());
            prop_assert_eq!(a.overlaps(&b), !both.is_empty());
            prop_assert_eq!(a.is_subset(&b), in_a.is_subset(&in_b));
            let mut left: BTreeSet<_> = in_a.difference(&in_b).cloned().collect();
            for part in a.minus(&b) {
                prop_assert!(!ways(&part).is_empty());
                for way in ways(&part) {
                    prop_assert!(left.remove(&way), "each once: {:?}", way);
                }
            }
            prop_assert!(left.is_empty());
            prop_assert!(in_a.contains(&a.example()));
        }
    }
}
