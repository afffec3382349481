//! Several uplinks, which know nothing of each other's flows: who is behind one can neither see nor
//! disturb what leaves by another.

use crate::answers::arp_request;
use crate::common::{Kind, Spec, packet};
use crate::fragments::cut;
use crate::own::commit;
use crate::resolver::{A, Ask, HOST, Message, address};
use crate::world::{
    PERSONAL, PERSONAL_MAC, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config_of, from_work,
    from_world, ip, personal, us, us6, web, web6, work,
};
use crate::zones::{LAB, LAB_MAC, bench, from_lab, lab, left, two_uplinks};
use std::net::IpAddr;
use std::time::Duration;
use tidegate::firewall::{Link, Network, Site};
use wire::{DropReason, Mac, Port, TcpFlags, Tuple, Uplink, Verdict};

/// Everything out, by both.
const OPEN: &str = "route 10.9.0.0/16 on lab
    policy clients -> uplink { accept }
    policy clients -> lab { accept }
";

const LAB_UPLINK: Uplink = Uplink::ALL[2];

fn udp(dst: IpAddr, sport: u16) -> Vec<u8> {
    from_work(Spec::udp((work(), sport), (dst, 9)))
}

/// What goes back to whoever sent `sent`.
fn answer(sent: &Tuple) -> Spec {
    Spec::udp((sent.dst, sent.dport), (sent.src, sent.sport))
}

fn tcp(from: (IpAddr, u16), to: (IpAddr, u16), flags: TcpFlags, (seq, ack): (u32, u32)) -> Spec {
    let kind = Kind::Tcp { sport: from.1, dport: to.1, flags, seq, ack };
    Spec { payload: vec![], ..Spec::new(from.0, to.0, kind) }
}

/// Sends a datagram by `by`; how it left.
fn sent(world: &mut World, dst: IpAddr, sport: u16, by: Port) -> Tuple {
    packet(&world.send(WORK, &udp(dst, sport)).emitted(by)).tuple().unwrap()
}

fn lab_up(world: &mut World, network: u16) {
    let link = Link::Uplink { uplink: LAB_UPLINK, mac: LAB_MAC, mtu: 1500, network };
    world.firewall.port_up(world.now, LAB, link);
}

#[test]
fn who_is_behind_one_uplink_cannot_inject_into_flows_of_another() {
    let mut world = two_uplinks(OPEN);
    let (out, there) =
        (sent(&mut world, web(), 5000, UPLINK), sent(&mut world, bench(), 6000, LAB));
    // Twice: the first packets take the long way, and those like them the short one.
    for _ in 0..3 {
        world.send(LAB, &from_lab(answer(&out))).silent(DropReason::Unsolicited);
        world.send(UPLINK, &from_world(answer(&there))).silent(DropReason::Unsolicited);
        world.send(UPLINK, &from_world(answer(&out))).emitted(WORK);
        world.send(LAB, &from_lab(answer(&there))).emitted(WORK);
        sent(&mut world, web(), 5000, UPLINK);
        sent(&mut world, bench(), 6000, LAB);
    }
    let log = world.log();
    let dropped = "drop from uplink 2: 93.184.216.34 -> 10.138.1.1, unsolicited";
    assert!(log.iter().any(|line| line == dropped), "{log:?}");
}

#[test]
fn a_connection_of_one_uplink_is_not_moved_by_segments_of_another() {
    let mut world = two_uplinks(OPEN);
    let segment = |flags, seq, ack| from_work(tcp((work(), 5000), (web(), 443), flags, (seq, ack)));
    let syn = world.send(WORK, &segment(TcpFlags::SYN, 100, 0)).emitted(UPLINK);
    let tuple = packet(&syn).tuple().unwrap();
    let back = |flags, seq, ack| tcp((tuple.dst, 443), (tuple.src, tuple.sport), flags, (seq, ack));
    let both = TcpFlags::SYN.with(TcpFlags::ACK);
    world.send(LAB, &from_lab(back(both, 700, 101))).silent(DropReason::Unsolicited);
    world.send(UPLINK, &from_world(back(both, 700, 101))).emitted(WORK);
    world.send(WORK, &segment(TcpFlags::ACK, 101, 701)).emitted(UPLINK);
    let reset = back(TcpFlags::RST.with(TcpFlags::ACK), 701, 101);
    world.send(LAB, &from_lab(reset)).silent(DropReason::Unsolicited);
    world.send(UPLINK, &from_world(back(TcpFlags::ACK, 701, 101))).emitted(WORK);
}

