//! What policies decide, and which parts make none.

use crate::common::{every_query, host_table, ip, last_rule, names, parts};
use proptest::prelude::*;
use rules::qubes::{Tree, Trees};
use rules::{
    Action, AddrSet, Balance, Block, Condition, Conditions, Counters, Decision, DnsRedirect,
    Family, Forward, Header, HostName, HostSet, HostTable, Invalid, OneToOne, OwnRule, Parts,
    Policy, PortSet, Ported, Query, RangeSet, Rate, RejectKind, Route, Rule, RuleId, Services,
    Source, State, Then, Timeout, Traffic, Transport, Uplink, What, Zone, failing, interpret,
};
use std::sync::Arc;

fn block(rules: Vec<Rule>) -> Parts {
    let block = Block { from: Zone::Clients, to: Zone::Uplink(Uplink::FIRST), rules };
    Parts { name: "test.tide".into(), blocks: vec![block], ..Parts::default() }
}

fn tcp(src: &str, dst: &str, dport: u16) -> Query {
    let transport = Transport::Tcp { sport: 4711, dport };
    Query {
        from: Zone::Clients,
        to: Zone::Uplink(Uplink::FIRST),
        src: ip(src),
        dst: ip(dst),
        transport,
        header: Header::PLAIN,
    }
}

/// Where no VM has rules and no name stands for anything.
fn decide(policy: &Policy, query: &Query) -> Decision {
    policy.decide(query, &Trees::default(), &HostTable::new())
}

proptest! {
    /// Whether it is prepared, half prepared or not: it decides as the interpreter does.
    #[test]
    fn a_policy_decides_as_it_is_interpreted(
        parts in parts(),
        hosts in host_table(),
        slice in 0usize..200,
    ) {
        let (policy, own) = (Policy::new(parts).unwrap(), Trees::default());
        let (mut half, mut ready) = (policy.clone(), policy.clone());
        half.settle(slice);
        while !ready.settle(1000) {}
        prop_assert!(ready.index_bytes() <= ready.rule_ids().count() * rules::BYTES_PER_RULE);
        for query in every_query() {
            let meant = interpret(&policy, &own, &hosts, &query);
            for policy in [&policy, &half, &ready] {
                prop_assert_eq!(policy.decide(&query, &own, &hosts), meant, "{}", query);
            }
        }
    }

    /// The interpreter itself: no rule before the one that decides has all its conditions.
    #[test]
    fn the_first_rule_without_a_failing_condition_decides(
        parts in parts(),
        hosts in host_table(),
    ) {
        let policy = Policy::new(parts.clone()).unwrap();
        for query in every_query() {
            let decision = interpret(&policy, &Trees::default(), &hosts, &query);
            let block = parts.blocks.iter().find(|b| (b.from, b.to) == (query.from, query.to));
            let Some(block) = block else {
                prop_assert_eq!((decision.action, decision.rule), (Action::Drop, RuleId::DEFAULT));
                continue;
            };
            let first = block.rules.iter().find(|rule| failing(rule, &hosts, &query).is_none()).unwrap();
            prop_assert_eq!(policy.rule(decision.rule), Some((block, first)));
            prop_assert_eq!(decision.log, first.log);
            match first.then {
                Then::Do(action) => prop_assert_eq!((decision.action, decision.own), (action, None)),
                Then::Qubes => prop_assert_eq!(decision.own, Some(OwnRule::Blocked)),
            }
        }
    }
}

