//! Sets of numbers and addresses as sorted ranges, so that equal sets have one form and a lookup is
//! a binary search. Never: a range that is empty, overlaps or touches its neighbour.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A value that ranges are made of.
pub trait Point: Copy + Ord {
    /// The least value.
    const MIN: Self;
    /// The greatest value.
    const MAX: Self;
    /// The next value; `None` at the end.
    fn next(self) -> Option<Self>;
    /// The value before; `None` at the start.
    fn prev(self) -> Option<Self>;
}

macro_rules! points {
    ($($t:ty),+) => {$(
        impl Point for $t {
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;
            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }
            fn prev(self) -> Option<Self> {
                self.checked_sub(1)
            }
        }
    )+};
}
points!(u8, u16, u32, u128);

/// A set of values as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RangeSet<T>(Vec<(T, T)>);

/// A set of TCP or UDP ports.
pub type PortSet = RangeSet<u16>;

impl<T: Point> RangeSet<T> {
    /// The set that holds nothing.
    pub const EMPTY: Self = Self(Vec::new());

    /// The set that holds everything.
    #[must_use]
    pub fn full() -> Self {
        Self::from_ranges([(T::MIN, T::MAX)])
    }

    /// The union of inclusive ranges, in any order; a range whose end lies before its start is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (T, T)>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().filter(|(lo, hi)| lo <= hi).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(T, T)> = Vec::with_capacity(sorted.len());
        for (lo, hi) in sorted {
            match merged.last_mut() {
                Some((_, end)) if end.next().is_none_or(|next| lo <= next) => *end = hi.max(*end),
                _ => merged.push((lo, hi)),
            }
        }
        Self(merged)
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            if a.0.max(b.0) <= a.1.min(b.1) {
                both.push((a.0.max(b.0), a.1.min(b.1)));
            }
            if a.1 <= b.1 {
                left.next()
            } else {
                right.next()
            };
        }
        Self(both)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.intersection(&other.complement())
    }

    /// What is not in this set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let (mut gaps, mut start) = (Vec::with_capacity(self.0.len()), Some(T::MIN));
        for &(lo, hi) in &self.0 {
            gaps.extend(start.zip(lo.prev()).filter(|(from, to)| from <= to));
            start = hi.next();
        }
        gaps.extend(start.map(|from| (from, T::MAX)));
        Self(gaps)
    }

    /// Whether something is in both sets.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (few, many) = if self.0.len() < other.0.len() { (self, other) } else { (other, self) };
        few.0.iter().any(|&(lo, hi)| {
            let after = many.0.partition_point(|&(_, end)| end < lo);
            many.0.get(after).is_some_and(|&(start, _)| start <= hi)
        })
    }

    /// Whether all of this set is in the other.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|&(lo, hi)| {
            let after = other.0.partition_point(|&(_, end)| end < lo);
            other.0.get(after).is_some_and(|&(start, end)| start <= lo && hi <= end)
        })
    }

    /// The ranges, sorted.
    #[must_use]
    pub fn ranges(&self) -> &[(T, T)] {
        &self.0
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: T) -> bool {
        let after = self.0.partition_point(|&(_, hi)| hi < value);
        self.0.get(after).is_some_and(|&(lo, _)| lo <= value)
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether everything is in the set.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.first().is_some_and(|&(lo, hi)| lo == T::MIN && hi == T::MAX)
    }
}

/// A set of addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddrSet {
    /// Its IPv4 addresses, as numbers.
    pub v4: RangeSet<u32>,
    /// Its IPv6 addresses, as numbers.
    pub v6: RangeSet<u128>,
}

impl AddrSet {
    /// The set that holds nothing.
    pub const EMPTY: Self = Self { v4: RangeSet::EMPTY, v6: RangeSet::EMPTY };

    /// Every address of both families.
    #[must_use]
    pub fn any() -> Self {
        Self { v4: RangeSet::full(), v6: RangeSet::full() }
    }

    /// The union of inclusive ranges. A range between families, or one that ends before it starts,
    /// is empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = (IpAddr, IpAddr)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range {
                (IpAddr::V4(lo), IpAddr::V4(hi)) => v4.push((lo.to_bits(), hi.to_bits())),
                (IpAddr::V6(lo), IpAddr::V6(hi)) => v6.push((lo.to_bits(), hi.to_bits())),
                _ => {}
            }
        }
        Self { v4: RangeSet::from_ranges(v4), v6: RangeSet::from_ranges(v6) }
    }

    /// The set of these addresses.
    pub fn from_addrs(addrs: impl IntoIterator<Item = IpAddr>) -> Self {
        Self::from_ranges(addrs.into_iter().map(|addr| (addr, addr)))
    }

    /// The ranges, IPv4 first.
    pub fn ranges(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        let v4 = |bits| IpAddr::V4(Ipv4Addr::from_bits(bits));
        let v6 = |bits| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let low = self.v4.ranges().iter().map(move |&(lo, hi)| (v4(lo), v4(hi)));
        low.chain(self.v6.ranges().iter().map(move |&(lo, hi)| (v6(lo), v6(hi))))
    }

    /// The fewest networks that together are the set, each as its first address and the length of
    /// its prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (IpAddr, u8)> + '_ {
        let v4 = self.v4.ranges().iter();
        let v4 = v4.flat_map(|&(lo, hi)| networks(lo.into(), hi.into(), 32));
        let v4 = v4.map(|(first, len)| {
            (IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(first).unwrap_or(0))), len)
        });
        let v6 = self.v6.ranges().iter().flat_map(|&(lo, hi)| networks(lo, hi, 128));
        v4.chain(v6.map(|(first, len)| (IpAddr::V6(Ipv6Addr::from_bits(first)), len)))
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self { v4: self.v4.intersection(&other.v4), v6: self.v6.intersection(&other.v6) }
    }

    /// Whether `addr` is in the set.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match addr {
            IpAddr::V4(addr) => self.v4.contains(addr.to_bits()),
            IpAddr::V6(addr) => self.v6.contains(addr.to_bits()),
        }
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether everything is in the set.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.v4.is_full() && self.v6.is_full()
    }
}

