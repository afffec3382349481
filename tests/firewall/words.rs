//! Each word of the policy language, as packets feel it.

use crate::common::{Kind, Spec, packet};
use crate::world::{
    Fate, PERSONAL, PERSONAL_MAC, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, config_of,
    from_work, from_world, ip, personal, us, web, web6, work, work6,
};
use std::net::IpAddr;
use tidegate::firewall::{Config, LogLevel};
use wire::{DropReason, Emit, Mac, Packet, Parsed, TcpFlags, Transport, Verdict, parse};

const VMS: &str = "vm work = 10.137.0.10, fd09::a89:a\nvm personal = 10.137.0.11\n";
const NAT: &str = "nat clients -> uplink masquerade\n";

/// A world with two named VMs, and whatever else the policy says.
fn world(text: &str) -> World {
    World::new(config_of(&format!("{VMS}{text}")))
}

fn syn(dport: u16) -> Spec {
    Spec::tcp((work(), 40000 + dport), (web(), dport), TcpFlags::SYN)
}

fn knock(from: IpAddr, to: (IpAddr, u16)) -> Vec<u8> {
    from_world(Spec::tcp((from, 999), to, TcpFlags::SYN))
}

fn from_personal(spec: Spec) -> Vec<u8> {
    spec.macs(Mac::BACKEND, PERSONAL_MAC).frame()
}

fn passes(fate: &Fate) -> bool {
    matches!(fate.verdict, Verdict::Emit(_))
}

/// Source and destination of a packet.
fn ends(bytes: &[u8]) -> ((IpAddr, u16), (IpAddr, u16)) {
    let tuple = packet(bytes).tuple().unwrap();
    ((tuple.src, tuple.sport), (tuple.dst, tuple.dport))
}

#[test]
fn limit_lets_so_many_begin_and_drops_the_rest_without_a_word() {
    let mut world = World::new(config("accept tcp limit 2/s burst 3\nreject limit 1/min"));
    for port in 0..3 {
        world.send(WORK, &from_work(syn(port))).emitted(UPLINK);
    }
    world.send(WORK, &from_work(syn(3))).silent(DropReason::RateLimited);
    world.send(WORK, &from_work(syn(0))).emitted(UPLINK);
    world.wait(1);
    for (port, fate) in [(4, true), (5, true), (6, false)] {
        assert_eq!(passes(&world.send(WORK, &from_work(syn(port)))), fate, "{port}");
    }
    let udp = from_work(Spec::udp((work(), 1), (web(), 2)));
    world.send(WORK, &udp).answered(DropReason::RuleReject, WORK);
    world.send(WORK, &udp).silent(DropReason::RateLimited);
}

#[test]
fn flows_that_go_on_are_not_counted_again() {
    let rules = "accept limit 1/h";
    let mut world = World::new(config(rules));
    let udp = from_work(Spec::udp((work(), 1), (web(), 2)));
    world.send(WORK, &udp).emitted(UPLINK);
    world.firewall.set_policy(config(rules).policy);
    world.firewall.set_policy(config(rules).policy);
    world.send(WORK, &udp).emitted(UPLINK);
    world.send(WORK, &from_work(Spec::udp((work(), 2), (web(), 2)))).emitted(UPLINK);
    world
        .send(WORK, &from_work(Spec::udp((work(), 3), (web(), 2))))
        .silent(DropReason::RateLimited);
}

#[test]
fn log_tells_how_much_it_matters_and_keeps_to_its_rate() {
    let mut world = World::new(config("accept tcp 1 log\ndrop tcp 2 log alert 1/min\ndrop"));
    for _ in 0..3 {
        world.send(WORK, &from_work(syn(1)));
        world.send(WORK, &from_work(syn(2)));
    }
    let log = world.log();
    assert_eq!(
        log[0],
        "accept clients -> uplink: tcp 10.137.0.10:40001 -> 93.184.216.34:1, test.tide:4"
    );
    assert_eq!(
        log[1],
        "alert: drop clients -> uplink: tcp 10.137.0.10:40002 -> 93.184.216.34:2, test.tide:5"
    );
    assert_eq!(log[2..], ["2 lines left out"]);
}

