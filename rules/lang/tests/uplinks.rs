//! Several uplinks: the analysis against trying every packet of a small world, each in the direction
//! in which the routes send it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use lang::{Proof, check, compile, diff, explain, graph, prove};
use proptest::prelude::*;
use rules::qubes::Trees;
use rules::{Action, Header, HostTable, Policy, Query, RuleId, Transport, Uplink, Zone, interpret};
use std::collections::BTreeSet;
use std::net::IpAddr;

const HEAD: &str = "zone uplink = netfront 0
zone lab = netfront 2
zone clients = netback
nat clients -> uplink masquerade
nat clients -> lab masquerade
vm work = 10.0.0.1
";
const ADDRS: [&str; 8] =
    ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::", "fd00::1", "fd01::"];

/// The blocks towards both uplinks, behind so many routes.
#[derive(Clone, Debug)]
struct World {
    routes: Vec<String>,
    blocks: [Vec<String>; 2],
}

impl World {
    /// The policy, and the line of each rule.
    fn written(&self) -> (String, Vec<u32>) {
        let mut text = format!("{HEAD}{}\n", self.routes.join("\n"));
        let mut lines = Vec::new();
        for (zone, rules) in ["uplink", "lab"].into_iter().zip(&self.blocks) {
            text.push_str(&format!("policy clients -> {zone} {{\n"));
            for rule in rules {
                lines.push(text.lines().count() as u32 + 1);
                text.push_str(&format!("{rule}\n"));
            }
            text.push_str("drop\n}\n");
        }
        (text, lines)
    }

    fn policy(&self) -> Option<Policy> {
        compile("x", &self.written().0).ok().map(|compiled| compiled.policy)
    }
}

fn routes() -> impl Strategy<Value = Vec<String>> {
    let nets =
        ["0.0.0.0/0", "10.0.0.0/30", "10.0.0.0/31", "10.0.0.2/31", "10.0.0.3/32", "fd00::/64"];
    let nets = proptest::sample::subsequence(nets.to_vec(), 0..=5);
    (nets, proptest::collection::vec(any::<bool>(), 6)).prop_map(|(nets, lab)| {
        let on = |lab: &bool| if *lab { "on lab" } else { "on uplink" };
        nets.iter().zip(&lab).map(|(net, lab)| format!("route {net} {}", on(lab))).collect()
    })
}

fn rule() -> impl Strategy<Value = String> {
    let addrs =
        ["", "10.0.0.2", "10.0.0.0/31", "10.0.0.2-10.0.0.3", "[fd00::1, 10.0.0.3]", "0.0.0.0/0"];
    let addrs = proptest::sample::select(addrs.to_vec());
    let kinds = proptest::sample::select(vec!["", "tcp 52-53", "tcp 53, udp", "udp 52"]);
    let verdict = proptest::sample::select(vec!["accept", "drop", "reject"]);
    (verdict, kinds, addrs).prop_map(|(verdict, kinds, to)| match to {
        "" => format!("{verdict} {kinds}"),
        to => format!("{verdict} {kinds} to {to}"),
    })
}

fn world() -> impl Strategy<Value = World> {
    let rules = || proptest::collection::vec(rule(), 0..4);
    (routes(), rules(), rules()).prop_map(|(routes, out, lab)| World { routes, blocks: [out, lab] })
}

/// Where the routes of `world` send a packet, by asking all from the longest on.
fn uplink_to(world: &World, dst: IpAddr) -> Uplink {
    let bits = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()) << 96,
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let mut best = (None, Uplink::FIRST);
    for route in &world.routes {
        let words: Vec<_> = route.split(' ').collect();
        let (net, len) = words[1].split_once('/').unwrap();
        let (net, len): (IpAddr, u32) = (net.parse().unwrap(), len.parse().unwrap());
        let there = net.is_ipv4() == dst.is_ipv4()
            && (len == 0 || (bits(net) ^ bits(dst)).leading_zeros() >= len);
        if there && Some(len) > best.0 {
            best = (Some(len), Uplink::ALL[if words[3] == "lab" { 2 } else { 0 }]);
        }
    }
    best.1
}

/// Every packet of a client that rules of `world` can tell apart and are asked about.
fn every_packet(world: &World) -> Vec<Query> {
    let mut found = Vec::new();
    for (src, dst) in ADDRS.iter().flat_map(|src| ADDRS.iter().map(move |dst| (src, dst))) {
        let (src, dst): (IpAddr, IpAddr) = (src.parse().unwrap(), dst.parse().unwrap());
        if src.is_ipv4() != dst.is_ipv4() || *"10.0.0.1" == dst.to_string() {
            continue;
        }
        let (from, to) = (Zone::Clients, Zone::Uplink(uplink_to(world, dst)));
        for dport in [51, 52, 53, 54] {
            for transport in
                [Transport::Tcp { sport: 1, dport }, Transport::Udp { sport: 1, dport }]
            {
                found.push(Query { from, to, src, dst, transport, header: Header::PLAIN });
            }
        }
    }
    found
}

