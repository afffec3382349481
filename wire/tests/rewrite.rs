//! A rewritten packet is byte for byte the one its sender would have sent from the new place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{Kind, Spec, assert_sound, packet, plain_pseudo, plain_sum, v4, v6, whole};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::{
    Csum, DropReason, Frame, Gso, GsoKind, HEAD_MAX, Mac, Offload, Parsed, Rewrite, TcpFlags,
    Translation, parse,
};

const NEW_DST: Mac = Mac([2, 1, 2, 3, 4, 5]);
const NEW_SRC: Mac = Mac([2, 9, 8, 7, 6, 5]);

fn change(outer: Translation) -> Rewrite {
    Rewrite {
        eth_dst: NEW_DST,
        eth_src: NEW_SRC,
        outer,
        quoted: Translation::NONE,
        decrement_ttl: true,
    }
}

/// The whole frame as it leaves.
fn rewritten(frame: &Frame<'_>, body: &[u8], how: &Rewrite) -> Vec<u8> {
    let Ok(Parsed::Ip(packet)) = parse(frame) else { panic!("{:?}", parse(frame)) };
    let mut out = [0xaa; HEAD_MAX];
    let new = packet.rewrite(how, &mut out).unwrap();
    let mut bytes = out[..usize::from(new.len)].to_vec();
    bytes.extend(&body[new.skip as usize..]);
    bytes
}

fn address(v6: bool) -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(move |bits| match v6 {
        true => Ipv6Addr::from_bits(bits).into(),
        false => Ipv4Addr::from_bits((bits >> 96) as u32).into(),
    })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (any::<[u16; 2]>(), any::<u8>(), any::<[u32; 2]>()).prop_map(|(p, flags, [seq, ack])| {
            Kind::Tcp { sport: p[0], dport: p[1], flags: TcpFlags(flags), seq, ack }
        }),
        any::<[u16; 2]>().prop_map(|[sport, dport]| Kind::Udp { sport, dport }),
        (any::<[u16; 2]>(), any::<bool>()).prop_map(|([id, seq], reply)| Kind::Echo {
            id,
            seq,
            reply
        }),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    let payload = prop::collection::vec(any::<u8>(), 0..600);
    any::<bool>()
        .prop_flat_map(move |v6| (address(v6), address(v6), kind(), payload.clone(), 2..=255u8))
        .prop_map(|(src, dst, kind, payload, ttl)| {
            Spec::new(src, dst, kind).payload(&payload).ttl(ttl)
        })
}

/// `spec` from its new place.
fn moved(spec: &Spec, to: Translation) -> Spec {
    let mut new = spec.clone().macs(NEW_DST, NEW_SRC).ttl(spec.ttl - 1);
    if let Some((ip, port)) = to.src {
        new.src = ip;
        match &mut new.kind {
            Kind::Tcp { sport, .. } | Kind::Udp { sport, .. } => *sport = port,
            Kind::Echo { id, reply: false, .. } => *id = port,
            _ => {}
        }
    }
    if let Some((ip, port)) = to.dst {
        new.dst = ip;
        match &mut new.kind {
            Kind::Tcp { dport, .. } | Kind::Udp { dport, .. } => *dport = port,
            Kind::Echo { id, reply: true, .. } => *id = port,
            _ => {}
        }
    }
    if let Some(id) = to.dns_id {
        new.payload[..2].copy_from_slice(&id.to_be_bytes());
    }
    new
}

fn translated() -> impl Strategy<Value = (Spec, Translation)> {
    spec().prop_flat_map(|spec| {
        let v6 = spec.src.is_ipv6();
        let end = || prop::option::of((address(v6), any::<u16>()));
        let is_dns = matches!(spec.kind, Kind::Udp { .. }) && spec.payload.len() >= 12;
        (Just(spec), end(), end(), prop::option::of(any::<u16>())).prop_map(
            move |(spec, src, dst, id)| {
                (spec, Translation { src, dst, dns_id: id.filter(|_| is_dns) })
            },
        )
    })
}