#[test]
fn state_tells_flows_that_older_rules_accepted_from_new_ones() {
    let mut world = World::new(config("accept"));
    world.send(WORK, &from_work(syn(22))).emitted(UPLINK);
    let rules = "accept tcp state established\naccept udp state new\nreject";
    world.firewall.set_policy(config(rules).policy);
    world.send(WORK, &from_work(syn(22))).emitted(UPLINK);
    world.send(WORK, &from_work(syn(23))).answered(DropReason::RuleReject, WORK);
    world.send(WORK, &from_work(Spec::udp((work(), 1), (web(), 2)))).emitted(UPLINK);
}

/// A UDP packet with some byte of its IPv4 header changed, and its sum made right.
fn with_header(port: u16, len: usize, at: usize, value: u8) -> Vec<u8> {
    let spec = Spec::udp((work(), port), (web(), 9)).payload(&vec![7; len]);
    let mut frame = from_work(spec);
    frame[14 + at] = value;
    frame[24..26].fill(0);
    let sum = frame[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum::<u32>();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame
}

#[test]
fn header_fields_are_looked_at_in_the_first_packet() {
    let mut world = World::new(config("accept ttl [5-9, 64] dscp [ef, cs1] length 0-100\ndrop"));
    let (ttl, tos) = (8, 1);
    for (port, frame, fits) in [
        (1, with_header(1, 60, tos, 46 << 2), true),
        (2, with_header(2, 60, tos, 8 << 2 | 3), true),
        (3, with_header(3, 60, tos, 0), false),
        (4, with_header(4, 73, tos, 46 << 2), false),
        (5, with_header(5, 72, tos, 46 << 2), true),
    ] {
        assert_eq!(passes(&world.send(WORK, &frame)), fits, "{port}");
    }
    let mut world = World::new(config("accept ttl [5-9, 64]\ndrop"));
    for (port, value, fits) in
        [(1, 4, false), (2, 5, true), (3, 9, true), (4, 10, false), (5, 64, true)]
    {
        let frame = with_header(port, 1, ttl, value);
        assert_eq!(passes(&world.send(WORK, &frame)), fits, "{value}");
    }
    // What follows the first packet is not looked at.
    assert!(passes(&world.send(WORK, &with_header(2, 1, ttl, 77))));
    // IPv6 has the same fields in other places.
    let mut world = World::new(config("accept dscp ef ttl 64 length 59\ndrop"));
    let mut frame = from_work(Spec::udp((work6(), 1), (web6(), 2)).payload(&[0; 11]));
    assert!(!passes(&world.send(WORK, &frame)));
    let class = 46u8 << 2;
    (frame[14], frame[15]) = (0x60 | class >> 4, class << 4);
    assert!(passes(&world.send(WORK, &frame)));
}

#[test]
fn flags_are_looked_at_in_the_first_segment() {
    let mut world =
        World::new(config("accept tcp flags [syn, ece] no-flags urg\nreject tcp-reset tcp\ndrop"));
    let open = |flags: TcpFlags, port| {
        from_work(Spec::tcp((work(), 40000), (web(), port), TcpFlags::SYN.with(flags)))
    };
    for (port, flags, fits) in [
        (1, TcpFlags(0), false),
        (2, TcpFlags::ECE, true),
        (3, TcpFlags::ECE.with(TcpFlags::CWR), true),
        (4, TcpFlags::ECE.with(TcpFlags::URG), false),
    ] {
        assert_eq!(passes(&world.send(WORK, &open(flags, port))), fits, "{port}");
    }
}

#[test]
fn icmp_requests_differ_by_type_and_code() {
    let mut world = World::new(config(
        "accept icmp4 type 8 code 1\naccept icmp timestamp-request\naccept icmp6 type 128\ndrop",
    ));
    let ask = |kind, code, id: u32| {
        from_work(Spec::new(work(), web(), Kind::Icmp { kind, code, rest: id << 16 }))
    };
    for (kind, code, fits) in [(8, 1, true), (8, 0, false), (13, 0, true)] {
        let fate = world.send(WORK, &ask(kind, code, u32::from(kind) + u32::from(code)));
        assert_eq!(passes(&fate), fits, "{kind}/{code}");
    }
    world.send(WORK, &from_work(Spec::ping(work6(), web6(), 1))).emitted(UPLINK);
}

#[test]
fn forward_lets_in_whom_it_names_and_nobody_else() {
    let mut world = world(
        "policy uplink -> clients {
            drop from 93.184.216.99
            forward tcp 8022 to work:22 from 93.184.216.0/24 log
            forward tcp [80, 8000-8001] at 192.0.2.7 to personal
            drop
        }
        policy clients -> uplink { drop }",
    );
    let got = world.send(UPLINK, &knock(web(), (us(), 8022))).emitted(WORK);
    assert_eq!(ends(&got), ((web(), 999), (work(), 22)));
    assert!(
        world.log()[0]
            .starts_with("accept uplink -> clients: tcp 93.184.216.34:999 -> 10.137.0.10:22")
    );
    for port in [80, 8000, 8001] {
        let got = world.send(UPLINK, &knock(web(), (ip("192.0.2.7"), port))).emitted(PERSONAL);
        assert_eq!(ends(&got).1, (personal(), port));
    }
    for (from, to, why) in [
        (ip("93.184.216.99"), (us(), 8022), DropReason::RuleDrop),
        (ip("93.184.217.1"), (us(), 8022), DropReason::Unsolicited),
        (web(), (us(), 80), DropReason::Unsolicited),
        (web(), (us(), 22), DropReason::Unsolicited),
    ] {
        world.send(UPLINK, &knock(from, to)).silent(why);
    }
    // Clients cannot begin anything, but answer.
    let flags = TcpFlags::SYN.with(TcpFlags::ACK);
    let kind = Kind::Tcp { sport: 22, dport: 999, flags, seq: 1, ack: 1001 };
    let answer = from_work(Spec::new(work(), web(), kind).payload(b""));
    assert_eq!(ends(&world.send(WORK, &answer).emitted(UPLINK)), ((us(), 8022), (web(), 999)));
}

