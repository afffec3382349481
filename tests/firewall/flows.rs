//! Flows from clients out and back.

use crate::common::{Kind, Spec, packet, plain_pseudo, plain_sum};
use crate::world::{
    OPEN, PERSONAL, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, from_work, from_world, ip,
    personal, us, us6, web, web6, work, work6,
};
use std::net::IpAddr;
use std::time::Duration;
use wire::{
    Csum, DropReason, Frame, Gso, GsoKind, HEAD_MAX, Mac, Offload, Outbox, TcpFlags, Transport,
    Tuple, Verdict,
};

const SYN_ACK: TcpFlags = TcpFlags::SYN.with(TcpFlags::ACK);

/// Makes the header and TCP sums of a frame right.
fn fix_sums(frame: &mut [u8]) {
    frame[24..26].fill(0);
    let sum = !plain_sum(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[50..52].fill(0);
    let len = u32::try_from(frame.len() - 34).unwrap();
    let pseudo = plain_pseudo(work(), web(), 6, len);
    let mut bytes = pseudo.to_be_bytes().to_vec();
    bytes.extend(&frame[34..]);
    let sum = !plain_sum(&bytes);
    frame[50..52].copy_from_slice(&sum.to_be_bytes());
}

fn tuple(frame: &[u8]) -> Tuple {
    packet(frame).tuple().unwrap()
}

/// Opens a connection and gives its external port.
fn open(world: &mut World, sport: u16) -> u16 {
    let syn = from_work(Spec::tcp((work(), sport), (web(), 443), TcpFlags::SYN));
    tuple(&world.send(WORK, &syn).emitted(UPLINK)).sport
}

fn syn_ack(port: u16) -> Vec<u8> {
    let (sport, dport) = (443, port);
    let kind = Kind::Tcp { sport, dport, flags: SYN_ACK, seq: 5000, ack: 1001 };
    from_world(Spec::new(web(), us(), kind).payload(b"").ttl(50))
}

#[test]
fn tcp_leaves_under_our_address_and_its_answer_finds_back() {
    let mut world = World::new(config(OPEN));
    let syn = from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::SYN));
    let sent = world.send(WORK, &syn).emitted(UPLINK);
    let got = packet(&sent);
    assert_eq!((got.eth_dst, got.eth_src, got.ttl), (Mac::BACKEND, UPLINK_MAC, 63));
    let Tuple { src, dst, sport, dport, .. } = got.tuple().unwrap();
    assert_eq!((src, dst, dport), (us(), web(), 443));
    assert!(sport >= 1024);
    let back = world.send(UPLINK, &syn_ack(sport)).emitted(WORK);
    let got = packet(&back);
    assert_eq!((got.eth_dst, got.eth_src, got.ttl), (WORK_MAC, Mac::BACKEND, 49));
    assert_eq!(got.tuple().unwrap(), tuple(&syn).reversed());
    assert_eq!(world.firewall.counters().emitted, 2);
}

#[test]
fn udp_leaves_under_our_address_and_its_answer_finds_back() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let sent = tuple(&world.send(WORK, &asked).emitted(UPLINK));
    let answer = from_world(Spec::udp((web(), 123), (us(), sent.sport)));
    assert_eq!(tuple(&world.send(UPLINK, &answer).emitted(WORK)), tuple(&asked).reversed());
}

#[test]
fn pings_leave_under_our_address_and_their_answers_find_back() {
    let mut world = World::new(config(OPEN));
    for (client, us, target) in [(work(), us(), web()), (work6(), us6(), web6())] {
        let asked = from_work(Spec::ping(client, target, 4711));
        let sent = tuple(&world.send(WORK, &asked).emitted(UPLINK));
        assert_eq!((sent.src, sent.dst), (us, target));
        let answer = from_world(Spec::pong(target, us, sent.sport));
        assert_eq!(tuple(&world.send(UPLINK, &answer).emitted(WORK)), tuple(&asked).reversed());
    }
}

#[test]
fn ipv6_is_translated_like_ipv4() {
    let mut world = World::new(config(OPEN));
    let syn = from_work(Spec::tcp((work6(), 40000), (web6(), 443), TcpFlags::SYN));
    let sent = tuple(&world.send(WORK, &syn).emitted(UPLINK));
    assert_eq!((sent.src, sent.dst), (us6(), web6()));
    let answer = from_world(Spec::udp((web6(), 443), (us6(), sent.sport)));
    world.send(UPLINK, &answer).silent(DropReason::Unsolicited);
}

