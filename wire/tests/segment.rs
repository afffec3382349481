//! Segmentation and completed checksums, judged by smoltcp.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod common;

use common::{Kind, Spec, assert_sound, packet, plain_pseudo, v4, v6, whole};
use proptest::prelude::*;
use std::net::IpAddr;
use std::ops::Range;
use wire::sums::Sum;
use wire::{
    Csum, DropReason, Frame, Gso, GsoKind, HEAD_MAX, Offload, Packet, Parsed, SEGMENTS_MAX,
    Segments, TcpFlags, Transport, parse,
};

/// Everything at once that segments share out.
const FLAGS: TcpFlags =
    TcpFlags::ACK.with(TcpFlags::PSH).with(TcpFlags::FIN).with(TcpFlags::CWR).with(TcpFlags::ECE);

fn ends(ipv6: bool) -> (IpAddr, IpAddr) {
    if ipv6 { (v6("fd09::a"), v6("2606:2800::1")) } else { (v4(10, 137, 0, 10), v4(1, 2, 3, 4)) }
}

/// A TCP frame whose payload bytes all differ from their neighbours.
fn tcp(ipv6: bool, seq: u32, payload: usize) -> Vec<u8> {
    let (src, dst) = ends(ipv6);
    let bytes: Vec<u8> = (0..payload).map(|n| (n * 7 % 251) as u8).collect();
    let mut spec = Spec::tcp((src, 4000), (dst, 80), FLAGS).payload(&bytes);
    spec.kind = Kind::Tcp { sport: 4000, dport: 80, flags: FLAGS, seq, ack: 77 };
    spec.frame()
}

fn gso(ipv6: bool, size: u16) -> Offload {
    let kind = if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
    Offload { csum: Csum::Blank, gso: Some(Gso { kind, size }) }
}

/// Reads `frame` from its head, as the packet path does.
fn read(frame: &[u8], offload: Offload) -> Packet<'_> {
    let head = &frame[..frame.len().min(HEAD_MAX)];
    match parse(&Frame { head, offload, ..whole(frame) }) {
        Ok(Parsed::Ip(packet)) => packet,
        other => panic!("{other:?}"),
    }
}

/// The frames `frame` becomes, complete or blank.
fn cut(frame: &[u8], offload: Offload, complete: bool) -> Vec<Vec<u8>> {
    let segments = Segments::new(read(frame, offload)).unwrap();
    let ranges = segments.ranges();
    let cuts: Vec<_> = ranges.map(|range| one(&segments, frame, &range, complete)).collect();
    assert_eq!(cuts.len(), ranges.len());
    cuts
}

fn one(segments: &Segments<'_>, frame: &[u8], range: &Range<u32>, complete: bool) -> Vec<u8> {
    let payload = &frame[range.start as usize..range.end as usize];
    let sum = complete.then(|| Sum::ZERO.bytes(payload));
    let mut head = [0xee; HEAD_MAX];
    let len = segments.head(range, sum, &mut head).unwrap();
    assert_eq!(len, segments.head_len());
    [&head[..usize::from(len)], payload].concat()
}