#[test]
fn dnat_leads_to_the_rules_and_they_decide() {
    let block = |rules: &str| {
        world(&format!(
            "nat uplink -> clients dnat udp 53 to work:5353 from [93.184.216.0/24, 192.0.2.0/24]
             policy uplink -> clients {{ {rules} }}"
        ))
    };
    let ask = |from| from_world(Spec::udp((from, 999), (us(), 53)));
    let mut open = block("accept udp 5353 to work from 93.184.0.0/16; drop");
    assert_eq!(ends(&open.send(UPLINK, &ask(web())).emitted(WORK)).1, (work(), 5353));
    open.send(UPLINK, &ask(ip("192.0.2.1"))).silent(DropReason::RuleDrop);
    open.send(UPLINK, &ask(ip("198.51.100.1"))).silent(DropReason::Unsolicited);
    block("accept udp 53; drop").send(UPLINK, &ask(web())).silent(DropReason::RuleDrop);
}

#[test]
fn balance_shares_flows_among_targets() {
    let mut world = world(
        "policy uplink -> clients {
            forward tcp 80 to [work:8080, personal:8081]
            forward tcp 81 to [work:1, personal:2] balance hash
            drop
        }",
    );
    let mut chosen = |n: u8, port| {
        let from = ip(&format!("93.184.216.{n}"));
        match world.send(UPLINK, &knock(from, (us(), port))).verdict {
            Verdict::Emit(Emit { to, .. }) => to,
            other => panic!("{other:?}"),
        }
    };
    let turns: Vec<_> = (0..8).map(|n| chosen(n, 80)).collect();
    assert!(turns.windows(2).all(|two| two[0] != two[1]), "{turns:?}");
    let (first, second): (Vec<_>, Vec<_>) = (0..40).map(|n| (chosen(n, 81), chosen(n, 81))).unzip();
    assert_eq!(first, second, "a remote stays where it is");
    assert!(first.contains(&WORK) && first.contains(&PERSONAL));
}