#[test]
fn errors_and_fragments_are_heard_from_their_own_uplink_only() {
    let mut world = two_uplinks(OPEN);
    let out = world.send(WORK, &udp(web(), 5000)).emitted(UPLINK);
    let error = Spec::error(ip("10.9.0.99"), us(), (3, 3), 0, &out[14..]);
    world.send(LAB, &from_lab(error.clone())).silent(DropReason::UnrelatedIcmp);
    world.send(UPLINK, &from_world(error)).emitted(WORK);

    let whole = answer(&packet(&out).tuple().unwrap()).payload(&[7; 2000]);
    let pieces =
        |macs: (Mac, Mac)| cut(&whole.clone().macs(macs.0, macs.1).frame(), 77, &[0, 1000]);
    let (here, there) = (pieces((UPLINK_MAC, Mac::BACKEND)), pieces((LAB_MAC, Mac::BACKEND)));
    world.send_unsound(UPLINK, &here[0]).emitted(WORK);
    world.send(LAB, &there[1]).silent(DropReason::Unsolicited);
    world.send(LAB, &there[0]).silent(DropReason::Unsolicited);
    world.send_unsound(UPLINK, &here[1]).emitted(WORK);
}

#[test]
fn addresses_are_answered_for_on_their_uplink_only() {
    let mut world = two_uplinks(OPEN);
    let gateways = [(UPLINK, ip("10.138.1.2")), (LAB, ip("10.9.0.254"))];
    for (own, home) in [(us(), UPLINK), (lab(), LAB)] {
        for (port, gateway) in gateways {
            let asked = arp_request(Mac::BACKEND, gateway, own);
            let fate = world.send(port, &asked);
            assert_eq!(fate.replies.len(), usize::from(port == home), "{own} on {port:?}");
        }
    }
    // Nor does anybody there say where a next hop elsewhere is.
    let mac = Mac([2, 0, 0, 0, 0, 7]);
    world.send(UPLINK, &arp_request(mac, ip("10.9.0.254"), us()));
    assert_eq!(packet(&world.send(WORK, &udp(bench(), 1)).emitted(LAB)).eth_dst, Mac::BACKEND);
    world.send(LAB, &arp_request(mac, ip("10.9.0.254"), lab()));
    assert_eq!(packet(&world.send(WORK, &udp(bench(), 1)).emitted(LAB)).eth_dst, mac);
    assert!(world.log().contains(&format!("next hop on uplink 2 is at {mac}")));
}

#[test]
fn a_flow_whose_way_changed_is_over_and_the_next_packet_begins_another() {
    let mut world = two_uplinks(OPEN);
    let before = [bench(), web()].map(|dst| match dst == web() {
        true => sent(&mut world, dst, 5000, UPLINK),
        false => sent(&mut world, dst, 5000, LAB),
    });
    world.send(LAB, &from_lab(answer(&before[0]))).emitted(WORK);
    let other = OPEN.replace("10.9.0.0/16", "93.184.216.0/24");
    let policy = two_uplinks(&other).firewall.policy().cloned();
    world.firewall.set_policy(policy);
    // What comes back by the old way finds the flow over before its client has sent again.
    world.send(LAB, &from_lab(answer(&before[0]))).silent(DropReason::Unsolicited);
    assert_eq!(left(world.send(WORK, &udp(bench(), 5000)), UPLINK), us());
    assert_eq!(left(world.send(WORK, &udp(web(), 5000)), LAB), lab());
    world.send(UPLINK, &from_world(answer(&before[1]))).silent(DropReason::Unsolicited);
    assert_eq!(world.firewall.flows(), 2);
    // A connection has to be opened anew, which its client is told.
    let mut world = two_uplinks(OPEN);
    let segment = |flags| from_work(Spec::tcp((work(), 1), (bench(), 22), flags));
    world.send(WORK, &segment(TcpFlags::SYN)).emitted(LAB);
    let policy = two_uplinks(&other).firewall.policy().cloned();
    world.firewall.set_policy(policy);
    let reset = world.send(WORK, &segment(TcpFlags::ACK)).answered(DropReason::InvalidTcp, WORK);
    assert_eq!(packet(&reset).eth_dst, WORK_MAC);
    world.send(WORK, &segment(TcpFlags::SYN)).emitted(UPLINK);
}

