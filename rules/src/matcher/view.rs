//! Packets and rules as the trees see them: points and boxes in four dimensions, one such space
//! (a pane) for each family and protocol.

use crate::{Family, Point, PortSet, Query, RangeSet, Rule, Traffic, Transport, What};
use alloc::vec::Vec;
use core::net::IpAddr;

/// Source address, destination address, and of the transport header source and destination port, or
/// ICMP type and code.
pub(super) const DIMENSIONS: usize = 4;

/// Two families by four sorts of protocol.
pub(super) const PANES: usize = 8;

/// What a leaf says of a rule: enough to tell most that do not match from those that do without a look
/// at the rule itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) rule: u32,
    /// IPv4 addresses, or the first 32 bits of IPv6 addresses.
    src: (u32, u32),
    dst: (u32, u32),
    /// Destination port or ICMP type.
    header: (u16, u16),
    /// Whether this is all it says: what it may match, it does match.
    pub(super) exact: bool,
}

/// The same of a packet.
pub(super) struct Likeness {
    src: u32,
    dst: u32,
    header: u16,
}

impl Likeness {
    pub(super) fn of(pane: usize, &[src, dst, a, b]: &[u128; DIMENSIONS]) -> Self {
        let pane = Pane::ALL.get(pane).copied().unwrap_or(Pane::FIRST);
        let header = if pane.sort == Sort::Icmp { a } else { b };
        let header = u16::try_from(header).unwrap_or(u16::MAX);
        Self { src: pane.short(src), dst: pane.short(dst), header }
    }
}

impl Candidate {
    /// Whether the rule may match a packet that looks like this.
    pub(super) const fn may_match(&self, like: &Likeness) -> bool {
        self.header.0 <= like.header
            && like.header <= self.header.1
            && self.dst.0 <= like.dst
            && like.dst <= self.dst.1
            && self.src.0 <= like.src
            && like.src <= self.src.1
    }
}

/// What lies between the first and the last value in each dimension.
pub(super) type Region = [(u128, u128); DIMENSIONS];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Tcp,
    Udp,
    Icmp,
    Other,
}

/// One family and protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pane {
    family: Family,
    sort: Sort,
}

/// The pane of `query` and its place there.
pub(super) fn locate(query: &Query) -> (usize, [u128; DIMENSIONS]) {
    let bits = |addr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let (sort, a, b) = match query.transport {
        Transport::Tcp { sport, dport } => (Sort::Tcp, sport, dport),
        Transport::Udp { sport, dport } => (Sort::Udp, sport, dport),
        Transport::Icmp { kind, code } => (Sort::Icmp, u16::from(kind), u16::from(code)),
        Transport::Other(_) => (Sort::Other, 0, 0),
    };
    let pane = Pane { family: query.family(), sort };
    (pane.number(), [bits(query.src), bits(query.dst), u128::from(a), u128::from(b)])
}

impl Pane {
    const FIRST: Self = Self { family: Family::V4, sort: Sort::Tcp };

    /// An address of this family as far as a [`Candidate`] has it.
    fn short(self, addr: u128) -> u32 {
        let bits = if self.family == Family::V4 { addr } else { addr >> 96 };
        u32::try_from(bits).unwrap_or(u32::MAX)
    }

    /// All panes by their number: those with the most flows first, because they are served first
    /// where memory is short.
    pub(super) const ALL: [Self; PANES] = {
        const fn pane(family: Family, sort: Sort) -> Pane {
            Pane { family, sort }
        }
        [
            pane(Family::V4, Sort::Tcp),
            pane(Family::V6, Sort::Tcp),
            pane(Family::V4, Sort::Udp),
            pane(Family::V6, Sort::Udp),
            pane(Family::V4, Sort::Icmp),
            pane(Family::V6, Sort::Icmp),
            pane(Family::V4, Sort::Other),
            pane(Family::V6, Sort::Other),
        ]
    };

    const fn number(self) -> usize {
        let sort = match self.sort {
            Sort::Tcp => 0,
            Sort::Udp => 2,
            Sort::Icmp => 4,
            Sort::Other => 6,
        };
        match self.family {
            Family::V4 => sort,
            Family::V6 => sort + 1,
        }
    }

    /// All of it.
    pub(super) fn region(self) -> Region {
        let addrs = match self.family {
            Family::V4 => (0, u128::from(u32::MAX)),
            Family::V6 => (0, u128::MAX),
        };
        let header = match self.sort {
            Sort::Tcp | Sort::Udp => (0, u128::from(u16::MAX)),
            Sort::Icmp => (0, u128::from(u8::MAX)),
            Sort::Other => (0, 0),
        };
        [addrs, addrs, header, header]
    }
}