#[test]
fn snat_and_one_to_one_give_the_names_that_are_written() {
    let mut world = world(
        "nat clients -> uplink snat udp from work:5060 to 192.0.2.7:5061
         nat clients -> uplink snat from work to 192.0.2.8
         nat clients -> uplink one-to-one personal to 192.0.2.9
         policy clients -> uplink { accept from [10.137.0.10, personal]; drop }
         policy uplink -> clients { accept tcp 22 to personal; drop }",
    );
    let from = |spec| from_work(spec);
    let sent =
        ends(&world.send(WORK, &from(Spec::udp((work(), 5060), (web(), 1)))).emitted(UPLINK));
    assert_eq!(sent.0, (ip("192.0.2.7"), 5061));
    let sent =
        ends(&world.send(WORK, &from(Spec::udp((work(), 5062), (web(), 1)))).emitted(UPLINK));
    assert_eq!(sent.0.0, ip("192.0.2.8"));
    let out = from_personal(Spec::udp((personal(), 7), (web(), 1)));
    assert_eq!(ends(&world.send(PERSONAL, &out).emitted(UPLINK)).0, (ip("192.0.2.9"), 7));
    let got = world.send(UPLINK, &knock(web(), (ip("192.0.2.9"), 22))).emitted(PERSONAL);
    assert_eq!(ends(&got).1, (personal(), 22));
    world.send(UPLINK, &knock(web(), (ip("192.0.2.9"), 23))).silent(DropReason::RuleDrop);
}

#[test]
fn hairpin_lets_clients_meet_where_rules_between_them_allow() {
    let text = |rules: &str| {
        format!(
            "{NAT} nat clients -> clients hairpin
             policy clients -> uplink {{ accept }}
             policy uplink -> clients {{ forward tcp 8022 to work:22; drop }}
             policy clients -> clients {{ {rules} }}"
        )
    };
    let knock = from_personal(Spec::tcp((personal(), 999), (us(), 8022), TcpFlags::SYN));
    let mut open = world(&text("accept tcp 22 from personal to work; drop"));
    assert_eq!(ends(&open.send(PERSONAL, &knock).emitted(WORK)).1, (work(), 22));
    assert!(!passes(&world(&text("drop")).send(PERSONAL, &knock)));
}

