//! Host names in a policy: what is written, and the analysis against trying every packet of a small
//! world with everything that its names may stand for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use lang::{Example, Level, Proof, check, compile, diff, explain, prove};
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{
    Action, Decision, Header, HostName, HostTable, Policy, Query, RuleId, Then, Transport, Uplink,
    Zone,
};
use std::collections::BTreeSet;
use std::net::IpAddr;

const HEAD: &str = "zone uplink = netfront 0
zone clients = netback
nat clients -> uplink masquerade
vm work = 10.0.0.1
redirect dns 10.0.0.3 to 10.0.0.2
set two = [host b, 10.0.0.2]
";
/// Lines before the first rule.
const ABOVE: u32 = 7;

fn file(rules: &[String], last: &str) -> String {
    let rules: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
    format!("{HEAD}policy clients -> uplink {{\n{rules}{last}\n}}\n")
}

/// A rule of a world with few addresses, two ports and two names.
fn rule() -> impl Strategy<Value = String> {
    let verdict = proptest::sample::select(vec!["accept", "accept", "drop", "reject"]);
    let kinds = proptest::sample::select(vec!["", "tcp 53", "tcp"]);
    let from = proptest::sample::select(vec!["", "from work", "from 10.0.0.0/31"]);
    let to = proptest::sample::select(vec![
        "",
        "to host a",
        "to host a",
        "to host b",
        "to [host a, host b]",
        "to two",
        "to [10.0.0.0/31, host a]",
        "to 10.0.0.2",
        "to [10.0.0.0-10.0.0.3, fd00::/64]",
    ]);
    (verdict, kinds, from, to)
        .prop_map(|(verdict, kinds, from, to)| format!("{verdict} {kinds} {from} {to}"))
}

/// One packet of each sort that rules of this world can tell apart, with each way in which names may
/// stand for its destination.
fn every_example() -> Vec<Example> {
    let v4 = ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.137.0.9"];
    let v6 = ["fd00::1", "fd01::1", "fe80::1"];
    let transports = [
        Transport::Tcp { sport: 1, dport: 53 },
        Transport::Tcp { sport: 1, dport: 54 },
        Transport::Icmp { kind: 8, code: 0 },
    ];
    let (a, b) = (name("a"), name("b"));
    let ways = [vec![], vec![a.clone()], vec![b.clone()], vec![a, b]];
    let mut all = Vec::new();
    for family in [&v4[..], &v6] {
        for (src, dst) in family.iter().flat_map(|src| family.iter().map(move |dst| (src, dst))) {
            let nameless = ["10.0.0.1", "10.137.0.9", "fe80::1"].contains(dst);
            for transport in transports {
                let packet = packet(src, dst, transport);
                // Not sent to a VM, not redirected.
                let dns = matches!(transport, Transport::Tcp { dport: 53, .. });
                if *dst == "10.0.0.1" || (dns && *dst == "10.0.0.3") {
                    continue;
                }
                let ways = ways.iter().filter(|way| way.is_empty() || !nameless);
                all.extend(ways.map(|way| Example { packet, hosts: way.clone() }));
            }
        }
    }
    all
}

fn name(text: &str) -> HostName {
    HostName::new(text).unwrap()
}

fn packet(src: &str, dst: &str, transport: Transport) -> Query {
    let (src, dst) = (src.parse().unwrap(), dst.parse().unwrap());
    let (from, to) = (Zone::Clients, Zone::Uplink(Uplink::FIRST));
    Query { from, to, src, dst, transport, header: Header::PLAIN }
}

fn policy(text: &str) -> Option<Policy> {
    compile("x", text).ok().map(|compiled| compiled.policy)
}

fn decide(policy: &Policy, example: &Example) -> Decision {
    let mut hosts = HostTable::new();
    for host in &example.hosts {
        hosts.set(example.packet.src, host, &[example.packet.dst]);
    }
    policy.decide(&example.packet, &Trees::default(), &hosts)
}

