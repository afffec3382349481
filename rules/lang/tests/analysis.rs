//! The analysis against trying every packet of a small world.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use lang::{Proof, check, compile, diff, explain, prove};
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{
    Action, Header, HostTable, Policy, Query, RuleId, State, Then, Transport, Uplink, Zone,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

const HEAD: &str = "zone uplink = netfront 0
zone clients = netback
nat clients -> uplink masquerade
vm work = 10.0.0.1
redirect dns 10.0.0.3 to 10.0.0.2
";
/// Lines before the first rule.
const ABOVE: u32 = 6;

fn file(rules: &[String], last: &str) -> String {
    let rules: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    format!("{HEAD}policy clients -> uplink {{\n{rules}{last}\n}}\n")
}

/// A rule of a world with four addresses of each family and ports around 53.
fn rule() -> impl Strategy<Value = String> {
    let verdicts = vec!["accept", "drop", "reject", "reject log", "accept log"];
    let verdict = proptest::sample::select(verdicts);
    let kinds = proptest::sample::select(vec![
        "",
        "tcp",
        "udp 53",
        "tcp 52-53, udp",
        "icmp",
        "icmp echo-request",
        "tcp 54",
        "udp 52, 54",
        "tcp 1-60, icmp",
    ]);
    let addrs = || {
        proptest::sample::select(vec![
            "",
            "10.0.0.0",
            "10.0.0.2",
            "10.0.0.3",
            "10.0.0.0/31",
            "10.0.0.1-10.0.0.2",
            "work",
            "[10.0.0.0, 10.0.0.3]",
            "fd00::1",
            "[fd00::/127, 10.0.0.2]",
            "0.0.0.0/0",
        ])
    };
    let when = vec!["", "", "", "ttl 0-5", "ttl 5-9", "state established", "ttl 5 state new"];
    let when = proptest::sample::select(when);
    (verdict, kinds, addrs(), addrs(), when).prop_map(|(verdict, kinds, from, to, when)| {
        let (verdict, log) = verdict.split_once(' ').unwrap_or((verdict, ""));
        let side = |word: &str, addrs: &str| match addrs {
            "" => String::new(),
            addrs => format!(" {word} {addrs}"),
        };
        format!("{verdict} {kinds}{}{} {when} {log}", side("from", from), side("to", to))
    })
}

/// One packet of each sort that rules of this world can tell apart.
fn every_packet() -> Vec<Query> {
    let v4 = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
    let v6 = ["fd00::", "fd00::1", "fd00::2"];
    let mut transports = vec![Transport::Other(47)];
    for dport in [0, 1, 51, 52, 53, 54, 55, 60, 61] {
        transports.push(Transport::Tcp { sport: 1, dport });
        transports.push(Transport::Udp { sport: 1, dport });
    }
    transports.extend([8, 13, 128].map(|kind| Transport::Icmp { kind, code: 0 }));
    let mut packets = Vec::new();
    for family in [&v4[..], &v6] {
        for (src, dst) in family.iter().flat_map(|src| family.iter().map(move |dst| (src, dst))) {
            let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
            packets.extend(transports.iter().map(|&transport| Query {
                from: Zone::Clients,
                to: Zone::Uplink(Uplink::FIRST),
                src,
                dst,
                transport,
                header: Header::PLAIN,
            }));
        }
    }
    packets.retain(asked);
    let headers = State::ALL
        .into_iter()
        .flat_map(|state| [1, 5, 7, 64].map(|ttl| Header { state, ttl, ..Header::PLAIN }));
    headers.flat_map(|header| packets.iter().map(move |p| Query { header, ..*p })).collect()
}

/// Whether rules are asked about it: not sent to a VM, not redirected.
fn asked(packet: &Query) -> bool {
    let dns = matches!(
        packet.transport,
        Transport::Tcp { dport: 53, .. } | Transport::Udp { dport: 53, .. }
    );
    let to = |text: &str| packet.dst == text.parse::<IpAddr>().unwrap();
    !(to("10.0.0.1") || (dns && to("10.0.0.3")))
}

fn policy(text: &str) -> Option<Policy> {
    compile("x", text).ok().map(|compiled| compiled.policy)
}

fn fate(policy: &Policy, packet: &Query) -> (Action, bool) {
    let decision = policy.decide(packet, &Trees::default(), &HostTable::new());
    (decision.action, decision.log.is_some())
}

/// What a rule wants and whether it logs, as the analysis compares it.
fn wish(policy: &Policy, packet: &Query) -> (Option<Then>, bool, RuleId) {
    let id = policy.decide(packet, &Trees::default(), &HostTable::new()).rule;
    let rule = policy.rule(id).map(|(_, rule)| rule);
    (rule.map(|rule| rule.then), rule.is_some_and(|rule| rule.log.is_some()), id)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// Rules that never decide and rules without which nothing changes are found, all and no others.
    #[test]
    fn findings_are_what_trying_every_packet_finds(rules in proptest::collection::vec(rule(), 1..7)) {
        let text = file(&rules, "drop");
        let Some(whole) = policy(&text) else { return Ok(()) };
        let found = check("x", &text).1;
        let lines = |codes: &[&str]| -> BTreeSet<u32> {
            found.iter().filter(|one| codes.contains(&one.code)).map(|one| one.place().line).collect()
        };
        let packets = every_packet();
        let deciding: BTreeSet<u32> = packets
            .iter()
            .filter_map(|packet| whole.rule(wish(&whole, packet).2).map(|(_, rule)| rule.line))
            .collect();
        let silent: BTreeSet<u32> =
            (0..rules.len()).map(|at| ABOVE + 1 + at as u32).filter(|line| !deciding.contains(line)).collect();
        prop_assert_eq!(lines(&["shadowed", "never-asked", "empty-match"]), silent.clone(), "{}", text);
        let mut needless = BTreeSet::new();
        for at in 0..rules.len() {
            let line = ABOVE + 1 + at as u32;
            let mut fewer = rules.clone();
            fewer.remove(at);
            let Some(without) = policy(&file(&fewer, "drop")) else { continue };
            if !silent.contains(&line) && packets.iter().all(|p| fate(&whole, p) == fate(&without, p)) {
                needless.insert(line);
            }
        }
        prop_assert_eq!(lines(&["redundant"]), needless, "{}", text);
    }

    /// A difference is told exactly if there is one, and each packet told of shows it.
    #[test]
    fn differences_are_what_trying_every_packet_finds(
        rules in proptest::collection::vec(rule(), 0..6),
        more in proptest::collection::vec(rule(), 0..3),
        cut in 0usize..6,
        last in proptest::sample::select(vec!["drop", "reject"]),
    ) {
        let mut changed = rules.clone();
        let at = cut.min(changed.len());
        changed.splice(at..at, more);
        changed.truncate(7);
        let (old, new) = (file(&rules, "drop"), file(&changed, last));
        let (Some(was), Some(is)) = (policy(&old), policy(&new)) else { return Ok(()) };
        let found = diff(("old", &old), ("new", &new)).unwrap();
        prop_assert!(!found.incomplete && found.others.is_empty());
        let differs = every_packet().iter().any(|p| fate(&was, p) != fate(&is, p));
        prop_assert_eq!(!found.changes.is_empty(), differs, "{}\n{}", old, new);
        for change in &found.changes {
            prop_assert!(asked(&change.packet.packet));
            prop_assert_ne!(fate(&was, &change.packet.packet), fate(&is, &change.packet.packet));
        }
    }

    /// A claim holds exactly if no packet contradicts it.
    #[test]
    fn claims_hold_if_no_packet_contradicts_them(
        rules in proptest::collection::vec(rule(), 0..6),
        to in proptest::sample::select(vec!["10.0.0.2", "10.0.0.0/31", "uplink", "[10.0.0.2, 10.0.0.4]"]),
        kinds in proptest::sample::select(vec!["", "tcp", "udp 53", "tcp 52-54", "icmp echo-request"]),
        can: bool,
    ) {
        let text = file(&rules, "drop");
        let Some(policy) = policy(&text) else { return Ok(()) };
        let verb = if can { "can" } else { "cannot" };
        let claim = format!("clients {verb} reach {to} {kinds}");
        let spoken_of = |p: &&Query| {
            let last = match p.dst { IpAddr::V4(addr) => Some(addr.octets()[3]), IpAddr::V6(_) => None };
            let there = match to {
                "10.0.0.2" => last == Some(2),
                "10.0.0.0/31" => matches!(last, Some(0 | 1)),
                "uplink" => true,
                _ => matches!(last, Some(2 | 4)),
            };
            let kind = match (kinds, p.transport) {
                ("", _) | ("tcp", Transport::Tcp { .. }) => true,
                ("udp 53", Transport::Udp { dport, .. }) => dport == 53,
                ("tcp 52-54", Transport::Tcp { dport, .. }) => (52..=54).contains(&dport),
                ("icmp echo-request", Transport::Icmp { kind, .. }) => kind == if p.dst.is_ipv4() { 8 } else { 128 },
                _ => false,
            };
            there && kind
        };
        let accepted = |p: &Query| fate(&policy, p).0 == Action::Accept;
        // One of these is a VM's, which no other client can reach.
        let reachable = !can || to != "10.0.0.0/31";
        let holds = reachable && every_packet().iter().filter(spoken_of).all(|p| accepted(p) == can);
        match prove(("x", &text), &claim).unwrap() {
            Proof::Holds => prop_assert!(holds, "{}: {}", claim, text),
            Proof::Fails(shown) => {
                prop_assert!(!holds, "{}: {}", claim, text);
                prop_assert_eq!(accepted(&shown.0.packet), !can);
            }
            Proof::Nothing | Proof::Unknown => prop_assert!(false, "{}", claim),
        }
    }
}

const LAPTOP: &str = include_str!("../../../examples/laptop.tide");

fn says(claim: &str) -> String {
    match prove(("laptop.tide", LAPTOP), claim) {
        Ok(Proof::Holds) => "yes".to_owned(),
        Ok(Proof::Fails(shown)) => format!("no: {} by {:?}", shown.0, shown.1.line),
        Ok(Proof::Nothing) => "nothing".to_owned(),
        Ok(Proof::Unknown) => "unknown".to_owned(),
        Err(mistakes) => mistakes[0].render(),
    }
}

#[test]
fn claims_are_read_with_the_names_of_the_policy() {
    assert_eq!(says("personal cannot reach 10.0.0.0/8"), "yes");
    assert_eq!(
        says("personal cannot reach private"),
        "no: tcp 10.137.0.11:49152 -> 192.168.122.1:53 by Some(20)"
    );
    assert_eq!(says("work cannot reach private tcp 22"), "yes");
    assert!(
        says("work cannot reach 10.0.0.0/8").starts_with("no: tcp 10.137.0.10:49152 -> 10.0.0.9:")
    );
    assert_eq!(says("work can reach printers tcp 631"), "yes");
    assert_eq!(says("uplink cannot reach work"), "yes");
    assert_eq!(says("clients cannot reach clients"), "yes");
    assert_eq!(says("work cannot reach personal"), "yes");
    assert_eq!(says("10.0.0.1 cannot reach fd00::1"), "nothing");
    assert!(says("wrok cannot reach printers").contains("did you mean `work`?"));
    assert!(says("work cant reach printers").contains("did you mean `can`?"));
    assert!(says("work cannot reach web").contains("`web` is a service, not a vm or set"));
    assert!(says("work cannot reach printers tcp 22 now").contains("expected the end"));
}

#[test]
fn an_explanation_tells_the_way_through_the_rules() {
    let found = explain(("laptop.tide", LAPTOP), "udp from work to 10.139.1.1:53").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].sent.to_string(), "10.139.1.1:53");
    assert!(found[0].is_led_on());
    assert_eq!(
        (found[0].rule.line, found[0].rule.text.as_str()),
        (Some(20), "accept dns to resolver")
    );
    assert!(found[0].passed.is_empty() && found[0].masqueraded);
    assert_eq!(found[0].vm.as_deref(), Some("work"));

    let found = explain(("laptop.tide", LAPTOP), "tcp from personal to 10.0.0.9:631").unwrap();
    let passed: Vec<_> = found[0].passed.iter().map(|(rule, why)| (rule.line, *why)).collect();
    assert_eq!(
        passed,
        [(Some(20), rules::Condition::Traffic), (Some(21), rules::Condition::Source)]
    );
    assert_eq!(found[0].rule.does, "reject host-unreachable log");
    let wrong = explain(("laptop.tide", LAPTOP), "tcp from wrok to 10.0.0.9:631").unwrap_err();
    assert!(wrong[0].render().contains("did you mean `work`?"), "{}", wrong[0].render());
}

