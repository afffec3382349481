//! The rest of the words of the policy language, as packets feel them, and where each of all is shown.

use crate::common::{Kind, Spec, packet};
use crate::world::{
    PERSONAL, UPLINK, WORK, World, config, config_of, from_work, from_world, ip, us, us6, web,
    web6, work, work6,
};
use rules::{Severity, Timeout};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use wire::{DropReason, TcpFlags, Verdict};

const ACK: TcpFlags = TcpFlags::ACK;
const SYN_ACK: TcpFlags = TcpFlags::SYN.with(ACK);

fn passes(world: &mut World, frame: &[u8]) -> bool {
    matches!(world.send(WORK, frame).verdict, Verdict::Emit(_))
}

fn udp(sport: u16, dst: (IpAddr, u16)) -> Vec<u8> {
    let src = if dst.0.is_ipv4() { work() } else { work6() };
    from_work(Spec::udp((src, sport), dst))
}

fn tcp(sport: u16, dport: u16, flags: TcpFlags, (seq, ack): (u32, u32)) -> Spec {
    let kind = Kind::Tcp { sport, dport, flags, seq, ack };
    Spec::new(work(), web(), kind).payload(b"")
}

/// A segment of `work`'s connection to port 80.
fn segment(flags: TcpFlags, seq: u32) -> Vec<u8> {
    from_work(tcp(40000, 80, flags, (seq, 5001)))
}

/// Opens that connection; its external port.
fn connect(world: &mut World) -> u16 {
    let syn = from_work(Spec::tcp((work(), 40000), (web(), 80), TcpFlags::SYN));
    let port = packet(&world.send(WORK, &syn).emitted(UPLINK)).tuple().unwrap().sport;
    world.send(UPLINK, &from_server(port, SYN_ACK, (5000, 1001))).emitted(WORK);
    world.send(WORK, &segment(ACK, 1001)).emitted(UPLINK);
    port
}

fn from_server(port: u16, flags: TcpFlags, (seq, ack): (u32, u32)) -> Vec<u8> {
    let kind = Kind::Tcp { sport: 80, dport: port, flags, seq, ack };
    from_world(Spec::new(web(), us(), kind).payload(b""))
}

#[test]
fn names_of_addresses_and_services_stand_for_what_they_hold() {
    let mut world = World::new(config_of(
        "vm work = 10.137.0.10, fd09::a89:a
         set near = [10.0.0.0/30, office]
         set office = 10.0.0.9, 10.0.0.20-10.0.0.29, 2001:db8::/64
         service time = udp 123
         service mixed = time, tcp 80, 8000-8001, udp 5
         nat clients -> uplink masquerade
         policy clients -> uplink { accept mixed sport 700-800, 900 from [work] to near; drop }",
    ));
    for (sport, dst, dport, fits) in [
        (700, "10.0.0.3", 123, true),
        (800, "10.0.0.9", 5, true),
        (900, "10.0.0.29", 123, true),
        (900, "2001:db8::9", 123, true),
        (699, "10.0.0.3", 123, false),
        (801, "10.0.0.3", 123, false),
        (700, "10.0.0.4", 123, false),
        (700, "10.0.0.30", 123, false),
        (700, "2001:db8:0:1::9", 123, false),
        (700, "10.0.0.3", 80, false),
    ] {
        assert_eq!(
            passes(&mut world, &udp(sport, (ip(dst), dport))),
            fits,
            "{sport} {dst} {dport}"
        );
    }
    for (dport, fits) in [(80, true), (8000, true), (8001, true), (123, false), (8002, false)] {
        let syn = Spec::tcp((work(), 750), (ip("10.0.0.1"), dport), TcpFlags::SYN);
        assert_eq!(passes(&mut world, &from_work(syn)), fits, "{dport}");
    }
}

#[test]
fn both_families_of_icmp_differ_by_type_and_code() {
    let ask = |(src, dst), kind, code| {
        from_work(Spec::new(src, dst, Kind::Icmp { kind, code, rest: 7 << 16 }))
    };
    let (four, six) = ((work(), web()), (work6(), web6()));
    for (rule, four_fits, six_fits) in [
        ("icmp", true, true),
        ("icmp echo-request", true, true),
        ("icmp timestamp-request", false, false),
        ("icmp4 type 8", true, false),
        ("icmp4 type 8 code 0", true, false),
        ("icmp4 type 8 code 1", false, false),
        ("icmp6 type 128 code 0", false, true),
        ("icmp6 type 128 code 3", false, false),
    ] {
        let mut world = World::new(config(&format!("accept {rule}\ndrop")));
        assert_eq!(passes(&mut world, &ask(four, 8, 0)), four_fits, "{rule}");
        assert_eq!(passes(&mut world, &ask(six, 128, 0)), six_fits, "{rule}");
    }
}