#[test]
fn another_domain_behind_one_uplink_ends_its_flows_and_no_other() {
    let mut world = two_uplinks(OPEN);
    let there = sent(&mut world, bench(), 6000, LAB);
    let here = sent(&mut world, web(), 5000, UPLINK);
    let alive = |world: &mut World| {
        let there = world.send(LAB, &from_lab(answer(&there))).verdict;
        let here = world.send(UPLINK, &from_world(answer(&here))).verdict;
        [there, here].map(|verdict| matches!(verdict, Verdict::Emit(_)))
    };
    // A domain that goes and returns is the same.
    lab_up(&mut world, 2);
    assert_eq!(alive(&mut world), [true, true]);
    lab_up(&mut world, 3);
    assert_eq!(alive(&mut world), [false, true]);
    sent(&mut world, bench(), 6000, LAB);
    world.uplink_to(9, 1500);
    assert_eq!(alive(&mut world), [false, false]);
    assert_eq!(world.firewall.flows(), 1, "that of the lab");
    // Another address on the first uplink is no matter of the others.
    let again = sent(&mut world, bench(), 6000, LAB);
    let IpAddr::V4(addr4) = ip("10.138.1.99") else { panic!() };
    let network = Network {
        site: Site { addr4: Some(addr4), ..Site::default() },
        dns: None,
        resolvers: vec![],
        clients: vec![],
        aliases: vec![],
    };
    let here = sent(&mut world, web(), 5000, UPLINK);
    world.firewall.set_network(world.now, network);
    world.send(LAB, &from_lab(answer(&again))).emitted(WORK);
    world.send(UPLINK, &from_world(answer(&here))).silent(DropReason::Unsolicited);
    assert_eq!(left(world.send(WORK, &udp(web(), 5000)), UPLINK), addr4);
}

#[test]
fn what_the_world_opened_is_answered_where_it_came_in() {
    // No route leads to this remote by the lab: its flow does.
    let mut world = two_uplinks(
        "policy lab -> clients { forward tcp 8022 to work:22 forward udp 53 to work; drop }
         policy clients -> uplink { accept }",
    );
    let remote = ip("203.0.113.5");
    let syn = tcp((remote, 999), (lab(), 8022), TcpFlags::SYN, (10, 0));
    let came = world.send(LAB, &from_lab(syn)).emitted(WORK);
    let error = Spec::error(work(), remote, (3, 3), 0, &came[14..]);
    let told = world.send(WORK, &from_work(error)).emitted(LAB);
    assert_eq!((packet(&told).src, packet(&told).dst), (lab(), remote));
    let both = TcpFlags::SYN.with(TcpFlags::ACK);
    for flags in [both, TcpFlags::ACK, TcpFlags::ACK] {
        let seq = if flags == both { 50 } else { 51 };
        let spec = tcp((work(), 22), (remote, 999), flags, (seq, 11));
        let back = world.send(WORK, &from_work(spec)).emitted(LAB);
        assert_eq!((packet(&back).src, packet(&back).eth_src), (lab(), LAB_MAC));
        let ack = tcp((remote, 999), (lab(), 8022), TcpFlags::ACK, (11, 51));
        if flags == TcpFlags::ACK {
            world.send(LAB, &from_lab(ack)).emitted(WORK);
        }
    }
    let ask = Spec::udp((remote, 4000), (lab(), 53));
    world.send(LAB, &from_lab(ask)).emitted(WORK);
    let long = from_work(Spec::udp((work(), 53), (remote, 4000)).payload(&[1; 2000]));
    for piece in cut(&long, 9, &[0, 1000]) {
        assert_eq!(packet(&world.send_unsound(WORK, &piece).emitted(LAB)).src, lab());
    }
    // Its client's own flows to the same remote go by the routes.
    let own = from_work(Spec::udp((work(), 7777), (remote, 7)));
    assert_eq!(left(world.send(WORK, &own), UPLINK), us());
}

#[test]
fn clients_meet_at_the_address_of_any_uplink() {
    let mut world = two_uplinks(
        "nat clients -> clients hairpin
         policy clients -> clients { accept }
         policy clients -> lab { accept }
         policy lab -> clients { forward udp 53 to work; drop }",
    );
    let asks = Spec::udp((personal(), 1000), (lab(), 53)).macs(Mac::BACKEND, PERSONAL_MAC).frame();
    let came = packet(&world.send(PERSONAL, &asks).emitted(WORK)).tuple().unwrap();
    assert_eq!((came.src, came.dst, came.dport), (lab(), work(), 53));
    let told = from_work(Spec::udp((work(), 53), (came.src, came.sport)));
    let told = packet(&world.send(WORK, &told).emitted(PERSONAL)).tuple().unwrap();
    assert_eq!((told.src, told.sport, told.dst), (lab(), 53, personal()));
}

#[test]
fn lines_of_the_log_leave_by_the_way_to_their_receiver() {
    let mut world = two_uplinks(&format!("{OPEN} syslog 10.9.3.3 accepted"));
    let fate = world.send(WORK, &udp(web(), 1));
    let [(LAB, line)] = &fate.replies[..] else { panic!("{:?}", fate.replies) };
    let line = packet(line);
    assert_eq!((line.src, line.dst, line.eth_src), (lab(), ip("10.9.3.3"), LAB_MAC));
}

/// Names for which resolvers are asked: one of the policy for `work`, and one of `personal`'s own rules.
const NAMED: &str = "route 10.9.0.0/16 on lab
    route 10.8.0.0/16 via 10.9.0.8 on lab
    route fd0a::/64 on lab
    policy work -> uplink { accept tcp 443 to host www.example.org; reject }
    policy clients -> uplink { qubes }
