//! Frames of our own, read by smoltcp.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{CLIENT_MAC, Kind, Spec, assert_sound, packet, v4, v6, whole};
use smoltcp::wire as smol;
use std::net::{IpAddr, Ipv4Addr};
use wire::{
    Arp, ArpOperation, IcmpErrorKind, Mac, Packet, Parsed, REPLY_MAX, TcpFlags, Transport, parse,
    reply,
};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 137, 0, 10));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(93, 184, 216, 34));
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 138, 1, 1));
const ADMIN: IcmpErrorKind = IcmpErrorKind::Unreachable { code: 13 };

fn written(write: impl FnOnce(&mut [u8; REPLY_MAX]) -> Option<usize>) -> Option<Vec<u8>> {
    let mut out = [0xaa; REPLY_MAX];
    let len = write(&mut out)?;
    assert_sound(&out[..len]);
    Some(out[..len].to_vec())
}

fn error(packet: &Packet<'_>, kind: IcmpErrorKind, from: IpAddr) -> Option<Vec<u8>> {
    written(|out| reply::icmp_error(packet, kind, from, Mac::BACKEND, out))
}

#[test]
fn arp_is_asked_and_answered() {
    let (us, them) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    let request = written(|out| reply::arp_request(CLIENT_MAC, us, them, out)).unwrap();
    let Ok(Parsed::Arp(asked)) = parse(&whole(&request)) else { panic!() };
    let want = Arp {
        eth_dst: Mac::BROADCAST,
        eth_src: CLIENT_MAC,
        operation: ArpOperation::Request,
        sender_mac: CLIENT_MAC,
        sender: us,
        target: them,
    };
    assert_eq!(asked, want);
    let answer = written(|out| reply::arp_reply(&asked, Mac::BACKEND, out)).unwrap();
    let eth = smol::EthernetFrame::new_checked(&answer).unwrap();
    assert_eq!(eth.dst_addr().0, CLIENT_MAC.0);
    let repr = smol::ArpRepr::parse(&smol::ArpPacket::new_checked(eth.payload()).unwrap()).unwrap();
    let want = smol::ArpRepr::EthernetIpv4 {
        operation: smol::ArpOperation::Reply,
        source_hardware_addr: smol::EthernetAddress(Mac::BACKEND.0),
        source_protocol_addr: them,
        target_hardware_addr: smol::EthernetAddress(CLIENT_MAC.0),
        target_protocol_addr: us,
    };
    assert_eq!(repr, want);
    let Ok(Parsed::Arp(told)) = parse(&whole(&answer)) else { panic!() };
    assert_eq!(written(|out| reply::arp_reply(&told, Mac::BACKEND, out)), None);
}

#[test]
fn a_ping_is_answered_with_what_it_brought() {
    for (client, us) in [(A, GATEWAY), (v6("fd00::1"), v6("fd00::ffff"))] {
        let request = Spec::ping(client, us, 99).payload(b"odd").frame();
        let got = written(|out| reply::echo_reply(&packet(&request), Mac::BACKEND, out)).unwrap();
        let want =
            Spec::pong(us, client, 99).payload(b"odd").macs(CLIENT_MAC, Mac::BACKEND).frame();
        assert_eq!(got, want);
        let pong = Spec::pong(client, us, 99).frame();
        assert_eq!(written(|out| reply::echo_reply(&packet(&pong), Mac::BACKEND, out)), None);
        let mut damaged = request.clone();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(written(|out| reply::echo_reply(&packet(&damaged), Mac::BACKEND, out)), None);
        let long = Spec::ping(client, us, 99).payload(&[0; REPLY_MAX]).frame();
        assert_eq!(written(|out| reply::echo_reply(&packet(&long), Mac::BACKEND, out)), None);
    }
}

#[test]
fn an_error_quotes_what_was_sent_and_no_more_than_576_bytes() {
    for (a, b, us, headers) in
        [(A, B, GATEWAY, 28), (v6("fd00::1"), v6("fd00::2"), v6("fd00::3"), 48)]
    {
        let sent = Spec::udp((a, 1), (b, 2)).payload(&[7; 900]).ttl(1).frame();
        let kind = IcmpErrorKind::TimeExceeded { code: 0 };
        let got = error(&packet(&sent), kind, us).unwrap();
        assert_eq!(got.len(), 14 + 576);
        assert_eq!(got[14 + headers..], sent[14..14 + 576 - headers]);
        let read = packet(&got);
        assert_eq!((read.src, read.dst, read.eth_dst), (us, a, CLIENT_MAC));
        let Transport::IcmpError(error) = read.transport else { panic!() };
        assert_eq!(error.kind, kind);
        assert_eq!(Some(error.quote.tuple), packet(&sent).tuple());
    }
}

#[test]
fn every_kind_of_error_is_read_as_what_it_was_written_as() {
    let four = Spec::udp((A, 1), (B, 2)).frame();
    let six = Spec::udp((v6("fd00::1"), 1), (v6("fd00::2"), 2)).frame();
    for kind in [
        ADMIN,
        IcmpErrorKind::TooBig { mtu: 1400 },
        IcmpErrorKind::TimeExceeded { code: 0 },
        IcmpErrorKind::ParameterProblem { code: 1 },
    ] {
        for (bytes, us) in [(&four, GATEWAY), (&six, v6("fd00::3"))] {
            let got = error(&packet(bytes), kind, us).unwrap();
            let Transport::IcmpError(read) = packet(&got).transport else { panic!() };
            assert_eq!(read.kind, kind);
        }
    }
}

