//! Policies and queries for tests: small worlds, so that every case occurs.

use proptest::prelude::*;
use rules::{
    Action, AddrSet, Balance, Block, Conditions, DnsRedirect, Family, Forward, Header, HostName,
    HostSet, HostTable, Note, OneToOne, Parts, PortSet, Ported, Query, RangeSet, Rate, RejectKind,
    Route, Rule, Services, Severity, Source, State, Syslog, Then, Timeout, Traffic, Transport,
    Uplink, Vm, What, Zone,
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
    let notes = (proptest::option::of(rate()), proptest::option::of(note()));
    let dst = (addr_set(), hosts(), any::<bool>());
    (1u32..99, addr_set(), dst, what, then(), notes, when()).prop_map(
        |(line, src, (dst, hosts, alone), what, then, (limit, log), mut when)| {
            let reset = then == Then::Do(Action::Reject(RejectKind::TcpReset));
            let then = if reset && !what.is_tcp_only() { Then::Do(Action::Drop) } else { then };
            if let Some(when) = when.as_mut().filter(|_| !what.is_tcp_only()) {
                when.flags = RangeSet::full();
            }
            let dst = if alone && hosts.is_some() { Arc::new(AddrSet::EMPTY) } else { dst };
            Rule { line, src, dst, hosts, what, when: when.map(Arc::new), then, limit, log }
        },
    )
}

/// Three names.
pub(crate) fn names() -> Vec<HostName> {
    ["a", "b.example", "c.example"].map(|name| HostName::new(name).unwrap()).to_vec()
}

fn hosts() -> impl Strategy<Value = Option<Arc<HostSet>>> {
    let some = proptest::sample::subsequence(names(), 0..=3);
    prop_oneof![2 => Just(vec![]), 1 => some].prop_map(|names| HostSet::new(names).map(Arc::new))
}

/// What names may stand for, for clients and for addresses of the small world.
pub(crate) fn host_table() -> impl Strategy<Value = HostTable> {
    let name = proptest::sample::select(names());
    let told = (addr(), name, proptest::collection::vec(addr(), 0..4));
    proptest::collection::vec(told, 0..12).prop_map(|told| {
        let mut table = HostTable::new();
        for (client, name, addrs) in told {
            table.set(client, &name, &addrs);
        }
        table
    })
}

/// Conditions on headers that differ in the small numbers.
fn when() -> impl Strategy<Value = Option<Conditions>> {
    let few = || (0u8..3, 0u8..3).prop_map(|(lo, hi)| RangeSet::from_ranges([(lo, hi.max(lo))]));
    let state = proptest::sample::select(vec![None, Some(State::New), Some(State::Established)]);
    let sets = (few(), few(), few(), few(), 0u8..16, state);
    let some = sets.prop_map(|(ttl, dscp, length, flags, chosen, state)| {
        let none = Conditions::none();
        let length = length.ranges().iter().map(|&(lo, hi)| (lo.into(), hi.into()));
        Conditions {
            state,
            ttl: if chosen & 1 == 0 { none.ttl } else { ttl },
            dscp: if chosen & 2 == 0 { none.dscp } else { dscp },
            length: if chosen & 4 == 0 { none.length } else { RangeSet::from_ranges(length) },
            flags: if chosen & 8 == 0 { none.flags } else { flags },
        }
    });
    prop_oneof![2 => Just(None), 1 => some.prop_map(Some)]
}

fn rate() -> impl Strategy<Value = Rate> {
    (1u32..9, 1u32..9, 1u32..9).prop_map(|(count, secs, burst)| Rate { count, secs, burst })
}

fn note() -> impl Strategy<Value = Note> {
    let severity = proptest::sample::select(Severity::ALL.to_vec());
    (severity, proptest::option::of(rate())).prop_map(|(severity, limit)| Note { severity, limit })
}

pub(crate) fn uplink() -> impl Strategy<Value = Uplink> {
    proptest::sample::select(Uplink::ALL.to_vec())
}

/// The uplink of an external address, which has one.
fn uplink_of(addr: IpAddr) -> Uplink {
    match addr {
        IpAddr::V4(addr) => Uplink::ALL[usize::from(addr.octets()[3] % 4)],
        IpAddr::V6(_) => Uplink::FIRST,
    }
}