proptest! {
    #[test]
    fn incremental_sums_are_those_of_a_packet_built_anew((spec, to) in translated(), cut in 0..400usize) {
        let bytes = spec.frame();
        let head = &bytes[..bytes.len().min(100 + cut)];
        let frame = Frame { head, ..whole(&bytes) };
        prop_assert_eq!(rewritten(&frame, &bytes, &change(to)), moved(&spec, to).frame());
    }

    #[test]
    fn a_blank_sum_follows_addresses_and_never_ports((spec, to) in translated()) {
        let (protocol, at) = match spec.kind {
            Kind::Tcp { .. } => (6, 16),
            Kind::Udp { .. } => (17, 6),
            _ => return Ok(()),
        };
        let mut bytes = spec.frame();
        let l4 = if spec.src.is_ipv6() { 54 } else { 34 };
        let len = (bytes.len() - l4) as u32;
        let blank = |s: &Spec| plain_pseudo(s.src, s.dst, protocol, len).to_be_bytes();
        bytes[l4 + at..l4 + at + 2].copy_from_slice(&blank(&spec));
        let offload = Offload { csum: Csum::Blank, gso: None };
        let got = rewritten(&Frame { offload, ..whole(&bytes) }, &bytes, &change(to));
        let new = moved(&spec, to);
        let mut want = new.frame();
        want[l4 + at..l4 + at + 2].copy_from_slice(&blank(&new));
        prop_assert_eq!(got, want);
    }

    #[test]
    fn a_renamed_packet_is_the_one_that_was_sent_under_the_other_names(
        spec in spec(),
        names in any::<[u128; 2]>(),
        in_error in any::<bool>(),
    ) {
        prop_assume!(spec.src != spec.dst);
        let v6 = spec.src.is_ipv6();
        let names = names.map(|bits| -> IpAddr {
            if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
        });
        let other = Spec { src: names[0], dst: names[1], ..spec.clone() };
        let kind = if v6 { (1, 4) } else { (3, 1) };
        let frame = |spec: &Spec| match in_error {
            false => spec.frame(),
            true => Spec::error(spec.dst, spec.src, kind, 0, &spec.packet()).frame(),
        };
        let bytes = frame(&spec);
        let name = |addr| match addr {
            addr if addr == spec.src => names[0],
            addr if addr == spec.dst => names[1],
            other => other,
        };
        let mut out = [0xaa; 2048];
        let len = packet(&bytes).renamed(name, &mut out).unwrap();
        prop_assert_eq!(&out[..len], &frame(&other)[..]);
    }

    #[test]
    fn an_error_is_that_of_a_router_that_saw_the_packet_before_translation(
        (inner, to) in translated(),
        outer in any::<[u128; 4]>(),
        quoted in 0..700usize,
        unreachable in any::<bool>(),
    ) {
        let to = Translation { dns_id: None, ..to };
        let v6 = inner.src.is_ipv6();
        let ip = |bits: u128| -> IpAddr {
            if v6 { Ipv6Addr::from_bits(bits).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
        };
        let kind = match (v6, unreachable) {
            (false, true) => (3, 1),
            (false, false) => (11, 0),
            (true, true) => (1, 4),
            (true, false) => (3, 0),
        };
        let build = |src, dst, inner: &Spec| {
            let packet = inner.packet();
            let header = if v6 { 40 } else { 20 };
            let keep = packet.len().min(quoted + header + 8);
            // Of a TCP sum cut in two nobody can tell the new first half: it stays as it was.
            let half = matches!(inner.kind, Kind::Tcp { .. }) && keep == header + 17;
            Spec::error(src, dst, kind, 0, &packet[..keep - usize::from(half)])
        };
        let error = build(ip(outer[0]), ip(outer[1]), &inner);
        let bytes = error.frame();
        let how = Rewrite {
            outer: Translation {
                src: Some((ip(outer[2]), 7)),
                dst: Some((ip(outer[3]), 7)),
                dns_id: None,
            },
            quoted: to,
            ..change(Translation::NONE)
        };
        let got = rewritten(&whole(&bytes), &bytes, &how);
        let inner_after = Spec { eth_dst: inner.eth_dst, eth_src: inner.eth_src, ttl: inner.ttl, ..moved(&inner, to) };
        let want = build(ip(outer[2]), ip(outer[3]), &inner_after)
            .macs(NEW_DST, NEW_SRC)
            .ttl(error.ttl - 1)
            .frame();
        prop_assert_eq!(got, want);
    }
}

#[test]
fn a_udp_sum_of_zero_stays_zero() {
    let mut bytes = Spec::udp((v4(10, 0, 0, 1), 1), (v4(10, 0, 0, 2), 2)).frame();
    bytes[40..42].copy_from_slice(&[0, 0]);
    let to = Translation { src: Some((v4(192, 168, 1, 1), 50000)), dst: None, dns_id: None };
    assert_eq!(rewritten(&whole(&bytes), &bytes, &change(to))[40..42], [0, 0]);
}

#[test]
fn a_udp_sum_never_becomes_zero_by_accident() {
    // The new source port is chosen so that the sum of everything else and it is 0xffff.
    for (src, dst) in [(v4(10, 0, 0, 1), v4(10, 0, 0, 2)), (v6("fd00::1"), v6("fd00::2"))] {
        let sum_with_port_0 = {
            let bytes = Spec::udp((src, 0), (dst, 53)).payload(b"ab").frame();
            let l4 = if src.is_ipv6() { 54 } else { 34 };
            let mut l4 = bytes[l4..].to_vec();
            l4[6..8].copy_from_slice(&[0, 0]);
            let pseudo = plain_pseudo(src, dst, 17, l4.len() as u32);
            plain_sum(&[&pseudo.to_be_bytes()[..], &l4].concat())
        };
        let port = 0xffff - sum_with_port_0;
        let bytes = Spec::udp((src, port ^ 1), (dst, 53)).payload(b"ab").frame();
        let to = Translation { src: Some((src, port)), dst: None, dns_id: None };
        let got = rewritten(&whole(&bytes), &bytes, &change(to));
        let at = if src.is_ipv6() { 60 } else { 40 };
        assert_eq!(got[at..at + 2], [0xff, 0xff]);
    }
}

#[test]
fn nothing_but_what_was_asked_for_changes() {
    // DSCP, ECN, id, options, urgent pointer: set by hand, and no TTL decrement.
    let (src, dst) = ((v4(10, 0, 0, 1), 1), (v4(10, 0, 0, 2), 2));
    let mut bytes = Spec::tcp(src, dst, TcpFlags(0xff)).frame();
    bytes[15] = 0xb9;
    bytes[18..20].copy_from_slice(&[0xbe, 0xef]);
    bytes[52..54].copy_from_slice(&[0x12, 0x34]);
    bytes[24..26].copy_from_slice(&[0, 0]);
    let sum = !plain_sum(&bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let how = Rewrite { decrement_ttl: false, ..change(Translation::NONE) };
    let got = rewritten(&whole(&bytes), &bytes, &how);
    assert_eq!(got[12..], bytes[12..]);
}

#[test]
fn only_headers_of_a_long_frame_are_written() {
    let bytes = Spec::tcp((v4(10, 0, 0, 1), 1), (v4(10, 0, 0, 2), 2), TcpFlags::ACK)
        .payload(&[7; 1400])
        .frame();
    let frame = Frame { head: &bytes[..HEAD_MAX], ..whole(&bytes) };
    let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!() };
    let new = packet.rewrite(&change(Translation::NONE), &mut [0; HEAD_MAX]).unwrap();
    assert_eq!((new.len, new.skip), (54, 54));
    assert_sound(&rewritten(&frame, &bytes, &change(Translation::NONE)));
}

#[test]
fn gso_frames_are_rewritten_by_their_head() {
    let mut bytes = Spec::tcp((v4(10, 0, 0, 1), 1), (v4(10, 0, 0, 2), 2), TcpFlags::ACK)
        .payload(&vec![7; 60000])
        .frame();
    let blank = plain_pseudo(v4(10, 0, 0, 1), v4(10, 0, 0, 2), 6, 60020);
    bytes[50..52].copy_from_slice(&blank.to_be_bytes());
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1448 });
    let offload = Offload { csum: Csum::Blank, gso };
    let frame = Frame { head: &bytes[..HEAD_MAX], offload, ..whole(&bytes) };
    let to = Translation { src: Some((v4(192, 168, 1, 1), 40000)), dst: None, dns_id: None };
    let got = rewritten(&frame, &bytes, &change(to));
    let want = plain_pseudo(v4(192, 168, 1, 1), v4(10, 0, 0, 2), 6, 60020);
    assert_eq!(got[50..52], want.to_be_bytes());
    let Ok(Parsed::Ip(packet)) = parse(&frame) else { panic!() };
    assert_eq!((packet.ip_len, packet.wire_len()), (60040, 1488));
}

#[test]
fn a_used_up_ttl_and_a_mixed_family_are_errors() {
    let bytes = Spec::udp((v4(10, 0, 0, 1), 1), (v4(10, 0, 0, 2), 2)).ttl(1).frame();
    let mut out = [0; HEAD_MAX];
    let got = packet(&bytes).rewrite(&change(Translation::NONE), &mut out);
    assert_eq!(got, Err(DropReason::TtlExceeded));
    let to = Translation { src: Some((v6("fd00::1"), 1)), dst: None, dns_id: None };
    let how = Rewrite { decrement_ttl: false, ..change(to) };
    assert_eq!(packet(&bytes).rewrite(&how, &mut out), Err(DropReason::BadHeader));
}
