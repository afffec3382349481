//! The index against asking every rule, and what it costs.

use super::*;
use crate::{
    Action, AddrSet, Family, Header, HostName, HostSet, HostTable, PortSet, Query, RejectKind,
    Then, Traffic, Transport, Uplink, What, Zone,
};
use alloc::sync::Arc;
use alloc::vec;
use core::net::{IpAddr, Ipv4Addr};
use proptest::prelude::*;
use std::println;

fn ready(rules: &[Rule], leaf_rules: usize, slice: usize) -> Matcher {
    let mut build = Build::new(rules);
    build.leaf_rules = leaf_rules;
    loop {
        if let (_, Some(matcher)) = build.step(rules, slice) {
            return matcher;
        }
    }
}

fn rule(src: AddrSet, dst: AddrSet, what: What, accept: bool) -> Rule {
    let refused = Action::Reject(RejectKind::AdminProhibited);
    let then = Then::Do(if accept { Action::Accept } else { refused });
    let (src, dst) = (Arc::new(src), Arc::new(dst));
    Rule { line: 1, src, dst, hosts: None, what, when: None, then, limit: None, log: None }
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(bits))
}

fn net(first: u32, size: u32) -> AddrSet {
    AddrSet::from_ranges([(v4(first), v4(first + (size - 1)))])
}

fn ports(proto: u8, lo: u16, hi: u16) -> What {
    let (sport, dport) = (PortSet::full(), PortSet::from_ranges([(lo, hi)]));
    What::Of(vec![match proto {
        0 => Traffic::Tcp { sport, dport },
        _ => Traffic::Udp { sport, dport },
    }])
}

fn query(src: IpAddr, dst: IpAddr, transport: Transport) -> Query {
    Query {
        from: Zone::Clients,
        to: Zone::Uplink(Uplink::FIRST),
        src,
        dst,
        transport,
        header: Header::PLAIN,
    }
}

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        u32::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// Rules as firewalls have them: clients, servers and networks with their ports, some about all
/// sources, some about all destinations, exceptions before what is general, and a verdict at the end.
fn plausible(count: usize, dice: &mut Dice) -> Vec<Rule> {
    let client = |dice: &mut Dice| net(0x0a89_0000 + dice.roll(4096), 1);
    let server = |dice: &mut Dice| {
        let size = [1, 1, 1, 256, 4096][dice.roll(5) as usize];
        net((0xc000_0000 + dice.roll(1 << 28)) & !(size - 1), size)
    };
    let what = |dice: &mut Dice| match dice.roll(6) {
        0 => What::Any,
        1 => What::Of(vec![Traffic::Icmp]),
        2 => ports(1, 53, 53),
        3 => ports(0, 8000, 8099),
        _ => {
            let port = u16::try_from(1 + dice.roll(30_000)).unwrap();
            ports(0, port, port)
        }
    };
    let mut rules: Vec<_> = (1..count)
        .map(|_| {
            let (src, dst) = match dice.roll(8) {
                0 => (client(dice), AddrSet::any()),
                1 | 2 => (AddrSet::any(), server(dice)),
                _ => (client(dice), server(dice)),
            };
            // What is about all addresses says at least a port, or nothing behind it would be asked.
            let what = if src.is_any() || dst.is_any() {
                let port = u16::try_from(1 + dice.roll(30_000)).unwrap();
                ports(u8::try_from(dice.roll(2)).unwrap(), port, port)
            } else {
                what(dice)
            };
            rule(src, dst, what, dice.roll(2) == 0)
        })
        .collect();
    rules.push(rule(AddrSet::any(), AddrSet::any(), What::Any, false));
    rules
}

