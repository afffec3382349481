//! Policies and queries for tests: small worlds, so that every case occurs.

use proptest::prelude::*;
use rules::{
    Action, AddrSet, Block, DnsRedirect, Family, Parts, PortSet, Query, RejectKind, Rule, Then,
    Traffic, Transport, Vm, What, Zone,
};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Four addresses of each family.
pub(crate) fn addrs() -> Vec<IpAddr> {
    (0..4u8).flat_map(|n| [ip(&format!("10.0.0.{n}")), ip(&format!("fd00::{n}"))]).collect()
}

fn addr() -> impl Strategy<Value = IpAddr> {
    proptest::sample::select(addrs())
}

fn addr_set() -> impl Strategy<Value = Arc<AddrSet>> {
    let some = proptest::collection::vec((addr(), addr()), 1..4).prop_map(AddrSet::from_ranges);
    prop_oneof![Just(AddrSet::any()), some.prop_filter("empty", |set| !set.is_empty())]
        .prop_map(Arc::new)
}

fn ports() -> impl Strategy<Value = PortSet> {
    let some = proptest::collection::vec((0u16..4, 0u16..4), 1..3).prop_map(PortSet::from_ranges);
    prop_oneof![Just(PortSet::full()), some]
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    prop_oneof![
        (ports(), ports()).prop_map(|(sport, dport)| Traffic::Tcp { sport, dport }),
        (ports(), ports()).prop_map(|(sport, dport)| Traffic::Udp { sport, dport }),
        Just(Traffic::Icmp),
        (family, 0u8..3, proptest::option::of(0u8..2))
            .prop_map(|(family, kind, code)| Traffic::IcmpType { family, kind, code }),
    ]
}

fn then() -> impl Strategy<Value = Then> {
    let kinds = proptest::sample::select(RejectKind::ALL.to_vec());
    prop_oneof![
        3 => Just(Then::Do(Action::Accept)),
        2 => Just(Then::Do(Action::Drop)),
        1 => Just(Then::Qubes),
        2 => kinds.prop_map(|kind| Then::Do(Action::Reject(kind))),
    ]
}

fn rule() -> impl Strategy<Value = Rule> {
    let kinds = proptest::collection::vec(traffic(), 1..3).prop_map(What::Of);
    let what = prop_oneof![Just(What::Any), kinds];
    (1u32..99, addr_set(), addr_set(), what, then(), any::<bool>()).prop_map(
        |(line, src, dst, what, then, log)| {
            let reset = then == Then::Do(Action::Reject(RejectKind::TcpReset));
            let then = if reset && !what.is_tcp_only() { Then::Do(Action::Drop) } else { then };
            Rule { line, src, dst, what, then, log }
        },
    )
}

pub(crate) fn last_rule(action: Action) -> Rule {
    let any = Arc::new(AddrSet::any());
    Rule {
        line: 99,
        src: any.clone(),
        dst: any,
        what: What::Any,
        then: Then::Do(action),
        log: false,
    }
}

pub(crate) fn directions() -> [(Zone, Zone); 3] {
    [(Zone::Clients, Zone::Uplink), (Zone::Uplink, Zone::Clients), (Zone::Clients, Zone::Clients)]
}

/// Parts that make a policy.
pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let rules = proptest::collection::vec(rule(), 0..5);
    let blocks = proptest::collection::vec(rules, 0..4).prop_map(|lists| {
        let block = |((from, to), mut rules): (_, Vec<Rule>)| {
            if from == Zone::Uplink {
                rules.retain(|rule| rule.then != Then::Qubes);
            }
            rules.push(last_rule(Action::Drop));
            Block { from, to, rules }
        };
        directions().into_iter().zip(lists).map(block).collect::<Vec<_>>()
    });
    let vm = ("[a-z]{1,8}", proptest::collection::vec(addr(), 0..3))
        .prop_map(|(name, addrs)| Vm { name, addrs });
    let redirect = proptest::collection::vec(addr(), 0..3).prop_map(|asked| DnsRedirect {
        virtuals: asked,
        reals: vec![ip("1.1.1.1"), ip("2001:db8::53")],
    });
    let masquerade = proptest::sample::subsequence(directions().to_vec(), 0..=3);
    let name = "[a-z]{1,8}\\.tide";
    let vms = proptest::collection::vec(vm, 0..3);
    (name, vms, blocks, masquerade, proptest::option::of(redirect)).prop_map(
        |(name, vms, blocks, masquerade, redirect_dns)| Parts {
            name,
            vms,
            blocks,
            masquerade,
            redirect_dns,
        },
    )
}

/// Every packet of the small world: all pairs of addresses of one family, all ports and types.
pub(crate) fn every_query() -> Vec<Query> {
    let mut transports = vec![Transport::Other(47)];
    for a in 0..5 {
        for b in 0..5 {
            transports.push(Transport::Tcp { sport: a, dport: b });
            transports.push(Transport::Udp { sport: a, dport: b });
        }
    }
    transports
        .extend((0..4).flat_map(|kind| (0..3).map(move |code| Transport::Icmp { kind, code })));
    let mut queries = Vec::new();
    for src in addrs() {
        for dst in addrs().into_iter().filter(|dst| dst.is_ipv4() == src.is_ipv4()) {
            for (from, to) in directions() {
                let make = |&transport| Query { from, to, src, dst, transport };
                queries.extend(transports.iter().map(make));
            }
        }
    }
    queries
}
