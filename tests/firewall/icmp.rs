//! ICMP errors, in both directions and of our own.

use crate::common::{Kind, Spec, packet, plain_pseudo, plain_sum};
use crate::world::{
    OPEN, PERSONAL, UPLINK, UPLINK_MAC, WORK, WORK_MAC, World, config, from_work, from_world, ip,
    us, us6, web, web6, work, work6,
};
use std::net::IpAddr;
use tidegate::firewall::Link;
use wire::{
    Csum, DropReason, Gso, GsoKind, HEAD_MAX, IcmpErrorKind, Mac, Offload, TcpFlags, Transport,
};

#[test]
fn a_router_on_the_way_is_heard_by_whoever_sent_the_packet() {
    let mut world = World::new(config(OPEN));
    let (router, router6) = (ip("192.0.2.1"), ip("2001:db8::99"));
    for (client, us, target, router, kind) in
        [(work(), us(), web(), router, (11, 0)), (work6(), us6(), web6(), router6, (3, 0))]
    {
        for spec in [
            Spec::udp((client, 33434), (target, 33435)),
            Spec::tcp((client, 5), (target, 443), TcpFlags::SYN),
            Spec::ping(client, target, 88),
        ] {
            let asked = from_work(spec.clone());
            let sent = world.send(WORK, &asked).emitted(UPLINK);
            let error = from_world(Spec::error(router, us, kind, 0, &sent[14..]));
            let told = world.send(UPLINK, &error).emitted(WORK);
            let got = packet(&told);
            assert_eq!((got.src, got.dst, got.eth_dst), (router, client, WORK_MAC));
            let Transport::IcmpError(error) = got.transport else { panic!() };
            assert_eq!(Some(error.quote.tuple), packet(&asked).tuple());
            // The packet it quotes is the client's own, but for the hop it had taken.
            let quote = Spec::error(router, client, kind, 0, &spec.ttl(63).packet()).ttl(63);
            assert_eq!(told, quote.macs(WORK_MAC, Mac::BACKEND).frame());
        }
    }
}

#[test]
fn an_error_about_nothing_we_sent_is_dropped() {
    let mut world = World::new(config(OPEN));
    let stranger = Spec::udp((us(), 4000), (web(), 53)).packet();
    let error = from_world(Spec::error(web(), us(), (3, 3), 0, &stranger));
    world.send(UPLINK, &error).silent(DropReason::UnrelatedIcmp);
    let asked = from_work(Spec::udp((work(), 1), (web(), 2)));
    let sent = world.send(WORK, &asked).emitted(UPLINK);
    let mut error = from_world(Spec::error(web(), us(), (3, 3), 0, &sent[14..]));
    *error.last_mut().unwrap() ^= 1;
    world.send(UPLINK, &error).silent(DropReason::BadChecksum);
    // Nor is one about our packet, told to somebody else.
    let error = from_world(Spec::error(web(), ip("192.0.2.9"), (3, 3), 0, &sent[14..]));
    world.send(UPLINK, &error).silent(DropReason::UnrelatedIcmp);
}

#[test]
fn a_client_that_refuses_an_answer_is_heard_by_whoever_gave_it() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = packet(&world.send(WORK, &asked).emitted(UPLINK)).tuple().unwrap().sport;
    let answer = from_world(Spec::udp((web(), 123), (us(), port)));
    let delivered = world.send(UPLINK, &answer).emitted(WORK);
    let refusal = from_work(Spec::error(work(), web(), (3, 3), 0, &delivered[14..]));
    let got = world.send(WORK, &refusal).emitted(UPLINK);
    let got = packet(&got);
    assert_eq!((got.src, got.dst), (us(), web()));
    let Transport::IcmpError(error) = got.transport else { panic!() };
    assert_eq!(Some(error.quote.tuple), packet(&answer).tuple());
    // To somebody else, or from somebody else, it says nothing.
    let refusal = from_work(Spec::error(work(), ip("192.0.2.7"), (3, 3), 0, &delivered[14..]));
    world.send(WORK, &refusal).silent(DropReason::UnrelatedIcmp);
    let personal = crate::world::personal();
    let refusal = from_work(Spec::error(personal, web(), (3, 3), 0, &delivered[14..]));
    world.send(PERSONAL, &refusal).silent(DropReason::UnrelatedIcmp);
}

#[test]
fn a_packet_that_has_used_up_its_hops_ends_here_and_says_so() {
    let mut world = World::new(config("drop"));
    for (client, us, target) in [(work(), us(), web()), (work6(), us6(), web6())] {
        let last = from_work(Spec::udp((client, 1), (target, 33434)).ttl(1));
        let told = world.send(WORK, &last).answered(DropReason::TtlExceeded, WORK);
        let got = packet(&told);
        assert_eq!((got.src, got.dst), (us, client));
        let Transport::IcmpError(error) = got.transport else { panic!() };
        assert_eq!(error.kind, IcmpErrorKind::TimeExceeded { code: 0 });
        let headers = if client.is_ipv6() { 48 } else { 28 };
        assert_eq!(told[14 + headers..], last[14..], "quoted as it was sent");
    }
}

#[test]
fn the_world_is_not_told_of_used_up_hops() {
    let mut world = World::new(config(OPEN));
    let asked = from_work(Spec::udp((work(), 5000), (web(), 123)));
    let port = packet(&world.send(WORK, &asked).emitted(UPLINK)).tuple().unwrap().sport;
    let answer = from_world(Spec::udp((web(), 123), (us(), port)).ttl(1));
    world.send(UPLINK, &answer).silent(DropReason::TtlExceeded);
}