fn fate(policy: &Policy, example: &Example) -> Action {
    decide(policy, example).action
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// What a name stands for is not known: a rule decides nothing, or changes nothing, if that is so
    /// whatever it is.
    #[test]
    fn findings_are_what_trying_everything_finds(rules in proptest::collection::vec(rule(), 1..6)) {
        let text = file(&rules, "drop");
        let Some(whole) = policy(&text) else { return Ok(()) };
        let found = check("x", &text).1;
        let lines = |codes: &[&str]| -> BTreeSet<u32> {
            found.iter().filter(|one| codes.contains(&one.code)).map(|one| one.place().line).collect()
        };
        let examples = every_example();
        let line = |id: RuleId| whole.rule(id).map(|(_, rule)| rule.line);
        let deciding: BTreeSet<u32> =
            examples.iter().filter_map(|example| line(decide(&whole, example).rule)).collect();
        let written = |at: usize| ABOVE + 1 + at as u32;
        let silent: BTreeSet<u32> =
            (0..rules.len()).map(written).filter(|line| !deciding.contains(line)).collect();
        prop_assert_eq!(lines(&["shadowed", "never-asked", "empty-match"]), silent.clone(), "{}", text);
        let mut needless = BTreeSet::new();
        for at in 0..rules.len() {
            let mut fewer = rules.clone();
            fewer.remove(at);
            let Some(without) = policy(&file(&fewer, "drop")) else { continue };
            let same = |example: &Example| fate(&whole, example) == fate(&without, example);
            if !silent.contains(&written(at)) && examples.iter().all(same) {
                needless.insert(written(at));
            }
        }
        prop_assert_eq!(lines(&["redundant"]), needless, "{}", text);
        let weak = rules.iter().enumerate().filter(|(_, rule)| {
            let named = rule.contains("host") || rule.contains("two");
            named && !rule.starts_with("accept")
        });
        prop_assert_eq!(lines(&["weak-host"]), weak.map(|(at, _)| written(at)).collect());
    }

    #[test]
    fn differences_are_what_trying_everything_finds(
        rules in proptest::collection::vec(rule(), 0..5),
        more in proptest::collection::vec(rule(), 0..3),
        cut in 0usize..5,
    ) {
        let mut changed = rules.clone();
        let at = cut.min(changed.len());
        changed.splice(at..at, more);
        changed.truncate(5);
        let (old, new) = (file(&rules, "drop"), file(&changed, "drop"));
        let (Some(was), Some(is)) = (policy(&old), policy(&new)) else { return Ok(()) };
        let found = diff(("old", &old), ("new", &new)).unwrap();
        prop_assert!(!found.incomplete);
        let differs = every_example().iter().any(|e| fate(&was, e) != fate(&is, e));
        prop_assert_eq!(!found.changes.is_empty(), differs, "{}\n{}", old, new);
        for change in &found.changes {
            prop_assert_ne!(fate(&was, &change.packet), fate(&is, &change.packet), "{}", change.packet);
        }
    }

    #[test]
    fn claims_hold_if_nothing_contradicts_them(
        rules in proptest::collection::vec(rule(), 0..5),
        to in proptest::sample::select(vec!["10.0.0.2", "uplink", "host a", "[host a, host b, 10.0.0.4]"]),
        can: bool,
    ) {
        let text = file(&rules, "drop");
        let Some(policy) = policy(&text) else { return Ok(()) };
        let verb = if can { "can" } else { "cannot" };
        let claim = format!("work {verb} reach {to} tcp");
        let spoken_of = |e: &&Example| {
            let ip = |text: &str| e.packet.dst == text.parse::<IpAddr>().unwrap();
            let there = match to {
                "10.0.0.2" => ip("10.0.0.2"),
                "uplink" => true,
                "host a" => e.hosts.contains(&name("a")),
                _ => !e.hosts.is_empty() || ip("10.0.0.4"),
            };
            let work = e.packet.src == "10.0.0.1".parse::<IpAddr>().unwrap();
            there && work && matches!(e.packet.transport, Transport::Tcp { .. })
        };
        let accepted = |e: &Example| fate(&policy, e) == Action::Accept;
        let holds = every_example().iter().filter(spoken_of).all(|e| accepted(e) == can);
        match prove(("x", &text), &claim).unwrap() {
            Proof::Holds => prop_assert!(holds, "{}: {}", claim, text),
            Proof::Fails(shown) => {
                prop_assert!(!holds, "{}: {}", claim, text);
                prop_assert_eq!(accepted(&shown.0), !can);
            }
            Proof::Nothing | Proof::Unknown => prop_assert!(false, "{}", claim),
        }
    }
}

const MIRRORS: &str = "zone uplink = netfront 0
zone clients = netback
nat clients -> uplink masquerade
redirect dns 10.139.1.1 to 192.0.2.53
vm work = 10.137.0.10, fd09::a
set mirrors = [host deb.debian.org, HOST security.debian.org, 198.51.100.0/24]
group updates { accept tcp 443 to mirrors }
policy clients -> uplink {
    reject to 10.0.0.0/8
    use updates from work
    accept tcp 80 to host Deb.Debian.org
    reject
}
expect accept tcp from work to host deb.debian.org:443
expect accept tcp from work to host security.debian.org:443
expect reject tcp from work to host security.debian.org:80
expect reject tcp from work to host elsewhere.example:443
expect accept tcp from work to 198.51.100.7:443
expect reject tcp from work to 203.0.113.7:443
";

fn mirrors() -> String {
    MIRRORS.replace("HOST", "host")
}