/// A packet that some rule is likely to be about.
fn aimed(rules: &[Rule], dice: &mut Dice) -> Query {
    let count = u32::try_from(rules.len()).unwrap();
    let mut pick = || &rules[dice.roll(count) as usize];
    let (a, b, c) = (pick(), pick(), pick());
    let first = |set: &AddrSet| v4(set.v4.ranges().first().map_or(0, |range| range.0));
    let (src, dst) = if dice.roll(2) == 0 { (&a.src, &a.dst) } else { (&a.src, &b.dst) };
    let (src, dst) = (first(src), first(dst));
    let src = if src == v4(0) { v4(0x0a89_0000 + dice.roll(4096)) } else { src };
    let dst = if dst == v4(0) { v4(0xc000_0000 + dice.roll(1 << 28)) } else { dst };
    let what = if dice.roll(2) == 0 { &a.what } else { &c.what };
    let transport = match what {
        What::Of(kinds) => match &kinds[0] {
            Traffic::Tcp { dport, .. } => {
                Transport::Tcp { sport: 4711, dport: dport.ranges()[0].0 }
            }
            Traffic::Udp { dport, .. } => {
                Transport::Udp { sport: 4711, dport: dport.ranges()[0].1 }
            }
            Traffic::Icmp | Traffic::IcmpType { .. } => Transport::Icmp { kind: 8, code: 0 },
        },
        What::Any => {
            Transport::Tcp { sport: 4711, dport: u16::try_from(dice.roll(65536)).unwrap() }
        }
    };
    query(src, dst, transport)
}

fn first_by_asking_all(rules: &[Rule], query: &Query) -> Option<usize> {
    first_with(rules, &HostTable::new(), query)
}

fn first_with(rules: &[Rule], hosts: &HostTable, query: &Query) -> Option<usize> {
    rules.iter().position(|rule| crate::failing(rule, hosts, query).is_none())
}

#[test]
fn plausible_rules_are_found_as_by_asking_all() {
    for (count, slice) in [(9, 1), (50, 7), (1500, 1000)] {
        let mut dice = Dice(count as u64);
        let rules = plausible(count, &mut dice);
        let matcher = ready(&rules, 4, slice);
        for _ in 0..2000 {
            let query = aimed(&rules, &mut dice);
            assert_eq!(
                matcher.first(&rules, &query, &[]),
                first_by_asking_all(&rules, &query),
                "{query}"
            );
        }
    }
}

/// Every list of three rules out of a small world, for every packet of it, with leaves of one rule so
/// that everything is cut that can be.
#[test]
fn every_small_list_is_found_as_by_asking_all() {
    let addrs = [AddrSet::any(), net(1, 1), net(1, 2)];
    let kind = |family| What::Of(vec![Traffic::IcmpType { family, kind: 1, code: Some(0) }]);
    let whats = [What::Any, ports(0, 1, 1), ports(1, 0, 1), kind(Family::V4)];
    let mut words = Vec::new();
    for src in &addrs {
        for dst in &addrs {
            words.extend(
                whats.iter().map(|what| rule(src.clone(), dst.clone(), what.clone(), true)),
            );
        }
    }
    let mut queries = Vec::new();
    for (src, dst) in (0..4).flat_map(|src| (0..4).map(move |dst| (v4(src), v4(dst)))) {
        let kinds = (0..3).flat_map(|n| {
            let port = u16::from(n);
            let (tcp, udp) = (
                Transport::Tcp { sport: 1, dport: port },
                Transport::Udp { sport: 1, dport: port },
            );
            [tcp, udp, Transport::Icmp { kind: n, code: 0 }, Transport::Icmp { kind: 1, code: n }]
        });
        queries.extend(kinds.map(|transport| query(src, dst, transport)));
    }
    let answers: Vec<Vec<bool>> = words
        .iter()
        .map(|word| {
            queries
                .iter()
                .map(|q| first_by_asking_all(std::slice::from_ref(word), q).is_some())
                .collect()
        })
        .collect();
    let n = words.len();
    for list in (0..n)
        .flat_map(|a| (0..n).flat_map(move |b| (0..n).step_by(5).map(move |c| [a, b, (b + c) % n])))
    {
        let rules: Vec<_> = list.iter().map(|&word| words[word].clone()).collect();
        let matcher = ready(&rules, 1, 1000);
        for (at, query) in queries.iter().enumerate() {
            let expected = list.iter().position(|&word| answers[word][at]);
            assert_eq!(matcher.first(&rules, query, &[]), expected, "{list:?} {query}");
        }
    }
}

