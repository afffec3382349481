//! The rules Qubes writes, and what must become of those it does not.

use crate::common::ip;
use proptest::prelude::*;
use rules::qubes::{RULES_MAX, RuleError, RuleText, Tree, TreeError, Trees};
use rules::{
    Action, Family, Header, HostName, OwnRule, Query, RejectKind, Transport, Uplink, Zone,
};
use std::net::IpAddr;

const REFUSED: Action = Action::Reject(RejectKind::AdminProhibited);
const VM: &str = "10.137.0.10";
const VM6: &str = "fd09:24ef:4179::a89:a";

fn family(addr: IpAddr) -> Family {
    Family::of(addr)
}

fn tree(client: &str, rules: &[(&str, &str)]) -> Result<Tree, TreeError> {
    let entries = rules.iter().map(|(key, value)| (*key, value.as_bytes()));
    Tree::parse(family(ip(client)), entries)
}

/// The trees of one VM with these rules, numbered from 0, and the policy `drop`.
fn one(client: &str, rules: &[&str]) -> Trees {
    let numbered: Vec<_> = rules.iter().enumerate().map(|(i, r)| (format!("{i:04}"), *r)).collect();
    let mut entries: Vec<_> = numbered.iter().map(|(key, rule)| (key.as_str(), *rule)).collect();
    entries.push(("policy", "drop"));
    let mut trees = Trees::default();
    trees.set(ip(client), tree(client, &entries));
    trees.set_resolvers(&[ip("10.139.1.1"), ip("10.139.1.2"), ip("fd09::53")]);
    trees
}

fn ask(trees: &Trees, src: &str, dst: &str, transport: Transport) -> Action {
    let (src, dst) = (ip(src), ip(dst));
    trees
        .decide(&Query {
            from: Zone::Clients,
            to: Zone::Uplink(Uplink::FIRST),
            src,
            dst,
            transport,
            header: Header::PLAIN,
        })
        .0
}

fn tcp(dport: u16) -> Transport {
    Transport::Tcp { sport: 4711, dport }
}

fn udp(dport: u16) -> Transport {
    Transport::Udp { sport: 4711, dport }
}

fn icmp(kind: u8) -> Transport {
    Transport::Icmp { kind, code: 0 }
}

fn accepts(rule: &str, dst: &str, transport: Transport) -> bool {
    let client = if ip(dst).is_ipv4() { VM } else { VM6 };
    ask(&one(client, &[rule]), client, dst, transport) == Action::Accept
}

#[test]
fn every_kind_of_rule_dom0_writes_is_obeyed() {
    let any = "action=accept";
    for transport in [tcp(1), udp(65535), icmp(8), Transport::Other(47)] {
        assert!(accepts(any, "1.1.1.1", transport));
    }
    let dns = "action=accept dst4=8.8.8.8/32 proto=udp dstports=53-53";
    assert!(accepts(dns, "8.8.8.8", udp(53)));
    assert!(!accepts(dns, "8.8.8.9", udp(53)));
    assert!(!accepts(dns, "8.8.8.8", udp(54)));
    assert!(!accepts(dns, "8.8.8.8", tcp(53)));
    assert!(accepts("action=accept dst6=2a00:1450::/32", "2a00:1450:ffff::1", icmp(128)));
    assert!(!accepts("action=accept dst6=2a00:1450::/32", "2a00:1451::1", tcp(1)));
    assert!(accepts("action=accept proto=icmp icmptype=8", "1.1.1.1", icmp(8)));
    assert!(!accepts("action=accept proto=icmp icmptype=8", "1.1.1.1", icmp(13)));
    assert!(accepts("action=accept proto=icmp icmptype=128", "2001:db8::1", icmp(128)));
    assert!(!accepts("action=accept proto=icmp", "1.1.1.1", tcp(8)));
}

#[test]
fn forms_that_dom0_might_write_are_understood() {
    assert!(accepts("dstports=80 proto=tcp action=accept", "1.1.1.1", tcp(80)), "order, one port");
    assert!(accepts("action=accept dst4=10.1.2.3/8", "10.255.0.1", tcp(1)), "host bits are masked");
    assert!(accepts("action=accept dst4=10.1.2.3", "10.1.2.3", tcp(1)));
    assert!(!accepts("action=accept dst4=10.1.2.3", "10.1.2.4", tcp(1)));
    assert!(accepts("action=accept dst4=0.0.0.0/0", "203.0.113.9", tcp(1)));
    assert!(accepts("action=accept dst6=::/0", "2001:db8::1", tcp(1)));
    let without_proto = "action=accept dstports=80-81";
    assert!(
        accepts(without_proto, "1.1.1.1", tcp(81)) && accepts(without_proto, "1.1.1.1", udp(80))
    );
    assert!(!accepts(without_proto, "1.1.1.1", icmp(8)));
}