/// A rule as seen in one pane.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) rule: &'a Rule,
    pub(super) pane: Pane,
}

/// One side of the box of a rule.
enum Side<'a> {
    All,
    V4(&'a RangeSet<u32>),
    V6(&'a RangeSet<u128>),
    Ports(&'a PortSet),
    One(u8),
}

impl<'a> View<'a> {
    /// Whether it speaks of any packet of the pane.
    pub(super) fn applies(self) -> bool {
        let some = |side: &Side<'_>| !side.is_empty();
        some(&self.addrs(0)) && some(&self.addrs(1)) && self.headers().next().is_some()
    }

    /// Whether it may speak of packets with values from `lo` to `hi` in `dimension`.
    pub(super) fn overlaps(self, dimension: usize, (lo, hi): (u128, u128)) -> bool {
        match dimension {
            0 | 1 => self.addrs(dimension).overlaps(lo, hi),
            2 => self.headers().any(|(a, _)| a.overlaps(lo, hi)),
            _ => self.headers().any(|(_, b)| b.overlaps(lo, hi)),
        }
    }

    /// Whether it surely speaks of every packet in `region`.
    pub(super) fn covers(self, region: &Region) -> bool {
        let &[src, dst, first, second] = region;
        self.is_all_said()
            && self.addrs(0).covers(src)
            && self.addrs(1).covers(dst)
            && self.headers().any(|(a, b)| a.covers(first) && b.covers(second))
    }

    /// Adds the values where a cut in `dimension` would separate it from others: at most
    /// [`Self::EDGES`] for each range set.
    pub(super) fn edges(self, dimension: usize, out: &mut Vec<u128>) {
        match dimension {
            0 | 1 => self.addrs(dimension).edges(out),
            2 => self.headers().take(Self::EDGES).for_each(|(a, _)| a.edges(out)),
            _ => self.headers().take(Self::EDGES).for_each(|(_, b)| b.edges(out)),
        }
    }

    /// Ranges of a set that are looked at for edges.
    const EDGES: usize = 8;

    /// What a leaf says of it, under the number `rule`.
    pub(super) fn candidate(self, rule: u32) -> Candidate {
        let all = (0, u128::MAX);
        let (src, dst) = (self.addrs(0).hull(), self.addrs(1).hull());
        let mut kinds = self.headers().map(|(a, b)| {
            let (told, untold) = if self.pane.sort == Sort::Icmp { (a, b) } else { (b, a) };
            (told.hull(), untold.hull() == (all, true))
        });
        let ((mut header, only), whole) = kinds.next().unwrap_or((((0, 0), false), false));
        let alone = kinds.next().is_none();
        if !alone {
            header = all;
        }
        let v4 = self.pane.family == Family::V4;
        let told_wholly = |(range, one): ((u128, u128), bool)| one && (v4 || range == all);
        let told = told_wholly(src) && told_wholly(dst) && only && whole && alone;
        let exact = told && self.is_all_said();
        let short = |((lo, hi), _): ((u128, u128), bool)| match v4 && hi == u128::MAX {
            true => (0, u32::MAX),
            false => (self.pane.short(lo), self.pane.short(hi)),
        };
        let port = |number: u128| u16::try_from(number).unwrap_or(u16::MAX);
        let header = (port(header.0), port(header.1));
        Candidate { rule, src: short(src), dst: short(dst), header, exact }
    }

    /// Its shape: a bit for each of source, destination and header that it narrows down.
    pub(super) fn shape(self) -> usize {
        let header = |(a, b): (Side<'_>, Side<'_>)| a.is_narrow() || b.is_narrow();
        let bit = |narrow, value| if narrow { value } else { 0 };
        bit(self.addrs(0).is_narrow(), 1)
            | bit(self.addrs(1).is_narrow(), 2)
            | bit(self.headers().all(header), 4)
    }

    /// Whether the dimensions say all of its conditions.
    const fn is_all_said(self) -> bool {
        self.rule.when.is_none() && self.rule.hosts.is_none()
    }

    /// A rule about names may speak of any destination.
    fn addrs(self, dimension: usize) -> Side<'a> {
        if dimension == 1 && self.rule.hosts.is_some() {
            return Side::All;
        }
        let set = if dimension == 0 { &self.rule.src } else { &self.rule.dst };
        match self.pane.family {
            Family::V4 if set.v4.is_full() => Side::All,
            Family::V4 => Side::V4(&set.v4),
            Family::V6 if set.v6.is_full() => Side::All,
            Family::V6 => Side::V6(&set.v6),
        }
    }

    /// Both header dimensions of each kind of traffic it speaks of in this pane.
    fn headers(self) -> impl Iterator<Item = (Side<'a>, Side<'a>)> {
        let kinds = match &self.rule.what {
            What::Any => &[][..],
            What::Of(kinds) => kinds,
        };
        let any = matches!(self.rule.what, What::Any).then_some((Side::All, Side::All));
        any.into_iter().chain(kinds.iter().filter_map(move |kind| self.header(kind)))
    }

    fn header(self, kind: &'a Traffic) -> Option<(Side<'a>, Side<'a>)> {
        match (kind, self.pane.sort) {
            (Traffic::Tcp { sport, dport }, Sort::Tcp)
            | (Traffic::Udp { sport, dport }, Sort::Udp) => {
                Some((Side::Ports(sport), Side::Ports(dport)))
            }
            (Traffic::Icmp, Sort::Icmp) => Some((Side::All, Side::All)),
            (&Traffic::IcmpType { family, kind, code }, Sort::Icmp)
                if family == self.pane.family =>
            {
                Some((Side::One(kind), code.map_or(Side::All, Side::One)))
            }
            _ => None,
        }
    }
}

impl Side<'_> {
    fn is_empty(&self) -> bool {
        match self {
            Self::All | Self::One(_) => false,
            Self::V4(set) => set.is_empty(),
            Self::V6(set) => set.is_empty(),
            Self::Ports(set) => set.is_empty(),
        }
    }

    /// The first and the last value, and whether it has all between them.
    fn hull(&self) -> ((u128, u128), bool) {
        match self {
            Self::All => ((0, u128::MAX), true),
            Self::V4(set) => hull(set),
            Self::V6(set) => hull(set),
            Self::Ports(set) if set.is_full() => ((0, u128::MAX), true),
            Self::Ports(set) => hull(set),
            Self::One(value) => ((u128::from(*value), u128::from(*value)), true),
        }
    }

    fn overlaps(&self, lo: u128, hi: u128) -> bool {
        match self {
            Self::All => true,
            Self::V4(set) => within(set, lo, hi).is_some(),
            Self::V6(set) => within(set, lo, hi).is_some(),
            Self::Ports(set) => within(set, lo, hi).is_some(),
            Self::One(value) => (lo..=hi).contains(&u128::from(*value)),
        }
    }

    fn covers(&self, (lo, hi): (u128, u128)) -> bool {
        let all = |found: Option<(u128, u128)>| found.is_some_and(|(a, b)| a <= lo && hi <= b);
        match self {
            Self::All => true,
            Self::V4(set) => all(within(set, lo, hi)),
            Self::V6(set) => all(within(set, lo, hi)),
            Self::Ports(set) => all(within(set, lo, hi)),
            Self::One(value) => lo == hi && lo == u128::from(*value),
        }
    }

    fn edges(&self, out: &mut Vec<u128>) {
        match self {
            Self::All => {}
            Self::V4(set) => edges(set, out),
            Self::V6(set) => edges(set, out),
            Self::Ports(set) => edges(set, out),
            Self::One(value) => {
                out.extend([u128::from(*value), u128::from(*value).saturating_add(1)]);
            }
        }
    }

    /// Whether it is a small part of its dimension: less than an IPv4 /8, an IPv6 /16, 4,096 ports.
    fn is_narrow(&self) -> bool {
        match self {
            Self::All => false,
            Self::V4(set) => width(set) < 1 << 24,
            Self::V6(set) => width(set) < 1 << 112,
            Self::Ports(set) => width(set) < 1 << 12,
            Self::One(_) => true,
        }
    }
}