/// Each is asked for in a segment of a connection that new rules judge.
#[test]
fn each_control_bit_has_a_word() {
    let judged = |rule: &str, flags: TcpFlags| {
        let mut world = World::new(config("accept"));
        connect(&mut world);
        let rules = format!("accept tcp state established {rule}\ndrop");
        world.firewall.set_policy(config(&rules).policy);
        passes(&mut world, &segment(flags, 1001))
    };
    for (bit, name) in ["fin", "rst", "psh", "urg", "ece", "cwr"].into_iter().enumerate() {
        let flag = TcpFlags(1 << [0, 2, 3, 5, 6, 7][bit]);
        assert!(judged(&format!("flags {name}"), flag.with(ACK)), "{name}");
        assert!(!judged(&format!("flags {name}"), ACK), "{name}");
        assert!(!judged(&format!("no-flags {name}"), flag.with(ACK)), "{name}");
        assert!(judged(&format!("no-flags {name}"), ACK), "{name}");
    }
    assert!(judged("flags ack", ACK) && !judged("no-flags ack", ACK));
    let begun = |rule: &str| {
        let mut world = World::new(config(&format!("accept tcp {rule}\ndrop")));
        passes(&mut world, &from_work(tcp(1, 80, TcpFlags::SYN, (1, 0))))
    };
    assert!(begun("flags syn") && !begun("no-flags syn"));
}

#[test]
fn each_name_of_a_dscp_is_its_number() {
    let classes = (0..8).map(|class| (format!("cs{class}"), class * 8));
    let assured = (1..5).flat_map(|class| {
        (1..4).map(move |drop| (format!("af{class}{drop}"), class * 8 + drop * 2))
    });
    let names: Vec<(String, u8)> = classes.chain(assured).chain([("ef".to_owned(), 46)]).collect();
    assert_eq!(names.len(), 21);
    for (name, number) in names {
        let mut world = World::new(config(&format!("accept dscp {name}\ndrop")));
        for (port, dscp, fits) in [(1, number, true), (2, number ^ 1, false)] {
            let mut frame = udp(port, (web6(), 9));
            (frame[14], frame[15]) = (0x60 | dscp >> 2, dscp << 6);
            assert_eq!(passes(&mut world, &frame), fits, "{name} {dscp}");
        }
    }
}

/// The receiver of the log is told each by its number (RFC 5424 section 6.2.1).
#[test]
fn each_severity_has_its_number() {
    let words = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];
    assert_eq!(words, Severity::ALL.map(Severity::name));
    for (word, number) in words.into_iter().zip(0..) {
        let mut world = World::new(config_of(&format!(
            "syslog 192.0.2.9 policy clients -> uplink {{ drop log {word} }}"
        )));
        let sent = world.send(WORK, &udp(1, (web(), 2))).replies;
        let text: Vec<_> =
            sent.iter().map(|(_, frame)| String::from_utf8_lossy(&frame[42..])).collect();
        let begins = format!("<{}>1 - ", 16 * 8 + number);
        assert!(text.len() == 1 && text[0].starts_with(&begins), "{word}: {text:?}");
    }
}

#[test]
fn each_unit_of_a_rate_is_as_long_as_it_says() {
    for (unit, secs) in [("s", 1), ("min", 60), ("h", 3600), ("d", 86400)] {
        let mut world = World::new(config(&format!("accept limit 2/{unit} burst 3")));
        let begin = |world: &mut World, port| passes(world, &udp(port, (web(), 9)));
        assert!((1..4).all(|port| begin(&mut world, port)), "{unit}");
        assert!(!begin(&mut world, 4), "{unit}");
        // One more in half of it.
        world.wait(secs / 2 - u64::from(secs > 1));
        assert!(!begin(&mut world, 5), "{unit}");
        world.wait(1);
        assert!(begin(&mut world, 6), "{unit}");
    }
}