#[test]
fn routes_lead_to_their_own_next_hop() {
    let mut world = world(&format!(
        "{NAT} route 198.51.100.0/24 via 10.138.1.9
         route 198.51.0.0/16 via 10.138.1.8
         policy clients -> uplink {{ accept }}"
    ));
    let asked: Vec<_> =
        world.tick().into_iter().map(|(port, frame)| (port, frame[38..42].to_vec())).collect();
    assert_eq!(asked, [(UPLINK, vec![10, 138, 1, 9]), (UPLINK, vec![10, 138, 1, 8])]);
    let near = Mac([2, 0, 0, 0, 0, 9]);
    let mut told = vec![0; 42];
    told[..6].copy_from_slice(&UPLINK_MAC.0);
    told[6..12].copy_from_slice(&near.0);
    told[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    told[22..28].copy_from_slice(&near.0);
    told[28..32].copy_from_slice(&[10, 138, 1, 9]);
    told[32..38].copy_from_slice(&UPLINK_MAC.0);
    told[38..42].copy_from_slice(&[10, 138, 1, 1]);
    world.send(UPLINK, &told);
    let mut to = |dst: &str| {
        let frame = from_work(Spec::udp((work(), 1), (ip(dst), 2)));
        packet(&world.send(WORK, &frame).emitted(UPLINK)).eth_dst
    };
    assert_eq!(to("198.51.100.1"), near, "the longest prefix counts");
    assert_eq!(to("198.51.99.1"), Mac::BACKEND, "nobody has answered there");
    assert_eq!(to("93.184.216.34"), Mac::BACKEND);
}

#[test]
fn timeout_and_flows_say_how_long_and_how_many() {
    let mut world = world(&format!(
        "{NAT} timeout udp 2min
         flows 3 per client
         policy clients -> uplink {{ accept }}"
    ));
    let udp = |port| from_work(Spec::udp((work(), port), (web(), 9)));
    for port in 1..4 {
        world.send(WORK, &udp(port)).emitted(UPLINK);
    }
    let full = world.send(WORK, &udp(4));
    assert_eq!(full.verdict, Verdict::Drop(DropReason::QuotaExceeded));
    let other = from_personal(Spec::udp((personal(), 1), (web(), 9)));
    world.send(PERSONAL, &other).emitted(UPLINK);
    world.wait(115);
    assert_eq!(world.firewall.flows(), 4);
    world.wait(15);
    assert_eq!(world.firewall.flows(), 0);
    world.send(WORK, &udp(4)).emitted(UPLINK);
}

#[test]
fn an_interface_that_is_not_the_vms_may_not_use_its_address() {
    let text = |mac: &str| {
        format!(
            "vm work = 10.137.0.10, mac {mac}
             {NAT} policy clients -> uplink {{ accept }}
             policy uplink -> clients {{ forward tcp 80 to work; drop }}"
        )
    };
    let own = WORK_MAC.0.map(|byte| format!("{byte:02x}")).join(":");
    let mut right = World::new(config_of(&text(&own)));
    right.send(WORK, &from_work(syn(1))).emitted(UPLINK);
    right.send(UPLINK, &knock(web(), (us(), 80))).emitted(WORK);
    let mut wrong = World::new(config_of(&text("02:00:00:00:00:01")));
    wrong.send(WORK, &from_work(syn(1))).silent(DropReason::SpoofedSource);
    wrong.send(UPLINK, &knock(web(), (us(), 80))).silent(DropReason::SpoofedSource);
    let other = from_personal(Spec::udp((personal(), 1), (web(), 9)));
    wrong.send(PERSONAL, &other).emitted(UPLINK);
}

#[test]
fn blocks_for_a_vm_come_before_those_for_all_and_groups_stand_where_they_are_used() {
    let mut world = world(&format!(
        "{NAT} group web {{ accept tcp 80; reject port-unreachable tcp 443 }}
         policy clients -> uplink {{ accept tcp 25; use web from personal; drop }}
         policy work -> uplink {{ accept tcp 22; use web to 93.184.216.0/24; drop }}"
    ));
    let mut to = |from: IpAddr, dst: IpAddr, port| {
        let spec = Spec::tcp((from, 40000 + port), (dst, port), TcpFlags::SYN);
        let (by, frame) =
            if from == work() { (WORK, from_work(spec)) } else { (PERSONAL, from_personal(spec)) };
        world.send(by, &frame).verdict
    };
    let (dropped, rejected) =
        (Verdict::Drop(DropReason::RuleDrop), Verdict::Drop(DropReason::RuleReject));
    assert!(matches!(to(work(), web(), 22), Verdict::Emit(_)));
    assert!(matches!(to(work(), web(), 80), Verdict::Emit(_)));
    assert_eq!(to(work(), web(), 443), rejected);
    assert_eq!(to(work(), ip("198.51.100.1"), 80), dropped);
    assert_eq!(to(work(), web(), 25), dropped, "the block for all is not about it");
    assert!(matches!(to(personal(), web(), 25), Verdict::Emit(_)));
    assert!(matches!(to(personal(), ip("198.51.100.1"), 80), Verdict::Emit(_)));
    assert_eq!(to(personal(), web(), 22), dropped);
}

/// What was sent to the receiver of the log.
fn sent(frames: &[(wire::Port, Vec<u8>)]) -> Vec<String> {
    let text = |(port, bytes): &(wire::Port, Vec<u8>)| {
        assert_eq!(*port, UPLINK);
        let frame = wire::Frame {
            from: UPLINK,
            head: bytes,
            len: u32::try_from(bytes.len()).unwrap(),
            offload: wire::Offload::NONE,
        };
        let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!() };
        let Packet { src, dst, transport: Transport::Udp(udp), payload, .. } = packet else {
            panic!()
        };
        assert_eq!((src, udp.sport, dst, udp.dport), (us(), 514, ip("192.0.2.9"), 5514));
        String::from_utf8(bytes[usize::from(payload)..].to_vec()).unwrap()
    };
    frames.iter().map(text).collect()
}