#[test]
fn names_stand_in_rules_sets_and_groups_and_are_the_same_in_any_case() {
    let compiled = compile("mirrors.tide", &mirrors()).unwrap();
    assert_eq!(compiled.expectations, 6);
    let policy = compiled.policy;
    assert_eq!(Policy::decode(&compiled.blob).as_ref(), Ok(&policy));
    let told = |client: &str| {
        let hosts = policy.hosts_of(client.parse().unwrap());
        hosts.into_iter().map(HostName::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(told("10.137.0.10"), "deb.debian.org security.debian.org");
    assert_eq!(told("fd09::a"), "deb.debian.org security.debian.org");
    assert_eq!(told("10.137.0.11"), "deb.debian.org", "the group is asked from work alone");
}

#[test]
fn what_depends_on_a_name_is_said_with_it() {
    let text = mirrors();
    let says = |claim: &str| match prove(("mirrors.tide", &text), claim) {
        Ok(Proof::Holds) => "yes".to_owned(),
        Ok(Proof::Fails(shown)) => format!("no: {} by {:?}", shown.0, shown.1.line),
        other => panic!("{other:?}"),
    };
    assert_eq!(says("work cannot reach 10.0.0.0/8"), "yes", "a rule above forbids it");
    assert_eq!(
        says("work cannot reach 192.168.0.0/16"),
        "no: tcp 10.137.0.10:49152 -> 192.168.0.1:443, if deb.debian.org is at 192.168.0.1 by Some(7)"
    );
    // No name has such an address in the eyes of the firewall.
    assert_eq!(says("work cannot reach [127.0.0.0/8, 169.254.0.0/16]"), "yes");
    assert_eq!(says("work cannot reach host elsewhere.example tcp 22"), "yes");
    assert_eq!(
        says("work can reach host deb.debian.org tcp 443"),
        "no: tcp 10.137.0.10:49152 -> 10.0.0.1:443, if deb.debian.org is at 10.0.0.1 by Some(9)"
    );
    let answers =
        explain(("mirrors.tide", &text), "tcp from work to host deb.debian.org:80").unwrap();
    let [one, six] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(one.packet.to_string(), "tcp 10.137.0.10:49152 -> 192.0.2.1:80");
    assert_eq!(six.packet.to_string(), "tcp [fd09::a]:49152 -> [2001:db8::1]:80");
    assert_eq!((one.rule.line, one.host.clone()), (Some(11), Some(name("deb.debian.org"))));
    assert_eq!(one.decision.action, Action::Accept);
}

#[test]
fn an_address_a_rule_speaks_of_is_not_taken_for_that_of_a_name() {
    let text = format!(
        "{HEAD}policy clients -> uplink {{ reject to [192.0.2.0/24, 2001:db8::/48]; accept to host a; reject }}
         expect accept tcp from work to host a:443\n"
    );
    compile("x", &text).unwrap();
}

#[test]
fn names_are_laid_out_and_drawn() {
    let text = mirrors();
    let laid = lang::format("mirrors.tide", &text).unwrap();
    assert!(laid.contains(
        "set mirrors = [host deb.debian.org, host security.debian.org, 198.51.100.0/24]"
    ));
    assert!(laid.contains("    accept tcp 80 to host Deb.Debian.org\n"), "{laid}");
    assert_eq!(lang::format("mirrors.tide", &laid).as_ref(), Ok(&laid));
    let svg = lang::graph("mirrors.tide", &text).unwrap();
    assert!(svg.contains("host Deb.Debian.org") && svg.contains("tcp 443"), "{svg}");
}

#[test]
fn a_policy_that_does_not_say_whom_to_ask_is_told_so_in_a_note() {
    let text = mirrors();
    let notes = |text: &str| {
        let found = check("x", text).1;
        found
            .iter()
            .filter(|one| one.code == "hosts-unresolved")
            .map(|one| one.level)
            .collect::<Vec<_>>()
    };
    assert_eq!(notes(&text), []);
    assert_eq!(notes(&text.replace("redirect dns 10.139.1.1 to 192.0.2.53\n", "")), [Level::Note]);
}

#[test]
fn a_policy_has_so_many_names_and_no_more() {
    let with = |count: usize, prefix: &str| {
        let names: Vec<_> = (0..count).map(|n| format!("host {prefix}{n}.example")).collect();
        format!("accept to [{}]\n", names.join(", "))
    };
    let errors = |rules: String| {
        let text = format!("{HEAD}policy clients -> uplink {{ {rules} drop }}\n");
        compile("x", &text).err().map(|found| found.iter().map(|one| one.code).collect::<Vec<_>>())
    };
    assert_eq!(errors(with(rules::HOSTS_MAX, "a") + &with(rules::HOSTS_MAX, "a")), None);
    assert_eq!(errors(with(rules::HOSTS_MAX + 1, "a")), Some(vec!["too-many-hosts"]));
    assert_eq!(errors(with(rules::HOSTS_MAX, "a") + &with(2, "b")), Some(vec!["too-many-hosts"]));
}

#[test]
fn a_rule_that_hands_over_by_name_stays_what_it_is() {
    let text = format!("{HEAD}policy clients -> uplink {{ qubes to host a; drop }}\n");
    let policy = policy(&text).unwrap();
    let rule = policy.block(Zone::Clients, Zone::Uplink(Uplink::FIRST)).next().unwrap().1;
    assert_eq!((rule.then, rule.hosts.as_ref().unwrap().names()), (Then::Qubes, &[name("a")][..]));
}
