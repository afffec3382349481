//! The short way of reading and rewriting says what the long one does, or nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{Kind, Spec, v4, v6, whole};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::sums::Sum;
use wire::{
    Addr, Csum, End, Frame, Gso, GsoKind, HEAD_MAX, Key, Mac, Offload, Onward, Parsed, Plain,
    Rewrite, TcpFlags, Translation, Transport, has_tcp_headers, parse,
};

const NEW_DST: Mac = Mac([2, 1, 2, 3, 4, 5]);
const NEW_SRC: Mac = Mac([2, 9, 8, 7, 6, 5]);

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(move |bits| match v6 {
        true => Ipv6Addr::from_bits(bits).into(),
        false => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (any::<[u16; 2]>(), any::<u8>(), any::<[u32; 2]>()).prop_map(|(p, flags, [seq, ack])| {
            Kind::Tcp { sport: p[0], dport: p[1], flags: TcpFlags(flags | 16), seq, ack }
        }),
        any::<[u16; 2]>().prop_map(|[sport, dport]| Kind::Udp { sport, dport }),
        any::<[u16; 2]>().prop_map(|[id, seq]| Kind::Echo { id, seq, reply: false }),
    ]
}

/// A frame, some of its bytes changed, and its IPv4 header sum right again.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..400);
    let changes = prop::collection::vec((0..80usize, any::<u8>()), 0..3);
    let spec = any::<bool>().prop_flat_map(move |v6| {
        (address(v6), address(v6), kind(), payload.clone(), 0..4u8, 0..8usize)
    });
    (spec, changes, 0..8u8).prop_map(|((src, dst, kind, payload, ttl, more), changes, repair)| {
        let mut bytes = Spec::new(src, dst, kind).payload(&payload).ttl(ttl).frame();
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.extend(vec![0; more]);
        if src.is_ipv4() && repair > 0 {
            bytes[24..26].fill(0);
            let sum = Sum::ZERO.bytes(&bytes[14..34]).checksum();
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    })
}

fn offload() -> impl Strategy<Value = Offload> {
    let csum = prop_oneof![Just(Csum::Unknown), Just(Csum::Valid), Just(Csum::Blank)];
    let kind = prop_oneof![Just(GsoKind::TcpV4), Just(GsoKind::TcpV6)];
    let gso = (kind, prop_oneof![Just(0), Just(50), Just(1400u16)]);
    let gso = prop::option::of(gso.prop_map(|(kind, size)| Gso { kind, size }));
    (csum, gso).prop_map(|(csum, gso)| Offload { csum, gso })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_plain_is_what_parsing_says_it_is(
        bytes in frame(),
        cut in 0..300usize,
        offload in offload(),
        source in any::<bool>(),
        port in any::<u16>(),
        addr in any::<u128>(),
    ) {
        let head = &bytes[..bytes.len().min(30 + cut)];
        let frame = Frame { head, offload, ..whole(&bytes) };
        let Some(plain) = Plain::read(&frame) else { return Ok(()) };
        let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!("{:?}", parse(&frame)) };
        prop_assert_eq!(Some(plain.key), Key::new(&packet.tuple().unwrap()));
        prop_assert_eq!((plain.end(), plain.wire_len(offload)), (packet.end(), packet.wire_len()));
        match packet.transport {
            Transport::Tcp(tcp) => prop_assert_eq!(plain.tcp(head), Some(tcp)),
            Transport::Udp(_) => prop_assert_eq!(plain.tcp(head), None),
            other => panic!("{other:?}"),
        }
        prop_assert!(packet.fragment.is_none() && packet.ttl > 1);

        let v6 = packet.is_ipv6();
        let addr = Addr::from(if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(addr))
        } else {
            Ipv4Addr::from_bits(addr as u32).into()
        });
        let end = if source { End::Source } else { End::Destination };
        let onward = Onward { eth_dst: NEW_DST, eth_src: NEW_SRC, end, addr, port };
        let new = Some((addr.ip(v6), port));
        let outer = match end {
            End::Source => Translation { src: new, ..Translation::NONE },
            End::Destination => Translation { dst: new, ..Translation::NONE },
        };
        let (eth_dst, eth_src, quoted) = (NEW_DST, NEW_SRC, Translation::NONE);
        let how = Rewrite { eth_dst, eth_src, outer, quoted, decrement_ttl: true };
        let (mut short, mut long) = ([0xaa; HEAD_MAX], [0xaa; HEAD_MAX]);
        let len = plain.write(&frame, &onward, &mut short);
        prop_assert_eq!(len, packet.rewrite(&how, &mut long).ok().map(|head| head.len));
        prop_assert_eq!(short, long);
    }

    #[test]
    fn who_has_all_tcp_headers_of_a_frame_says_of_it_what_more_of_it_says(
        bytes in frame(),
        offload in offload(),
    ) {
        let most = bytes.len().min(HEAD_MAX);
        let Some(first) = (0..=most).find(|n| has_tcp_headers(&bytes[..*n])) else {
            let plain = Plain::read(&Frame { offload, ..whole(&bytes) });
            prop_assert!(plain.is_none_or(|plain| plain.tcp(&bytes).is_none()));
            return Ok(());
        };
        let said = |head: usize| {
            let frame = Frame { head: &bytes[..head], offload, ..whole(&bytes) };
            let plain = Plain::read(&frame).map(|plain| (plain.key, plain.end()));
            let parsed = parse(&frame).map(|parsed| match parsed {
                Parsed::Ip(ip) => {
                    let ends = (ip.src, ip.dst, ip.end(), ip.wire_len(), ip.ttl);
                    Some((ends, ip.tuple(), ip.fragment, ip.transport))
                }
                Parsed::Arp(_) => None,
            });
            format!("{plain:?} {parsed:?}")
        };
        prop_assert!((first..=most).all(|head| has_tcp_headers(&bytes[..head])));
        prop_assert_eq!(said(first), said(most));
    }
}