/// A rule for DNS with a protocol must not match that protocol to anywhere.
#[test]
fn dns_means_the_resolvers_and_port_53() {
    for (rule, over_tcp, over_udp) in [
        ("action=accept specialtarget=dns", true, true),
        ("action=accept proto=udp specialtarget=dns", false, true),
        ("action=accept proto=tcp specialtarget=dns dstports=53-53", true, false),
        ("action=accept specialtarget=dns dstports=53-54", false, false),
        ("action=accept proto=icmp specialtarget=dns", false, false),
        ("action=accept specialtarget=dns dst4=10.139.1.2", false, false),
    ] {
        assert_eq!(accepts(rule, "10.139.1.1", tcp(53)), over_tcp, "{rule}");
        assert_eq!(accepts(rule, "10.139.1.1", udp(53)), over_udp, "{rule}");
        assert!(!accepts(rule, "10.139.1.1", udp(54)), "{rule}");
        assert!(!accepts(rule, "8.8.8.8", udp(53)), "{rule}");
        assert!(!accepts(rule, "10.139.1.1", icmp(8)), "{rule}");
    }
    assert!(accepts("action=accept specialtarget=dns", "fd09::53", udp(53)));
    let mut trees = one(VM, &["action=drop specialtarget=dns", "action=accept"]);
    assert_eq!(ask(&trees, VM, "8.8.8.8", udp(53)), Action::Accept);
    assert!(trees.set_resolvers(&[]));
    assert_eq!(ask(&trees, VM, "8.8.8.8", udp(53)), REFUSED, "any may be the resolver");
    assert_eq!(ask(&trees, VM, "8.8.8.8", udp(54)), Action::Accept);
}

#[test]
fn numbers_may_have_gaps_and_the_lowest_that_matches_decides() {
    let rules = [
        ("0007", "action=accept"),
        ("policy", "drop"),
        ("0002", "action=drop proto=tcp dstports=25"),
    ];
    let mut trees = Trees::default();
    assert!(trees.set(ip(VM), tree(VM, &rules)));
    assert_eq!(ask(&trees, VM, "1.1.1.1", tcp(25)), REFUSED);
    assert_eq!(ask(&trees, VM, "1.1.1.1", tcp(26)), Action::Accept);
    assert!(!trees.set(ip(VM), tree(VM, &rules)), "the same again changes nothing");
}

/// A VM with many rules: prepared or not, it decides as its rules are interpreted.
#[test]
fn many_rules_of_a_vm_are_found_as_they_are_interpreted() {
    let rule = |n: u16| match n % 4 {
        0 => format!("action=accept dst4=10.{}.{}.0/24 proto=tcp dstports={n}", n % 8, n / 8),
        1 => format!("action=drop dst4=10.{}.0.0/16 proto=udp", n % 8),
        2 => format!("action=accept dst4=10.{}.{}.7 proto=icmp icmptype=8", n % 8, n / 8),
        _ => format!("action=accept proto=tcp dstports={}-{}", n, n + 3),
    };
    let texts: Vec<_> = (0..300).map(rule).collect();
    let lines: Vec<_> = texts.iter().map(String::as_str).collect();
    let plain = one(VM, &lines);
    let mut ready = plain.clone();
    while !ready.settle(500) {}
    assert_eq!(ready, plain, "being prepared is no difference");
    for n in 0..300 {
        for dst in [format!("10.{}.{}.7", n % 8, n / 8), "10.9.9.9".to_owned()] {
            for transport in [tcp(n), udp(n), icmp(8), Transport::Other(47)] {
                let (src, dst) = (ip(VM), ip(&dst));
                let query = Query {
                    from: Zone::Clients,
                    to: Zone::Uplink(Uplink::FIRST),
                    src,
                    dst,
                    transport,
                    header: Header::PLAIN,
                };
                let meant = rules::interpret_own(&plain, &query);
                assert_eq!(plain.decide(&query), meant);
                assert_eq!(ready.decide(&query), meant);
            }
        }
    }
}