";

/// A query of our own: by which uplink it left, between which Ethernet addresses, and from which of ours.
type Left = (Ask, (Port, (Mac, Mac), IpAddr));

fn asked(world: &mut World) -> Vec<Left> {
    let sent = world.tick();
    let read = |(by, frame): &(Port, Vec<u8>)| {
        let sent = packet(frame);
        Some((Ask::read(frame)?, (*by, (sent.eth_src, sent.eth_dst), sent.src)))
    };
    sent.iter().filter_map(read).collect()
}

/// The right answer to `ask`, sent by the uplink `by` to our address `own`.
fn resolved(world: &mut World, ask: &Ask, (by, own): (Port, IpAddr)) -> DropReason {
    let addr = if ask.kind == A { web() } else { web6() };
    let answers = vec![address(HOST, addr)];
    let message = Message { flags: 0x8180, answers, ..Message::query(ask.id, HOST, ask.kind) };
    let told = Spec::udp((ask.to, 53), (own, ask.port)).payload(&message.bytes());
    let frame = if by == LAB { from_lab(told) } else { from_world(told) };
    let Verdict::Drop(reason) = world.send(by, &frame).verdict else { panic!("{by:?} {own}") };
    reason
}

#[test]
fn our_own_queries_leave_by_the_way_to_their_resolver_and_are_answered_by_that_way_alone() {
    let (hop, lab6) = (Mac([2, 0, 0, 0, 0, 8]), ip("fd0a::1"));
    let near = (ip("9.9.9.9"), (UPLINK, (UPLINK_MAC, Mac::BACKEND), us()));
    let far = (ip("10.8.3.3"), (LAB, (LAB_MAC, hop), lab()));
    let far6 = (ip("fd0a::53"), (LAB, (LAB_MAC, Mac::BACKEND), lab6));
    let others = [UPLINK, LAB].map(|by| [us(), lab(), us6(), lab6].map(|own| (by, own)));
    // The first is asked at once, the second when the first is silent.
    for resolvers in [[far, near], [near, far], [far6, near]] {
        for (asked_first, (real, way)) in [true, false].into_iter().zip(resolvers) {
            let reals = resolvers.map(|(real, _)| real.to_string()).join(", ");
            let virtuals = if reals.contains(':') { ", fd09::53" } else { "" };
            let redirect = format!("redirect dns 10.139.1.1{virtuals} to {reals}");
            let mut world = two_uplinks(&format!("{NAMED}{redirect}"));
            for (mac, sender) in [(hop, ip("10.9.0.8")), (Mac([2; 6]), ip("10.9.0.254"))] {
                world.send(LAB, &arp_request(mac, sender, lab()));
            }
            let own = format!("action=accept dsthost={HOST} proto=tcp");
            assert!(commit(&mut world, personal(), &[&own]));
            let mut asks = asked(&mut world);
            if !asked_first {
                world.now = world.now + Duration::from_secs(2);
                asks = asked(&mut world);
            }
            assert_eq!(asks.len(), 3, "each address of a client for itself: {asks:?}");
            let right = (way.0, way.2);
            for (ask, left) in &asks {
                assert_eq!((ask.to, *left), (real, way));
                let fits = |(_, own): &&(Port, IpAddr)| own.is_ipv4() == real.is_ipv4();
                for astray in others.iter().flatten().filter(fits).filter(|it| **it != right) {
                    let reason = resolved(&mut world, ask, *astray);
                    assert_eq!(reason, DropReason::Unsolicited, "{astray:?}");
                }
            }
            assert!(!world.reaches(web()) && !world.reaches(web6()));
            assert!(!world.personal_reaches(web()));
            for (ask, _) in &asks {
                assert_eq!(resolved(&mut world, ask, right), DropReason::Answered);
            }
            assert!(world.reaches(web()) && world.reaches(web6()));
            assert!(world.personal_reaches(web()));
        }
    }
}

#[test]
fn an_uplink_without_an_address_leads_nowhere_and_is_named() {
    let text = format!(
        "zone lab = netfront 1 nat clients -> lab masquerade
         nat clients -> uplink masquerade {OPEN}"
    );
    let mut world = World::new(config_of(&text));
    assert_eq!(world.firewall.missing_uplinks().collect::<Vec<_>>(), [Uplink::ALL[1]]);
    let told = world.send(WORK, &udp(bench(), 1)).answered(DropReason::NoRoute, WORK);
    // ICMP destination unreachable, net unreachable (RFC 792).
    assert_eq!((told[23], &told[34..36]), (1, &[3, 0][..]));
    assert_eq!(two_uplinks(OPEN).firewall.missing_uplinks().count(), 0);
}