/// The first range of `set` that has a value from `lo` to `hi`.
fn within<T: Point + Into<u128>>(set: &RangeSet<T>, lo: u128, hi: u128) -> Option<(u128, u128)> {
    let ranges = set.ranges();
    let first = ranges.partition_point(|&(_, last)| last.into() < lo);
    let &(a, b) = ranges.get(first)?;
    (a.into() <= hi).then(|| (a.into(), b.into()))
}

fn hull<T: Point + Into<u128>>(set: &RangeSet<T>) -> ((u128, u128), bool) {
    match set.ranges() {
        [] => ((0, 0), false),
        [(lo, hi)] => (((*lo).into(), (*hi).into()), true),
        [(lo, _), .., (_, hi)] => (((*lo).into(), (*hi).into()), false),
    }
}

fn edges<T: Point + Into<u128>>(set: &RangeSet<T>, out: &mut Vec<u128>) {
    for &(lo, hi) in set.ranges().iter().take(View::EDGES) {
        out.push(lo.into());
        out.extend(hi.into().checked_add(1));
    }
}

fn width<T: Point + Into<u128>>(set: &RangeSet<T>) -> u128 {
    let widths = set.ranges().iter().map(|&(lo, hi)| hi.into().saturating_sub(lo.into()));
    widths.fold(0, |sum, width| sum.saturating_add(width).saturating_add(1))
}