/// Begins a flow of that kind and brings it where its time counts; a packet that is its own.
fn begun(world: &mut World, kind: Timeout) -> Vec<u8> {
    match kind {
        Timeout::Udp | Timeout::Dns => {
            let frame = udp(1, (web(), if kind == Timeout::Dns { 53 } else { 54 }));
            let port = packet(&world.send(WORK, &frame).emitted(UPLINK)).tuple().unwrap().sport;
            let from = if kind == Timeout::Dns { 53 } else { 54 };
            from_world(Spec::udp((web(), from), (us(), port)))
        }
        Timeout::Icmp => {
            let ping = from_work(Spec::ping(work6(), web6(), 3));
            let id = packet(&world.send(WORK, &ping).emitted(UPLINK)).tuple().unwrap().sport;
            from_world(Spec::pong(web6(), us6(), id))
        }
        Timeout::TcpTransitory => {
            let syn = from_work(Spec::tcp((work(), 40000), (web(), 80), TcpFlags::SYN));
            let sent = packet(&world.send(WORK, &syn).emitted(UPLINK)).tuple().unwrap();
            from_server(sent.sport, SYN_ACK, (5000, 1001))
        }
        Timeout::TcpEstablished => {
            let port = connect(world);
            from_server(port, ACK, (5001, 1001))
        }
        Timeout::TcpClosed => {
            let port = connect(world);
            let fin = TcpFlags::FIN.with(ACK);
            world.send(WORK, &segment(fin, 1001)).emitted(UPLINK);
            world.send(UPLINK, &from_server(port, fin, (5001, 1002))).emitted(WORK);
            let last = from_work(tcp(40000, 80, ACK, (1002, 5002)));
            world.send(WORK, &last).emitted(UPLINK);
            from_server(port, ACK, (5002, 1002))
        }
    }
}

#[test]
fn each_timeout_is_how_long_its_flows_live() {
    for kind in Timeout::ALL {
        let secs = kind.least() + 60;
        let text = format!(
            "timeout {} {secs}s nat clients -> uplink masquerade policy clients -> uplink {{ accept }}",
            kind.name()
        );
        for (wait, there) in [(secs - 5, true), (secs + 10, false)] {
            let mut world = World::new(config_of(&text));
            let own = begun(&mut world, kind);
            world.wait(wait.into());
            let fate = world.send(UPLINK, &own);
            let passed = matches!(fate.verdict, Verdict::Emit(_));
            assert_eq!(passed, there, "{} after {wait} s: {:?}", kind.name(), fate.verdict);
        }
    }
}

#[test]
fn a_source_that_is_written_is_that_of_its_protocol() {
    let mut world = World::new(config_of(
        "vm work = 10.137.0.10
         nat clients -> uplink snat tcp from work:5060 to 192.0.2.7
         nat clients -> uplink snat udp from work:5060 to 192.0.2.8:6000
         nat clients -> uplink masquerade
         policy clients -> uplink { accept }",
    ));
    let mut source = |frame: &[u8]| {
        let sent = packet(&world.send(WORK, frame).emitted(UPLINK)).tuple().unwrap();
        (sent.src, sent.sport)
    };
    let syn = |sport| from_work(Spec::tcp((work(), sport), (web(), 80), TcpFlags::SYN));
    assert_eq!(source(&syn(5060)).0, ip("192.0.2.7"));
    assert_eq!(source(&syn(5061)).0, us());
    assert_eq!(source(&udp(5060, (web(), 1))), (ip("192.0.2.8"), 6000));
}

#[test]
fn a_balance_takes_turns_unless_told_otherwise() {
    let mut world = World::new(config_of(
        "policy uplink -> clients {
            forward udp 80 to [10.137.0.10, 10.137.0.11] balance round-robin
            drop
        }",
    ));
    let mut knock = |n| {
        let frame = from_world(Spec::udp((web(), n), (us(), 80)));
        match world.send(UPLINK, &frame).verdict {
            Verdict::Emit(emit) => emit.to,
            other => panic!("{other:?}"),
        }
    };
    let turns: Vec<_> = (1..5).map(&mut knock).collect();
    assert!(turns == [WORK, PERSONAL, WORK, PERSONAL] || turns == [PERSONAL, WORK, PERSONAL, WORK]);
}

#[test]
fn one_query_is_redirected_as_the_policy_says() {
    let mut world = World::new(config_of(
        "redirect dns 10.139.1.1 to 192.168.122.1
         nat clients -> uplink masquerade
         policy clients -> uplink { accept udp to 192.168.122.1; reject }",
    ));
    let query = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    let asked = |dst: &str| from_work(Spec::udp((work(), 1), (ip(dst), 53)).payload(&query));
    let sent = packet(&world.send(WORK, &asked("10.139.1.1")).emitted(UPLINK)).tuple().unwrap();
    assert_eq!((sent.dst, sent.dport), (ip("192.168.122.1"), 53));
    world.send(WORK, &asked("10.139.1.2")).answered(DropReason::RuleReject, WORK);
}

