//! Where a host may be that is known by name only.
//!
//! In: a policy and the uplink behind which the host is to be. Out: an address of each family of which the
//! policy knows nothing else, as far as there is one. Never: one behind another uplink.

use crate::analysis::named::nameable;
use rules::{Policy, Route, Uplink};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Addresses of a network that are looked at.
const LOOKED_AT: u32 = 1024;

/// An address of each family that has one there.
pub(super) fn whereabouts(policy: &Policy, uplink: Uplink) -> Vec<IpAddr> {
    let services = &policy.parts().services;
    let free = nameable(policy);
    let rules = policy.parts().blocks.iter().flat_map(|block| &block.rules);
    let said: Vec<_> = rules.map(|rule| &*rule.dst).filter(|dst| !dst.is_any()).collect();
    let fits = |addr: &IpAddr| free.contains(*addr) && !said.iter().any(|dst| dst.contains(*addr));
    let routes = || services.routes.iter().filter(|route| route.uplink == uplink);
    let there = || {
        let all = documented().chain(routes().flat_map(hosts));
        all.filter(|addr| services.uplink_to(*addr) == uplink)
    };
    let of = |v4: bool| {
        let mut family = there().filter(|addr| addr.is_ipv4() == v4);
        family.clone().find(fits).or_else(|| family.next())
    };
    [true, false].into_iter().filter_map(of).collect()
}

/// Addresses of examples (RFC 5737, RFC 3849).
fn documented() -> impl Iterator<Item = IpAddr> + Clone {
    let nets = [[192, 0, 2], [198, 51, 100], [203, 0, 113]].into_iter();
    // The first numbers behind that stand for the firewall's own elsewhere.
    let last = || [1].into_iter().chain(33..=254);
    let v4 = nets.flat_map(move |[a, b, c]| last().map(move |d| IpAddr::from([a, b, c, d])));
    let v6 = |n: u16| IpAddr::from([0x2001, 0xdb8, n, 0, 0, 0, 0, 1]);
    v4.chain((0..=u16::MAX).map(v6))
}

/// The first addresses of the network of a route.
fn hosts(route: &Route) -> impl Iterator<Item = IpAddr> + Clone {
    let (first, last) = route.ends();
    let nth = move |n: u32| match first {
        IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(first.to_bits().saturating_add(n))),
        IpAddr::V6(first) => {
            IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().saturating_add(n.into())))
        }
    };
    let single = u32::from(first != last);
    (single..LOOKED_AT).map(nth).take_while(move |addr| *addr <= last)
}