#[test]
fn each_condition_fails_by_its_name() {
    let failing = |rule: &Rule, query: &Query| rules::failing(rule, &HostTable::new(), query);
    let mut rule = last_rule(Action::Accept);
    rule.src = Arc::new(AddrSet::from_addrs([ip("10.0.0.1")]));
    rule.dst = Arc::new(AddrSet::from_addrs([ip("1.1.1.1"), ip("2001:db8::1")]));
    let (sport, dport) = (PortSet::full(), PortSet::from_ranges([(443, 443)]));
    rule.what = What::Of(vec![Traffic::Tcp { sport, dport }]);
    assert_eq!(failing(&rule, &tcp("10.0.0.1", "1.1.1.1", 443)), None);
    assert_eq!(failing(&rule, &tcp("10.0.0.1", "1.1.1.1", 80)), Some(Condition::Traffic));
    assert_eq!(failing(&rule, &tcp("10.0.0.2", "1.1.1.1", 443)), Some(Condition::Source));
    assert_eq!(failing(&rule, &tcp("10.0.0.1", "1.1.1.2", 443)), Some(Condition::Destination));
    let echo =
        Query { transport: Transport::Icmp { kind: 8, code: 0 }, ..tcp("10.0.0.1", "1.1.1.1", 0) };
    rule.what = What::Of(vec![Traffic::IcmpType { family: Family::V6, kind: 8, code: None }]);
    assert_eq!(failing(&rule, &echo), Some(Condition::Traffic), "a type is of one family");
    rule.what = What::Any;
    let plain = Header::PLAIN;
    let one = |n: u8| RangeSet::from_ranges([(n, n)]);
    let flags = Conditions::flags(0x40, 0x20);
    for (when, header, named) in [
        (
            Conditions { state: Some(State::New), ..Conditions::none() },
            Header { state: State::Established, ..plain },
            Condition::State,
        ),
        (
            Conditions { ttl: one(64), ..Conditions::none() },
            Header { ttl: 63, ..plain },
            Condition::Ttl,
        ),
        (
            Conditions { dscp: one(0), ..Conditions::none() },
            Header { dscp: 46, ..plain },
            Condition::Dscp,
        ),
        (
            Conditions { length: PortSet::from_ranges([(0, 60)]), ..Conditions::none() },
            Header { length: 61, ..plain },
            Condition::Length,
        ),
        (
            Conditions { flags, ..Conditions::none() },
            Header { flags: 0x62, ..plain },
            Condition::Flags,
        ),
    ] {
        rule.when = Some(Arc::new(when));
        let fitting = Header { flags: 0x42, ..plain };
        let with = |header| Query { header, ..tcp("10.0.0.1", "1.1.1.1", 443) };
        assert_eq!(failing(&rule, &with(fitting)), None);
        assert_eq!(
            failing(&rule, &with(Header { flags: header.flags.max(0x42), ..header })),
            Some(named)
        );
    }
}

#[test]
fn a_drop_names_its_line_and_is_counted() {
    let mut first = last_rule(Action::Accept);
    first.dst = Arc::new(AddrSet::from_addrs([ip("1.1.1.1")]));
    first.line = 7;
    let policy = Policy::new(block(vec![first, last_rule(Action::Drop)])).unwrap();
    let mut counters = Counters::new(&policy);
    for dst in ["1.1.1.1", "8.8.8.8", "8.8.4.4"] {
        counters.count(decide(&policy, &tcp("10.0.0.1", dst, 443)).rule);
    }
    let inbound = Query {
        from: Zone::Uplink(Uplink::FIRST),
        to: Zone::Clients,
        ..tcp("1.1.1.1", "10.0.0.1", 22)
    };
    counters.count(decide(&policy, &inbound).rule);
    let told: Vec<_> = policy
        .rule_ids()
        .map(|id| format!("{} = {}", policy.location(id), counters.of(id)))
        .collect();
    assert_eq!(
        told,
        ["test.tide: no block for this direction = 1", "test.tide:7 = 1", "test.tide:99 = 2"]
    );
}

#[test]
fn hand_over_asks_the_rules_of_the_sender() {
    let mut rule = last_rule(Action::Drop);
    rule.then = Then::Qubes;
    let policy = Policy::new(block(vec![rule])).unwrap();
    let mut trees = Trees::default();
    let entries = [("policy", &b"drop"[..]), ("0003", b"action=accept proto=tcp dstports=443-443")];
    assert!(trees.set(ip("10.0.0.1"), Tree::parse(Family::V4, entries)));
    let ask = |src, port| {
        let decision = policy.decide(&tcp(src, "1.1.1.1", port), &trees, &HostTable::new());
        (decision.action, decision.own.unwrap())
    };
    let refused = Action::Reject(RejectKind::AdminProhibited);
    assert_eq!(ask("10.0.0.1", 443), (Action::Accept, OwnRule::Number(3)));
    assert_eq!(ask("10.0.0.1", 80), (refused, OwnRule::Fallback));
    assert_eq!(ask("10.0.0.2", 443), (refused, OwnRule::Blocked));
}