#[test]
fn some_packets_deserve_no_error() {
    let fine = Spec::udp((A, 1), (B, 2));
    assert!(error(&packet(&fine.frame()), ADMIN, GATEWAY).is_some());
    let silent = [
        Spec::udp((A, 1), (v4(224, 0, 0, 1), 2)),
        Spec::udp((A, 1), (v4(255, 255, 255, 255), 2)),
        Spec::udp((v4(0, 0, 0, 0), 1), (B, 2)),
        fine.clone().macs(Mac::BROADCAST, CLIENT_MAC),
        Spec::error(A, B, (3, 3), 0, &Spec::udp((B, 1), (A, 2)).packet()),
        Spec::new(A, B, Kind::Icmp { kind: 5, code: 0, rest: 0 }),
    ];
    for spec in silent {
        assert_eq!(error(&packet(&spec.frame()), ADMIN, GATEWAY), None, "{spec:?}");
    }
    let mut later = fine.frame();
    later[20..22].copy_from_slice(&[0, 5]);
    later[24..26].fill(0);
    let sum = !common::plain_sum(&later[14..34]);
    later[24..26].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(error(&packet(&later), ADMIN, GATEWAY), None);
}

#[test]
fn a_reset_fits_the_segment_it_refuses() {
    let reset = |flags, ack, payload: &[u8]| {
        let kind = Kind::Tcp { sport: 4711, dport: 443, flags, seq: u32::MAX, ack };
        let bytes = Spec::new(A, B, kind).payload(payload).frame();
        let Transport::Tcp(tcp) = packet(&bytes).transport else { panic!() };
        let got = written(|out| reply::tcp_reset(&packet(&bytes), &tcp, Mac::BACKEND, out))?;
        let got = packet(&got);
        assert_eq!(got.tuple().unwrap(), packet(&bytes).tuple().unwrap().reversed());
        let Transport::Tcp(tcp) = got.transport else { panic!() };
        Some((tcp.flags, tcp.seq, tcp.ack))
    };
    let both = TcpFlags::RST.with(TcpFlags::ACK);
    assert_eq!(reset(TcpFlags::SYN, 0, b""), Some((both, 0, 0)));
    assert_eq!(reset(TcpFlags::FIN, 0, b"four"), Some((both, 0, 4)));
    assert_eq!(reset(TcpFlags::ACK, 55, b"four"), Some((TcpFlags::RST, 55, 0)));
    assert_eq!(reset(TcpFlags::RST, 0, b""), None);
}

#[test]
fn a_neighbour_is_told_our_address() {
    let (a, b) = (v6("fd00::1"), v6("fd00::2"));
    let IpAddr::V6(target) = b else { panic!() };
    for (asker, told) in [(a, a), (v6("::"), v6("ff02::1"))] {
        let kind = Kind::Icmp { kind: 135, code: 0, rest: 0 };
        let solicit =
            Spec::new(asker, v6("ff02::1:ff00:2"), kind).payload(&target.octets()).ttl(255);
        let bytes = solicit.frame();
        let got =
            written(|out| reply::neighbour_advert(&packet(&bytes), Mac::BACKEND, out)).unwrap();
        let read = packet(&got);
        assert_eq!((read.src, read.dst, read.ttl), (b, told, 255));
        let mac = Some(Mac::BACKEND);
        assert_eq!(read.transport, Transport::Ndp(wire::Ndp::Advert { target, mac }));
    }
}

#[test]
fn a_neighbour_is_asked_by_its_group() {
    let (us, target) = ("fd00::1".parse().unwrap(), "fd00::12:3456".parse().unwrap());
    let got = written(|out| reply::neighbour_solicit(CLIENT_MAC, us, target, out)).unwrap();
    let read = packet(&got);
    assert_eq!(
        (read.eth_dst, read.dst),
        (Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56]), v6("ff02::1:ff12:3456"))
    );
    assert_eq!(read.transport, Transport::Ndp(wire::Ndp::Solicit { target }));
}

#[test]
fn a_datagram_of_our_own_is_what_smoltcp_would_have_made() {
    let link = reply::Link { dst: Mac::BACKEND, src: CLIENT_MAC };
    for (us, them) in [(GATEWAY, B), (v6("fd00::1"), v6("fd00::2"))] {
        for payload in [&b""[..], b"odd", b"even"] {
            let got = written(|out| reply::datagram(link, (us, 5353), (them, 53), payload, out));
            let want = Spec::udp((us, 5353), (them, 53)).payload(payload).frame();
            assert_eq!(got, Some(want));
        }
    }
    let mixed = written(|out| reply::datagram(link, (A, 1), (v6("fd00::2"), 53), b"", out));
    assert_eq!(mixed, None);
    let long = written(|out| reply::datagram(link, (A, 1), (B, 53), &[0; REPLY_MAX], out));
    assert_eq!(long, None);
}
