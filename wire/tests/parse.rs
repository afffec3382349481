//! What is read from a frame is what smoltcp wrote into it, and nothing makes reading panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{CLIENT_MAC, Kind, Spec, packet, plain_sum, v4, v6, whole};
use proptest::prelude::*;
use std::net::IpAddr;
use wire::{
    Csum, DropReason, Frame, Gso, GsoKind, HEAD_MAX, IcmpErrorKind, Mac, Ndp, Offload, Proto,
    Rewrite, TcpFlags, Translation, Transport, Tuple, Unparsed, WHOLE_MAX, parse, reply,
};

const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 137, 0, 10));
const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(93, 184, 216, 34));

fn dropped(bytes: &[u8]) -> DropReason {
    reason(&whole(bytes))
}

fn reason(frame: &Frame<'_>) -> DropReason {
    match parse(frame) {
        Err(Unparsed::Drop(reason)) => reason,
        other => panic!("not dropped: {other:?}"),
    }
}

/// Sets the IPv4 header sum right after a test has changed the header.
fn fix_sum(bytes: &mut [u8]) {
    let end = 14 + usize::from(bytes[14] & 15) * 4;
    bytes[24..26].fill(0);
    let sum = !plain_sum(&bytes[14..end]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// Puts extension headers in front of the payload of an IPv6 frame.
fn extended(frame: &[u8], first: u8, headers: &[u8]) -> Vec<u8> {
    let mut bytes = frame[..54].to_vec();
    bytes[20] = first;
    let len = (frame.len() - 54 + headers.len()) as u16;
    bytes[18..20].copy_from_slice(&len.to_be_bytes());
    bytes.extend(headers);
    bytes.extend(&frame[54..]);
    bytes
}

#[test]
fn tcp_is_read_with_all_its_fields() {
    let flags = TcpFlags::SYN.with(TcpFlags::ECE);
    let mut bytes = Spec::tcp((A, 4711), (B, 443), flags).payload(b"hello").frame();
    let got = packet(&bytes);
    assert_eq!((got.eth_dst, got.eth_src), (Mac::BACKEND, CLIENT_MAC));
    assert_eq!((got.l3, got.l4, got.payload, got.ip_len, got.ttl), (14, 34, 54, 45, 64));
    let tuple = Tuple { proto: Proto::Tcp, src: A, dst: B, sport: 4711, dport: 443 };
    assert_eq!(got.tuple(), Some(tuple));
    let Transport::Tcp(tcp) = got.transport else { panic!() };
    assert_eq!(
        (tcp.flags, tcp.seq, tcp.window, tcp.data, tcp.seg_len()),
        (flags, 1000, 4096, 5, 6)
    );
    assert_eq!(got.checksum_is_right(), Some(true));
    bytes[56] ^= 1;
    assert_eq!(packet(&bytes).checksum_is_right(), Some(false));
}

#[test]
fn the_window_scale_of_a_syn_is_found_among_its_options() {
    let options = [2, 4, 5, 180, 1, 3, 3, 20, 4, 2, 0, 0];
    let mut bytes = Spec::tcp((A, 1), (B, 2), TcpFlags::SYN).payload(&options).frame();
    bytes[46] = 0x80;
    let Transport::Tcp(tcp) = packet(&bytes).transport else { panic!() };
    assert_eq!((tcp.window_scale, tcp.data), (Some(14), 0));
}

#[test]
fn a_query_has_its_id_at_the_end_that_asked() {
    for (a, b, proto) in [(A, B, Proto::Icmp), (v6("fd00::1"), v6("2001:db8::1"), Proto::Icmpv6)] {
        let request = packet(&Spec::ping(a, b, 77).frame()).tuple().unwrap();
        assert_eq!(request, Tuple { proto, src: a, dst: b, sport: 77, dport: 0 });
        assert_eq!(packet(&Spec::pong(b, a, 77).frame()).tuple().unwrap(), request.reversed());
    }
}

#[test]
fn ethernet_padding_is_not_payload() {
    let mut bytes = Spec::udp((A, 1), (B, 2)).payload(b"").frame();
    bytes.resize(60, 0xee);
    let Transport::Udp(udp) = packet(&bytes).transport else { panic!() };
    assert_eq!(udp.data, 0);
    assert_eq!(packet(&bytes).ip_bytes().len(), 28);
    assert_eq!(packet(&bytes).checksum_is_right(), Some(true));
}

#[test]
fn an_error_is_read_with_what_it_quotes() {
    let sent = Spec::tcp((A, 4711), (B, 443), TcpFlags::ACK).packet();
    let bytes = Spec::error(v4(192, 0, 2, 1), A, (3, 4), 1400, &sent).frame();
    let Transport::IcmpError(error) = packet(&bytes).transport else { panic!() };
    assert_eq!(error.kind, IcmpErrorKind::TooBig { mtu: 1400 });
    assert_eq!((error.quote.l3, error.quote.l4, error.quote.tcp_seq), (42, 62, Some(1000)));
    let tuple = Tuple { proto: Proto::Tcp, src: A, dst: B, sport: 4711, dport: 443 };
    assert_eq!(error.quote.tuple, tuple);
}

#[test]
fn an_error_is_believed_only_with_its_sums() {
    let sent = Spec::udp((A, 1), (B, 2)).packet();
    let mut bytes = Spec::error(B, A, (3, 3), 0, &sent).frame();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(dropped(&bytes), DropReason::BadChecksum);
    let mut quoted = sent.clone();
    quoted[8] ^= 1;
    assert_eq!(dropped(&Spec::error(B, A, (3, 3), 0, &quoted).frame()), DropReason::BadIpChecksum);
    for short in [0, 8, 20, 27] {
        let bytes = Spec::error(B, A, (3, 3), 0, &sent[..short]).frame();
        assert_eq!(dropped(&bytes), DropReason::UnrelatedIcmp, "{short} bytes quoted");
    }
    // An error about an error.
    let inner = Spec::error(B, A, (3, 3), 0, &sent).packet();
    assert_eq!(dropped(&Spec::error(B, A, (3, 3), 0, &inner).frame()), DropReason::UnrelatedIcmp);
}

#[test]
fn more_than_the_head_is_asked_for_only_where_it_decides() {
    let sent = Spec::udp((A, 1), (B, 2)).payload(&[0; 500]).packet();
    let bytes = Spec::error(B, A, (3, 3), 0, &sent).frame();
    let head = Frame { head: &bytes[..HEAD_MAX], ..whole(&bytes) };
    assert_eq!(parse(&head).unwrap_err(), Unparsed::NeedWhole);
    assert!(parse(&whole(&bytes)).is_ok());
    let bytes = Spec::error(B, A, (3, 3), 0, &vec![0; WHOLE_MAX]).frame();
    let head = Frame { head: &bytes[..HEAD_MAX], ..whole(&bytes) };
    assert_eq!(reason(&head), DropReason::TooLongToInspect);
    let bytes = Spec::udp((A, 1), (B, 2)).payload(&[0; 1400]).frame();
    assert!(parse(&Frame { head: &bytes[..HEAD_MAX], ..whole(&bytes) }).is_ok());
}

#[test]
fn neighbours_are_believed_only_on_the_link() {
    let (a, b) = (v6("fd00::1"), v6("fd00::2"));
    let IpAddr::V6(target) = b else { panic!() };
    let solicit = |ttl| {
        let kind = Kind::Icmp { kind: 135, code: 0, rest: 0 };
        Spec::new(a, b, kind).payload(&target.octets()).ttl(ttl).frame()
    };
    assert_eq!(packet(&solicit(255)).transport, Transport::Ndp(Ndp::Solicit { target }));
    assert_eq!(dropped(&solicit(254)), DropReason::BadHeader);
    let kind = Kind::Icmp { kind: 136, code: 0, rest: 0 };
    let payload = [&target.octets()[..], &[2, 1], &CLIENT_MAC.0].concat();
    let advert = Spec::new(b, a, kind).payload(&payload).ttl(255).frame();
    let mac = Some(CLIENT_MAC);
    assert_eq!(packet(&advert).transport, Transport::Ndp(Ndp::Advert { target, mac }));
}

#[test]
fn extension_headers_are_walked_past_within_bounds() {
    let frame = Spec::udp((v6("fd00::1"), 1), (v6("fd00::2"), 2)).frame();
    let two = [60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(packet(&extended(&frame, 0, &two)).l4, 54 + 16);
    let many = [60, 0, 1, 4, 0, 0, 0, 0].repeat(7);
    assert_eq!(dropped(&extended(&frame, 60, &many)), DropReason::BadHeader);
    let long = [&[17u8, 30][..], &[0; 246]].concat();
    assert_eq!(dropped(&extended(&frame, 60, &long)), DropReason::TooLongToInspect);
    assert_eq!(dropped(&extended(&frame, 43, &[17, 0, 0, 1, 0, 0, 0, 0])), DropReason::SourceRoute);
    assert_eq!(packet(&extended(&frame, 43, &[17, 0, 4, 0, 0, 0, 0, 0])).l4, 62);
}

#[test]
fn fragments_are_told_from_atomic_ones() {
    let frame = Spec::udp((v6("fd00::1"), 1), (v6("fd00::2"), 2)).frame();
    let atomic = packet(&extended(&frame, 44, &[17, 0, 0, 0, 0, 0, 0, 9])).transport;
    assert!(matches!(atomic, Transport::Udp(_)), "{atomic:?}");
    let mut bytes = extended(&frame, 44, &[17, 0, 0, 1, 0, 0, 0, 9]);
    assert_eq!(dropped(&bytes), DropReason::Fragment, "the datagram ends before its end");
    bytes[67] += 1;
    let first = packet(&bytes);
    let fragment = first.fragment.unwrap();
    assert!(matches!(first.transport, Transport::Udp(udp) if udp.dport == 2));
    assert!(fragment.id == 9 && fragment.more && fragment.protocol == 17);
    let mut bytes = Spec::udp((A, 1), (B, 2)).frame();
    bytes[20..22].copy_from_slice(&[0x20, 0x03]);
    fix_sum(&mut bytes);
    let later = packet(&bytes).transport;
    assert!(
        matches!(later, Transport::Fragment(f) if (f.offset, f.protocol) == (24, 17) && f.more)
    );
}

#[test]
fn lengths_that_disagree_are_refused() {
    let good = Spec::tcp((A, 1), (B, 2), TcpFlags::ACK).payload(b"1234").frame();
    for cut in 1..=good.len() {
        assert_eq!(dropped(&good[..good.len() - cut]), DropReason::Truncated, "{cut} bytes short");
    }
    let mut bytes = good.clone();
    bytes[46] = 0xf0;
    assert_eq!(dropped(&bytes), DropReason::BadHeader, "data offset beyond the packet");
    bytes[46] = 0x40;
    assert_eq!(dropped(&bytes), DropReason::BadHeader, "data offset below the header");
    let mut bytes = good.clone();
    bytes[17] = 19;
    fix_sum(&mut bytes);
    assert_eq!(dropped(&bytes), DropReason::BadHeader, "total length below the header");
    let mut bytes = Spec::udp((A, 1), (B, 2)).frame();
    bytes[39] -= 1;
    assert_eq!(dropped(&bytes), DropReason::BadHeader, "UDP length");
    let mut bytes = good.clone();
    bytes[24] ^= 1;
    assert_eq!(dropped(&bytes), DropReason::BadIpChecksum);
    bytes[12..14].copy_from_slice(&[0x81, 0]);
    assert_eq!(dropped(&bytes), DropReason::UnknownProtocol);
}

#[test]
fn options_that_route_or_record_are_refused() {
    for (options, fine) in [
        ([1, 1, 1, 0], true),
        ([148, 4, 0, 0], true),
        ([131, 4, 4, 0], false),
        ([1, 137, 3, 4], false),
        ([7, 4, 4, 0], false),
        ([1, 1, 148, 0], false),
    ] {
        let mut bytes = Spec::udp((A, 1), (B, 2)).frame();
        bytes.splice(34..34, options);
        bytes[14] = 0x46;
        bytes[17] += 4;
        fix_sum(&mut bytes);
        if fine {
            assert_eq!(packet(&bytes).l4, 38, "{options:?}");
        } else {
            assert_eq!(dropped(&bytes), DropReason::SourceRoute, "{options:?}");
        }
    }
}

#[test]
fn offloads_stand_only_on_what_they_are_for() {
    let blank = Offload { csum: Csum::Blank, gso: None };
    let gso = |kind| Offload { csum: Csum::Blank, gso: Some(Gso { kind, size: 1000 }) };
    let tcp = Spec::tcp((A, 1), (B, 2), TcpFlags::ACK).frame();
    let udp = Spec::udp((A, 1), (B, 2)).frame();
    let ping = Spec::ping(A, B, 1).frame();
    let fine = |bytes, offload| parse(&Frame { offload, ..whole(bytes) }).is_ok();
    assert!(fine(&tcp, blank) && fine(&udp, blank) && fine(&tcp, gso(GsoKind::TcpV4)));
    assert!(!fine(&ping, blank) && !fine(&udp, gso(GsoKind::TcpV4)));
    assert!(!fine(&tcp, gso(GsoKind::TcpV6)));
}

fn bytes_like_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let ethertype = prop_oneof![Just([8, 0]), Just([0x86, 0xdd]), Just([8, 6]), any::<[u8; 2]>()];
    let noise = (any::<[u8; 12]>(), ethertype, prop::collection::vec(any::<u8>(), 0..300))
        .prop_map(|(macs, ethertype, rest)| [&macs[..], &ethertype, &rest].concat());
    let damaged =
        (0..6usize, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6))
            .prop_map(|(n, damage)| {
                let (a, b) = (v6("fd00::1"), v6("fd00::2"));
                let udp = Spec::udp((a, 1), (b, 2));
                let mut bytes = match n {
                    0 => Spec::tcp((A, 1), (B, 2), TcpFlags::SYN).payload(&[3, 3, 7, 0]).frame(),
                    1 => Spec::error(B, A, (3, 4), 0, &Spec::udp((A, 1), (B, 2)).packet()).frame(),
                    2 => Spec::error(a, b, (1, 0), 0, &udp.packet()).frame(),
                    3 => extended(
                        &udp.frame(),
                        0,
                        &[60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0],
                    ),
                    4 => extended(&udp.frame(), 44, &[17, 0, 0, 1, 0, 0, 0, 0]),
                    _ => Spec::ping(A, B, 9).frame(),
                };
                for (at, value) in damage {
                    let at = at.index(bytes.len());
                    bytes[at] = value;
                }
                if bytes[12..14] == [8, 0] {
                    let end = (14 + usize::from(bytes[14] & 15) * 4).min(bytes.len());
                    bytes[24..26].fill(0);
                    let sum = !plain_sum(&bytes[14..end]);
                    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
                }
                bytes
            });
    prop_oneof![noise, damaged]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_bytes_make_reading_or_answering_panic(
        bytes in bytes_like_a_frame(),
        cut in any::<prop::sample::Index>(),
        more in 0..70000u32,
        blank in any::<bool>(),
    ) {
        let csum = if blank { Csum::Blank } else { Csum::Unknown };
        let head = &bytes[..cut.index(bytes.len() + 1)];
        let len = head.len() as u32 + more;
        let offload = Offload { csum, gso: None };
        for frame in [Frame { offload, ..whole(&bytes) }, Frame { head, len, offload, ..whole(&bytes) }] {
            let Ok(wire::Parsed::Ip(packet)) = parse(&frame) else { continue };
            prop_assert!(packet.l3 <= packet.l4 && packet.l4 <= packet.payload);
            prop_assert!(usize::from(packet.payload) <= packet.head().len().min(HEAD_MAX));
            prop_assert!(u32::from(packet.payload) <= packet.ip_len + 14);
            let some = (packet.dst, 1);
            let dns_id = packet.dns().map(|dns| !dns.id);
            let to = Translation { src: Some(some), dst: Some(some), dns_id };
            let opaque = matches!(packet.transport, Transport::Fragment(_) | Transport::Other(_));
            let how = Rewrite {
                eth_dst: Mac::BACKEND,
                eth_src: Mac::BACKEND,
                outer: if opaque { Translation::NONE } else { to },
                quoted: to,
                decrement_ttl: packet.ttl > 1,
            };
            prop_assert!(packet.rewrite(&how, &mut [0; HEAD_MAX]).is_ok());
            let mut out = [0; wire::REPLY_MAX];
            let kind = IcmpErrorKind::TimeExceeded { code: 0 };
            let _ = reply::echo_reply(&packet, Mac::BACKEND, &mut out);
            let _ = reply::neighbour_advert(&packet, Mac::BACKEND, &mut out);
            if let Some(len) = reply::icmp_error(&packet, kind, packet.dst, Mac::BACKEND, &mut out) {
                prop_assert!(len <= 14 + 576);
                common::assert_sound(&out[..len]);
            }
        }
    }

    #[test]
    fn the_sum_is_the_one_of_the_rfc(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert_eq!(wire::sums::Sum::ZERO.bytes(&bytes).fold(), plain_sum(&bytes));
    }
}