#[test]
fn what_nobody_asked_for_is_dropped_without_a_word() {
    let mut world = World::new(config(OPEN));
    open(&mut world, 40000);
    for spec in [
        Spec::tcp((web(), 443), (us(), 22), TcpFlags::SYN),
        Spec::tcp((web(), 443), (us(), 22), TcpFlags::ACK),
        Spec::udp((web(), 53), (us(), 5353)),
        Spec::ping(web(), us(), 1),
        Spec::pong(web(), us(), 1),
        Spec::tcp((web(), 443), (work(), 22), TcpFlags::SYN),
    ] {
        let frame = from_world(spec);
        world.send(UPLINK, &frame).silent(DropReason::Unsolicited);
    }
    assert!(world.log()[0].contains("93.184.216.34 -> 10.138.1.1, unsolicited"));
}

#[test]
fn an_answer_from_another_remote_is_not_the_answer() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = tuple(&world.send(WORK, &asked).emitted(UPLINK)).sport;
    for (from, sport) in [(ip("93.184.216.35"), 123), (web(), 124)] {
        let answer = from_world(Spec::udp((from, sport), (us(), port)));
        world.send(UPLINK, &answer).silent(DropReason::Unsolicited);
    }
}

#[test]
fn a_later_frame_of_a_batch_finds_the_flow_that_an_earlier_one_opened() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let other = from_work(Spec::udp((work(), 5001), (web(), 123)));
    let (mut heads, mut places) = ([[0; HEAD_MAX]; 3], []);
    let mut out = Outbox::new(&mut heads, &mut places);
    let frame = |head| Frame { from: WORK, ..crate::common::whole(head) };
    world.firewall.batch(world.now, &[frame(&asked), frame(&other), frame(&asked)], &mut out);
    let ports = [0, 1, 2].map(|n| tuple(out.head_bytes(n).unwrap()).sport);
    assert_eq!(ports[0], ports[2]);
    assert_ne!(ports[0], ports[1]);
    let asked = world.firewall.counters().rules.clone();
    let rule = world.firewall.policy().unwrap().rule_ids().nth(1).unwrap();
    assert_eq!(asked.of(rule), 2, "the rules are asked once a flow");
}

#[test]
fn flows_of_a_client_end_with_it() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    world.firewall.port_down(world.now, WORK);
    world.send(UPLINK, &syn_ack(port)).silent(DropReason::Unsolicited);
    let syn = from_work(Spec::tcp((work(), 1), (web(), 443), TcpFlags::SYN));
    world.send(WORK, &syn).silent(DropReason::SpoofedSource);
}

#[test]
fn flows_wait_for_the_uplink_they_left_by() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    world.firewall.port_down(world.now, UPLINK);
    world.uplink_to(1, 1500);
    world.send(UPLINK, &syn_ack(port)).emitted(WORK);
}

#[test]
fn flows_end_when_the_uplink_leads_elsewhere() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    world.firewall.port_down(world.now, UPLINK);
    world.uplink_to(2, 1500);
    world.send(UPLINK, &syn_ack(port)).silent(DropReason::Unsolicited);
}

#[test]
fn an_idle_flow_ends() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = tuple(&world.send(WORK, &asked).emitted(UPLINK)).sport;
    world.wait(301);
    let answer = from_world(Spec::udp((web(), 123), (us(), port)));
    world.send(UPLINK, &answer).silent(DropReason::Unsolicited);
}

#[test]
fn n24_a_pause_of_three_hours_ages_nothing() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = tuple(&world.send(WORK, &asked).emitted(UPLINK)).sport;
    let answer = from_world(Spec::udp((web(), 123), (us(), port)));
    world.wait(290);
    world.now = world.now + Duration::from_secs(3 * 3600);
    world.send(UPLINK, &answer).emitted(WORK);
    world.wait(8);
    world.send(UPLINK, &answer).emitted(WORK);
    world.wait(8);
    world.send(UPLINK, &answer).silent(DropReason::Unsolicited);
}

#[test]
fn n33_sixty_five_thousand_resets_of_a_connection_that_is_not_theirs_end_nothing() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    world.send(UPLINK, &syn_ack(port)).emitted(WORK);
    let ack = Kind::Tcp { sport: 40000, dport: 443, flags: TcpFlags::ACK, seq: 1001, ack: 5001 };
    let data = from_work(Spec::new(work(), web(), ack));
    world.send(WORK, &data).emitted(UPLINK);
    for n in 0..=u16::MAX {
        let seq = u32::from(n) << 16 | 77;
        let kind = Kind::Tcp { sport: 443, dport: port, flags: TcpFlags::RST, seq, ack: 0 };
        world.send(UPLINK, &from_world(Spec::new(web(), us(), kind).payload(b"")));
    }
    // Established still: it outlives the time of a connection that was reset.
    world.wait(300);
    world
        .send(
            UPLINK,
            &from_world(Spec::new(
                web(),
                us(),
                Kind::Tcp { sport: 443, dport: port, flags: TcpFlags::ACK, seq: 5001, ack: 1020 },
            )),
        )
        .emitted(WORK);
}