fn tcp_of(frame: &[u8]) -> wire::Tcp {
    match packet(frame).transport {
        Transport::Tcp(tcp) => tcp,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_64_kib_frame_becomes_sound_segments_that_carry_its_bytes() {
    for ipv6 in [false, true] {
        // Sequence numbers wrap within it.
        let seq = u32::MAX - 30_000;
        let frame = tcp(ipv6, seq, 65000);
        let cuts = cut(&frame, gso(ipv6, 1448), true);
        assert_eq!(cuts.len(), 65000usize.div_ceil(1448));
        let header = frame.len() - 65000;
        let mut data = Vec::new();
        for (n, segment) in cuts.iter().enumerate() {
            assert_sound(segment);
            let tcp = tcp_of(segment);
            assert_eq!(tcp.seq, seq.wrapping_add(data.len() as u32));
            assert_eq!((tcp.ack, tcp.window, tcp.sport, tcp.dport), (77, 4096, 4000, 80));
            let (first, last) = (n == 0, n + 1 == cuts.len());
            assert_eq!(tcp.flags.contains(TcpFlags::CWR), first, "CWR in segment {n}");
            assert_eq!(tcp.flags.contains(TcpFlags::PSH), last, "PSH in segment {n}");
            assert_eq!(tcp.flags.contains(TcpFlags::FIN), last, "FIN in segment {n}");
            assert!(tcp.flags.contains(TcpFlags::ACK.with(TcpFlags::ECE)), "segment {n}");
            assert_eq!(segment.len(), header + if last { 65000 % 1448 } else { 1448 });
            if !ipv6 {
                assert_eq!(segment[18..20], (n as u16).to_be_bytes(), "identification");
            }
            data.extend_from_slice(&segment[header..]);
        }
        assert!(data == frame[header..], "the payload is another");
    }
}

#[test]
fn blank_segments_hold_the_sum_of_their_own_pseudo_header() {
    for ipv6 in [false, true] {
        let (src, dst) = ends(ipv6);
        let frame = tcp(ipv6, 1, 5000);
        for segment in cut(&frame, gso(ipv6, 1400), false) {
            let l4 = if ipv6 { 54 } else { 34 };
            let field = u16::from_be_bytes([segment[l4 + 16], segment[l4 + 17]]);
            let len = u32::try_from(segment.len() - l4).unwrap();
            assert_eq!(field, plain_pseudo(src, dst, 6, len));
        }
    }
}

#[test]
fn a_frame_without_segmentation_stays_one_and_only_its_checksum_changes() {
    for ipv6 in [false, true] {
        let (src, dst) = ends(ipv6);
        let udp = Spec::udp((src, 1), (dst, 2)).payload(&[3; 999]).frame();
        for good in [tcp(ipv6, 5, 0), tcp(ipv6, 5, 1), tcp(ipv6, 5, 1460), udp] {
            let mut blank = good.clone();
            let field = match (ipv6, packet(&good).transport) {
                (false, Transport::Tcp(_)) => 50,
                (true, Transport::Tcp(_)) => 70,
                (false, _) => 40,
                (true, _) => 60,
            };
            blank[field..field + 2].copy_from_slice(&[0x12, 0x34]);
            let cuts = cut(&blank, Offload { csum: Csum::Blank, gso: None }, true);
            assert_eq!(cuts, [good]);
        }
    }
}

#[test]
fn a_udp_sum_of_zero_is_written_as_its_other_form() {
    let (src, dst) = ends(false);
    let sums = (0..=u16::MAX).map(|n| {
        let frame = Spec::udp((src, 1), (dst, 2)).payload(&n.to_be_bytes()).frame();
        let done = cut(&frame, Offload { csum: Csum::Blank, gso: None }, true).remove(0);
        u16::from_be_bytes([done[40], done[41]])
    });
    let sums: Vec<_> = sums.collect();
    assert!(!sums.contains(&0) && sums.contains(&0xffff));
}

#[test]
fn ethernet_padding_is_left_behind() {
    let mut frame = tcp(false, 5, 1);
    let len = frame.len();
    frame.extend([0xaa; 9]);
    let cuts = cut(&frame, Offload { csum: Csum::Blank, gso: None }, true);
    assert_eq!(cuts[0].len(), len);
    assert_sound(&cuts[0]);
}

#[test]
fn too_many_segments_and_what_has_no_checksum_are_refused() {
    let frame = tcp(false, 5, SEGMENTS_MAX * 10);
    assert!(Segments::new(read(&frame, gso(false, 10))).is_ok());
    let more = Segments::new(read(&frame, gso(false, 9)));
    assert_eq!(more.err(), Some(DropReason::EgressOffload));
    let (src, dst) = ends(false);
    let other = Spec::new(src, dst, Kind::Raw(47)).frame();
    let refused = Segments::new(read(&other, Offload::NONE));
    assert_eq!(refused.err(), Some(DropReason::EgressOffload));
}

proptest! {
    #[test]
    fn any_size_of_segment_carries_every_byte_once(
        ipv6: bool,
        payload in 0usize..9000,
        size in 80u16..9100,
        seq: u32,
    ) {
        let frame = tcp(ipv6, seq, payload);
        let header = frame.len() - payload;
        let mut data = Vec::new();
        for segment in cut(&frame, gso(ipv6, size), true) {
            assert_sound(&segment);
            prop_assert!(segment.len() - header <= usize::from(size));
            data.extend_from_slice(&segment[header..]);
        }
        prop_assert_eq!(&data, &frame[header..]);
    }
}
