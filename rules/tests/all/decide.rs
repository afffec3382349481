//! What policies decide, and which parts make none.

use crate::common::{every_query, ip, last_rule, parts};
use proptest::prelude::*;
use rules::qubes::{Tree, Trees};
use rules::{
    Action, AddrSet, Block, Counters, DnsRedirect, Family, Invalid, OwnRule, Parts, Policy,
    PortSet, Query, RejectKind, Rule, RuleId, Then, Traffic, Transport, What, Zone,
};
use std::sync::Arc;

fn block(rules: Vec<Rule>) -> Parts {
    let block = Block { from: Zone::Clients, to: Zone::Uplink, rules };
    Parts { name: "test.tide".into(), blocks: vec![block], ..Parts::default() }
}

fn tcp(src: &str, dst: &str, dport: u16) -> Query {
    let transport = Transport::Tcp { sport: 4711, dport };
    Query { from: Zone::Clients, to: Zone::Uplink, src: ip(src), dst: ip(dst), transport }
}

proptest! {
    /// The rule that decides is the first of its direction whose conditions all hold, each looked at
    /// by the plainest means.
    #[test]
    fn the_first_rule_that_matches_decides(parts in parts()) {
        let policy = Policy::new(parts.clone()).unwrap();
        for query in every_query() {
            let decision = policy.decide(&query, &Trees::default());
            let block = parts.blocks.iter().find(|b| (b.from, b.to) == (query.from, query.to));
            let Some(block) = block else {
                prop_assert_eq!((decision.action, decision.rule), (Action::Drop, RuleId::DEFAULT));
                continue;
            };
            let first = block.rules.iter().find(|rule| holds(rule, &query)).unwrap();
            let (written_in, rule) = policy.rule(decision.rule).unwrap();
            prop_assert!(std::ptr::eq(rule, first) || rule == first);
            prop_assert_eq!((written_in.from, written_in.to), (query.from, query.to));
            prop_assert_eq!(decision.log, first.log);
            match first.then {
                Then::Do(action) => prop_assert_eq!((decision.action, decision.own), (action, None)),
                Then::Qubes => prop_assert_eq!(decision.own, Some(OwnRule::Blocked)),
            }
        }
    }
}

fn holds(rule: &Rule, query: &Query) -> bool {
    let inside = |set: &AddrSet, addr| set.ranges().any(|(lo, hi)| lo <= addr && addr <= hi);
    let port = |set: &PortSet, port| set.ranges().iter().any(|&(lo, hi)| (lo..=hi).contains(&port));
    let of = |kind: &Traffic| match (kind, query.transport) {
        (Traffic::Tcp { sport: s, dport: d }, Transport::Tcp { sport, dport }) => {
            port(s, sport) && port(d, dport)
        }
        (Traffic::Udp { sport: s, dport: d }, Transport::Udp { sport, dport }) => {
            port(s, sport) && port(d, dport)
        }
        (Traffic::Icmp, Transport::Icmp { .. }) => true,
        (Traffic::IcmpType { family, kind: k, code: c }, Transport::Icmp { kind, code }) => {
            let v4 = matches!(family, Family::V4) == query.dst.is_ipv4();
            v4 && *k == kind && (c.is_none() || *c == Some(code))
        }
        _ => false,
    };
    let what = match &rule.what {
        What::Any => true,
        What::Of(kinds) => kinds.iter().any(of),
    };
    what && inside(&rule.src, query.src) && inside(&rule.dst, query.dst)
}

#[test]
fn a_drop_names_its_line_and_is_counted() {
    let mut first = last_rule(Action::Accept);
    first.dst = Arc::new(AddrSet::from_addrs([ip("1.1.1.1")]));
    first.line = 7;
    let policy = Policy::new(block(vec![first, last_rule(Action::Drop)])).unwrap();
    let mut counters = Counters::new(&policy);
    for dst in ["1.1.1.1", "8.8.8.8", "8.8.4.4"] {
        counters.count(policy.decide(&tcp("10.0.0.1", dst, 443), &Trees::default()).rule);
    }
    let inbound = Query { from: Zone::Uplink, to: Zone::Clients, ..tcp("1.1.1.1", "10.0.0.1", 22) };
    counters.count(policy.decide(&inbound, &Trees::default()).rule);
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
        let decision = policy.decide(&tcp(src, "1.1.1.1", port), &trees);
        (decision.action, decision.own.unwrap())
    };
    let refused = Action::Reject(RejectKind::AdminProhibited);
    assert_eq!(ask("10.0.0.1", 443), (Action::Accept, OwnRule::Number(3)));
    assert_eq!(ask("10.0.0.1", 80), (refused, OwnRule::Fallback));
    assert_eq!(ask("10.0.0.2", 443), (refused, OwnRule::Blocked));
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
    assert_eq!(refused(block(vec![])), Invalid::NoVerdict(Zone::Clients, Zone::Uplink));
    assert_eq!(refused(block(vec![partial()])), Invalid::NoVerdict(Zone::Clients, Zone::Uplink));
    assert_eq!(refused(block(vec![Rule { then: reset, ..any() }])), Invalid::ResetWithoutTcp(99));
    let nothing = Rule { src: Arc::new(AddrSet::EMPTY), ..any() };
    assert_eq!(refused(block(vec![nothing, any()])), Invalid::MatchesNothing(99));

    let mut twice = block(vec![any()]);
    twice.blocks.push(twice.blocks[0].clone());
    assert_eq!(refused(twice), Invalid::TwoBlocks(Zone::Clients, Zone::Uplink));
    let mut inside_out = block(vec![Rule { then: Then::Qubes, ..any() }]);
    (inside_out.blocks[0].from, inside_out.blocks[0].to) = (Zone::Uplink, Zone::Clients);
    assert_eq!(refused(inside_out), Invalid::QubesFromUplink(99));
    let mut round = block(vec![any()]);
    round.blocks[0].from = Zone::Uplink;
    assert_eq!(refused(round), Invalid::Direction(Zone::Uplink, Zone::Uplink));
    let unanswered = DnsRedirect { virtuals: vec![ip("fd00::1")], reals: vec![ip("1.1.1.1")] };
    let parts = Parts { redirect_dns: Some(unanswered), ..block(vec![any()]) };
    assert_eq!(refused(parts), Invalid::NoResolver(ip("fd00::1")));
}