#[test]
fn n09_n28_payload_and_every_bit_that_is_not_a_name_stay_as_they_are() {
    let mut world = World::new(config(OPEN));
    // PORT with our address in it, DSCP, ECN, DF, urgent pointer, reserved bits, options, UDP without
    // a sum.
    let kind = Kind::Tcp { sport: 40000, dport: 21, flags: TcpFlags(0xe2), seq: 1000, ack: 0 };
    let mut syn = from_work(Spec::new(work(), web(), kind).payload(b"PORT 10,137,0,10,4,1\r\n"));
    syn[15] = 0xb9;
    syn[18..20].copy_from_slice(&[0x12, 0x34]);
    syn[46] |= 0x0e;
    syn[52..54].copy_from_slice(&[0xab, 0xcd]);
    fix_sums(&mut syn);
    let sent = world.send(WORK, &syn).emitted(UPLINK);
    let changed: Vec<usize> = (14..syn.len()).filter(|at| syn[*at] != sent[*at]).collect();
    // TTL, header sum, source address, source port, TCP sum.
    let names = [22, 24, 25, 26, 27, 28, 29, 34, 35, 50, 51];
    assert!(changed.iter().all(|at| names.contains(at)), "{changed:?}");
    let mut bare = from_work(Spec::udp((work(), 5060), (web(), 5060)).payload(b"INVITE sip:"));
    bare[40..42].fill(0);
    let sent = world.send_unsound(WORK, &bare).emitted(UPLINK);
    assert_eq!((&sent[40..42], &sent[42..]), (&[0, 0][..], &bare[42..]));
}

#[test]
fn n27_router_advertisements_and_redirects_go_nowhere() {
    let mut world = World::new(config(OPEN));
    for kind in [133, 134, 137] {
        let kind = Kind::Icmp { kind, code: 0, rest: 0 };
        let frame = from_work(Spec::new(work6(), web6(), kind.clone()).ttl(255));
        world.send(WORK, &frame).silent(DropReason::Untranslatable);
        let frame = from_world(Spec::new(web6(), us6(), kind).ttl(255));
        world.send(UPLINK, &frame).silent(DropReason::Unsolicited);
    }
    let frame = from_world(Spec::new(web(), us(), Kind::Icmp { kind: 5, code: 1, rest: 0 }));
    world.send(UPLINK, &frame).silent(DropReason::Unsolicited);
}

#[test]
fn a_segment_of_an_unknown_connection_is_reset() {
    let mut world = World::new(config(OPEN));
    let kind = Kind::Tcp { sport: 40000, dport: 443, flags: TcpFlags::ACK, seq: 7, ack: 99 };
    let stale = from_work(Spec::new(work(), web(), kind));
    let reset = world.send(WORK, &stale).answered(DropReason::InvalidTcp, WORK);
    let Transport::Tcp(tcp) = packet(&reset).transport else { panic!() };
    assert_eq!((tcp.flags, tcp.seq), (TcpFlags::RST, 99));
    assert_eq!(tuple(&reset), tuple(&stale).reversed());
    let rst = from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::RST));
    world.send(WORK, &rst).silent(DropReason::InvalidTcp);
}

#[test]
fn a_segment_that_would_change_a_connection_needs_its_checksum() {
    let mut world = World::new(config(OPEN));
    let mut syn = from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::SYN));
    syn[51] ^= 1;
    world.send(WORK, &syn).silent(DropReason::BadChecksum);
    // A long one is brought whole first.
    let data = [9; 1000];
    let syn = from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::SYN).payload(&data));
    world.send(WORK, &syn).emitted(UPLINK);
    let mut bad = syn;
    *bad.last_mut().unwrap() ^= 1;
    world.send(WORK, &bad).silent(DropReason::BadChecksum);
}

#[test]
fn nor_does_the_world_change_a_connection_without_one() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    let good = syn_ack(port);
    let mut bad = good.clone();
    bad[48] ^= 1;
    world.send(UPLINK, &bad).silent(DropReason::BadChecksum);
    world.send(UPLINK, &good).emitted(WORK);
}

#[test]
fn blank_checksums_and_large_segments_pass_as_they_are() {
    let mut world = World::new(config(OPEN));
    let port = open(&mut world, 40000);
    world.send(UPLINK, &syn_ack(port)).emitted(WORK);
    let kind = Kind::Tcp { sport: 40000, dport: 443, flags: TcpFlags::ACK, seq: 1001, ack: 5001 };
    let mut bytes = from_work(Spec::new(work(), web(), kind).payload(&[1; 4000]));
    let blank = |src: IpAddr| plain_pseudo(src, web(), 6, 4020).to_be_bytes();
    bytes[50..52].copy_from_slice(&blank(work()));
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1448 });
    let sent = world.send_with(WORK, &bytes, Offload { csum: Csum::Blank, gso }).emitted(UPLINK);
    assert_eq!(sent[50..52], blank(us()));
    assert_eq!(sent[54..], bytes[54..]);
}