fn decided(policy: &Policy, packet: &Query) -> (Action, RuleId) {
    let decision = policy.decide(packet, &Trees::default(), &HostTable::new());
    assert_eq!(decision, interpret(policy, &Trees::default(), &HostTable::new(), packet));
    (decision.action, decision.rule)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    /// A rule about what leaves by the other uplink alone is told of as one that never decides.
    #[test]
    fn findings_are_what_trying_every_packet_finds(world in world()) {
        let (text, rules) = world.written();
        let Some(whole) = world.policy() else { return Ok(()) };
        let found = check("x", &text).1;
        let lines = |codes: &[&str]| -> BTreeSet<u32> {
            let of = found.iter().filter(|one| codes.contains(&one.code));
            of.map(|one| one.place().line).collect()
        };
        let packets = every_packet(&world);
        let deciding = packets.iter().filter_map(|packet| whole.rule(decided(&whole, packet).1));
        let deciding: BTreeSet<u32> = deciding.map(|(_, rule)| rule.line).collect();
        // Where nothing leaves, that is told of the block and not of each of its rules.
        let idle = |to| !packets.iter().any(|packet| packet.to == Zone::Uplink(Uplink::ALL[to]));
        let first = world.blocks[0].len();
        let busy = |number: usize| !idle(if number < first { 0 } else { 2 });
        prop_assert_eq!(lines(&["no-route"]).len(), usize::from(idle(0)) + usize::from(idle(2)));
        let rules: Vec<_> = rules.into_iter().enumerate().filter(|(n, _)| busy(*n)).collect();
        let silent: BTreeSet<u32> =
            rules.iter().map(|(_, line)| *line).filter(|line| !deciding.contains(line)).collect();
        let told = lines(&["shadowed", "never-asked", "empty-match"]);
        prop_assert_eq!(told, silent.clone(), "{}", text);
        let mut needless = BTreeSet::new();
        for &(number, line) in rules.iter().filter(|(_, line)| !silent.contains(line)) {
            let mut fewer = world.clone();
            if number < first {
                fewer.blocks[0].remove(number);
            } else {
                fewer.blocks[1].remove(number - first);
            }
            let without = fewer.policy().unwrap();
            if packets.iter().all(|p| decided(&whole, p).0 == decided(&without, p).0) {
                needless.insert(line);
            }
        }
        prop_assert_eq!(lines(&["redundant"]), needless, "{}", text);
    }

    /// A network that moves behind another uplink is asked about in another block from then on.
    #[test]
    fn differences_are_what_trying_every_packet_finds(
        old in world(),
        routes in routes(),
        other in world(),
        which in 0..3,
    ) {
        let mut new = old.clone();
        if which != 0 {
            new.routes = routes;
        }
        if which != 1 {
            new.blocks[1].clone_from(&other.blocks[1]);
        }
        let (Some(was), Some(is)) = (old.policy(), new.policy()) else { return Ok(()) };
        let found = diff(("old", &old.written().0), ("new", &new.written().0)).unwrap();
        prop_assert!(!found.incomplete);
        prop_assert_eq!(found.others.is_empty(), old.routes == new.routes);
        let differs = every_packet(&old).iter().zip(&every_packet(&new))
            .any(|(then, now)| decided(&was, then).0 != decided(&is, now).0);
        let texts = (old.written().0, new.written().0);
        prop_assert_eq!(!found.changes.is_empty(), differs, "{}\n{}", texts.0, texts.1);
        for change in &found.changes {
            let there = |world| Zone::Uplink(uplink_to(world, change.packet.packet.dst));
            prop_assert_eq!(change.packet.packet.to, there(&new));
            let then = Query { to: there(&old), ..change.packet.packet };
            prop_assert_ne!(decided(&was, &then).0, decided(&is, &change.packet.packet).0);
        }
    }

    /// A claim holds exactly if no packet contradicts it, by whichever uplink it leaves.
    #[test]
    fn claims_hold_if_no_packet_contradicts_them(
        world in world(),
        to in proptest::sample::select(vec!["10.0.0.2", "10.0.0.2-10.0.0.4", "uplink", "lab"]),
        tcp: bool,
        can: bool,
    ) {
        let text = world.written().0;
        let Some(policy) = world.policy() else { return Ok(()) };
        let (verb, kinds) = (if can { "can" } else { "cannot" }, if tcp { "tcp 52-54" } else { "udp" });
        let claim = format!("clients {verb} reach {to} {kinds}");
        let spoken_of = |p: &&Query| {
            let there = match to {
                "uplink" => p.to == Zone::Uplink(Uplink::FIRST),
                "lab" => p.to == Zone::Uplink(Uplink::ALL[2]),
                "10.0.0.2" => p.dst.to_string() == "10.0.0.2",
                _ => ["10.0.0.2", "10.0.0.3", "10.0.0.4"].contains(&p.dst.to_string().as_str()),
            };
            let kind = match p.transport {
                Transport::Tcp { dport, .. } => tcp && dport != 51,
                _ => !tcp,
            };
            there && kind
        };
        let packets = every_packet(&world);
        let accepted = |p: &Query| decided(&policy, p).0 == Action::Accept;
        let holds = packets.iter().filter(spoken_of).all(|p| accepted(p) == can);
        match prove(("x", &text), &claim).unwrap() {
            Proof::Holds => prop_assert!(holds, "{}: {}", claim, text),
            Proof::Fails(shown) => {
                prop_assert!(!holds, "{}: {}", claim, text);
                prop_assert_eq!(shown.0.packet.to, Zone::Uplink(uplink_to(&world, shown.0.packet.dst)));
                prop_assert_eq!(accepted(&shown.0.packet), !can);
            }
            Proof::Nothing => prop_assert!(!packets.iter().any(|p| spoken_of(&p)), "{}: {}", claim, text),
            Proof::Unknown => prop_assert!(false, "{}", claim),
        }
    }
}