/// Where each word of the grammar is shown by packets. `expect` and its `firewall` are shown where what
/// they describe is put to the firewall.
const SHOWN: &[(&str, &str)] = &[
    ("zone netfront netback", "config_of"),
    (
        "vm set service tcp udp sport from to",
        "names_of_addresses_and_services_stand_for_what_they_hold",
    ),
    (
        "policy group use",
        "blocks_for_a_vm_come_before_those_for_all_and_groups_stand_where_they_are_used",
    ),
    ("host", "a_host_is_asked_for_ahead_and_reached_where_it_is"),
    ("mac", "an_interface_that_is_not_the_vms_may_not_use_its_address"),
    ("masquerade", "config"),
    ("nat snat one-to-one", "snat_and_one_to_one_give_the_names_that_are_written"),
    ("dnat", "dnat_leads_to_the_rules_and_they_decide"),
    ("hairpin", "hairpin_lets_clients_meet_where_rules_between_them_allow"),
    ("redirect dns", "one_query_is_redirected_as_the_policy_says"),
    ("route via", "routes_lead_to_their_own_next_hop"),
    ("on", "routes_say_on_which_uplink_a_network_lies"),
    ("syslog accepted refused", "syslog_gets_a_datagram_for_each_line_it_is_to_have"),
    (
        "timeout tcp-established tcp-transitory tcp-closed",
        "each_timeout_is_how_long_its_flows_live",
    ),
    ("flows per client", "timeout_and_flows_say_how_long_and_how_many"),
    ("expect firewall", "what_policies_expect_is_what_the_firewall_does"),
    ("accept drop", "drop_says_nothing_and_the_log_names_the_line"),
    (
        "reject admin-prohibited host-unreachable net-unreachable port-unreachable",
        "each_kind_of_reject_is_told_in_its_own_way",
    ),
    ("tcp-reset", "tcp_reset_is_a_reset_from_whom_was_called"),
    ("qubes", "a_vm_without_rules_is_refused_and_one_with_rules_may_what_they_say"),
    ("forward at", "forward_lets_in_whom_it_names_and_nobody_else"),
    ("balance hash", "balance_shares_flows_among_targets"),
    ("round-robin", "a_balance_takes_turns_unless_told_otherwise"),
    ("state new established", "state_tells_flows_that_older_rules_accepted_from_new_ones"),
    ("ttl dscp length", "header_fields_are_looked_at_in_the_first_packet"),
    ("flags no-flags fin syn rst psh ack urg ece cwr", "each_control_bit_has_a_word"),
    ("limit burst s min h d", "each_unit_of_a_rate_is_as_long_as_it_says"),
    ("log", "log_tells_how_much_it_matters_and_keeps_to_its_rate"),
    ("emergency alert critical error warning notice info debug", "each_severity_has_its_number"),
    (
        "icmp echo-request timestamp-request icmp4 icmp6 type code",
        "both_families_of_icmp_differ_by_type_and_code",
    ),
];

/// The words in quotes of the grammar, but for those of claims, which no packet meets.
fn grammar() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/POLICY.md");
    let text = std::fs::read_to_string(path).unwrap();
    let grammar = text.split("## Grammar").nth(1).unwrap().split("```").nth(1).unwrap();
    let lines = grammar.lines().filter(|line| !line.starts_with("claim "));
    let quoted = lines.flat_map(|line| line.split('"').skip(1).step_by(2));
    let words = quoted.filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()));
    words.map(str::to_owned).collect()
}

/// The text of a test, or of what all tests begin with, by its name.
fn source(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = std::fs::read_dir(root.join("tests/firewall")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let other = root.join("host/cli/tests/examples.rs");
    let find = |path| {
        let text = std::fs::read_to_string(path).unwrap();
        let (_, body) = text.split_once(&format!("fn {name}("))?;
        body.split_once("\n}\n").map(|(body, _)| body.to_owned())
    };
    files.chain([other]).find_map(find).unwrap_or_else(|| panic!("there is no {name}"))
}

#[test]
fn each_word_of_the_grammar_has_a_test() {
    let mut shown = BTreeSet::new();
    for (words, test) in SHOWN {
        let body = source(test);
        // Some take their words from lists, or from files.
        let listed = ["Timeout::ALL", "QUBES", "policies()"].iter().any(|list| body.contains(list));
        for word in words.split(' ') {
            assert!(body.contains(word) || listed, "{test} does not say {word}");
            assert!(shown.insert(word.to_owned()), "{word} stands here twice");
        }
    }
    assert_eq!(shown, grammar());
}