#[test]
fn syslog_gets_a_datagram_for_each_line_it_is_to_have() {
    let text = |words: &str| {
        let text = format!(
            "{VMS}{NAT} syslog 192.0.2.9:5514 {words}
             policy clients -> uplink {{ accept tcp 1 log warning; accept tcp 2; drop }}"
        );
        World::new(Config { log: LogLevel::None, ..config_of(&text) })
    };
    let told = |words: &str| {
        let mut world = text(words);
        let mut frames = Vec::new();
        for port in 1..4 {
            frames.extend(world.send(WORK, &from_work(syn(port))).replies);
        }
        assert_eq!(world.log(), [""; 0], "the console is another matter");
        sent(&frames)
    };
    let one = "<132>1 - 10.138.1.1 tidegate - - - warning: accept clients -> uplink: \
               tcp 10.137.0.10:40001 -> 93.184.216.34:1, test.tide:7";
    let two = "<134>1 - 10.138.1.1 tidegate - - - accept clients -> uplink: \
               tcp 10.137.0.10:40002 -> 93.184.216.34:2, test.tide:7";
    let three = "<133>1 - 10.138.1.1 tidegate - - - drop clients -> uplink: \
                 tcp 10.137.0.10:40003 -> 93.184.216.34:3, test.tide:7";
    assert_eq!(told(""), [one]);
    assert_eq!(told("accepted"), [one, two]);
    assert_eq!(told("refused"), [one, three]);
    assert_eq!(told("accepted refused"), [one, two, three]);
}

#[test]
fn syslog_waits_for_the_uplink_and_tells_what_it_left_out() {
    let text =
        format!("{VMS}{NAT} syslog 192.0.2.9:5514 refused\npolicy clients -> uplink {{ drop }}");
    let mut world = World::isolated(config_of(&text));
    let stray = from_work(Spec::tcp((personal(), 1), (web(), 2), TcpFlags::SYN));
    for _ in 0..150 {
        world.send(WORK, &stray).silent(DropReason::SpoofedSource);
    }
    assert_eq!(world.tick(), []);
    world.uplink_up(1500);
    let mut lines = Vec::new();
    loop {
        let frames: Vec<_> =
            world.tick().into_iter().filter(|(_, frame)| frame[12..14] == [8, 0]).collect();
        if frames.is_empty() {
            break;
        }
        lines.extend(sent(&frames));
    }
    assert_eq!(lines.len(), 129);
    assert!(lines[0].ends_with("drop from clients: 10.137.0.11 -> 93.184.216.34, spoofed-source"));
    assert!(lines[128].ends_with("<132>1 - 10.138.1.1 tidegate - - - 22 lines left out"));
    assert!(world.firewall.next_log().is_some());
}