const OFFICE: &str = include_str!("../../../examples/two-uplinks.tide");

#[test]
fn claims_about_a_zone_are_about_its_uplink() {
    let says = |claim| match prove(("x", OFFICE), claim).unwrap() {
        Proof::Holds => "yes".to_owned(),
        Proof::Fails(shown) => {
            format!("no: {} -> {}: {}", shown.0.packet.from, shown.0.packet.to, shown.0)
        }
        Proof::Nothing => "nothing".to_owned(),
        Proof::Unknown => "unknown".to_owned(),
    };
    assert_eq!(
        says("personal cannot reach office tcp"),
        "no: clients -> uplink 1: tcp 10.137.0.11:49152 -> 10.20.0.53:53"
    );
    assert_eq!(says("personal cannot reach 10.20.0.0/16 tcp 22"), "yes");
    assert_eq!(says("work can reach 10.30.0.0/16 tcp 443, 5432"), "yes");
    assert_eq!(says("clients cannot reach 10.40.0.0/16"), "yes");
    assert_eq!(says("internet cannot reach clients"), "yes");
    assert_eq!(
        says("office cannot reach work tcp 22"),
        "no: uplink 1 -> clients: tcp 10.20.1.1:49152 -> 10.137.0.10:22"
    );
    // None of these packets ever reaches the firewall's rules.
    assert_eq!(says("office can reach internet"), "nothing");
    assert_eq!(says("office can reach 8.8.8.8"), "nothing");
}

#[test]
fn an_explanation_finds_the_direction_in_the_routes() {
    let asked = |packet| {
        let found = explain(("x", OFFICE), packet).unwrap();
        format!("{} -> {}: line {:?}", found[0].packet.from, found[0].packet.to, found[0].rule.line)
    };
    assert_eq!(asked("tcp from work to 10.20.0.7:22"), "clients -> uplink 1: line Some(39)");
    assert_eq!(asked("tcp from work to 10.21.0.7:22"), "clients -> uplink: line Some(31)");
    // The resolver that is really asked is at the office.
    assert_eq!(asked("udp from work to 10.139.1.1:53"), "clients -> uplink 1: line Some(37)");
    assert_eq!(asked("tcp from 10.20.1.3 to firewall:22"), "uplink 1 -> clients: line Some(44)");
    // An external address is on its uplink, wherever a packet to it comes from.
    assert_eq!(asked("tcp from 8.8.8.8 to 10.20.0.80:443"), "uplink 1 -> clients: line Some(45)");
    assert_eq!(asked("tcp from 8.8.8.8 to firewall:22"), "uplink -> clients: line None");
}

#[test]
fn each_uplink_stands_in_the_picture() {
    let picture = graph("x", OFFICE).unwrap();
    for part in [
        "<title>internet</title>",
        "<title>office</title>",
        "line 26: web to internet</title>",
        "<title>office: 10.20.0.53</title>",
        "line 39: tcp 22, 5432 to office</title>",
    ] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    assert!(!picture.contains("<title>outside</title>"));
}

/// What a name stands for is not known, nor behind which uplink that is: it is asked about where the
/// direction says.
#[test]
fn a_host_is_looked_for_behind_the_uplink_that_is_written() {
    let text = |expect: &str| {
        format!(
            "{HEAD}route 10.20.0.0/29 on lab
             policy clients -> uplink {{ accept tcp 443 to host www.example.org; drop }}
             policy clients -> lab {{ reject to 10.20.0.0/30; accept tcp to host git.example.org; drop }}
             {expect}"
        )
    };
    for good in [
        "expect accept clients -> lab tcp from work to host git.example.org:22",
        "expect drop clients -> lab tcp from work to host www.example.org:443",
        "expect accept clients -> uplink tcp from work to host www.example.org:443",
        "expect drop clients -> uplink tcp from work to host git.example.org:443",
    ] {
        let told = compile("x", &text(good)).map_err(|mistakes| mistakes[0].render());
        assert!(told.is_ok(), "{}", told.unwrap_err());
    }
    let unclear = text("expect accept tcp from work to host git.example.org:22");
    let mistakes = compile("x", &unclear).unwrap_err();
    assert!(mistakes.len() == 1 && mistakes[0].code == "expect-direction", "{mistakes:?}");
    let found =
        explain(("x", &text("")), "clients -> lab tcp from work to host git.example.org:22");
    assert_eq!(found.unwrap()[0].packet.dst.to_string(), "10.20.0.4");
}