/// Services of every kind, none of them twice.
fn services() -> impl Strategy<Value = Services> {
    let v4 = || addr().prop_filter("family", IpAddr::is_ipv4);
    let forward = (any::<bool>(), proptest::option::of(v4()), addr_set(), any::<bool>(), uplink());
    let forward = (forward, proptest::collection::vec((v4(), 1u16..4), 1..3)).prop_map(
        |((tcp, at, from, hash, uplink), to)| Forward {
            uplink: at.map_or(uplink, uplink_of),
            proto: if tcp { Ported::Tcp } else { Ported::Udp },
            at,
            port: 0,
            from,
            to,
            balance: if hash { Balance::Hash } else { Balance::RoundRobin },
        },
    );
    let forwards = proptest::collection::vec(forward, 0..3).prop_map(|mut forwards| {
        (1..).zip(&mut forwards).for_each(|(port, forward)| forward.port = port);
        forwards
    });
    let source =
        (v4(), v4(), any::<bool>(), any::<bool>()).prop_map(|(inside, external, whole, fix)| {
            let socket = (!whole).then_some((Ported::Udp, 5));
            let uplink = uplink_of(external);
            Source { uplink, inside, socket, external, port: socket.filter(|_| fix).map(|_| 6) }
        });
    let pair = (v4(), v4()).prop_map(|(inside, external)| OneToOne {
        uplink: uplink_of(external),
        inside,
        external,
    });
    let route =
        (0u8..33, proptest::option::of(v4()), uplink()).prop_map(|(prefix, via, uplink)| {
            let bits = 0x0a00_0000 & u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            Route { net: std::net::Ipv4Addr::from_bits(bits).into(), prefix, uplink, via }
        });
    let syslog = (addr(), 1u16..4, any::<bool>(), any::<bool>());
    let syslog =
        syslog.prop_map(|(to, port, accepted, refused)| Syslog { to, port, accepted, refused });
    let timeouts = proptest::sample::subsequence(Timeout::ALL.to_vec(), 0..=6)
        .prop_map(|kinds| kinds.into_iter().map(|kind| (kind, kind.least())).collect());
    let lists = (
        forwards,
        proptest::option::of(pair),
        proptest::option::of(source),
        proptest::collection::vec(route, 0..3),
    );
    let rest =
        (any::<bool>(), proptest::option::of(syslog), timeouts, proptest::option::of(1u32..9));
    (lists, rest).prop_map(
        |((forwards, pair, source, mut routes), (hairpin, syslog, timeouts, flows))| {
            let (one_to_one, sources) = (pair.into_iter().collect(), source.into_iter().collect());
            let flows_per_client = flows;
            routes.sort_by_key(|route| route.prefix);
            routes.dedup_by_key(|route| route.prefix);
            Services {
                forwards,
                one_to_one,
                sources,
                hairpin,
                routes,
                syslog,
                timeouts,
                flows_per_client,
            }
        },
    )
}

pub(crate) fn last_rule(action: Action) -> Rule {
    let any = Arc::new(AddrSet::any());
    Rule {
        line: 99,
        src: any.clone(),
        dst: any,
        hosts: None,
        what: What::Any,
        when: None,
        then: Then::Do(action),
        limit: None,
        log: None,
    }
}

/// Those of the first uplink, between clients, and of another.
pub(crate) fn directions() -> [(Zone, Zone); 5] {
    let [first, .., other] = Uplink::ALL.map(Zone::Uplink);
    [
        (Zone::Clients, first),
        (first, Zone::Clients),
        (Zone::Clients, Zone::Clients),
        (Zone::Clients, other),
        (other, Zone::Clients),
    ]
}

/// Parts that make a policy.
pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    let rules = proptest::collection::vec(rule(), 0..5);
    let blocks = proptest::collection::vec(rules, 0..6).prop_map(|lists| {
        let block = |((from, to), mut rules): (_, Vec<Rule>)| {
            if from != Zone::Clients {
                rules.retain(|rule| rule.then != Then::Qubes);
            }
            if from != Zone::Clients || to == Zone::Clients {
                for rule in rules.iter_mut().filter(|rule| rule.hosts.is_some()) {
                    (rule.dst, rule.hosts) = (Arc::new(AddrSet::any()), None);
                }
            }
            rules.push(last_rule(Action::Drop));
            Block { from, to, rules }
        };
        directions().into_iter().zip(lists).map(block).collect::<Vec<_>>()
    });
    let mac = proptest::option::of(any::<[u8; 6]>());
    let vm = ("[a-z]{1,8}", proptest::collection::vec(addr(), 0..3), mac)
        .prop_map(|(name, addrs, mac)| Vm { name, addrs, mac });
    let redirect = proptest::collection::vec(addr(), 0..3).prop_map(|asked| DnsRedirect {
        virtuals: asked,
        reals: vec![ip("1.1.1.1"), ip("2001:db8::53")],
    });
    let masquerade = proptest::sample::subsequence(directions().to_vec(), 0..=3);
    let name = "[a-z]{1,8}\\.tide";
    let vms = proptest::collection::vec(vm, 0..3);
    (name, vms, blocks, masquerade, proptest::option::of(redirect), services()).prop_map(
        |(name, vms, blocks, masquerade, redirect_dns, services)| Parts {
            name,
            vms,
            blocks,
            masquerade,
            redirect_dns,
            services,
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
                // Each packet with another header, so that all of them occur with most.
                let make = |(n, &transport): (usize, &Transport)| {
                    let n = u8::try_from(n).unwrap();
                    let header = Header {
                        state: State::ALL[usize::from(n % 2)],
                        ttl: n % 3,
                        dscp: n / 3 % 3,
                        length: u16::from(n / 9 % 3),
                        flags: n / 2 % 3,
                    };
                    Query { from, to, src, dst, transport, header }
                };
                queries.extend(transports.iter().enumerate().map(make));
            }
        }
    }
    queries
}