#[test]
fn what_is_longer_than_the_uplink_carries_is_told_its_mtu() {
    let mut world = World::isolated(config(OPEN));
    world.uplink_up(1400);
    let payload = [0; 1400];
    for (client, target) in [(work(), web()), (work6(), web6())] {
        let long = from_work(Spec::udp((client, 1), (target, 2)).payload(&payload));
        let error = world.send(WORK, &long).answered(DropReason::TooBig, WORK);
        let Transport::IcmpError(error) = packet(&error).transport else { panic!() };
        assert_eq!(error.kind, wire::IcmpErrorKind::TooBig { mtu: 1400 });
    }
    // Without DF it is cut.
    let mut long = from_work(Spec::udp((work(), 1), (web(), 2)).payload(&payload));
    long[20] = 0;
    long[24..26].fill(0);
    let sum = !plain_sum(&long[14..34]);
    long[24..26].copy_from_slice(&sum.to_be_bytes());
    let fate = world.send(WORK, &long);
    assert_eq!(fate.verdict, Verdict::Kept);
    let pieces: Vec<Vec<u8>> = fate
        .replies
        .into_iter()
        .map(|(to, piece)| {
            assert!(to == UPLINK && piece.len() <= 14 + 1400);
            piece
        })
        .collect();
    assert_eq!(pieces.len(), 2);
    let whole = crate::fragments::join(&pieces);
    crate::common::assert_sound(&whole);
    assert_eq!((packet(&whole).src, whole.len()), (us(), long.len()));
}

#[test]
fn the_length_of_a_large_segment_is_that_of_its_parts() {
    let mut world = World::isolated(config(OPEN));
    world.uplink_up(1400);
    let frame = |world: &mut World, size| {
        let mut bytes =
            from_work(Spec::tcp((work(), 1), (web(), 2), TcpFlags::SYN).payload(&[0; 4000]));
        bytes[50..52].copy_from_slice(&plain_pseudo(work(), web(), 6, 4020).to_be_bytes());
        let gso = Some(Gso { kind: GsoKind::TcpV4, size });
        world.send_with(WORK, &bytes, Offload { csum: Csum::Blank, gso }).verdict
    };
    assert_eq!(frame(&mut world, 1361), Verdict::Drop(DropReason::TooBig));
    assert!(matches!(frame(&mut world, 1360), Verdict::Emit(_)));
}

#[test]
fn what_is_longer_than_a_clients_link_is_told_its_mtu() {
    let mut world = World::new(config(OPEN));
    let mtu = 1280;
    let link = tidegate::firewall::Link::Client { mac: WORK_MAC, addrs: vec![work()], mtu };
    world.firewall.port_up(world.now, WORK, link);
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = tuple(&world.send(WORK, &asked).emitted(UPLINK)).sport;
    let long = from_world(Spec::udp((web(), 123), (us(), port)).payload(&[0; 1300]));
    let error = world.send(UPLINK, &long).answered(DropReason::TooBig, UPLINK);
    assert_eq!((packet(&error).src, packet(&error).dst), (us(), web()));
    let unasked = from_world(Spec::udp((web(), 124), (us(), port)).payload(&[0; 1300]));
    world.send(UPLINK, &unasked).silent(DropReason::Unsolicited);
}

#[test]
fn what_cannot_be_translated_is_dropped_and_counted() {
    let mut world = World::new(config(OPEN));
    for (protocol, _) in [(50, "ESP"), (47, "GRE"), (132, "SCTP"), (51, "AH")] {
        let frame = from_work(Spec::new(work(), web(), Kind::Raw(protocol)));
        world.send(WORK, &frame).silent(DropReason::Untranslatable);
    }
    assert_eq!(world.firewall.counters().drops[DropReason::Untranslatable], 4);
}

#[test]
fn a_client_cannot_use_the_flow_of_another() {
    let mut world = World::new(config(OPEN));
    open(&mut world, 40000);
    // The same address behind another vif, as an HVM and its stub domain have it.
    let mac = crate::world::PERSONAL_MAC;
    let link = tidegate::firewall::Link::Client { mac, addrs: vec![work(), personal()], mtu: 1500 };
    world.firewall.port_up(world.now, PERSONAL, link);
    let next = from_work(Spec::tcp((work(), 40000), (web(), 443), TcpFlags::SYN));
    world.send(PERSONAL, &next).silent(DropReason::SpoofedSource);
}