/// Some rules say names, alone or beside addresses, and some clients know destinations by them.
#[test]
fn rules_about_names_are_found_as_by_asking_all() {
    let names = ["a", "b", "c"].map(|name| HostName::new(name).unwrap());
    let (mut by_name, mut by_addr) = (0, 0);
    for (seed, count) in [(1, 13), (2, 60), (3, 1500)] {
        let mut dice = Dice(seed);
        let mut rules = plausible(count, &mut dice);
        let last = rules.len() - 1;
        for rule in rules.iter_mut().take(last).step_by(3) {
            let some = names.iter().filter(|_| dice.roll(2) == 0).cloned();
            rule.hosts = HostSet::new(some).map(Arc::new);
            if rule.hosts.is_some() && dice.roll(2) == 0 {
                rule.dst = Arc::new(AddrSet::EMPTY);
            }
        }
        let matcher = ready(&rules, 4, 100);
        for _ in 0..3000 {
            let (query, mut hosts) = (aimed(&rules, &mut dice), HostTable::new());
            for name in &names {
                if dice.roll(3) > 0 {
                    continue;
                }
                // What another client knows is nothing to this one.
                let client = if dice.roll(4) == 0 { v4(1) } else { query.src };
                hosts.set(client, name, &[query.dst]);
            }
            let named = hosts.of(query.src, query.dst);
            let found = matcher.first(&rules, &query, named);
            assert_eq!(found, first_with(&rules, &hosts, &query), "{query} {named:?}");
            let rule = &rules[found.unwrap()];
            let by = if rule.dst.contains(query.dst) { &mut by_addr } else { &mut by_name };
            *by += 1;
        }
    }
    assert!(by_name > 500 && by_addr > 500, "{by_name} {by_addr}");
}

/// Interleaved rules about all sources and about all destinations, each narrow in several ranges: a
/// single tree would need their product.
fn tangled(count: u32) -> Vec<Rule> {
    let scattered = |seed: u32| {
        let ranges = (0..8u32).map(|n| {
            let first = (seed + n * 0x0100_0001).wrapping_mul(0x9e37_79b1);
            (v4(first), v4(first.saturating_add(1 << 20)))
        });
        AddrSet::from_ranges(ranges)
    };
    let one = |n: u32| match n % 3 {
        0 => rule(scattered(n), AddrSet::any(), What::Any, true),
        1 => rule(AddrSet::any(), scattered(n), What::Any, false),
        _ => rule(scattered(n), scattered(n + 7), ports(0, 1, 30_000), true),
    };
    (0..count).map(one).collect()
}

#[test]
fn memory_is_bounded_whatever_the_rules_are() {
    for rules in [tangled(3000), plausible(3000, &mut Dice(1))] {
        let limit = rules.len() * BYTES_PER_RULE;
        let mut build = Build::new(&rules);
        let matcher = loop {
            assert!(build.bytes() <= limit, "{} of {limit}", build.bytes());
            if let (_, Some(matcher)) = build.step(&rules, 1000) {
                break matcher;
            }
        };
        assert!(matcher.bytes() <= limit, "{} of {limit}", matcher.bytes());
        let mut dice = Dice(9);
        for _ in 0..300 {
            let query = aimed(&rules, &mut dice);
            assert_eq!(matcher.first(&rules, &query, &[]), first_by_asking_all(&rules, &query));
        }
    }
}