#[test]
fn what_no_rule_matches_meets_the_policy() {
    for (policy, action) in [("accept", Action::Accept), ("drop", REFUSED)] {
        let mut trees = Trees::default();
        trees.set(ip(VM), tree(VM, &[("policy", policy)]));
        let query = |src| Query {
            from: Zone::Clients,
            to: Zone::Uplink(Uplink::FIRST),
            src: ip(src),
            dst: ip("1.1.1.1"),
            transport: tcp(1),
            header: Header::PLAIN,
        };
        assert_eq!(trees.decide(&query(VM)), (action, OwnRule::Fallback));
        assert_eq!(trees.decide(&query("10.137.0.11")), (REFUSED, OwnRule::Blocked));
    }
}

#[test]
fn a_host_is_nowhere_for_accept_and_anywhere_for_drop_until_it_is_resolved() {
    let name: HostName = "www.exam_ple.org".parse().unwrap();
    let accept = "action=accept dsthost=www.exam_ple.org proto=tcp dstports=443-443";
    let drop = "action=drop dsthost=www.exam_ple.org proto=tcp";
    let (mut accepting, mut dropping) = (one(VM, &[accept]), one(VM, &[drop, "action=accept"]));
    assert_eq!(ask(&accepting, VM, "1.1.1.1", tcp(443)), REFUSED);
    assert_eq!(ask(&dropping, VM, "1.1.1.1", tcp(443)), REFUSED);
    assert_eq!(ask(&dropping, VM, "1.1.1.1", udp(443)), Action::Accept);
    for trees in [&mut accepting, &mut dropping] {
        assert_eq!(trees.hosts(ip(VM)).collect::<Vec<_>>(), [&name]);
        let other = ip("10.137.0.99");
        let mut set = |client, addrs: &[&str], whole| {
            let addrs = addrs.iter().map(|addr| ip(addr)).collect();
            trees.set_host(client, name.clone(), addrs, whole)
        };
        assert!(!set(other, &["9.9.9.9"], true), "another's affair");
        assert!(set(ip(VM), &["1.1.1.1", "2001:db8::1"], true));
        assert!(!set(ip(VM), &["2001:db8::1", "1.1.1.1"], true));
    }
    assert_eq!(ask(&accepting, VM, "1.1.1.1", tcp(443)), Action::Accept);
    assert_eq!(ask(&accepting, VM, "1.1.1.2", tcp(443)), REFUSED);
    assert_eq!(ask(&dropping, VM, "1.1.1.1", tcp(443)), REFUSED);
    assert_eq!(ask(&dropping, VM, "1.1.1.2", tcp(443)), Action::Accept);
    // If it has others, nobody knows which.
    for trees in [&mut accepting, &mut dropping] {
        trees.set_host(ip(VM), name.clone(), vec![ip("1.1.1.1")], false);
    }
    assert_eq!(ask(&accepting, VM, "1.1.1.1", tcp(443)), Action::Accept);
    assert_eq!(ask(&accepting, VM, "1.1.1.2", tcp(443)), REFUSED);
    assert_eq!(ask(&dropping, VM, "1.1.1.2", tcp(443)), REFUSED);
    assert!(dropping.forget_hosts(ip(VM)) != accepting.forget_hosts(ip(VM)));
    assert_eq!(ask(&accepting, VM, "1.1.1.1", tcp(443)), REFUSED);
}