/// Ethernet, IP and TCP headers of a segment.
fn headers(ends: [IpAddr; 2]) -> usize {
    if ends[0].is_ipv6() { 14 + 40 + 20 } else { 14 + 20 + 20 }
}

/// What becomes packets of `len` bytes of IP when it is segmented.
fn segments_of(len: u16, ends: [IpAddr; 2]) -> Offload {
    let kind = if ends[0].is_ipv6() { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    let size = len + 14 - u16::try_from(headers(ends)).unwrap();
    Offload { csum: Csum::Blank, gso: Some(Gso { kind, size }) }
}

/// A frame with 4000 bytes of a connection, to be segmented, its checksum blank; with DF if it says so.
fn large(spec: Spec, df: bool) -> Vec<u8> {
    let spec = spec.payload(&[0x5a; 4000]);
    let (ends, mut frame) = ([spec.src, spec.dst], spec.frame());
    let sum = headers(ends) - 4;
    let pseudo = plain_pseudo(spec.src, spec.dst, 6, 4020).to_be_bytes();
    frame[sum..sum + 2].copy_from_slice(&pseudo);
    if !spec.src.is_ipv6() {
        frame[20] = if df { 0x40 } else { 0 };
        frame[24..26].fill(0);
        let sum = !plain_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

/// Asserts that `told` is from `from` and tells the sender of `frame` that its packets may have `mtu`
/// bytes, quoting as much of it as was read.
fn assert_tells_mtu(told: &[u8], from: IpAddr, frame: &[u8], mtu: u32) {
    let (got, sent) = (packet(told), packet(frame));
    assert_eq!((got.src, got.dst), (from, sent.src));
    assert_eq!((got.eth_src, got.eth_dst), (sent.eth_dst, sent.eth_src));
    // RFC 792 and RFC 1191 section 4; RFC 4443 section 3.2.
    let (at, kind) = if from.is_ipv6() { (14 + 40, [2, 0]) } else { (14 + 20, [3, 4]) };
    assert_eq!(told[at..at + 2], kind);
    assert_eq!(told[at + 4..at + 8], mtu.to_be_bytes());
    assert_eq!(told[at + 8..], frame[14..HEAD_MAX]);
}

/// IPv4 with DF and without, and IPv6, which is never cut on its way.
const FAMILIES: [(bool, bool); 3] = [(false, true), (false, false), (true, true)];

/// A connection of a client to port 443: what it and what the server sends next.
fn connect(world: &mut World, v6: bool) -> [Spec; 2] {
    let (client, us, server) = if v6 { (work6(), us6(), web6()) } else { (work(), us(), web()) };
    let syn = from_work(Spec::tcp((client, 40000), (server, 443), TcpFlags::SYN));
    let port = packet(&world.send(WORK, &syn).emitted(UPLINK)).tuple().unwrap().sport;
    let back = |flags, seq| Kind::Tcp { sport: 443, dport: port, flags, seq, ack: 1001 };
    let syn_ack = Spec::new(server, us, back(TcpFlags::SYN.with(TcpFlags::ACK), 5000));
    world.send(UPLINK, &from_world(syn_ack.payload(b""))).emitted(WORK);
    let flags = TcpFlags::ACK;
    let out = Kind::Tcp { sport: 40000, dport: 443, flags, seq: 1001, ack: 5001 };
    let out = Spec::new(client, server, out).macs(Mac::BACKEND, WORK_MAC);
    [out, Spec::new(server, us, back(flags, 5001)).macs(UPLINK_MAC, Mac::BACKEND)]
}

#[test]
fn a_client_whose_segments_are_too_long_for_the_uplink_is_told_its_mtu() {
    let mtu = 1400;
    for (v6, df) in FAMILIES {
        let mut world = World::isolated(config(OPEN));
        world.uplink_up(mtu);
        let [spec, _] = connect(&mut world, v6);
        let (ends, frame) = ([spec.src, spec.dst], large(spec, df));
        // The second time the flow has a short way, which takes none that is too long.
        for _ in 0..2 {
            let fate = world.send_with(WORK, &frame, segments_of(mtu + 1, ends));
            let told = fate.answered(DropReason::TooBig, WORK);
            assert_tells_mtu(&told, if v6 { us6() } else { us() }, &frame, mtu.into());
            let sent = world.send_with(WORK, &frame, segments_of(mtu, ends)).emitted(UPLINK);
            assert_eq!(sent.len(), frame.len());
        }
    }
}

#[test]
fn a_server_whose_segments_are_too_long_for_a_client_is_told_its_mtu() {
    let mtu = 1400;
    for (v6, df) in FAMILIES {
        let mut world = World::new(config(OPEN));
        let link = Link::Client { mac: WORK_MAC, addrs: vec![work(), work6()], mtu };
        world.firewall.port_up(world.now, WORK, link);
        let [_, spec] = connect(&mut world, v6);
        let (ends, frame) = ([spec.src, spec.dst], large(spec, df));
        for _ in 0..2 {
            let fate = world.send_with(UPLINK, &frame, segments_of(mtu + 1, ends));
            let told = fate.answered(DropReason::TooBig, UPLINK);
            assert_tells_mtu(&told, ends[1], &frame, mtu.into());
            let came = world.send_with(UPLINK, &frame, segments_of(mtu, ends)).emitted(WORK);
            assert_eq!(came.len(), frame.len());
        }
    }
}