/// The rule's addresses, and what its names stand for: for the client that was told, at that moment.
#[test]
fn a_rule_with_names_is_about_what_they_stand_for_in_the_eyes_of_the_client() {
    let [name, other] = [&names()[0], &names()[1]];
    let mut rule = last_rule(Action::Accept);
    rule.src = Arc::new(AddrSet::from_addrs([ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1")]));
    rule.dst = Arc::new(AddrSet::from_addrs([ip("192.0.2.1")]));
    rule.hosts = HostSet::new([name.clone()]).map(Arc::new);
    let policy = Policy::new(block(vec![rule, last_rule(Action::Drop)])).unwrap();
    let passes = |hosts: &HostTable, src, dst| {
        let decision = policy.decide(&tcp(src, dst, 443), &Trees::default(), hosts);
        decision.action == Action::Accept
    };
    let mut hosts = HostTable::new();
    assert!(passes(&hosts, "10.0.0.1", "192.0.2.1"), "an address beside the name");
    assert!(!passes(&hosts, "10.0.0.1", "1.1.1.1"), "what stands for nothing matches nothing");
    hosts.set(ip("10.0.0.1"), name, &[ip("1.1.1.1"), ip("1.1.1.2")]);
    hosts.set(ip("10.0.0.1"), other, &[ip("1.1.1.3")]);
    hosts.set(ip("fd00::1"), name, &[ip("2001:db8::1")]);
    assert!(passes(&hosts, "10.0.0.1", "1.1.1.1") && passes(&hosts, "10.0.0.1", "1.1.1.2"));
    assert!(passes(&hosts, "fd00::1", "2001:db8::1"));
    assert!(!passes(&hosts, "10.0.0.1", "1.1.1.3"), "another name");
    assert!(!passes(&hosts, "10.0.0.2", "1.1.1.1"), "another client was told nothing");
    hosts.set(ip("10.0.0.1"), name, &[ip("1.1.1.2")]);
    assert!(!passes(&hosts, "10.0.0.1", "1.1.1.1") && passes(&hosts, "10.0.0.1", "1.1.1.2"));
    assert_eq!(policy.hosts_of(ip("10.0.0.2")).into_iter().collect::<Vec<_>>(), [name]);
    assert!(policy.has_hosts() && policy.hosts_of(ip("10.0.0.3")).is_empty());
}

#[test]
fn names_that_could_not_be_known_make_no_policy() {
    let named = |line, names: Vec<HostName>| {
        let hosts = HostSet::new(names).map(Arc::new);
        Rule { line, dst: Arc::new(AddrSet::EMPTY), hosts, ..last_rule(Action::Accept) }
    };
    let many = |count, prefix: &str| {
        (0..count).map(|n| HostName::new(&format!("{prefix}{n}")).unwrap()).collect::<Vec<_>>()
    };
    let with = |rules: Vec<Rule>| {
        Policy::new(block([rules, vec![last_rule(Action::Drop)]].concat())).map(|_| ())
    };
    assert_eq!(with(vec![named(7, names())]), Ok(()));
    assert_eq!(with(vec![named(7, vec![])]), Err(Invalid::MatchesNothing(7)));
    let sloppy: HostName = "a..b".parse().unwrap();
    assert_eq!(with(vec![named(7, vec![sloppy])]), Err(Invalid::Host(7)));
    assert_eq!(with(vec![named(7, many(64, "a")), named(8, many(64, "a"))]), Ok(()));
    assert_eq!(with(vec![named(7, many(65, "a"))]), Err(Invalid::ManyHosts(7)));
    let two = vec![named(7, many(64, "a")), named(8, many(1, "b"))];
    assert_eq!(with(two), Err(Invalid::ManyHosts(8)));
    for (from, to) in [(Zone::Uplink(Uplink::FIRST), Zone::Clients), (Zone::Clients, Zone::Clients)]
    {
        let mut parts = block(vec![named(7, names()), last_rule(Action::Drop)]);
        (parts.blocks[0].from, parts.blocks[0].to) = (from, to);
        assert_eq!(Policy::new(parts).map(|_| ()), Err(Invalid::Host(7)));
    }
}

#[test]
fn resolvers_stand_for_each_other_in_turn_and_by_family() {
    let addrs = |list: &[&str]| list.iter().map(|text| ip(text)).collect::<Vec<_>>();
    let redirect = DnsRedirect {
        virtuals: addrs(&["10.139.1.1", "fd00::1", "10.139.1.2", "10.139.1.3"]),
        reals: addrs(&["1.1.1.1", "2001:db8::1", "8.8.8.8"]),
    };
    let parts = Parts { redirect_dns: Some(redirect), ..block(vec![last_rule(Action::Drop)]) };
    let policy = Policy::new(parts).unwrap();
    let target = |asked| policy.dns_target(ip(asked));
    assert_eq!(target("10.139.1.1"), Some(ip("1.1.1.1")));
    assert_eq!(target("10.139.1.2"), Some(ip("8.8.8.8")));
    assert_eq!(target("10.139.1.3"), Some(ip("1.1.1.1")));
    assert_eq!(target("fd00::1"), Some(ip("2001:db8::1")));
    assert_eq!(target("9.9.9.9"), None);
}

#[test]
fn parts_that_could_not_be_obeyed_make_no_policy() {
    let any = || last_rule(Action::Drop);
    let partial = || Rule { dst: Arc::new(AddrSet::from_addrs([ip("1.1.1.1")])), ..any() };
    let reset = Then::Do(Action::Reject(RejectKind::TcpReset));
    let refused = |parts| Policy::new(parts).expect_err("it is refused");

    assert_eq!(refused(Parts::default()), Invalid::Name);
    assert_eq!(refused(Parts { name: "a\nb".into(), ..Parts::default() }), Invalid::Name);
    assert_eq!(
        refused(block(vec![])),
        Invalid::NoVerdict(Zone::Clients, Zone::Uplink(Uplink::FIRST))
    );
    assert_eq!(
        refused(block(vec![partial()])),
        Invalid::NoVerdict(Zone::Clients, Zone::Uplink(Uplink::FIRST))
    );
    assert_eq!(refused(block(vec![Rule { then: reset, ..any() }])), Invalid::ResetWithoutTcp(99));
    let nothing = Rule { src: Arc::new(AddrSet::EMPTY), ..any() };
    assert_eq!(refused(block(vec![nothing, any()])), Invalid::MatchesNothing(99));

    let mut twice = block(vec![any()]);
    twice.blocks.push(twice.blocks[0].clone());
    assert_eq!(refused(twice), Invalid::TwoBlocks(Zone::Clients, Zone::Uplink(Uplink::FIRST)));
    let mut inside_out = block(vec![Rule { then: Then::Qubes, ..any() }]);
    (inside_out.blocks[0].from, inside_out.blocks[0].to) =
        (Zone::Uplink(Uplink::FIRST), Zone::Clients);
    assert_eq!(refused(inside_out), Invalid::QubesFromUplink(99));
    let mut round = block(vec![any()]);
    round.blocks[0].from = Zone::Uplink(Uplink::FIRST);
    assert_eq!(
        refused(round),
        Invalid::Direction(Zone::Uplink(Uplink::FIRST), Zone::Uplink(Uplink::FIRST))
    );
    let flags = Conditions { flags: Conditions::flags(1, 0), ..Conditions::none() };
    let flagged = Rule { when: Some(Arc::new(flags)), ..partial() };
    assert_eq!(refused(block(vec![flagged, any()])), Invalid::FlagsWithoutTcp(99));
    let never = Conditions { ttl: RangeSet::EMPTY, ..Conditions::none() };
    let never = Rule { when: Some(Arc::new(never)), ..partial() };
    assert_eq!(refused(block(vec![never, any()])), Invalid::MatchesNothing(99));
    let stuck = Rule { limit: Some(Rate { count: 0, secs: 1, burst: 1 }), ..any() };
    assert_eq!(refused(block(vec![stuck])), Invalid::Rate(99));
    let unanswered = DnsRedirect { virtuals: vec![ip("fd00::1")], reals: vec![ip("1.1.1.1")] };
    let parts = Parts { redirect_dns: Some(unanswered), ..block(vec![any()]) };
    assert_eq!(refused(parts), Invalid::NoResolver(ip("fd00::1")));
}

#[test]
fn services_that_could_not_be_obeyed_make_no_policy() {
    let with = |services| {
        Policy::new(Parts { services, ..block(vec![last_rule(Action::Drop)]) })
            .expect_err("refused")
    };
    let none = Services::default;
    let (a, b, c) = (ip("10.0.0.1"), ip("10.0.0.2"), ip("fd00::1"));
    let forward = |port, to| Forward {
        uplink: Uplink::FIRST,
        proto: Ported::Tcp,
        at: None,
        port,
        from: Arc::new(AddrSet::any()),
        to,
        balance: Balance::RoundRobin,
    };
    let forwards = |forwards| with(Services { forwards, ..none() });
    assert_eq!(forwards(vec![forward(80, vec![])]), Invalid::NoTarget(80));
    assert_eq!(forwards(vec![forward(80, vec![(a, 0)])]), Invalid::NoTarget(80));
    assert_eq!(forwards(vec![forward(80, vec![(a, 1), (c, 1)])]), Invalid::Families(c, a));
    let twice = vec![forward(80, vec![(a, 1)]), forward(80, vec![(b, 1)])];
    assert_eq!(forwards(twice), Invalid::TranslatedTwice(None, 80));
    let pairs = [a, b]
        .map(|inside| OneToOne { uplink: Uplink::FIRST, inside, external: ip("10.0.0.9") })
        .to_vec();
    let one_to_one = with(Services { one_to_one: pairs, ..none() });
    assert_eq!(one_to_one, Invalid::TranslatedTwice(Some(ip("10.0.0.9")), 0));
    let uplink = Uplink::FIRST;
    let source = Source { uplink, inside: a, socket: None, external: b, port: Some(9) };
    let sources = with(Services { sources: vec![source], ..none() });
    assert_eq!(sources, Invalid::PortWithoutSocket(9));
    let [uplink, other, ..] = Uplink::ALL;
    let elsewhere = Forward { uplink: other, at: Some(b), ..forward(80, vec![(a, 1)]) };
    let here = Source { uplink, inside: a, socket: None, external: b, port: None };
    let torn = with(Services { forwards: vec![elsewhere.clone()], sources: vec![here], ..none() });
    assert_eq!(torn, Invalid::TwoUplinks(b));
    let route = |net, prefix, via| Route { net, prefix, uplink, via: Some(via) };
    let by = |uplink| Route { uplink, ..route(ip("10.0.0.0"), 8, b) };
    assert_eq!(
        with(Services { routes: vec![by(uplink), by(other)], ..none() }),
        Invalid::RouteTwice(ip("10.0.0.0"))
    );
    let route =
        |net, prefix, via| with(Services { routes: vec![route(net, prefix, via)], ..none() });
    assert_eq!(route(a, 8, b), Invalid::Route(a));
    assert_eq!(route(a, 33, b), Invalid::Route(a));
    assert_eq!(route(a, 32, c), Invalid::Families(a, c));
    let timeouts = |list: &[(Timeout, u32)]| with(Services { timeouts: list.to_vec(), ..none() });
    assert_eq!(timeouts(&[(Timeout::Udp, 119)]), Invalid::Timeout);
    assert_eq!(timeouts(&[(Timeout::Dns, 9), (Timeout::Dns, 9)]), Invalid::Timeout);
    assert_eq!(with(Services { flows_per_client: Some(0), ..none() }), Invalid::NoFlows);
}

#[test]
fn the_longest_route_tells_the_uplink() {
    let [first, second, third, _] = Uplink::ALL;
    let route = |net, prefix, uplink| Route { net: ip(net), prefix, uplink, via: None };
    let routes = vec![
        route("10.1.0.0", 16, third),
        route("10.0.0.0", 8, second),
        route("10.1.2.0", 24, first),
        route("fd00::", 8, second),
    ];
    let services = Services { routes, ..Services::default() };
    let to = |addr| services.uplink_to(ip(addr));
    assert_eq!([to("10.9.9.9"), to("10.1.9.9"), to("10.1.2.9")], [second, third, first]);
    assert_eq!([to("192.0.2.1"), to("fd00::1"), to("2001:db8::1")], [first, second, first]);
}