#[test]
fn what_is_not_understood_blocks_the_vm_and_says_why() {
    let long = format!("action=accept dsthost={}", "a".repeat(254));
    for (rule, why) in [
        ("", RuleError::Form),
        ("action=accept ", RuleError::Form),
        ("action=accept  proto=tcp", RuleError::Form),
        ("proto=tcp", RuleError::NoAction),
        ("action=forward", RuleError::Value("action")),
        ("action=accept action=accept", RuleError::Twice),
        ("action=accept dpi=NO", RuleError::UnknownKey),
        ("action=accept expire=1", RuleError::UnknownKey),
        ("action=accept dst4=1.2.3.4/33", RuleError::Value("dst4")),
        ("action=accept dst4=1.2.3.4/+8", RuleError::Value("dst4")),
        ("action=accept dst4=1.2.3", RuleError::Value("dst4")),
        ("action=accept dst4=::1", RuleError::Value("dst4")),
        ("action=accept dst4=1.2.3.4 dsthost=a", RuleError::TwoTargets),
        ("action=accept dst6=fd00::/8", RuleError::Family),
        ("action=accept dsthost=", RuleError::Value("dsthost")),
        ("action=accept dsthost=EXAMPLE.org", RuleError::Value("dsthost")),
        (&long, RuleError::Value("dsthost")),
        ("action=accept proto=sctp", RuleError::Value("proto")),
        ("action=accept proto=tcp dstports=80-", RuleError::Value("dstports")),
        ("action=accept proto=tcp dstports=81-80", RuleError::Value("dstports")),
        ("action=accept proto=tcp dstports=65536", RuleError::Value("dstports")),
        ("action=accept proto=tcp dstports=+80", RuleError::Value("dstports")),
        ("action=accept proto=icmp icmptype=256", RuleError::Value("icmptype")),
        ("action=accept proto=icmp dstports=80", RuleError::Contradiction),
        ("action=accept proto=tcp icmptype=8", RuleError::Contradiction),
        ("action=accept specialtarget=ntp", RuleError::Value("specialtarget")),
    ] {
        let entries = [("policy", "accept"), ("0000", "action=accept"), ("0001", rule)];
        let broken = tree(VM, &entries);
        assert_eq!(broken, Err(TreeError::Rule(1, why)), "{rule}");
        let mut trees = Trees::default();
        trees.set(ip(VM), broken);
        assert_eq!(ask(&trees, VM, "1.1.1.1", tcp(1)), REFUSED, "{rule}");
        assert_eq!(trees.broken().count(), 1);
    }
    assert_eq!(tree(VM, &[("0000", "action=accept")]), Err(TreeError::NoPolicy));
    assert_eq!(tree(VM, &[("policy", "maybe")]), Err(TreeError::Policy));
    for key in ["000", "00000", "+001", "abcd", ""] {
        let entries = [("policy", "drop"), (key, "action=accept")];
        assert_eq!(tree(VM, &entries), Err(TreeError::Key), "{key}");
    }
    assert_eq!(
        tree(VM6, &[("policy", "drop"), ("0000", "action=drop dst4=1.2.3.4")]),
        Err(TreeError::Rule(0, RuleError::Family))
    );
    assert_eq!(Tree::parse(Family::V4, [("policy", &b"\xff"[..])]), Err(TreeError::Policy));
}

#[test]
fn more_rules_than_can_be_had_block_the_vm_and_no_other() {
    let numbers: Vec<String> = (0..=RULES_MAX).map(|n| format!("{n:04}")).collect();
    let mut entries: Vec<_> = numbers.iter().map(|n| (n.as_str(), "action=accept")).collect();
    entries.push(("policy", "accept"));
    assert_eq!(tree(VM, &entries), Err(TreeError::TooMany));
    let most = tree(VM, &entries[1..]);
    assert_eq!(most.as_ref().map(|tree| tree.rules.len()), Ok(RULES_MAX));
    let mut trees = Trees::new(RULES_MAX + 1);
    assert!(trees.set(ip(VM), most.clone()));
    let small = |n| tree("10.137.0.11", &entries[RULES_MAX + 1 - n..]);
    trees.set(ip("10.137.0.11"), small(2));
    assert_eq!(trees.state(ip("10.137.0.11")), Some(Err(TreeError::NoRoom)));
    assert_eq!(ask(&trees, "10.137.0.11", "1.1.1.1", tcp(1)), REFUSED);
    assert_eq!(ask(&trees, VM, "1.1.1.1", tcp(1)), Action::Accept);
    trees.set(ip("10.137.0.11"), small(1));
    assert_eq!(trees.state(ip("10.137.0.11")), Some(Ok(1)));
    assert!(!trees.set(ip(VM), most), "one's own rules do not count twice");
}

proptest! {
    /// One more condition never lets more pass.
    #[test]
    fn conditions_only_narrow(
        pairs in proptest::sample::subsequence(
            vec!["dst4=10.139.1.0/30", "proto=udp", "specialtarget=dns", "dstports=53-60"], 0..4),
        more in proptest::sample::select(
            vec!["dst4=10.139.1.1", "proto=tcp", "proto=icmp", "specialtarget=dns", "dstports=53"]),
    ) {
        let wide = pairs.iter().fold("action=accept".to_owned(), |rule, pair| rule + " " + pair);
        let narrow = format!("{wide} {more}");
        for last in 0..4 {
            let dst = format!("10.139.1.{last}");
            for transport in [tcp(53), udp(53), udp(60), icmp(8), Transport::Other(1)] {
                let narrowed = accepts(&narrow, &dst, transport);
                prop_assert!(!narrowed || accepts(&wide, &dst, transport), "{}", narrow);
            }
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9=/. :-]{0,60}", bytes: Vec<u8>) {
        let _ = text.parse::<RuleText>();
        let pairs = text.replace('=', " action=");
        let _ = pairs.parse::<RuleText>();
        let _ = Tree::parse(Family::V6, [(text.as_str(), &bytes[..])]);
    }
}