const ENDS: [(IpAddr, u16); 2] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 1000),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 2000),
];

fn is_plain(bytes: &[u8]) -> bool {
    Plain::read(&whole(bytes)).is_some()
}

#[test]
fn all_datagrams_and_segments_of_open_connections_are_plain() {
    let (a, b) = ((v6("2001:db8::1"), 1), (v6("2001:db8::2"), 2));
    let psh = TcpFlags::ACK.with(TcpFlags::PSH).with(TcpFlags::ECE);
    for spec in [
        Spec::udp(ENDS[0], ENDS[1]),
        Spec::udp(a, b).payload(&[]),
        Spec::tcp(ENDS[0], ENDS[1], TcpFlags::ACK),
        Spec::tcp(a, b, psh).payload(&[7; 500]),
    ] {
        assert!(is_plain(&spec.frame()), "{spec:?}");
        assert!(is_plain(&spec.clone().ttl(2).frame()));
        assert!(!is_plain(&spec.ttl(1).frame()), "somebody has to be told");
    }
    let head = &Spec::udp(a, b).payload(&[7; 500]).frame()[..HEAD_MAX];
    assert!(Plain::read(&Frame { len: 562, ..whole(head) }).is_some());
    assert!(Plain::read(&Frame { len: 561, ..whole(head) }).is_none(), "it is not all there");
    let gso = Some(Gso { kind: GsoKind::TcpV6, size: 1400 });
    let large = Spec::tcp(a, b, TcpFlags::ACK).payload(&[7; 2000]).frame();
    let offload = Offload { csum: Csum::Blank, gso };
    assert!(Plain::read(&Frame { offload, ..whole(&large) }).is_some());
}

#[test]
fn what_wants_a_closer_look_is_not_plain() {
    let control = [TcpFlags::SYN, TcpFlags::FIN, TcpFlags::RST].map(|f| f.with(TcpFlags::ACK));
    for flags in [control.as_slice(), &[TcpFlags::PSH]].concat() {
        assert!(!is_plain(&Spec::tcp(ENDS[0], ENDS[1], flags).frame()), "{flags:?}");
    }
    assert!(!is_plain(&Spec::ping(v4(10, 0, 0, 1), v4(192, 0, 2, 1), 7).frame()));
    let wrong_sum = {
        let mut bytes = Spec::udp(ENDS[0], ENDS[1]).frame();
        bytes[24] ^= 1;
        bytes
    };
    assert!(!is_plain(&wrong_sum));
    // More fragments, an offset, the bit that is kept free; a word of options; another version.
    for (at, value) in [(20, 0x20), (21, 1), (20, 0x80), (14, 0x46), (14, 0x65)] {
        let mut bytes = Spec::udp(ENDS[0], ENDS[1]).frame();
        bytes[at] = value;
        bytes[24..26].fill(0);
        let sum = Sum::ZERO.bytes(&bytes[14..34]).checksum();
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        assert!(!is_plain(&bytes), "{value:#x} at {at}");
    }
}