/// The networks that a range of numbers of `width` bits is made of.
fn networks(lo: u128, hi: u128, width: u8) -> impl Iterator<Item = (u128, u8)> {
    let mut next = Some(lo);
    core::iter::from_fn(move || {
        let first = next.filter(|first| *first <= hi)?;
        // As large as where it begins allows, and no larger than what is left.
        let mut bits = first.trailing_zeros().min(u32::from(width));
        let last = |bits: u32| first | 1u128.checked_shl(bits).map_or(u128::MAX, |one| one - 1);
        while last(bits) > hi {
            bits = bits.saturating_sub(1);
        }
        next = last(bits).checked_add(1);
        Some((first, width.saturating_sub(u8::try_from(bits).unwrap_or(width))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn small_ranges() -> impl Strategy<Value = Vec<(u16, u16)>> {
        proptest::collection::vec((0u16..20, 0u16..20), 0..6)
    }

    /// The same set by the plainest means.
    fn plain(ranges: &[(u16, u16)]) -> BTreeSet<u16> {
        ranges.iter().flat_map(|&(lo, hi)| lo..=hi).collect()
    }

    proptest! {
        #[test]
        fn a_set_holds_what_its_ranges_hold(a in small_ranges(), b in small_ranges()) {
            let (set, other) = (PortSet::from_ranges(a.clone()), PortSet::from_ranges(b.clone()));
            let (a, b) = (plain(&a), plain(&b));
            for value in 0..25 {
                prop_assert_eq!(set.contains(value), a.contains(&value));
                let both = a.contains(&value) && b.contains(&value);
                prop_assert_eq!(set.intersection(&other).contains(value), both);
                let alone = a.contains(&value) && !b.contains(&value);
                prop_assert_eq!(set.difference(&other).contains(value), alone);
                prop_assert_eq!(set.complement().contains(value), !a.contains(&value));
            }
            for made in [set.intersection(&other), set.difference(&other), set.complement()] {
                let again = PortSet::from_ranges(made.ranges().iter().copied());
                prop_assert_eq!(again, made, "made sets have the one form too");
            }
            prop_assert_eq!(set.complement().complement(), set.clone());
            prop_assert_eq!(set.overlaps(&other), a.intersection(&b).next().is_some());
            prop_assert_eq!(set.is_subset(&other), a.is_subset(&b));
            prop_assert_eq!(set.is_empty(), a.is_empty());
            prop_assert_eq!(set == other, a == b, "equal sets have one form");
        }
    }

    #[test]
    fn ranges_join_where_they_touch_even_at_the_ends() {
        let set = PortSet::from_ranges([
            (5, 9),
            (0, 3),
            (4, 4),
            (65535, 65535),
            (20, 10),
            (65534, 65534),
        ]);
        assert_eq!(set.ranges(), [(0, 9), (65534, 65535)]);
        let all = PortSet::from_ranges([(0, 65535), (3, 4)]);
        assert_eq!(all.ranges(), [(0, 65535)]);
        assert!(all.is_full() && !set.is_full() && !PortSet::EMPTY.is_full());
    }

    proptest! {
        #[test]
        fn networks_are_the_set_and_no_two_make_a_larger_one(a in any::<u32>(), size in any::<u16>()) {
            let range = (a, a.saturating_add(size.into()));
            let set = AddrSet { v4: RangeSet::from_ranges([range]), v6: RangeSet::full() };
            let of = |(first, len): (IpAddr, u8)| match first {
                IpAddr::V4(first) => {
                    let size = 1u64 << (32 - len);
                    assert_eq!(u64::from(first.to_bits()) % size, 0);
                    Some((u64::from(first.to_bits()), u64::from(first.to_bits()) + size - 1))
                }
                IpAddr::V6(_) => {
                    assert_eq!(len, 0);
                    None
                }
            };
            let parts: Vec<_> = set.prefixes().filter_map(of).collect();
            prop_assert!(parts.windows(2).all(|two| two[0].1 + 1 == two[1].0));
            let ends = (parts[0].0, parts[parts.len() - 1].1);
            prop_assert_eq!(ends, (u64::from(range.0), u64::from(range.1)));
            prop_assert!(parts.len() <= 62);
        }
    }

    #[test]
    fn families_do_not_mix() {
        let v4: IpAddr = "0.0.0.1".parse().unwrap();
        let v6: IpAddr = "::1".parse().unwrap();
        let set = AddrSet::from_ranges([(v4, v4), (v4, v6)]);
        assert!(set.contains(v4) && !set.contains(v6));
        assert!(AddrSet::any().is_any() && AddrSet::any().contains(v6));
        assert!(!AddrSet { v4: RangeSet::full(), v6: RangeSet::EMPTY }.is_any());
        assert_eq!(
            AddrSet::from_addrs([v6, v4]).ranges().collect::<Vec<_>>(),
            vec![(v4, v4), (v6, v6)]
        );
    }
}