#[test]
fn other_differences_are_told_in_words() {
    let other = LAPTOP
        .replace("redirect dns", "# redirect dns")
        .replace("policy uplink -> clients {\n    drop\n}", "");
    let found = diff(("a", LAPTOP), ("b", &other)).unwrap();
    assert_eq!(found.others, ["DNS queries are redirected to other resolvers"]);
    assert!(found.changes.is_empty(), "a direction without a block is dropped as this block did");
}

/// `TIDEGATE_MEASURE=1 cargo test --release -p tidegate-lang measure -- --nocapture` prints how long
/// the analysis of 1,000 rules takes.
#[test]
fn measure() {
    let count = if std::env::var_os("TIDEGATE_MEASURE").is_some() { 1000 } else { 40 };
    let one = |n: usize| {
        let verdict = ["accept", "reject", "drop"][n % 3];
        let (a, b) = (n / 250, n % 250);
        match n % 5 {
            0 => format!("{verdict} tcp {} from 10.137.{a}.{b}", 1 + n % 900),
            1 => format!("{verdict} udp {}-{} to 192.0.{a}.0/24", n, n + 50),
            2 => format!("{verdict} tcp 443, 80 from 10.137.0.0/16 to 198.51.{b}.{b}"),
            _ => format!("{verdict} tcp {} from 10.137.{a}.{b} to 203.{a}.113.{b}", 1 + n),
        }
    };
    let rules: Vec<_> = (0..count).map(one).collect();
    let text = file(&rules, "reject");
    let changed = text.replace("203.1.113.7", "203.1.113.8").replace("drop udp", "accept udp");
    let clock = std::time::Instant::now();
    let (compiled, found) = check("x", &text);
    let (checked, clock) = (clock.elapsed(), std::time::Instant::now());
    let proof = prove(("x", &text), "clients cannot reach 10.0.0.0/8 icmp").unwrap();
    let (proved, clock) = (clock.elapsed(), std::time::Instant::now());
    let difference = diff(("x", &text), ("y", &changed)).unwrap();
    println!(
        "{count} rules: check {checked:?} ({} remarks), prove {proved:?}, diff {:?} ({} changes)",
        found.len(),
        clock.elapsed(),
        difference.changes.len()
    );
    assert!(compiled.is_some() && matches!(proof, Proof::Holds) && !difference.incomplete);
    assert!(!found.iter().any(|one| one.code == "too-tangled"));
}