/// Nodes walked and rules asked for `query`.
fn effort(matcher: &Matcher, rules: &[Rule], query: &Query) -> (usize, usize) {
    let (pane, point) = locate(query);
    let (mut nodes, mut asked, mut best) = (0, 0, u32::MAX);
    for tree in &matcher.panes[pane] {
        if tree.first >= best {
            break;
        }
        let mut at = tree.root;
        loop {
            nodes += 1;
            let node = matcher.nodes[at as usize];
            let Some(&value) = point.get(node.dimension as usize) else { break };
            at = node.low + u32::from(value >= node.at());
        }
        for candidate in matcher.leaf(at) {
            if candidate.rule >= best {
                break;
            }
            asked += 1;
            if rules[candidate.rule as usize].matches(query, &[]) {
                best = candidate.rule;
                break;
            }
        }
    }
    (nodes, asked)
}

/// What 2000 new flows cost, in nodes walked and rules asked, and the most rules one of them asks.
fn efforts(count: usize) -> (usize, usize, usize) {
    let mut dice = Dice(3);
    let rules = plausible(count, &mut dice);
    let matcher = ready(&rules, 4, 1000);
    assert!(matcher.bytes() <= count * 200);
    let queries: Vec<_> = (0..2000).map(|_| aimed(&rules, &mut dice)).collect();
    let efforts = queries.iter().map(|query| effort(&matcher, &rules, query));
    efforts.fold((0, 0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1, sum.2.max(one.1)))
}

/// Steps are counted, so that a slower index is found out on any machine: a flow walks 2 nodes and asks
/// 4 rules on average with ten rules, and 36 nodes and 11 rules with a thousand times as many.
#[test]
fn ten_thousand_rules_cost_a_walk_and_a_few_questions() {
    assert_eq!(efforts(10), (4938, 8220, 5));
    assert_eq!(efforts(1000), (46_359, 23_306, 17));
    assert_eq!(efforts(10_000), (71_754, 22_832, 17));
}

/// `TIDEGATE_MEASURE=1 cargo test --release -p tidegate-rules measure -- --nocapture` prints what a
/// new flow costs.
#[test]
fn measure() {
    if std::env::var_os("TIDEGATE_MEASURE").is_none() {
        return;
    }
    println!(
        "{:>7} {:>9} {:>12} {:>12} {:>9}",
        "rules", "bytes", "build µs", "ns a flow", "linear"
    );
    for count in [10, 100, 1000, 10_000, 100_000] {
        let mut dice = Dice(3);
        let rules = plausible(count, &mut dice);
        let queries: Vec<_> = (0..4096).map(|_| aimed(&rules, &mut dice)).collect();
        let start = std::time::Instant::now();
        let mut index = Index::new(&rules);
        let unsettled = index.clone();
        while !index.is_settled() {
            index.settle(&rules, 1000);
        }
        let built = start.elapsed();
        // The best of many rounds: others may use the machine too.
        let time = |index: &Index, queries: &[Query], rounds: u32| {
            let round = || {
                let start = std::time::Instant::now();
                let found =
                    queries.iter().map(|query| index.first(&rules, query, &[]).unwrap_or(0));
                std::hint::black_box(found.sum::<usize>());
                start.elapsed().as_nanos() / queries.len() as u128
            };
            (0..rounds).map(|_| round()).min().unwrap_or(0)
        };
        let (bytes, fast, linear) =
            (index.bytes(), time(&index, &queries, 200), time(&unsettled, &queries[..64], 3));
        println!("{count:>7} {bytes:>9} {:>12} {fast:>12} {linear:>9}", built.as_micros());
    }
}

proptest! {
    /// Any slicing of the work gives the same trees.
    #[test]
    fn slices_do_not_matter(count in 9usize..80, slice in 1usize..200, seed: u64) {
        let mut dice = Dice(seed);
        let rules = plausible(count, &mut dice);
        let (one, other) = (ready(&rules, 4, slice), ready(&rules, 4, usize::MAX));
        prop_assert_eq!(&one.leaves, &other.leaves);
        for _ in 0..50 {
            let query = aimed(&rules, &mut dice);
            prop_assert_eq!(one.first(&rules, &query, &[]), first_by_asking_all(&rules, &query));
        }
    }
}
